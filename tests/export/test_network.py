"""The recurrent network against the paper's list of clicks, and the exported graph against both."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from mmms_deploy.bundle import Rate
from mmms_deploy.bundle.contract import ClickChannel, ClickContract, Coordinates, PreviousMask, ResizeRule
from mmms_deploy.export.cut import cut
from mmms_deploy.export.network import OPSET, RecurrentNetwork, export_whole
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.samples import sample_images
from mmms_deploy.models import MMMS
from mmms_deploy.models.checkpoint import random_network
from tests.support.tiny import DEPTH, tiny_config

RITM = ClickContract(
    radius=3.5,
    channels=(ClickChannel.PREVIOUS, ClickChannel.POSITIVE, ClickChannel.NEGATIVE),
    previous=PreviousMask.PROBABILITY,
    threshold=0.49,
    coordinates=Coordinates.SCALE,
    mask_resize=ResizeRule(align_corners=True),
)


@torch.no_grad()
@pytest.mark.parametrize("contract", [ClickContract(), RITM, ClickContract(coordinates=Coordinates.ALIGN_CORNERS)])
def test_the_network_answers_as_the_list_of_clicks_does(contract) -> None:
    """Disks added one by one, and the previous mask in the form and channel that the checkpoint wants."""
    network = RecurrentNetwork(random_network(tiny_config(DEPTH, clicks=contract), 0)).eval()
    reference = TorchReference(network.network)
    sample = sample_images(network.network.config.modalities)[1]
    reference.set_image(sample.image, sample.modalities)
    features = network.network.features(reference.rgb, reference.modalities)
    maps, prev = torch.zeros(1, 2, 64, 96), torch.zeros(1, 1, 64, 96)
    seen = set()
    for x, y, positive in sample.clicks.tolist():
        answer = reference.click(x, y, positive > 0.5)
        click = torch.tensor([[*reference.to_network(x, y), positive, 1.0]])
        maps, prev, mask = network.click_stage(features, maps, prev, click)
        torch.testing.assert_close(prev, answer.network_probability)
        assert torch.equal(mask.bool(), prev > contract.threshold)
        seen.add(mask.sum().item())
    assert len(seen) > 3  # the answers do change


@pytest.mark.parametrize("centre", [(0.0, 0.0), (95.0, 63.0), (40.3, 20.7), (-0.5, 31.5), (95.49, 10.0)])
@pytest.mark.parametrize("positive", [True, False])
def test_a_disk_is_where_it_was_clicked(centre, positive) -> None:
    network = RecurrentNetwork(random_network(tiny_config(), 0))
    click = torch.tensor([[*centre, float(positive), 1.0]])
    maps = network.add_disk(torch.zeros(1, 2, 64, 96), click)[0].numpy()
    rows, columns = np.mgrid[:64, :96]
    x, y = np.float32(centre[0]), np.float32(centre[1])
    expected = (columns - x) ** 2 + (rows - y) ** 2 <= 25
    np.testing.assert_array_equal(maps[0 if positive else 1], expected)
    assert not maps[1 if positive else 0].any()


def test_an_absent_click_draws_nothing_and_old_disks_stay() -> None:
    network = RecurrentNetwork(random_network(tiny_config(), 0))
    old = (torch.rand(1, 2, 64, 96) > 0.9).float()
    assert torch.equal(network.add_disk(old, torch.tensor([[10.0, 10.0, 1.0, 0.0]])), old)


@pytest.fixture(scope="module")
def exported() -> tuple[RecurrentNetwork, ir.Model]:
    network = RecurrentNetwork(random_network(tiny_config(DEPTH), 0))
    return network, export_whole(network)


def test_the_late_fusion_boundary_is_found(exported) -> None:
    network, whole = exported
    image, click = cut(whole, network.rates())
    assert image.rate is Rate.IMAGE
    assert image.inputs == ("rgb", "depth")
    assert image.features == image.outputs == MMMS.feature_names
    assert click.inputs == (*MMMS.feature_names, "maps", "prev", "click")
    assert click.outputs == ("maps_next", "prob", "mask")
    assert image.model.graph.num_nodes() + click.model.graph.num_nodes() >= whole.graph.num_nodes()


def test_a_late_modality_makes_three_stages(exported) -> None:
    network, whole = exported
    stages = cut(whole.clone(), network.rates() | {"depth": Rate.MODALITY})
    assert [stage.rate for stage in stages] == [Rate.IMAGE, Rate.MODALITY, Rate.CLICK]
    assert "depth" not in stages[0].inputs
    assert "rgb" not in stages[1].inputs


def test_the_graph_is_plain_onnx_without_traces_of_its_maker(exported) -> None:
    _, whole = exported
    proto = ir.to_proto(whole)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == OPSET
    assert not {"Attention", "Loop", "ScatterND"} & {node.op_type for node in proto.graph.node}
    assert TensorTypes(proto).double == 0
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    assert b".py" not in proto.SerializeToString()
    assert all(d.HasField("dim_value") for v in (*proto.graph.input, *proto.graph.output) for d in shape(v))


def shape(value: onnx.ValueInfoProto):
    return value.type.tensor_type.shape.dim


class TensorTypes:
    """Counts double-precision tensors."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        kinds = [tensor.data_type for tensor in proto.graph.initializer]
        kinds += [value.type.tensor_type.elem_type for value in proto.graph.value_info]
        self.double = kinds.count(onnx.TensorProto.DOUBLE)

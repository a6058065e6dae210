"""The comparison of tensors: sound networks of any scale pass, and small faults do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mmms_deploy.bundle.contract import ClickContract, PreviousMask, ResizeRule
from mmms_deploy.errors import GateError
from mmms_deploy.export.comparison import difference, logit_scale
from mmms_deploy.export.cut import Cut, StageModel, cut
from mmms_deploy.export.gate import compare_graphs
from mmms_deploy.export.graphs import save_graph
from mmms_deploy.export.network import RecurrentNetwork, export_whole
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.rewrites.gate import compare_forms
from mmms_deploy.export.samples import sample_images
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.checkpoint import random_network
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import DEPTH, EVENT, tiny_config
from tests.support.trained_scale import spread_logits

PROBABILITY = ClickContract(previous=PreviousMask.PROBABILITY)
OPTIONAL = [msgspec.structs.replace(spec, optional=True) for spec in (DEPTH, EVENT)]
CASES = {
    "skipclick": (tiny_skipclick(logits_resize=ResizeRule()), 4.0, ()),
    "mmms": (
        tiny_config(*OPTIONAL, clicks=PROBABILITY, logits_resize=ResizeRule(align_corners=True)),
        400.0,
        (Cut.LATE,),
    ),
}
"""A network, the deviation of its logits, and its cuts; logits are enlarged in the other way than by default."""


@dataclass
class Exported:
    network: RecurrentNetwork
    whole: Path
    stages: list[tuple[StageModel, Path]]

    def compare(self, whole: Path | None = None, stages: list[tuple[StageModel, Path]] | None = None):
        sample = sample_images(self.network.network.config.modalities)[0]
        return compare_graphs(self.network, whole or self.whole, stages or self.stages, sample)


def exported(case: str, folder: Path) -> Exported:
    config, deviation, cuts = CASES[case]
    paper = random_network(config, 0)
    spread_logits(paper, deviation)
    network = RecurrentNetwork(deploy_form(paper)[0], cuts)
    graph = export_whole(network)
    stages = []
    for stage in cut(graph, network.rates()):
        stages.append((stage, folder / f"{stage.rate.name.lower()}.onnx"))
        save_graph(stage.model, stages[-1][1], folder)
    save_graph(graph, folder / "whole.onnx", folder)
    return Exported(network, folder / "whole.onnx", stages)


@pytest.fixture(scope="module")
def skipclick(tmp_path_factory) -> Exported:
    return exported("skipclick", tmp_path_factory.mktemp("skipclick"))


@pytest.fixture(scope="module")
def mmms(tmp_path_factory) -> Exported:
    return exported("mmms", tmp_path_factory.mktemp("mmms"))


@pytest.mark.parametrize("case", list(CASES))
def test_sound_networks_pass_at_any_scale(request, case) -> None:
    """The stages are the whole graph to the last bit, and the disks are torch's."""
    sound: Exported = request.getfixturevalue(case)
    checks = sound.compare()
    assert all(check.worst <= check.limit for check in checks)
    exact = {(check.name, check.measure) for check in checks if check.limit == 0}
    assert exact == {
        ("whole ONNX graph against torch", "largest difference of the disks"),
        ("stages against whole graph", "largest relative difference of any output"),
        ("stages, optimised, against torch", "largest difference of the disks"),
    }
    # With modalities that may be missing, one more click is answered without one of them.
    assert checks[2].samples == 2 + bool(sound.network.partial)


def test_the_click_without_a_modality_is_compared(mmms, monkeypatch) -> None:
    real = type(mmms.network.network).mix

    def wrong(self, maps, modalities, present=None):
        features = real(self, maps, modalities, present)
        return (*features[:3], features[3] + 1) if len(modalities) == 1 else features

    monkeypatch.setattr(type(mmms.network.network), "mix", wrong)
    with pytest.raises(GateError, match="click 3 without depth"):
        mmms.compare()


# --- faults -----------------------------------------------------------------------------------------------------------

Fault = Callable[[onnx.ModelProto], None]


def weight(model: onnx.ModelProto, part: str, rank: int = 1) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if part in t.name and len(t.dims) >= rank)


def changed(part: str, change: Callable[[np.ndarray], np.ndarray], rank: int = 1) -> Fault:
    def apply(model: onnx.ModelProto) -> None:
        tensor = weight(model, part, rank)
        array = numpy_helper.to_array(tensor).copy()
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(array)), tensor.name))

    return apply


def one_number(array: np.ndarray) -> np.ndarray:
    place = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[place] *= np.float32(1.001)
    return array


def a_thousandth(array: np.ndarray) -> np.ndarray:
    return array * np.float32(1.001)


def swapped(array: np.ndarray) -> np.ndarray:
    array[:, [0, 1]] = array[:, [1, 0]]
    return array


def resized(**attributes: str) -> Fault:
    def apply(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Resize")
        for attribute in node.attribute:
            if attribute.name in attributes:
                attribute.s = attributes[attribute.name].encode()

    return apply


def smaller_disks(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tuple(numpy_helper.to_array(tensor).ravel()) == (25.0,):
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), 24.0), tensor.name))


def faulty(file: Path, folder: Path, fault: Fault) -> Path:
    model = onnx.load(file)
    before = model.SerializeToString()
    fault(model)
    assert model.SerializeToString() != before
    onnx.save(model, folder / file.name)
    return folder / file.name


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (changed("conv_seg.weight", a_thousandth), "over a quarter of the largest logit is .*tensor prob"),
        (changed("patch_embed_coords.proj.weight", a_thousandth, 4), "tensor prob"),
        (changed("patch_embed_coords.proj.weight", swapped, 4), "tensor prob"),
        (changed("backbone.vit.patch_embed.proj.weight", swapped, 4), "tensor f_fuse"),
        (resized(coordinate_transformation_mode="align_corners"), "tensor prob"),
        (resized(mode="nearest"), "tensor prob"),
        (smaller_disks, "largest difference of the disks is 1 .*tensor maps_next"),
    ],
    ids=["last layer", "click embedding", "click channels", "colours", "corners", "nearest", "radius"],
)
def test_faults_of_the_whole_graph_are_refused(skipclick, tmp_path, fault, message) -> None:
    with pytest.raises(GateError, match=f"(?s)whole ONNX graph against torch: .*{message}"):
        skipclick.compare(whole=faulty(skipclick.whole, tmp_path, fault))


@pytest.mark.parametrize("part", ["conv_seg.weight", "backbone_mix.blocks.1.mlp.fc1.weight", "neck.first.3.weight"])
def test_one_number_of_a_stage_that_is_off_by_a_thousandth_is_refused(skipclick, tmp_path, part) -> None:
    """Far below any limit against torch; the stages have to be equal."""
    (image, file), (click, click_file) = skipclick.stages
    names = {tensor.name for tensor in onnx.load(click_file).graph.initializer}
    part = part if any(part in name for name in names) else next(n for n in names if "fc1" in n or "MatMul" in n)
    stages = [(image, file), (click, faulty(click_file, tmp_path, changed(part, one_number)))]
    with pytest.raises(
        GateError, match=r"stages against whole graph: .*stage click, tensor (prob|mask).*\n.*at most 0"
    ):
        skipclick.compare(stages=stages)


# --- rewrites ---------------------------------------------------------------------------------------------------------


def rewritten(deviation: float) -> tuple[InteractiveNetwork, InteractiveNetwork, tuple[str, ...]]:
    paper = random_network(tiny_config(DEPTH, clicks=PROBABILITY), 0)
    spread_logits(paper, deviation)
    return paper, *deploy_form(paper)


@pytest.mark.parametrize("deviation", [0.01, 8.0, 4000.0])
def test_rewrites_pass_at_any_scale(deviation) -> None:
    paper, deployed, applied = rewritten(deviation)
    (check,) = compare_forms(paper, deployed, applied, sample_images(paper.config.modalities)[0])
    assert check.worst < check.limit / 4
    assert check.measure == "largest difference of a logit, over the largest one"


@pytest.mark.parametrize("deviation", [2.0, 8.0])
def test_a_rewrite_that_is_off_by_a_thousandth_is_refused(deviation) -> None:
    paper, deployed, applied = rewritten(deviation)
    norm = deployed.get_submodule("csnet.norm4")
    norm.weight = torch.nn.Parameter(norm.weight * 1.001)
    with pytest.raises(GateError, match="over the largest one is"):
        compare_forms(paper, deployed, applied, sample_images(paper.config.modalities)[0])


# --- measures ---------------------------------------------------------------------------------------------------------


def test_the_scale_of_logits() -> None:
    assert logit_scale([torch.tensor([0.5, -0.25])]) == 1.0
    assert logit_scale([torch.tensor([0.5]), torch.tensor([3.0, -20.0])]) == 20.0
    assert logit_scale([]) == 1.0


def test_differences_that_are_no_numbers() -> None:
    zeros = np.zeros((2, 2), dtype=np.float32)
    assert difference(zeros, np.zeros((2, 3), dtype=np.float32)) == float("inf")
    assert np.isnan(difference(zeros, zeros * np.nan))
    assert difference(zeros + 1, zeros, relative=True) == 1.0

"""What is special about the backbone's rewrites: SAM's attention, its resized image, and constants in graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from timm.models.vision_transformer_sam import Attention, Block
from torch import nn

from mmms_deploy.export.rewrites import vit
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.rewrites.vit import PlainSAMAttention
from mmms_deploy.models import MMMS, BackboneConfig
from mmms_deploy.models.checkpoint import random_network
from tests.support.releases import TINY, Weights, release_file
from tests.support.tiny import tiny_config


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def shaken(module: nn.Module) -> nn.Module:
    """Give every parameter, tables and biases included, random values of about 1."""
    weights = Weights(0)
    for name, parameter in module.named_parameters():
        scale = parameter.shape[1] ** -0.5 if name.endswith("weight") and parameter.ndim == 2 else 1.0
        parameter.copy_(weights.normal(*parameter.shape, std=scale))
    return module.double().eval()


class TestSAMAttention:
    @pytest.mark.parametrize("size", [(4, 4), (3, 5), (6, 2)], ids=str)
    @pytest.mark.parametrize("bias", [True, False])
    def test_equals_timms(self, size, bias) -> None:
        attention = shaken(Attention(24, num_heads=3, qkv_bias=bias, use_rel_pos=True, input_size=size))
        x = torch.randn(2, *size, 24, dtype=torch.float64)
        expected = attention(x)
        torch.testing.assert_close(PlainSAMAttention(attention)(x), expected, rtol=0, atol=1e-12)
        attention.use_rel_pos = False
        assert (attention(x) - expected).abs().max() > 0.1  # the positions have an effect

    @pytest.mark.parametrize(("limit", "groups"), [(10**9, 1), (3 * 4 * 30**2 // 2, 2), (1, 6)])
    def test_queries_in_groups(self, limit, groups, monkeypatch) -> None:
        monkeypatch.setattr(vit, "SCORES", limit)
        attention = shaken(Attention(24, num_heads=3, use_rel_pos=True, input_size=(6, 5)))
        x = torch.randn(2, 6, 5, 24, dtype=torch.float64)
        plain = PlainSAMAttention(attention)
        assert plain.groups == groups
        torch.testing.assert_close(plain(x), attention(x), rtol=0, atol=1e-12)

    def test_groups_at_full_size(self) -> None:
        with torch.device("meta"):
            whole = PlainSAMAttention(Attention(768, 12, use_rel_pos=True, input_size=(64, 64)))
            window = PlainSAMAttention(Attention(768, 12, use_rel_pos=True, input_size=(14, 14)))
        assert (whole.groups, window.groups) == (8, 1)

    def test_in_windows_that_are_padded(self) -> None:
        """All padded tokens have the same key and value: the biases."""
        block = shaken(Block(24, 3, use_rel_pos=True, window_size=3, input_size=(8, 8)))
        x = torch.randn(1, 8, 7, 24, dtype=torch.float64)
        expected = block(x)
        block.attn = PlainSAMAttention(block.attn)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)

    def test_without_positions_it_is_left_alone(self) -> None:
        overrides = {**TINY["sam_b16"].config("").overrides, "use_rel_pos": False}
        network = random_network(tiny_config(backbone=BackboneConfig(name="sam_b16", overrides=overrides)), 0)
        deployed, applied = deploy_form(network)
        assert "fold_vit_attention" not in applied
        assert all(type(block.attn) is Attention for block in deployed.backbone.vit.blocks)


def released(name: str, size: tuple[int, int]) -> MMMS:
    """A network whose backbone has the weights of an emulated release file."""
    network = random_network(tiny_config(backbone=TINY[name].config(name), size=size), 0)
    names, model = network.backbone.names, network.backbone.vit
    file = release_file(name, TINY[name])
    state = {"mae_b16": lambda: file["model"], "ijepa_h16": lambda: file["target_encoder"]}.get(name, lambda: file)()
    state = names.clean({key.removeprefix("module."): value for key, value in state.items()})
    model.load_state_dict(names.to_timm(state, model), strict=False)
    return network


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("size", [(64, 96), (96, 32)], ids=str)
def test_backbones_with_weights_like_trained_ones(name, size) -> None:
    """Attention, LayerScale and normalisation folded at once; in float64, on pixels, against the paper's form."""
    network = released(name, size)
    deployed, applied = deploy_form(network)
    assert {"fold_vit_attention", "fold_normalisation"} <= set(applied)
    assert ("fold_layer_scale" in applied) == (name == "dinov2_b14_reg")
    pixels = 255 * torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = network.config.image
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (image.mean, image.std))
    expected = network.double().backbone((pixels * image.scale - mean) / std)
    for ours, wanted in zip(deployed.double().backbone(pixels), expected, strict=True):
        # Folded weights are stored in float32; a wrong formula would be off by 0.1 and more.
        torch.testing.assert_close(ours, wanted, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("skip", [(), ("all",)], ids=["rewritten", "paper form"])
def test_tables_are_constants_of_the_graph(name, skip) -> None:
    """No position is gathered or resampled at run time; SAM's image and four maps are resized, and nothing else."""
    network = random_network(tiny_config(backbone=TINY[name].config(name)), 0)
    deployed, _ = deploy_form(network, skip)
    example = (torch.zeros(1, 3, 64, 96),)
    program = torch.onnx.export(deployed.backbone, example, dynamo=True, opset_version=21, verbose=False)
    graph = program.model.graph
    kinds = Counter(node.op_type for node in graph)
    assert kinds["Resize"] == (5 if name == "sam_b16" else 0)
    assert not {"Gather", "GatherND", "GatherElements", "Range", "ScatterND", "Shape", "Where"} & kinds.keys()
    if not skip:
        assert not {"Einsum", "Mul", "Squeeze"} & kinds.keys()
    reached = set(graph.inputs)
    for node in graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
        else:
            assert not node.inputs, f"{node.op_type} computes a constant at run time"

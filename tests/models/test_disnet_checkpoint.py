"""DISNet's checkpoints: recognised from their weights, every key accounted for, opened by an export."""

from __future__ import annotations

import json

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from mmms_deploy.errors import CheckpointKeysError, DescriptionError
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import DISNet, DISNetConfig, ViTConfig, load_disnet, save_checkpoint
from mmms_deploy.models.checkpoint import random_network, release_state
from mmms_deploy.models.description import convert_description
from mmms_deploy.models.disnet_checkpoint import describe_disnet, is_disnet
from tests.support.disnet import golden_config, random_disnet, tiny_disnet
from tests.support.families import key_list
from tests.support.ritm import tiny_simpleclick

SHAPED = {
    "size": (64, 64),
    "width": 32,
    "neck_widths": (32, 16, 16, 8),
    "pixels": {"layers": 2, "heads": 8, "groups": 32},
    "proposals": {"heads": 8, "layers": 2},
    "refinement": {"attention_heads": 8, "relation_heads": 8, "layers": 1, "gate_reduction": 8, "conv_ratio": 2},
}
"""What shapes can say, where they cannot the defaults."""


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_the_list_of_keys(name) -> None:
    """Names and shapes are those of the specification, whose position table is that of 448 x 448."""
    keys = key_list(f"disnet-{name}")
    with torch.device("meta"):
        network = DISNet(msgspec.structs.replace(golden_config(name), size=(448, 448)))
        state = {key: torch.empty(shape) for key, shape in keys.items()}
    assert {key: list(tensor.shape) for key, tensor in release_state(network).items()} == keys
    assert is_disnet(state)
    if name == "base":
        assert convert_description(describe_disnet(state), DISNetConfig, name) == DISNetConfig()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_alone(tmp_path, suffix) -> None:
    """Shapes say widths, numbers of layers, and switches that change the weights."""
    fields = {**SHAPED, "neck_hidden": (6, 20, 50)}
    fields["refinement"] = {
        **SHAPED["refinement"],
        "relations": "separate",
        "attention_bias": False,
        "conv_norm": False,
    }
    config = msgspec.structs.replace(tiny_disnet(**fields), vit=ViTConfig(dim=64, depth=4, heads=1))
    network = random_disnet(config)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    else:
        save_file(network.state_dict(), path)
    found = load_disnet(path)
    assert found.config == config
    assert not found.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_file_with_its_description(tmp_path) -> None:
    """Heads and choices that no shape says."""
    config = tiny_disnet(
        refinement={"first_radius": 9.0, "click_sampling": "nearest"}, proposals={"order": "self_first"}
    )
    network = random_disnet(config)
    save_checkpoint(tmp_path / "own.safetensors", network)
    found = load_disnet(tmp_path / "own.safetensors")
    assert found.config == config
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_a_description_beside_the_file(tmp_path) -> None:
    network = random_disnet(tiny_disnet())
    save_checkpoint(tmp_path / "own.safetensors", network)
    described = msgspec.to_builtins(network.config) | {"disk_radius": 3.0}
    (tmp_path / "beside.json").write_text(json.dumps(described))
    found = load_disnet(tmp_path / "own.safetensors", description=tmp_path / "beside.json")
    assert found.config == msgspec.structs.replace(network.config, disk_radius=3.0)


def test_another_size_resizes_the_position_table(tmp_path) -> None:
    network = random_disnet(tiny_disnet())
    save_checkpoint(tmp_path / "own.safetensors", network)
    found = load_disnet(tmp_path / "own.safetensors", size=(96, 96))
    assert found.config.size == (96, 96)
    table = network.backbone.pos_embed[:, 1:].reshape(1, 4, 6, 24).permute(0, 3, 1, 2)
    expected = functional.interpolate(table, (6, 6), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(found.backbone.pos_embed[:, 1:], expected)


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path) -> None:
    network = random_disnet(tiny_disnet())
    state = dict(network.state_dict())
    del state["refine.layers.0.se.fc1.bias"]
    state["refine.layers.0.se.fc3.bias"] = torch.zeros(4)
    state["proposal.cls_embed.weight"] = torch.zeros(3, 16)
    torch.save(state, tmp_path / "odd.pth")
    (tmp_path / "odd.json").write_bytes(msgspec.json.encode(network.config))
    with pytest.raises(CheckpointKeysError) as caught:
        load_disnet(tmp_path / "odd.pth", description=tmp_path / "odd.json")
    text = str(caught.value)
    assert "1 keys missing, 1 unexpected, 1 misshapen" in text
    assert "missing    refine.layers.0.se.fc1.bias (nearest: refine.layers.0.se.fc3.bias)" in text
    assert "misshapen  proposal.cls_embed.weight: [3, 16], expected [2, 16]" in text


@pytest.mark.parametrize("described", [True, False])
def test_an_export_opens_it(tmp_path, described) -> None:
    """Also where only the weights say which network it is; its answers follow from the rest, at every size."""
    network = random_disnet(tiny_disnet(**SHAPED))
    path = tmp_path / "disnet.safetensors"
    if described:
        save_checkpoint(path, network)
    else:
        save_file(network.state_dict(), path)
    for size in ((64, 64), (64, 96)):
        found = open_source(Source(checkpoint=path, overrides={"size": size})).network
        assert isinstance(found, DISNet)
        answers = found.config.clicks.answers
        assert (answers.size, answers.candidates) == ((16, size[1] // 4), network.config.proposals.count)


def test_a_list_of_points_is_refused(tmp_path) -> None:
    """As descriptions said before there were lists of all clicks."""
    network = random_disnet(tiny_disnet(**SHAPED))
    save_checkpoint(tmp_path / "own.safetensors", network)
    described = msgspec.to_builtins(network.config) | {"clicks": {"points": {"most": 64}}}
    (tmp_path / "old.json").write_text(json.dumps(described))
    with pytest.raises(DescriptionError, match="all clicks on one object at every click"):
        load_disnet(tmp_path / "own.safetensors", description=tmp_path / "old.json")


def test_another_network_s_file_is_refused(tmp_path) -> None:
    save_checkpoint(tmp_path / "other.safetensors", random_network(tiny_simpleclick(), 0))
    with pytest.raises(CheckpointKeysError, match="describes a network of 'simpleclick'"):
        load_disnet(tmp_path / "other.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "unknown.safetensors")
    with pytest.raises(CheckpointKeysError, match="describes no network"):
        load_disnet(tmp_path / "unknown.safetensors")

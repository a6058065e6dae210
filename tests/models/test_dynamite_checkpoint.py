"""Official DynaMITe files: recognised from their weights alone, and every key accounted for."""

from __future__ import annotations

import msgspec
import pytest
import torch

from mmms_deploy.bundle.contract import ClickContract
from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import load_weights, read_checkpoint_file, save_checkpoint
from mmms_deploy.models.config import SwinConfig
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.models.dynamite_checkpoint import describe_dynamite, dynamite_names
from mmms_deploy.models.dynamite_config import DynaMITeConfig, MiTConfig
from mmms_deploy.models.families import build_network
from tests.support.dynamite import official_state, random_dynamite, save_official
from tests.support.families import key_list

SWIN_L = SwinConfig(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12)
PUBLISHED = {
    "swin_tiny": (DynaMITeConfig(), 51.99),
    "mit_b0": (DynaMITeConfig(mit=MiTConfig()), 27.55),
    "swin_large": (DynaMITeConfig(swin=SWIN_L), 220.04),
}


@pytest.mark.parametrize("kind", ["swin", "mit"])
def test_the_file_alone_says_which_network_it_is(kind, tmp_path) -> None:
    network = random_dynamite(kind, size=(448, 448), points=4, query_depth=4)
    state = official_state(network)
    if kind == "mit":
        state = {name.replace("backbone.", "backbone.bottom_up."): tensor for name, tensor in state.items()}
    save_official(tmp_path / "model_final.pth", state)
    file = read_checkpoint_file(tmp_path / "model_final.pth")
    assert file.place == "model"
    config = msgspec.convert(file.description, DynaMITeConfig)
    assert config == network.config
    found = build_network(config)
    load_weights(found, file)
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_key_lists(name) -> None:
    """Configurations from shapes alone, and no key too many or too few."""
    keys, (expected, millions) = key_list(f"dynamite-{name}"), PUBLISHED[name]
    with torch.device("meta"):
        listed = {key: torch.empty(shape) for key, shape in keys.items() if not key.endswith("position_index")}
        state = dynamite_names(listed, name)
        config = msgspec.convert(describe_dynamite(state), DynaMITeConfig)
        network = build_network(config)
    assert config == expected
    assert {key: list(tensor.shape) for key, tensor in network.state_dict().items()} == {
        key: list(tensor.shape) for key, tensor in state.items()
    }
    dropped = sorted(key for key in keys if key not in state)
    indices = 0 if config.mit else sum(config.swin.depths)
    assert len(dropped) == 1 + indices, "the query that fills up batches, and a table of indices a block"
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_every_way_into_an_export(tmp_path) -> None:
    """An official file alone, one that describes itself, and a description."""
    network = random_dynamite()
    save_official(tmp_path / "official.pth", official_state(network))
    save_checkpoint(tmp_path / "own.safetensors", network)
    (tmp_path / "net.toml").write_text('family = "dynamite"\nwidth = 32\npixel_depth = 1\nquery_depth = 1\n')
    for source in (
        Source(checkpoint=tmp_path / "official.pth", overrides={"size": (40, 60)}),
        Source(checkpoint=tmp_path / "own.safetensors"),
        Source(random_seed=0, description=tmp_path / "net.toml", overrides={"size": (40, 60)}),
    ):
        found = open_source(source).network
        assert isinstance(found, DynaMITe)
        assert found.config.clicks.listed.sizes == (16, 64, 256)
        assert found.config.clicks.listed.learned == found.config.background_queries
        assert found.config.clicks.answers.size == (16, 16)
        if source.random_seed is None:
            assert all(torch.equal(t, network.state_dict()[n]) for n, t in found.state_dict().items())


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path) -> None:
    state = official_state(random_dynamite())
    del state["sem_seg_head.pixel_decoder.adapter_1.norm.bias"]
    state["sem_seg_head.pixel_decoder.adapter_1.bias"] = torch.zeros(32)
    state["sem_seg_head.interactive_transformer.layer_norm.bias"] = torch.zeros(3)
    save_official(tmp_path / "odd.pth", state)
    file = read_checkpoint_file(tmp_path / "odd.pth")
    with pytest.raises(CheckpointKeysError) as caught:
        load_weights(build_network(msgspec.convert(file.description, DynaMITeConfig)), file)
    text = str(caught.value)
    assert "1 keys missing, 1 unexpected, 1 misshapen" in text
    assert "missing    sem_seg_head.pixel_decoder.adapter_1.norm.bias" in text
    assert "unexpected sem_seg_head.pixel_decoder.adapter_1.bias" in text
    assert "misshapen  sem_seg_head.interactive_transformer.layer_norm.bias: [3], expected [32]" in text


@pytest.mark.parametrize("spoil", [lambda table: table.T, lambda table: table[:3], lambda _: torch.arange(1 << 20)])
def test_other_relative_positions_are_refused(spoil, tmp_path) -> None:
    state = official_state(random_dynamite())
    name = "backbone.layers.0.blocks.0.attn.relative_position_index"
    state[name] = spoil(state[name]).contiguous()
    save_official(tmp_path / "turned.pth", state)
    with pytest.raises(CheckpointKeysError, match=f"{name} pairs queries and keys with other relative positions"):
        read_checkpoint_file(tmp_path / "turned.pth")


def test_a_truncated_file(tmp_path) -> None:
    save_official(tmp_path / "whole.pth", official_state(random_dynamite()))
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointCorruptError, match="no readable PyTorch file"):
        read_checkpoint_file(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 40}, "multiple of 32"),
        ({"width": 96, "heads": 9}, "cannot be split into 9 attention heads"),
        ({"mask_depth": 0}, "must be at least 1"),
    ],
)
def test_what_cannot_be(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        DynaMITeConfig(**fields)
    with pytest.raises(ValueError, match=r"clicks\.memory must be 'clicks'"):
        DynaMITeConfig(clicks=ClickContract())
    with pytest.raises(ValueError, match="width 33 of a MiT cannot be split into 2"):
        MiTConfig(widths=(32, 33, 160, 256))

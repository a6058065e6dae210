"""Official InterFormer files: recognised from their weights alone, and every key accounted for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import InterFormer, InterFormerConfig
from mmms_deploy.models.checkpoint import (
    load_weights,
    parse_description,
    random_network,
    read_checkpoint_file,
    save_checkpoint,
)
from mmms_deploy.models.families import build_network
from mmms_deploy.models.interformer_checkpoint import describe_interformer, native_names
from tests.support.families import key_list
from tests.support.interformer import official_state, save_official, tiny_interformer, tiny_official

SQUARE = {"size": (64, 64)}


def test_the_file_alone_says_which_network_it_is(tmp_path) -> None:
    state = tiny_official(tmp_path / "iter_320000.pth", refine_depths=(1, 0, 2, 1))
    file = read_checkpoint_file(tmp_path / "iter_320000.pth")
    config = parse_description(file.description, "the file")
    assert config == tiny_interformer(**SQUARE, refine_depths=(1, 0, 2, 1))
    assert file.place == "state_dict"
    network = open_source(Source(checkpoint=tmp_path / "iter_320000.pth")).network
    assert isinstance(network, InterFormer)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name.replace("backbone.vit.", "backbone.")]), name


@pytest.mark.parametrize("name", ["light", "tiny", "mini"])
def test_the_published_key_lists(name) -> None:
    """Light, tiny, and one that refines: configurations from shapes alone, and no key too many or too few."""
    keys = key_list(f"interformer-{name}")
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in keys.items()}
        config = parse_description(describe_interformer(state), name)
        network = build_network(config)
    assert isinstance(config, InterFormerConfig)
    if name == "light":
        assert config == InterFormerConfig()
    if name == "tiny":
        depths = {"depths": (1, 1, 2, 1), "refine_depths": (1, 1, 4, 2)}
        assert config == InterFormerConfig(dim=1024, depth=24, heads=16, **depths)
    own = {key.replace("backbone.vit.", "backbone."): list(t.shape) for key, t in network.state_dict().items()}
    assert own == {key: list(tensor.shape) for key, tensor in native_names(state).items()}
    assert len(keys) - len(own) == 8 + config.depth, "the second head, and a table of indices a block"


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path) -> None:
    state = official_state(random_network(tiny_interformer(**SQUARE), 0))
    del state["neck.norm1.bias"]
    state["neck.norm1.beta"] = torch.zeros(16)
    state["decode_head.conv_seg.weight"] = torch.zeros(3, 8, 1, 1)
    save_official(tmp_path / "odd.pth", state)
    with pytest.raises(CheckpointKeysError) as caught:
        open_source(Source(checkpoint=tmp_path / "odd.pth"))
    text = str(caught.value)
    assert "1 keys missing, 1 unexpected, 1 misshapen" in text
    assert "missing    neck.norm1.bias (nearest: neck.norm1.beta)" in text
    assert "misshapen  decode_head.conv_seg.weight: [3, 8, 1, 1], expected [2, 8, 1, 1]" in text


def test_a_file_without_the_vit_is_told_so_in_its_own_words(tmp_path) -> None:
    state = official_state(random_network(tiny_interformer(**SQUARE), 0))
    save_official(tmp_path / "half.pth", {n: t for n, t in state.items() if not n.startswith("backbone.layers.")})
    with pytest.raises(CheckpointKeysError, match=r"missing    backbone\.layers") as caught:
        open_source(Source(checkpoint=tmp_path / "half.pth"))
    assert "release file" not in str(caught.value)


def test_other_relative_positions_are_refused(tmp_path) -> None:
    state = official_state(random_network(tiny_interformer(**SQUARE), 0))
    name = "backbone.layers.0.attn.relative_position_index"
    state[name] = state[name].T.contiguous()
    save_official(tmp_path / "turned.pth", state)
    with pytest.raises(CheckpointKeysError, match=f"{name} pairs queries and keys with other relative positions"):
        read_checkpoint_file(tmp_path / "turned.pth")


def test_a_truncated_file(tmp_path) -> None:
    tiny_official(tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointCorruptError, match="no readable PyTorch file"):
        read_checkpoint_file(tmp_path / "cut.pth")


def test_other_forms_of_the_same_weights(tmp_path) -> None:
    """A bare state dict as safetensors, and our own file with a description of another size."""
    state = tiny_official(tmp_path / "official.pth")
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "bare.safetensors")
    network = open_source(Source(checkpoint=tmp_path / "bare.safetensors")).network
    assert network.config == tiny_interformer(**SQUARE)
    config = tiny_interformer(size=(64, 96))
    wide = build_network(config)
    load_weights(wide, read_checkpoint_file(tmp_path / "official.pth"))
    save_checkpoint(tmp_path / "own.safetensors", wide)
    assert open_source(Source(checkpoint=tmp_path / "own.safetensors")).network.config == config

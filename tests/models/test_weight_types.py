"""Weights are floating-point numbers of their own shapes; everything else is refused by name, never cast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmms_deploy.errors import CheckpointCorruptError, CheckpointError, CheckpointKeysError
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.checkpoint import (
    load_weights,
    random_network,
    read_checkpoint_file,
    release_state,
    save_checkpoint,
)
from mmms_deploy.models.families import build_network
from mmms_deploy.models.weight_types import check_types
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import tiny_config

CONFIGS = {"mmms": tiny_config(), "skipclick": tiny_skipclick()}
LAST = {"mmms": "csnet.decode_head.linear_pred.weight", "skipclick": "head.conv_seg.weight"}
BACKBONE = "backbone.blocks.0.attn.qkv.weight"


@pytest.fixture(scope="module", params=list(CONFIGS))
def family(request) -> tuple[str, dict[str, torch.Tensor]]:
    return request.param, release_state(random_network(CONFIGS[request.param], 0))


def opened(family: str, state: dict[str, Any], folder, suffix: str) -> InteractiveNetwork:
    path = folder / f"c.{suffix}"
    if suffix == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == "pt")
    network = build_network(CONFIGS[family])
    load_weights(network, read_checkpoint_file(path))
    return network


WRONG = [
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("dtype", WRONG, ids=str)
@pytest.mark.parametrize("place", ["own", "backbone"])
def test_types_that_are_no_weights(family, dtype, suffix, place, tmp_path) -> None:
    name, state = family
    tensor = LAST[name] if place == "own" else BACKBONE
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointKeysError, match=rf"(?s){tensor} \({kind}\) is of a type.*expected: .*dequantise"):
        opened(name, {**state, tensor: state[tensor].to(dtype)}, tmp_path, suffix)


def test_a_separate_backbone(tmp_path) -> None:
    state = release_state(random_network(CONFIGS["mmms"], 0))
    vit = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    vit["pos_embed"] = (vit["pos_embed"] * 100).to(torch.int8)
    torch.save({n: t for n, t in state.items() if not n.startswith("backbone.")}, tmp_path / "rest.pt")
    torch.save(vit, tmp_path / "vit.pth")
    files = [read_checkpoint_file(tmp_path / name) for name in ("rest.pt", "vit.pth")]
    with pytest.raises(CheckpointKeysError, match=r"vit\.pth: backbone\.pos_embed \(int8\)"):
        load_weights(build_network(CONFIGS["mmms"]), *files)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pt", "safetensors", "pth"])
def test_types_that_are_weights(family, dtype, suffix, tmp_path) -> None:
    name, state = family
    network = opened(name, {n: t.to(dtype) for n, t in state.items()}, tmp_path, suffix)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    last = network.get_parameter(LAST[name])
    assert torch.equal(last, state[LAST[name]].to(dtype).float())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_numbers_that_float32_does_not_have(family, suffix, tmp_path) -> None:
    name, state = family
    large = state[LAST[name]].double()
    large.view(-1)[0] = 1e300
    with pytest.raises(CheckpointCorruptError, match=rf"{LAST[name]} holds numbers beyond float32's range"):
        opened(name, {**state, LAST[name]: large}, tmp_path, suffix)
    for value in (float("nan"), float("inf")):
        large.view(-1)[0] = value
        with pytest.raises(CheckpointCorruptError, match=rf"{LAST[name]} holds NaN or infinite"):
            opened(name, {**state, LAST[name]: large}, tmp_path, suffix)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_without_dense_numbers(tmp_path) -> None:
    state = release_state(random_network(CONFIGS["mmms"], 0))
    weight = state[LAST["mmms"]]
    wrong = {
        "quantised": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "sparse": weight[:, :, 0, 0].to_sparse(),
        "meta": weight.to("meta"),
    }
    for said, tensor in wrong.items():
        with pytest.raises(CheckpointCorruptError, match=rf"(?s){LAST['mmms']} is .*{said}.*to fix: save"):
            opened("mmms", {**state, LAST["mmms"]: tensor}, tmp_path, "pt")


def test_another_shape_of_as_many_numbers(family, tmp_path) -> None:
    name, state = family
    changes = {
        LAST[name]: lambda t: t.reshape(-1),
        "backbone.cls_token": lambda t: t.reshape(-1),
        "backbone.pos_embed": lambda t: t[0],
        BACKBONE: lambda t: t.T,
        "backbone.blocks.0.norm1.weight": lambda t: t[:1],
    }
    for tensor, change in changes.items():
        with pytest.raises(CheckpointKeysError, match=rf"0 unexpected, 1 misshapen\n.*{tensor}: "):
            opened(name, {**state, tensor: change(state[tensor])}, tmp_path, "pt")


def test_layouts_in_memory_do_not_matter(family, tmp_path) -> None:
    name, state = family
    shifted = {n: torch.cat([torch.zeros(1), t.flatten()])[1:].reshape(t.shape) for n, t in state.items()}
    shifted[BACKBONE] = state[BACKBONE].T.contiguous().T
    norm = "backbone.blocks.0.norm1.weight"
    shifted[norm] = torch.ones(1).expand(state[norm].shape)
    network = opened(name, shifted, tmp_path, "pt")
    loaded = release_state(network)
    assert torch.equal(loaded[BACKBONE], state[BACKBONE])
    assert torch.equal(loaded[norm], torch.ones_like(state[norm]))
    assert torch.equal(loaded[LAST[name]], state[LAST[name]])


def test_integers_may_count_and_index(family, tmp_path) -> None:
    name, state = family
    opened(name, {**state, "csnet.bn.num_batches_tracked": torch.tensor(7)}, tmp_path, "pt")
    expected = {"a.relative_position_index": torch.zeros(2, dtype=torch.int64)}
    check_types(tmp_path, expected, {"a.relative_position_index": torch.zeros(2, dtype=torch.int32)})
    with pytest.raises(CheckpointKeysError, match=r"a\.relative_position_index \(float32\)"):
        check_types(tmp_path, expected, {"a.relative_position_index": torch.zeros(2)})


def test_only_such_types_are_written(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="int8"):
        save_checkpoint(tmp_path / "c.safetensors", random_network(CONFIGS["mmms"], 0), dtype=torch.int8)
    assert not list(tmp_path.iterdir())

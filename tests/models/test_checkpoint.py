"""Reading and writing checkpoints, and every way in which one can be wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.errors import (
    CheckpointCorruptError,
    CheckpointKeysError,
    CheckpointNotFoundError,
    DescriptionError,
    Door,
)
from mmms_deploy.models import MMMS, BackboneConfig
from mmms_deploy.models.checkpoint import (
    load_weights,
    parse_description,
    random_network,
    read_checkpoint_file,
    read_description,
    release_state,
    save_checkpoint,
)
from tests.support.tiny import DEPTH, tiny_config

SMALL_DINOV2 = BackboneConfig(
    name="dinov2_b14_reg",
    overrides={"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2},
)


@pytest.fixture
def network() -> MMMS:
    return random_network(tiny_config(DEPTH), 0)


def loaded(path, config, **kwargs) -> MMMS:
    model = MMMS(config).eval()
    load_weights(model, read_checkpoint_file(path), **kwargs)
    return model


def same_weights(a: MMMS, b: MMMS) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_safetensors_hold_weights_and_description(tmp_path, network) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network)
    config = parse_description(read_checkpoint_file(path).description, "test")
    assert config == network.config
    assert same_weights(loaded(path, config), network)
    assert list(tmp_path.iterdir()) == [path]


def test_half_precision_weights_are_widened(tmp_path, network) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, network, dtype=torch.float16)
    assert load_file(path)["csnet.norm1.weight"].dtype == torch.float16
    model = loaded(path, network.config)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.csnet.norm1.weight, network.csnet.norm1.weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_plain_state_dicts(tmp_path, network, nest) -> None:
    state = {f"module.{name}": tensor for name, tensor in release_state(network).items()}
    path = tmp_path / "net.pt"
    torch.save(state if nest is None else {nest: state, "epoch": 3}, path)
    assert same_weights(loaded(path, network.config), network)


def test_dinov2_weights_use_the_release_names(tmp_path) -> None:
    """cls_token, register_tokens, mask_token, pos_embed with a class entry; the position table is resampled."""
    network = random_network(tiny_config(backbone=SMALL_DINOV2), 0)
    state = release_state(network)
    assert {"backbone.register_tokens", "backbone.mask_token", "backbone.cls_token"} <= state.keys()
    assert state["backbone.pos_embed"].shape == (1, 1 + 8 * 12, 24)
    native = torch.randn(1, 1 + 7 * 7, 24)
    state["backbone.pos_embed"] = native
    path = tmp_path / "net.pt"
    torch.save(state, path)
    vit = loaded(path, network.config).backbone.vit
    torch.testing.assert_close(vit.cls_token, state["backbone.cls_token"] + native[:, :1])
    table = native[:, 1:].reshape(1, 7, 7, 24).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(table, size=(8, 12), mode="bicubic", antialias=True)
    torch.testing.assert_close(vit.pos_embed, wanted.permute(0, 2, 3, 1).reshape(1, 96, 24))


def test_another_network_size_resamples_the_position_table(tmp_path, network) -> None:
    path = tmp_path / "net.safetensors"
    square = random_network(tiny_config(size=(64, 64)), 0)
    save_checkpoint(path, square)
    model = loaded(path, tiny_config(size=(96, 128)))
    assert model.backbone.vit.pos_embed.shape == (1, 1 + 12 * 16, 24)
    assert torch.equal(model.csnet.norm1.weight, square.csnet.norm1.weight)


def test_backbone_from_its_own_file(tmp_path, network) -> None:
    state = release_state(network)
    rest = {n: t for n, t in state.items() if not n.startswith("backbone.")}
    vit = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    torch.save(rest, tmp_path / "rest.pt")
    torch.save(vit, tmp_path / "vit.pth")
    backbone = read_checkpoint_file(tmp_path / "vit.pth")
    assert same_weights(loaded(tmp_path / "rest.pt", network.config, backbone=backbone), network)
    with pytest.raises(CheckpointKeysError, match="as backbone_checkpoint") as caught:
        loaded(tmp_path / "rest.pt", network.config)
    assert "--backbone-ckpt" in caught.value.message(Door.COMMAND_LINE)


def test_two_different_backbones_are_refused(tmp_path, network) -> None:
    state = release_state(network)
    torch.save(state, tmp_path / "net.pt")
    torch.save({"cls_token": state["backbone.cls_token"] + 1}, tmp_path / "vit.pth")
    with pytest.raises(CheckpointKeysError, match=r"differ from .*cls_token"):
        loaded(tmp_path / "net.pt", network.config, backbone=read_checkpoint_file(tmp_path / "vit.pth"))


def test_wrong_keys_are_listed_with_the_nearest_names(tmp_path, network) -> None:
    state = release_state(network)
    state["csnet.nrm1.weight"] = state.pop("csnet.norm1.weight")
    state["fpn.down_4.1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "net.pt")
    model = MMMS(network.config)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(CheckpointKeysError) as caught:
        load_weights(model, read_checkpoint_file(tmp_path / "net.pt"))
    text = str(caught.value)
    assert "1 keys missing, 1 unexpected, 1 misshapen" in text
    assert "csnet.norm1.weight (nearest: csnet.nrm1.weight)" in text
    assert "fpn.down_4.1.bias: [3]" in text
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_missing_file(tmp_path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint"):
        read_checkpoint_file(tmp_path / "none.pt")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(range(256)) * 8])
def test_corrupt_files(tmp_path, name, content) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointCorruptError):
        read_checkpoint_file(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files(tmp_path, network, suffix) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(release_state(network), path)
    else:
        save_checkpoint(path, network)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointCorruptError):
        read_checkpoint_file(path)


class Evil:
    """Pickles to a call that would write a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_in_a_checkpoint_is_executed(tmp_path) -> None:
    trace = tmp_path / "executed"
    torch.save({"weight": torch.zeros(1), "evil": Evil(str(trace))}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"evil": Evil(str(trace))}, protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(CheckpointCorruptError):
            read_checkpoint_file(tmp_path / name)
    assert not trace.exists()


def test_no_state_dict(tmp_path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointCorruptError, match="no state dict"):
        read_checkpoint_file(tmp_path / "list.pt")


def test_weights_that_are_not_finite(tmp_path, network) -> None:
    state = release_state(network)
    state["csnet.norm1.weight"] = torch.full_like(state["csnet.norm1.weight"], float("nan"))
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(CheckpointCorruptError, match=r"csnet\.norm1\.weight holds NaN"):
        read_checkpoint_file(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 3}, "widht"),
        ({"family": "unet"}, "family"),
        ({"size": [64]}, "size"),
        ({"head_width": "many"}, "head_width"),
        ({"clicks": {"radius": -1}}, "radius"),
        ({"clicks": {"channels": ["positive", "positive", "previous"]}}, "channels"),
        ({"modalities": [{"name": "Depth"}]}, "Depth"),
        ({"modalities": [{"name": "rgb"}]}, "rgb"),
        ({"modalities": [{"name": "a"}, {"name": "a"}]}, "differ"),
        ({"modalities": [{"name": "a", "channels": 2, "mean": [0.0]}]}, "2 values"),
        ({"image": {"resize": {"align_corners": True, "antialias": True}}}, "not both"),
        ({"csnet": {"heads": [3, 1, 1, 1]}}, "heads"),
    ],
)
def test_descriptions_that_make_no_sense(change, message) -> None:
    description = to_builtins(tiny_config()) | change
    with pytest.raises(DescriptionError, match=message):
        parse_description(description, "test")


TOML = """
size = [64, 96]
widths = [8, 16, 16, 32]
head_width = 16
[backbone]
name = "timm:vit_tiny_patch16_224"
overrides = { patch_size = 8, embed_dim = 24, depth = 4, num_heads = 2 }
[csnet]
heads = [1, 2, 2, 2]
depths = [1, 1, 1, 1]
[fuser.encoder]
heads = [1, 2, 2, 2]
depths = [1, 1, 1, 1]
[[modalities]]
name = "depth"
scale = 0.1
mean = [0.5]
std = [0.25]
"""


def test_descriptions_from_toml_and_json(tmp_path) -> None:
    config = tiny_config(DEPTH)
    (tmp_path / "d.json").write_bytes(msgspec.json.encode(config))
    (tmp_path / "d.toml").write_text(TOML)
    for name in ("d.json", "d.toml"):
        assert parse_description(read_description(tmp_path / name), name) == config


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", "= no"), ("a.json", "= no"), ("b.json", "[1]"), ("c.toml", None)]
)
def test_descriptions_that_cannot_be_read(tmp_path, name, text) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DescriptionError):
        read_description(tmp_path / name)


def test_metadata_that_is_no_description(tmp_path) -> None:
    path = tmp_path / "net.safetensors"
    for text in ("{", json.dumps([1])):
        save_file({"a": torch.zeros(1)}, path, metadata={"mmms_deploy.description": text})
        with pytest.raises(DescriptionError):
            read_checkpoint_file(path)


@pytest.mark.parametrize("path", [None, 0, b"", [], "", "a\0b", Path("a\0b")])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(CheckpointNotFoundError):
        read_checkpoint_file(path)  # type: ignore[arg-type]
    with pytest.raises(DescriptionError):
        read_description(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.toml", "a.json"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_special_files_are_refused_without_waiting(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointCorruptError, match="FIFO" if kind == "fifo" else "a device"):
        read_checkpoint_file(path)
    with pytest.raises(DescriptionError, match="FIFO" if kind == "fifo" else "a device"):
        read_description(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"size": NaN}', '{"a": "\\ud800"}', "[]", "1" * 5000])
def test_a_description_in_metadata_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"mmms_deploy.description": text})
    with pytest.raises(DescriptionError, match="the description in its metadata"):
        read_checkpoint_file(tmp_path / "a.safetensors")

"""Release files of the backbones: every layout of them, and every way in which a file can be the wrong one."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import MMMS
from mmms_deploy.models.backbone import RELEASES
from mmms_deploy.models.checkpoint import (
    load_weights,
    random_network,
    read_checkpoint_file,
    release_state,
    save_checkpoint,
)
from mmms_deploy.models.release_layout import describe_layout
from tests.support import releases
from tests.support.releases import FULL, TINY, Size, larger, release_file, weights_of
from tests.support.tiny import tiny_config

NAMES = list(TINY)
IMAGE = (64, 96)


def config_of(name: str, size: Size | None = None, image: tuple[int, int] = IMAGE):
    return tiny_config(backbone=(size or TINY[name]).config(name), size=image)


@pytest.fixture
def rest(tmp_path):
    """Writes an MMMS checkpoint without backbone, and returns its path."""

    def write(config):
        state = release_state(random_network(config, 0))
        path = tmp_path / "rest.pt"
        torch.save({n: t for n, t in state.items() if not n.startswith("backbone.")}, path)
        return path

    return write


def load(config, checkpoint, release=None) -> MMMS:
    network = MMMS(config).eval()
    backbone = None if release is None else read_checkpoint_file(release)
    load_weights(network, read_checkpoint_file(checkpoint), backbone)
    return network


def expected_table(name: str, native: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The release's own resampling, written a second time."""
    if name == "sam_b16":
        return native
    prefix = {"dinov2_b14_reg": 1, "mae_b16": 1}.get(name, 0)
    side = round((native.shape[1] - prefix) ** 0.5)
    maps = native[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if name == "dinov2_b14_reg":
        maps = F.interpolate(maps, size=grid, mode="bicubic", antialias=True)
    else:
        maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([native[:, :prefix], maps.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def check_loaded(network: MMMS, name: str, weights: dict[str, torch.Tensor]) -> None:
    """Check that every weight that is read is in the network."""
    vit = network.backbone.vit
    got = dict(vit.state_dict())
    table = expected_table(name, weights["pos_embed"], (IMAGE[0] // 8, IMAGE[1] // 8))
    if name == "dinov2_b14_reg":
        torch.testing.assert_close(got.pop("cls_token"), weights["cls_token"] + weights["pos_embed"][:, :1])
        assert torch.equal(got.pop("reg_token"), weights["register_tokens"])
        table = table[:, 1:]
    torch.testing.assert_close(got.pop("pos_embed"), table)
    for key, value in got.items():
        if not key.startswith(("norm.", "neck.")):
            assert torch.equal(value, weights[key.replace(".mlp.fc", ".mlp.lin") if name == "sam_b16" else key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_official_file(name, rest, tmp_path) -> None:
    file = release_file(name, TINY[name])
    torch.save(file, tmp_path / "release.pth")
    network = load(config_of(name), rest(config_of(name)), tmp_path / "release.pth")
    check_loaded(network, name, weights_of(name, file))


@pytest.mark.parametrize("name", NAMES)
def test_the_command_takes_it(name, rest, tmp_path) -> None:
    """--ckpt without backbone, --backbone-ckpt FILE, and a description."""
    from msgspec import json

    config, file = config_of(name), release_file(name, TINY[name])
    (tmp_path / "net.json").write_bytes(json.encode(config))
    torch.save(file, tmp_path / "release.pth")
    source = Source(
        checkpoint=rest(config),
        description=tmp_path / "net.json",
        backbone_checkpoint=tmp_path / "release.pth",
    )
    sourced = open_source(source)
    check_loaded(sourced.network, name, weights_of(name, file))
    assert sourced.hashes.keys() == {"checkpoint", "backbone"}


@pytest.mark.parametrize("name", NAMES)
def test_release_names_behind_a_prefix(name, tmp_path) -> None:
    """An MMMS checkpoint that holds its backbone: ``backbone.`` and the release's names, unread ones included."""
    weights = weights_of(name, release_file(name, TINY[name]))
    if name == "sam_b16":
        weights = {f"image_encoder.{key}": value for key, value in weights.items()}
    rest = {n: t for n, t in release_state(random_network(config_of(name), 0)).items() if not n.startswith("backbone.")}
    torch.save(rest | {f"backbone.{key}": value for key, value in weights.items()}, tmp_path / "net.pt")
    check_loaded(load(config_of(name), tmp_path / "net.pt"), name, weights_of(name, release_file(name, TINY[name])))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_read_again(name, tmp_path) -> None:
    network = random_network(config_of(name), 3)
    save_checkpoint(tmp_path / "net.safetensors", network)
    again = load(network.config, tmp_path / "net.safetensors").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_with_the_same_backbone_as_the_release_file(name, rest, tmp_path) -> None:
    """The checkpoint's table is resampled already; it is still the same backbone."""
    torch.save(release_file(name, TINY[name]), tmp_path / "release.pth")
    network = load(config_of(name), rest(config_of(name)), tmp_path / "release.pth")
    save_checkpoint(tmp_path / "net.safetensors", network)
    load(config_of(name), tmp_path / "net.safetensors", tmp_path / "release.pth")
    torch.save(release_file(name, TINY[name], seed=5), tmp_path / "other.pth")
    with pytest.raises(CheckpointKeysError, match=r"differ from .*other\.pth"):
        load(config_of(name), tmp_path / "net.safetensors", tmp_path / "other.pth")


class TestLayouts:
    """Other layouts of the official weights."""

    @pytest.mark.parametrize("kind", ["pretrain", "visualize", "finetune"])
    def test_mae(self, kind, rest, tmp_path) -> None:
        file = releases.mae(TINY["mae_b16"], kind=kind)
        torch.save(file, tmp_path / "mae.pth")
        network = load(config_of("mae_b16"), rest(config_of("mae_b16")), tmp_path / "mae.pth")
        check_loaded(network, "mae_b16", file["model"])

    def test_sam_image_encoder_alone(self, rest, tmp_path) -> None:
        weights = weights_of("sam_b16", release_file("sam_b16", TINY["sam_b16"]))
        save_file(weights, tmp_path / "encoder.safetensors")
        network = load(config_of("sam_b16"), rest(config_of("sam_b16")), tmp_path / "encoder.safetensors")
        check_loaded(network, "sam_b16", weights)

    def test_ijepa_context_encoder_where_there_is_no_target(self, rest, tmp_path) -> None:
        file = releases.ijepa(TINY["ijepa_h16"])
        del file["target_encoder"]
        torch.save(file, tmp_path / "ijepa.pth.tar")
        network = load(config_of("ijepa_h16"), rest(config_of("ijepa_h16")), tmp_path / "ijepa.pth.tar")
        check_loaded(network, "ijepa_h16", releases.ijepa_encoder(TINY["ijepa_h16"], seed=1))

    def test_the_old_format_without_zip(self, rest, tmp_path) -> None:
        file = release_file("sam_b16", TINY["sam_b16"])
        torch.save(file, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        network = load(config_of("sam_b16"), rest(config_of("sam_b16")), tmp_path / "old.pth")
        check_loaded(network, "sam_b16", weights_of("sam_b16", file))


class TestPositionTables:
    @pytest.mark.parametrize(("name", "grid"), [("ijepa_h16", 8), ("mae_b16", 8)])
    def test_a_square_table_for_another_grid_of_as_many_positions(self, name, grid, rest, tmp_path) -> None:
        """8 x 8 and 4 x 16 both have 64 positions; a release file's table is square."""
        size, image = Size(grid=grid), (32, 128)
        file = release_file(name, size)
        torch.save(file, tmp_path / "release.pth")
        network = load(config_of(name, size, image), rest(config_of(name, size, image)), tmp_path / "release.pth")
        wanted = expected_table(name, weights_of(name, file)["pos_embed"], (4, 16))
        torch.testing.assert_close(network.backbone.vit.pos_embed, wanted)

    def test_a_checkpoint_tells_the_grid_of_its_table(self, tmp_path) -> None:
        """A table saved for 4 x 16 positions is read as such, and can be resampled to other sizes."""
        network = random_network(config_of("mae_b16", image=(32, 128)), 0)
        save_checkpoint(tmp_path / "net.safetensors", network)
        table = network.backbone.vit.pos_embed
        assert torch.equal(load(network.config, tmp_path / "net.safetensors").backbone.vit.pos_embed, table)
        other = load(config_of("mae_b16"), tmp_path / "net.safetensors").backbone.vit.pos_embed
        maps = table[:, 1:].reshape(1, 4, 16, -1).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, size=(8, 12), mode="bicubic", align_corners=False)
        torch.testing.assert_close(other[:, 1:], maps.permute(0, 2, 3, 1).flatten(1, 2))
        assert torch.equal(other[:, :1], table[:, :1])

    def test_sams_is_never_resampled(self, rest, tmp_path) -> None:
        torch.save(release_file("sam_b16", Size(grid=6, window=3)), tmp_path / "release.pth")
        with pytest.raises(CheckpointKeysError, match=r"image_encoder\.pos_embed: \[1, 6, 6, 24\], expected \[1, 8"):
            load(config_of("sam_b16"), rest(config_of("sam_b16")), tmp_path / "release.pth")


SHOWN = {
    "dinov2_b14_reg": "DINOv2 with registers (facebookresearch/dinov2)",
    "mae_b16": "a plain ViT with class token, such as MAE's (facebookresearch/mae)",
    "sam_b16": "SAM (facebookresearch/segment-anything)",
    "ijepa_h16": "a plain ViT without class token, such as I-JEPA's (facebookresearch/ijepa)",
}


class TestWrongFiles:
    @pytest.mark.parametrize("given", NAMES)
    @pytest.mark.parametrize("wanted", NAMES)
    def test_another_backbones_file(self, wanted, given, rest, tmp_path) -> None:
        if wanted == given:
            return
        torch.save(release_file(given, TINY[given]), tmp_path / "release.pth")
        with pytest.raises(CheckpointKeysError) as caught:
            load(config_of(wanted), rest(config_of(wanted)), tmp_path / "release.pth")
        text = str(caught.value)
        assert f"look like {SHOWN[given]}, width 24, 4 blocks, patches of 8 x 8" in text
        assert f"{wanted} would be {SHOWN[wanted]}, width 24, 4 blocks, patches of 8 x 8" in text
        assert "release.pth" in text

    @pytest.mark.parametrize("name", NAMES)
    def test_another_size(self, name, rest, tmp_path) -> None:
        torch.save(release_file(name, larger(TINY[name])), tmp_path / "release.pth")
        with pytest.raises(CheckpointKeysError) as caught:
            load(config_of(name), rest(config_of(name)), tmp_path / "release.pth")
        text = str(caught.value)
        assert f"look like {SHOWN[name]}, width 48, 6 blocks" in text
        assert f"{name} would be {SHOWN[name]}, width 24, 4 blocks" in text

    def test_dinov2_without_registers(self, rest, tmp_path) -> None:
        torch.save(releases.dinov2(TINY["dinov2_b14_reg"], registers=False), tmp_path / "release.pth")
        with pytest.raises(
            CheckpointKeysError, match=r"(?s)missing +backbone\.register_tokens.*DINOv2 without registers"
        ):
            load(config_of("dinov2_b14_reg"), rest(config_of("dinov2_b14_reg")), tmp_path / "release.pth")

    def test_a_training_checkpoint_of_dinov2(self, tmp_path) -> None:
        torch.save({"teacher": {"backbone.cls_token": torch.zeros(1)}, "epoch": 3}, tmp_path / "teacher.pth")
        file = read_checkpoint_file(tmp_path / "teacher.pth")
        assert (file.place, list(file.state)) == ("teacher", ["backbone.cls_token"])

    @pytest.mark.parametrize("nest", ["model", "target_encoder"])
    def test_nothing_in_one_is_executed(self, nest, tmp_path) -> None:
        trace = tmp_path / "executed"

        class Evil:
            def __reduce__(self):
                return (open, (str(trace), "w"))

        torch.save({nest: {"pos_embed": torch.zeros(1)}, "args": Evil()}, tmp_path / "evil.pth")
        (tmp_path / "plain.pth").write_bytes(pickle.dumps({"args": Evil()}, protocol=2))
        for path in ("evil.pth", "plain.pth"):
            with pytest.raises(CheckpointCorruptError):
                read_checkpoint_file(tmp_path / path)
        assert not trace.exists()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["image_encoder.trunk.blocks.0.norm1.weight"], "SAM 2"),
        (["embeddings.cls_token", "encoder.layer.0.norm1.weight"], "converted for transformers"),
        (["module_a.weight"], "of an unknown kind (the first is module_a.weight)"),
        (["reg_token", "blocks.0.norm1.weight"], "timm's names, 1 blocks"),
        ([], "no weights"),
    ],
)
def test_layouts_in_words(names, text) -> None:
    assert text in describe_layout({name: torch.zeros(1) for name in names})


@pytest.mark.parametrize("name", NAMES)
def test_full_size_keys_and_shapes(name) -> None:
    """Every key and shape of the official files, as far as they are read; nothing is computed."""
    with torch.device("meta"):
        network = MMMS(tiny_config(size=(448, 448), backbone=FULL[name].config(name)))
    default = tiny_config(size=(448, 448), backbone=type(network.config.backbone)(name=name))
    with torch.device("meta"):
        assert {n: t.shape for n, t in MMMS(default).state_dict().items()} == {
            n: t.shape for n, t in network.state_dict().items()
        }
    small = Size(FULL[name].dim, 1, FULL[name].heads, FULL[name].patch, FULL[name].grid, FULL[name].window)
    one_block = weights_of(name, release_file(name, small))
    released = RELEASES[name].names.to_release(network.backbone.vit.state_dict(), network.backbone.vit)
    released = {n.removeprefix("image_encoder."): t for n, t in released.items()}
    for key, value in one_block.items():
        if key == "pos_embed" or key.startswith("neck."):
            continue
        assert released[key].shape == value.shape, key

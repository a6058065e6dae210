"""Pyramid backbones: their maps, SAM 2's encoder against a second implementation, and its files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mmms_deploy.errors import CheckpointKeysError, DescriptionError, SizeError
from mmms_deploy.models import MMMS, BackboneConfig, SkipClick, SkipClickConfig, load_backbone
from mmms_deploy.models.backbone import RELEASES, Backbone
from mmms_deploy.models.backbones import build_backbone
from mmms_deploy.models.checkpoint import load_weights, random_network, read_checkpoint_file, release_state
from mmms_deploy.models.checkpoint import save_checkpoint as save
from mmms_deploy.models.hiera import position_map, tables_of_map
from mmms_deploy.models.pyramid_backbone import PyramidBackbone, is_pyramid
from tests.support.hiera import TRUNK, expected_neck, expected_stages, sam2, sam2_file
from tests.support.tiny import HIERA, PYRAMIDS, tiny_config

SIZE = (64, 96)
NAMES = {"t": (96, 26.85), "s": (96, 33.95), "b+": (112, 68.68), "l": (144, 212.15)}
"""Width of the first stage, and millions of parameters of the trunk."""


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def picture(size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_maps_of_rising_strides(name) -> None:
    backbone = build_backbone(PYRAMIDS[name], SIZE).eval()
    maps = backbone(torch.randn(2, 3, *SIZE))
    assert [tuple(x.shape[2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(x.shape[1:]) for x in maps] == list(backbone.map_shapes())
    assert all(module in set(backbone.modules()) for module in backbone.watched())
    assert len(backbone.watched()) == (6 if name in ("hiera", "hiera_neck", "timm_sam2") else 4)


@pytest.mark.parametrize("short", NAMES)
def test_sam2_at_full_size(short) -> None:
    name, (width, million) = f"sam2_hiera_{short}", NAMES[short]
    with torch.device("meta"):
        backbone = PyramidBackbone(BackboneConfig(name=name), (448, 448)).eval()
    assert backbone.map_shapes() == tuple((width * 2**k, 112 >> k, 112 >> k) for k in range(4))
    assert sum(parameter.numel() for parameter in backbone.parameters()) / 1e6 == pytest.approx(million, abs=0.01)
    assert {m.eps for m in backbone.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


def test_which_names_are_pyramids() -> None:
    assert {name for name in RELEASES if is_pyramid(name)} == {f"sam2_hiera_{short}" for short in NAMES}
    assert is_pyramid("timm:resnet18")
    assert not is_pyramid("timm:vit_tiny_patch16_224")
    with pytest.raises(DescriptionError, match="backbone 'timm:no_such' is not known"):
        is_pyramid("timm:no_such")


def loaded(config: BackboneConfig, file: dict, folder, size: tuple[int, int] = SIZE) -> MMMS:
    """A network with a random rest, and the backbone from a release's file, as ``--backbone-ckpt`` loads it."""
    described = tiny_config(backbone=config, size=size)
    rest = {n: t for n, t in release_state(random_network(described, 0)).items() if not n.startswith("backbone.")}
    torch.save(rest, folder / "rest.pt")
    torch.save(file, folder / "release.pt")
    network = MMMS(described).eval()
    load_weights(network, read_checkpoint_file(folder / "rest.pt"), read_checkpoint_file(folder / "release.pt"))
    return network


class TestSAM2:
    @pytest.mark.parametrize("size", [(64, 96), (128, 64)], ids=str)
    @pytest.mark.parametrize("maps", ["stages", "neck"])
    def test_the_official_file_against_a_second_implementation(self, maps, size, tmp_path) -> None:
        config = BackboneConfig(name="sam2_hiera_t", maps=maps, overrides=HIERA.overrides)
        backbone, rgb = loaded(config, sam2_file(), tmp_path, size).backbone.double(), picture(size, torch.float64)
        wanted = expected_stages(sam2(), rgb)
        if maps == "neck":
            wanted = expected_neck(sam2(), wanted)
        for ours, theirs in zip(backbone(rgb), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * theirs.abs().max().item())

    def test_the_position_map_of_another_table(self, tmp_path) -> None:
        """base+ has a table of 14 x 14."""
        config = BackboneConfig(name="sam2_hiera_t", overrides={**HIERA.overrides, "global_pos_size": (14, 14)})
        rgb, state = picture(dtype=torch.float64), sam2(table=14)
        backbone = loaded(config, {"model": state}, tmp_path).backbone.double()
        for ours, theirs in zip(backbone(rgb), expected_stages(state, rgb), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * theirs.abs().max().item())

    def test_timms_own_file_of_the_trunk(self, tmp_path) -> None:
        state = {n.removeprefix(TRUNK): t for n, t in sam2().items() if n.startswith(TRUNK)}
        renamed = {n.replace("layers.0", "fc1").replace("layers.1", "fc2"): t for n, t in state.items()}
        renamed["head.norm.weight"] = torch.ones(64)
        rgb = picture()
        for name in ("hiera", "timm_sam2"):
            ours = loaded(PYRAMIDS[name], renamed, tmp_path).backbone(rgb)
            for x, wanted in zip(ours, expected_stages(sam2(), rgb), strict=True):
                torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)

    def test_a_file_without_a_neck_is_refused_where_one_is_read(self, tmp_path) -> None:
        state = {n: t for n, t in sam2().items() if n.startswith(TRUNK)}
        loaded(HIERA, {"model": state}, tmp_path)
        with pytest.raises(CheckpointKeysError, match=r"missing +backbone\.image_encoder\.neck\.convs\.0\.conv\.bias"):
            loaded(PYRAMIDS["hiera_neck"], {"model": state}, tmp_path)

    def test_a_file_of_another_size_is_named(self, tmp_path) -> None:
        with pytest.raises(CheckpointKeysError, match=r"look like SAM 2's image encoder .*width 16, 6 blocks"):
            loaded(HIERA, sam2_file(dim=16), tmp_path)

    def test_a_saved_network_keeps_the_release_names_and_tables(self, tmp_path) -> None:
        """So that it can be loaded at another size without loss."""
        network = loaded(PYRAMIDS["hiera_neck"], sam2_file(), tmp_path)
        save(tmp_path / "net.safetensors", network)
        file = read_checkpoint_file(tmp_path / "net.safetensors")
        kept = {n.removeprefix("backbone."): t for n, t in file.state.items() if n.startswith("backbone.")}
        assert kept.keys() <= sam2().keys()
        assert all(torch.equal(t, sam2()[n]) for n, t in kept.items())
        other = MMMS(tiny_config(backbone=PYRAMIDS["hiera_neck"], size=(128, 64))).eval()
        load_weights(other, file)
        rgb = picture((128, 64))
        for x, wanted in zip(other.backbone(rgb), expected_neck(sam2(), expected_stages(sam2(), rgb)), strict=True):
            torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)

    def test_an_untrained_one_uses_its_positions(self) -> None:
        encoder = PyramidBackbone(HIERA, SIZE).model
        assert min(encoder.trunk.pos_embed.std(), encoder.trunk.pos_embed_window.std()) > 0.01


def test_a_backbone_comes_into_a_network_whose_rest_stays(tmp_path) -> None:
    """As training needs it; the maps of a frozen backbone can be kept and mixed later."""
    network = random_network(tiny_config(backbone=HIERA), 0)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    torch.save(sam2_file(), tmp_path / "release.pt")
    load_backbone(network, tmp_path / "release.pt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("backbone."), name
    rgb, clicks = picture(), torch.rand(1, 3, *SIZE)
    kept = [x.clone() for x in network.encode(rgb)]
    assert torch.equal(network.respond(network.mix(tuple(kept), {}), clicks), network(rgb, clicks))
    torch.save(sam2_file(dim=16), tmp_path / "other.pt")
    with pytest.raises(CheckpointKeysError, match="misshapen"):
        load_backbone(network, tmp_path / "other.pt")


class TestTables:
    @pytest.mark.parametrize("side", [7, 14])
    def test_both_tables_come_back_from_their_sum(self, side) -> None:
        table, window = torch.randn(1, 3, side, side), torch.randn(1, 3, 8, 8)
        found = tables_of_map(position_map(table, window, (256, 256)), 8)
        assert found[0].shape == table.shape
        for grid in ((256, 256), (112, 112), (16, 24)):
            wanted = position_map(table, window, grid)
            torch.testing.assert_close(position_map(*found, grid), wanted, rtol=0, atol=1e-5)

    def test_other_maps_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no tables of 7 or 14 positions"):
            tables_of_map(torch.randn(1, 2, 64, 64), 8)
        with pytest.raises(ValueError, match="no windows of 8 x 8"):
            tables_of_map(torch.randn(1, 2, 60, 64), 8)


class TestTimm:
    def test_weights_under_timms_names(self, tmp_path) -> None:
        """A file with everything that timm's network has; the parts behind the last map are left out."""
        import timm

        overrides = dict(PYRAMIDS["convnext"].overrides)
        whole = timm.create_model("convnext_atto", num_classes=10, **overrides).eval()
        network = loaded(PYRAMIDS["convnext"], whole.state_dict(), tmp_path)
        assert any(name.startswith("head.") for name in whole.state_dict())
        wanted = whole.forward_intermediates(picture(), intermediates_only=True)
        for ours, theirs in zip(network.backbone(picture()), wanted, strict=True):
            assert torch.equal(ours, theirs)

    def test_batch_norms_are_weights(self, tmp_path) -> None:
        config = BackboneConfig(name="timm:resnet18", overrides={"base_width": 64})
        network = random_network(tiny_config(backbone=config), 0)
        network.backbone.model.bn1.running_mean += 3.0
        save(tmp_path / "net.safetensors", network)
        other = MMMS(tiny_config(backbone=config)).eval()
        load_weights(other, read_checkpoint_file(tmp_path / "net.safetensors"))
        for x, y in zip(network.backbone(picture()), other.backbone(picture()), strict=True):
            assert torch.equal(x, y)

    def test_a_table_of_positions_comes_to_the_networks_grid(self, tmp_path) -> None:
        config = PYRAMIDS["timm_hiera"]
        state = PyramidBackbone(config, (224, 224)).model.state_dict()
        network = loaded(config, dict(state), tmp_path)
        assert state["pos_embed"].shape == (1, 56 * 56, 8)
        assert network.backbone.model.pos_embed.shape == (1, 16 * 24, 8)
        maps = state["pos_embed"].reshape(1, 56, 56, 8).permute(0, 3, 1, 2)
        wanted = torch.nn.functional.interpolate(maps, size=(16, 24), mode="bicubic", antialias=True)
        got = network.backbone.model.pos_embed.reshape(1, 16, 24, 8).permute(0, 3, 1, 2)
        torch.testing.assert_close(got, wanted)


class TestMistakes:
    def test_sizes(self) -> None:
        with pytest.raises(SizeError, match=r"network width 80\n.*a positive multiple of 32\n.*use 64 or 96"):
            PyramidBackbone(HIERA, (64, 80))

    def test_blocks_are_for_vits(self) -> None:
        with pytest.raises(DescriptionError, match="no blocks: a pyramid's maps"):
            PyramidBackbone(BackboneConfig(name="sam2_hiera_t", blocks=(1, 2, 3, 4)), SIZE)

    @pytest.mark.parametrize("name", ["timm:resnet18", "timm:sam2_hiera_tiny"])
    def test_only_sam2_by_name_has_a_neck(self, name) -> None:
        with pytest.raises(DescriptionError, match="only SAM 2's encoders by their own names have a neck"):
            PyramidBackbone(BackboneConfig(name=name, maps="neck"), SIZE)

    def test_a_vit_has_stages_only(self) -> None:
        with pytest.raises(DescriptionError, match="backbone maps 'neck' of dinov2_b14_reg"):
            Backbone(BackboneConfig(maps="neck"), (448, 448))

    def test_arguments_that_timm_does_not_take(self) -> None:
        with pytest.raises(DescriptionError, match=r"timm cannot build sam2_hiera_tiny at 64x96 with .'no_such': 1"):
            PyramidBackbone(BackboneConfig(name="sam2_hiera_t", overrides={"no_such": 1}), SIZE)
        config = BackboneConfig(name="timm:resnet18", overrides={"output_stride": 16})
        with pytest.raises(DescriptionError, match=r"gives maps of strides \[2, 4, 8, 16, 16\]"):
            PyramidBackbone(config, SIZE)

    def test_arguments_that_change_the_strides(self) -> None:
        config = BackboneConfig(name="sam2_hiera_t", overrides={**HIERA.overrides, "patch_stride": (8, 8)})
        with pytest.raises(DescriptionError, match=r"sam2_hiera_t (does not run at 64x96|gives maps of)"):
            PyramidBackbone(config, SIZE)

    def test_skipclick_needs_a_vit(self) -> None:
        with pytest.raises(DescriptionError, match="of a SkipClick network is a pyramid"):
            SkipClick(SkipClickConfig(backbone=HIERA, size=SIZE))

"""FM_RGB: which backbones there are by name, their maps, and a backbone that runs at one size only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.models import BackboneConfig
from mmms_deploy.models.backbone import RELEASES, Backbone, check_size
from tests.support.releases import TINY

NAMES = list(TINY)
SAM = TINY["sam_b16"].config("sam_b16")


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_the_four_of_the_paper() -> None:
    assert {name for name, release in RELEASES.items() if not release.pyramid} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "dim", "patch", "blocks", "million"),
    [
        ("dinov2_b14_reg", 768, 14, (3, 6, 9, 12), 86.3),
        ("mae_b16", 768, 16, (3, 6, 9, 12), 86.3),
        ("sam_b16", 768, 16, (3, 6, 9, 12), 88.9),
        ("ijepa_h16", 1280, 16, (8, 16, 24, 32), 631.7),
    ],
)
def test_full_size(name, dim, patch, blocks, million) -> None:
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(name=name), (448, 448))
        maps = backbone(torch.zeros(1, 3, 448, 448))
    assert backbone.patch == (patch, patch)
    assert [block + 1 for block in backbone.blocks] == list(blocks)
    assert [tuple(x.shape) for x in maps] == [(1, dim, 448 // patch, 448 // patch)] * 4
    assert sum(parameter.numel() for parameter in backbone.parameters()) / 1e6 == pytest.approx(million, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_a_size_that_is_no_square(name) -> None:
    backbone = Backbone(TINY[name].config(name), (64, 96)).eval()
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 24, 8, 12)] * 4
    assert all(not torch.equal(a, b) for a, b in pairwise(maps))


@pytest.mark.parametrize("name", NAMES)
def test_layer_norms_have_the_releases_epsilon(name) -> None:
    """timm leaves SAM's at torch's 1e-5; all four releases say 1e-6."""
    backbone = Backbone(TINY[name].config(name), (64, 96))
    assert {m.eps for m in backbone.vit.blocks.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


class TestSAM:
    def test_runs_at_its_own_size(self) -> None:
        """Enlarged before, reduced after, both bilinear with half-pixel centres."""
        backbone = Backbone(SAM, (32, 96)).eval()
        rgb = torch.randn(1, 3, 32, 96)
        x = backbone.vit.patch_embed(F.interpolate(rgb, size=(64, 64), mode="bilinear")) + backbone.vit.pos_embed
        for block, ours in zip(backbone.vit.blocks, backbone(rgb), strict=True):
            x = block(x)
            wanted = F.interpolate(x.permute(0, 3, 1, 2), size=(4, 12), mode="bilinear")
            torch.testing.assert_close(ours, wanted)

    def test_at_its_own_size_nothing_is_resized(self) -> None:
        backbone = Backbone(SAM, (64, 64)).eval()
        rgb = torch.randn(1, 3, 64, 64)
        theirs = backbone.vit.forward_intermediates(rgb, indices=[0, 1, 2, 3], norm=False, intermediates_only=True)
        for ours, wanted in zip(backbone(rgb), theirs, strict=True):
            assert torch.equal(ours, wanted)

    def test_an_untrained_one_uses_its_positions(self) -> None:
        """A gate on random weights would not notice that a table of zeros is lost."""
        tables = {n: t for n, t in Backbone(SAM, (64, 64)).vit.named_parameters() if "pos" in n}
        assert len(tables) == 9
        assert all(table.std() > 0.01 for table in tables.values())

    def test_blocks_behind_the_last_named_one_do_not_run(self) -> None:
        config = BackboneConfig(name="sam_b16", blocks=(1, 2, 3, 4), overrides={**SAM.overrides, "depth": 6})
        backbone = Backbone(config, (64, 64)).eval()
        backbone.vit.blocks[4].register_forward_hook(lambda *args: pytest.fail("block 5 of 6 ran"))
        assert len(backbone(torch.randn(1, 3, 64, 64))) == 4

    def test_its_size_is_that_of_the_description(self) -> None:
        with torch.device("meta"):
            backbone = Backbone(BackboneConfig(name="sam_b16"), (96, 64))
        assert backbone.vit.pos_embed.shape == (1, 64, 64, 768)
        assert backbone.vit.blocks[0].attn.rel_pos_h.shape == (27, 64)
        assert backbone.vit.blocks[2].attn.rel_pos_h.shape == (127, 64)


def test_sizes() -> None:
    with pytest.raises(SizeError, match="multiple of the patch size 16 and of 32, that is of 32"):
        Backbone(BackboneConfig(name="mae_b16"), (448, 440))
    with torch.device("meta"):
        Backbone(BackboneConfig(), (70, 84), stride=1)
    with pytest.raises(SizeError, match=r"multiple of the patch size 14\n.*use 70 or 84"):
        Backbone(BackboneConfig(), (72, 84), stride=1)
    check_size((448, 448), (14, 14))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        DescriptionError, match=r"dinov2_b14_reg, mae_b16, sam_b16, ijepa_h16, sam2_hiera_t, .*, or timm:NAME"
    ):
        Backbone(BackboneConfig(name="mae"), (64, 64))

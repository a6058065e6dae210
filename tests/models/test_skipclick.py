"""SkipClick against a second implementation of what the official software computes, and its parts."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import BackboneConfig, SkipClick, SkipClickConfig
from mmms_deploy.models.checkpoint import (
    load_weights,
    parse_description,
    random_network,
    read_checkpoint_file,
    save_checkpoint,
)
from mmms_deploy.models.families import build_network
from mmms_deploy.models.inverse_fpn import InverseParallelFPN
from tests.support.independent import transformers_maps
from tests.support.paths import ROOT
from tests.support.releases import Size
from tests.support.skipclick import NARROW, official_state, save_official, tiny_official, tiny_skipclick
from tests.support.skipclick_reference import Official, dinov2
from tests.support.tiny import DEPTH, EVENT

LIMIT = 1e-5


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def opened(path: Path, **overrides: Any) -> SkipClick:
    backbone = {"name": "dinov2_b14_reg", "blocks": [3, 6, 9, 12], "overrides": NARROW}
    network = open_source(Source(checkpoint=path, overrides={"backbone": backbone} | overrides)).network
    assert isinstance(network, SkipClick)
    return network


@torch.no_grad()
def compare(
    network: SkipClick, official: Official, clicks: list[tuple[float, float, bool]], image: np.ndarray
) -> float:
    """Feed both the same clicks and previous probabilities; returns the largest difference of a logit."""
    reference, recurrent = TorchReference(network), RecurrentNetwork(network)
    reference.set_image(image, {})
    official.set_image(image)
    maps, previous = torch.zeros(1, 2, *network.config.size), torch.zeros(1, 1, *network.config.size)
    worst, seen = 0.0, []
    for x, y, positive in clicks:
        official.click(x, y, positive)
        expected = official.logits(previous)
        maps = recurrent.add_disk(maps, torch.tensor([[*reference.to_network(x, y), float(positive), 1.0]]))
        logits = network.respond(reference.features, recurrent.interaction(maps, previous))
        worst = max(worst, (logits - expected).abs().max().item())
        previous = torch.sigmoid(expected)
        seen.append(expected)
    assert min((a - b).abs().max().item() for a, b in itertools.pairwise(seen)) > 100 * LIMIT
    assert seen[0].std() > 0.05
    return worst


CLICKS = [(20.0, 11.0, True), (70.5, 40.25, False), (33.0, 2.0, True)]


class TestAgainstTheOfficialForm:
    @pytest.mark.parametrize("size", [(56, 56), (84, 56)], ids=["native", "resampled"])
    @pytest.mark.parametrize(
        "variant",
        [{}, {"skips": False}, {"skips": False, "levels": (1,)}, {"mix_depth": 3}],
        ids=["skipclick", "intermediate", "frozen", "p3"],
    )
    def test_three_clicks(self, tmp_path, variant, size) -> None:
        config = tiny_skipclick(size=(56, 56), **variant)
        state = tiny_official(tmp_path / "s.pth", config)
        network = opened(tmp_path / "s.pth", size=list(size))
        official = Official(state, size, heads=(2, 3), levels=len(config.levels))
        assert compare(network, official, CLICKS, picture(61, 90)) <= LIMIT

    @pytest.mark.slow
    def test_three_clicks_at_full_width(self, tmp_path) -> None:
        state = official_state(random_network(SkipClickConfig(), 0))
        save_official(tmp_path / "s.pth", state, SkipClickConfig())
        network = open_source(Source(checkpoint=tmp_path / "s.pth")).network
        official = Official(state, (448, 448), heads=(12, 12))
        clicks = [(320.0, 200.0, True), (100.5, 400.25, False), (500.0, 20.0, True)]
        worst = compare(network, official, clicks, picture(480, 640))
        print(f"largest difference of a logit: {worst:.1e}")
        assert worst <= LIMIT

    @torch.no_grad()
    def test_the_gui_at_the_network_s_own_size(self, tmp_path) -> None:
        """Then nothing is resized, and the official feedback is that of the recurrent form."""
        state = tiny_official(tmp_path / "s.pth")
        network, official = opened(tmp_path / "s.pth"), Official(state, (56, 56), heads=(2, 3))
        reference = TorchReference(network)
        reference.set_image(picture(56, 56), {})
        official.set_image(picture(56, 56))
        for x, y, positive in [(20.0, 11.0, True), (40.5, 40.25, False), (33.0, 2.0, True)] * 2:
            answer = torch.from_numpy(reference.click(x, y, positive).probability)
            torch.testing.assert_close(answer, official.click(x, y, positive), rtol=0, atol=1e-6)

    @torch.no_grad()
    def test_the_extractor_is_dinov2_as_transformers_has_it(self) -> None:
        """The largest part of the second implementation, compared with a third one."""
        pytest.importorskip("transformers", minversion="5.23")
        state = official_state(random_network(tiny_skipclick(size=(56, 84)), 0))
        prefix, image = "feature_extractor.dinov2.", torch.randn(1, 3, 56, 84)
        weights = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        size = Size(dim=24, depth=12, heads=2, patch=14, grid=37)
        theirs = transformers_maps("dinov2_b14_reg", size, weights, image, (2, 5, 8, 11))
        for mine, wanted in zip(dinov2(state, image, 2), theirs, strict=True):
            torch.testing.assert_close(mine, wanted.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)


class TestParts:
    def test_parameters(self) -> None:
        """The official file's 153.16 M: our network, the file's own table, the mask token, the head's unused layers."""
        with torch.device("meta"):
            built = sum(p.numel() for p in SkipClick(SkipClickConfig()).parameters())
        table, mask = (37 * 37 + 1 - 32 * 32) * 768, 768
        unused = sum(4 * w * o + o + 2 * o + o * o + o + 2 * o for w, o in ((256, 128), (128, 64)))
        assert (built + table + mask + unused) / 1e6 == pytest.approx(153.16, abs=0.005)

    @torch.no_grad()
    @pytest.mark.parametrize("modalities", [(), (DEPTH,), (DEPTH, EVENT)])
    def test_features(self, modalities) -> None:
        network = random_network(tiny_skipclick(*modalities), 0)
        size, (height, width) = network.config.size, network.backbone_mix.grid
        images = {m.name: torch.rand(2, m.channels, *size) for m in modalities}
        features = network.features(torch.rand(2, 3, *size), images)
        assert network.feature_names == ("f_fuse", "f_skip_1", "f_skip_2", "f_skip_3", "f_skip_4")
        assert [tuple(f.shape) for f in features] == [(2, height * width, 24)] + [(2, 24, height, width)] * 4
        assert network.respond(features, torch.zeros(2, 3, *size)).shape == (2, 1, *size)

    @torch.no_grad()
    def test_with_modalities_the_restored_maps_take_the_backbone_s_place(self) -> None:
        network = random_network(tiny_skipclick(DEPTH), 0)
        rgb, depth = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96)
        restored = network.inverse_fpn(network.fuser(network.fpn(network.encode(rgb)), {"depth": depth}))
        fused, *skips = network.features(rgb, {"depth": depth})
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in restored], dim=2)
        torch.testing.assert_close(fused, network.fuse(tokens) + network.backbone_mix.pos_embed)
        for skip, x in zip(skips, restored, strict=True):
            torch.testing.assert_close(skip, x)

    @torch.no_grad()
    def test_the_inverse_pyramid_follows_the_paper(self) -> None:
        """Each row of the paper's table, layer by layer."""
        torch.manual_seed(0)
        net = InverseParallelFPN(24, (8, 16, 16, 32), None, (64, 96), (8, 12))
        h4, h8, h16, h32 = 16, 16, 24, 48  # max(2*8, 12), max(16, 12), max(16, 24), max(32, 48)
        pyramid = [torch.randn(1, c, 64 // i, 96 // i) for c, i in zip((8, 16, 16, 32), (4, 8, 16, 32), strict=True)]

        def resize(x: torch.Tensor, *size: int) -> torch.Tensor:
            return F.interpolate(x, size=size, mode="bilinear")

        def ln(x: torch.Tensor) -> torch.Tensor:
            return F.layer_norm(x, x.shape[1:])

        a, b, c, d = ([m for m in branch if hasattr(m, "kernel_size")] for branch in net.children())
        assert [[m.out_channels for m in row] for row in (a, b, c, d)] == [
            [h4 // 2, h4, 24],
            [h8, 24],
            [h16, 24],
            [h32, 24],
        ]
        first = F.gelu(ln(a[0](resize(pyramid[0], 8, 12))))
        expected = [
            F.gelu(ln(a[2](ln(a[1](resize(first, 8, 12)))))),
            F.gelu(ln(b[1](ln(b[0](resize(pyramid[1], 8, 12)))))),
            F.gelu(ln(c[1](ln(resize(c[0](pyramid[2]), 8, 12))))),
            F.gelu(ln(d[1](ln(d[0](resize(pyramid[3], 8, 12)))))),
        ]
        for value, wanted in zip(net(tuple(pyramid)), expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_one_level_is_one_of_the_four(self) -> None:
        for level in (1, 4):
            network = random_network(tiny_skipclick(levels=(level,), skips=False), 0)
            maps = network.encode(torch.rand(1, 3, 56, 84))
            (fused,) = network.mix(maps, {})
            expected = maps[level - 1].flatten(2).transpose(1, 2) + network.backbone_mix.pos_embed
            torch.testing.assert_close(fused, expected)

    def test_sizes(self) -> None:
        """The neck halves the grid; with modalities there is a pyramid, too."""
        with pytest.raises(SizeError, match="multiple of the patch size 14 and of 28, that is of 28"):
            build_network(tiny_skipclick(size=(56, 70)))
        with pytest.raises(SizeError, match="multiple of the patch size 8 and of 32"):
            build_network(tiny_skipclick(DEPTH, size=(48, 96)))

    def test_heads_that_do_not_divide(self) -> None:
        with pytest.raises(DescriptionError, match="mix_heads 5 for a backbone of width 24"):
            build_network(tiny_skipclick(mix_heads=5))


class TestDescription:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"levels": [1, 2]}, "levels must be"),
            ({"levels": [5]}, "levels must be"),
            ({"mix_depth": 0}, "at least 1"),
            ({"csnet": {}}, "csnet"),
            ({"family": 3}, "family 3"),
        ],
    )
    def test_what_makes_no_sense(self, change, message) -> None:
        with pytest.raises(DescriptionError, match=message):
            parse_description({"family": "skipclick"} | change, "test")

    def test_the_documents_example_is_the_published_network(self) -> None:
        text = (ROOT / "docs" / "skipclick.md").read_text()
        example = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
        published = SkipClickConfig()
        clicks = msgspec.structs.replace(published.clicks, threshold=0.49)
        assert parse_description(example, "docs") == msgspec.structs.replace(published, clicks=clicks)

    def test_a_backbone_without_registers_is_fine(self) -> None:
        backbone = BackboneConfig(
            name="timm:vit_tiny_patch16_224",
            overrides={"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2},
        )
        network = random_network(tiny_skipclick(DEPTH, backbone=backbone), 0)
        assert network.backbone.blocks == (0, 1, 2, 3)


@pytest.mark.parametrize("modalities", [(), (DEPTH,)])
def test_the_native_form_keeps_everything(tmp_path, modalities) -> None:
    network = random_network(tiny_skipclick(*modalities), 0)
    save_checkpoint(tmp_path / "s.safetensors", network)
    file = read_checkpoint_file(tmp_path / "s.safetensors")
    config = parse_description(file.description, "test")
    assert config == network.config
    again = build_network(config)
    load_weights(again, file)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_native_table_that_is_no_square_is_resampled_from_its_own_grid(tmp_path) -> None:
    network = random_network(tiny_skipclick(size=(56, 84)), 0)
    save_checkpoint(tmp_path / "s.safetensors", network)
    file = read_checkpoint_file(tmp_path / "s.safetensors")
    larger = build_network(tiny_skipclick(size=(112, 84)))
    load_weights(larger, file)
    maps = network.backbone_mix.pos_embed.reshape(1, 4, 6, 24).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=(8, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(larger.backbone_mix.pos_embed, maps.permute(0, 2, 3, 1).reshape(1, 48, 24))

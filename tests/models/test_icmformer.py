"""iCMFormer: the golden numbers of its authors' networks, and that no work is done twice or thrown away."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.models.config import SwinConfig, ViTConfig
from mmms_deploy.models.cross_modality import CrossAttention
from mmms_deploy.models.families import build_network
from mmms_deploy.models.icmformer import ICMFormer
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from tests.support.families import GoldenFile
from tests.support.icmformer import as_written, tiny_icmformer

TINY = {"vit": ViTConfig(dim=96, heads=3), "neck_widths": (48, 96, 192, 384), "head_width": 64}
SWIN_S = {"swin": SwinConfig(width=96, heads=(3, 6, 12, 24)), "size": (224, 224), "head_width": 192}
GOLDEN = {
    "icmformer-tiny": ICMFormerConfig(**TINY),
    "icmformer-swin_small": ICMFormerConfig(**SWIN_S),
    "icmformer-base": ICMFormerConfig(),
    "icmformer-swin_base": ICMFormerConfig(swin=SwinConfig(), size=(384, 384)),
}
UNREAD = ("cls_token", "fc_norm.", "backbone.head.", "head.up_conv", "backbone.patch_embed_coords.")
SMALL = {"icmformer-tiny"}
KINDS = ("swin", "vit")


def case(name: str):
    return pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow)


def interactions(golden: GoldenFile) -> list[Tensor]:
    """The disks of each step, (1, 2, H, W)."""
    height, width = golden.meta["size"]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    maps, steps = torch.zeros(1, 2, height, width), []
    for row, column, positive in golden.meta["clicks"]:
        maps = maps.clone()
        maps[0, 0 if positive else 1][(rows - row) ** 2 + (columns - column) ** 2 <= 25] = 1
        steps.append(maps)
    return steps


@pytest.mark.parametrize("name", [case(name) for name in GOLDEN])
@torch.no_grad()
def test_the_authors_numbers(name) -> None:
    golden = GoldenFile(name)
    network = build_network(GOLDEN[name]).eval()
    weights = {key: torch.from_numpy(value) for key, value in golden.weights().items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not missing
    assert not [key for key in unexpected if not any(part in key for part in UNREAD)]
    assert sum(np.prod(shape) for key, shape in golden.keys.items() if not key.endswith("_index")) == sum(
        value.numel() for value in weights.values()
    )
    config = network.config
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (config.image.mean, config.image.std))
    rgb = (torch.from_numpy(golden.image()).permute(2, 0, 1)[None] / 255 - mean) / std
    features = network.features(rgb)
    previous = torch.zeros(1, 1, *config.size)
    for step, disks in enumerate(interactions(golden)):
        coarse = network.coarse_logits(features, torch.cat([previous, disks], dim=1))
        worst = float((coarse - torch.from_numpy(golden.arrays[f"logits_low{step}"])).abs().max())
        previous = torch.sigmoid(network.enlarge_logits(coarse))
        theirs = np.unpackbits(golden.arrays[f"mask{step}"]).reshape(config.size).astype(bool)
        differing = int((theirs != (previous[0, 0] > 0.5).numpy()).sum())
        print(f"{name}, step {step}: {worst:.1e}, {differing} pixels of the mask")
        assert worst <= 2e-4
        assert differing <= 4


@pytest.fixture(scope="module", params=KINDS)
def network(request) -> ICMFormer:
    made = random_network(tiny_icmformer(request.param), 0).double()
    assert isinstance(made, ICMFormer)
    return made


def inputs(network: ICMFormer) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = network.config.size
    made = [torch.rand(2, 3, *size, generator=generator, dtype=torch.float64) for _ in range(2)]
    return made[0], made[1]


class TestWastedWork:
    @torch.no_grad()
    def test_the_answer_is_that_of_the_code_as_written(self, network) -> None:
        """Both streams at every click, every linear for both arguments: the same numbers, but for the last bits."""
        rgb, interaction = inputs(network)
        found, written = network(rgb, interaction), as_written(network, rgb, interaction)
        assert written.std() > 0.01
        torch.testing.assert_close(found, written, rtol=0, atol=1e-11)

    @torch.no_grad()
    def test_queries_keys_and_values_are_exact(self) -> None:
        """With weights and tokens of a few bits every sum is exact: not one bit differs from the fused linear's."""
        generator = torch.Generator().manual_seed(0)

        def few_bits(*shape: int) -> Tensor:
            return torch.randint(-8, 9, shape, generator=generator).double() / 8

        attention = CrossAttention(32, 2).double()
        attention.qkv.weight.copy_(few_bits(96, 32))
        attention.qkv.bias.copy_(few_bits(96))
        clicks, image = few_bits(2, 7, 32), few_bits(2, 7, 32)
        q, _, _ = F.linear(clicks, attention.qkv.weight, attention.qkv.bias).chunk(3, dim=2)
        _, k, v = F.linear(image, attention.qkv.weight, attention.qkv.bias).chunk(3, dim=2)
        keys, values = attention.keys_values(image)
        assert torch.equal(attention.queries(clicks), q * 16**-0.5)
        assert torch.equal(keys.permute(0, 3, 1, 2).flatten(2), k)
        assert torch.equal(values.transpose(1, 2).flatten(2), v)

    @torch.no_grad()
    def test_a_click_runs_nothing_of_the_image_s(self, network) -> None:
        """Each attention of the clicks computes its queries once, and none of the image's keys and values."""
        rgb, interaction = inputs(network)
        features = network.features(rgb)
        ran: list[str] = []
        hooks = [
            part.register_forward_hook(lambda *_, name=name: ran.append(name))
            for name, part in network.named_modules()
            if name.endswith(("attn1.qkv", "norm2")) and "blocks2" in name
        ]
        network.respond(features, interaction)
        for hook in hooks:
            hook.remove()
        assert sorted(ran) == sorted(set(ran)), "once each: norm2 sees the clicks alone"
        assert len(ran) == 2 * len(network.cross_blocks())


class TestRates:
    @torch.no_grad()
    def test_the_features(self, network) -> None:
        blocks = range(1, len(network.cross_blocks()) + 1)
        crossing = [f"{kind}_{n}" for n in blocks for kind in ("keys", "values")]
        first = ["image_4", "image_16"] if network.config.swin else ["image_16"]
        assert list(network.feature_names) == first + crossing
        features = network.features(inputs(network)[0])
        assert len(features) == len(network.feature_names)

    @torch.no_grad()
    def test_an_answer_depends_on_image_and_click(self, network) -> None:
        rgb, interaction = inputs(network)
        answer = network(rgb, interaction)
        assert (network(rgb.flip(3), interaction) - answer).abs().max() > 1e-4
        assert (network(rgb, interaction.flip(3)) - answer).abs().max() > 1e-4

    @torch.no_grad()
    def test_the_image_stream_stops_at_the_middle(self) -> None:
        """What comes after does not change what an image gives."""
        network = random_network(tiny_icmformer("vit"), 0)
        rgb = torch.rand(1, 3, *network.config.size)
        features = network.features(rgb)
        changed = copy.deepcopy(network)
        for name, parameter in changed.named_parameters():
            number = int(name.split(".")[2]) if name.startswith("backbone.blocks.") else -1
            if number >= 4 or name.startswith(("neck.", "head.", "patch_embed_coords.")):
                parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(features, changed.features(rgb), strict=True))
        for name, parameter in changed.named_parameters():
            if name.startswith("backbone.blocks.3."):
                parameter.zero_()
        assert not torch.equal(features[0], changed.features(rgb)[0])


class TestDescription:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"vit": ViTConfig(), "swin": SwinConfig()}, "a vit or a swin, not both"),
            ({"swin": SwinConfig(), "cross_heads": 5}, "width 512 cannot be split into 5"),
            ({"cross_depth": 0}, "must be at least 1"),
        ],
    )
    def test_what_cannot_be(self, fields, message) -> None:
        with pytest.raises(ValueError, match=message):
            ICMFormerConfig(**fields)

    def test_heads_of_a_swin(self) -> None:
        with pytest.raises(ValueError, match="width 98 of a Swin cannot be split into 4"):
            SwinConfig(width=98)

    @pytest.mark.parametrize(
        ("config", "millions"),
        [
            (ICMFormerConfig(), 126.381),
            (ICMFormerConfig(swin=SwinConfig(), size=(384, 384)), 121.460),
            (ICMFormerConfig(**SWIN_S), 68.407),
        ],
    )
    def test_parameters_of_the_released_classes(self, config, millions) -> None:
        """Without the layers that never run: the class token's, an unused head and norm, the head's upsampling."""
        with torch.device("meta"):
            network = build_network(config)
        unread = 0.957 if config.vit else 0.187
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions - unread, abs=0.1)

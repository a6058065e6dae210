"""The adapter: which one a description names, and the top-down one's arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models import MMMS
from mmms_deploy.models.checkpoint import random_network, read_checkpoint_file, save_checkpoint
from mmms_deploy.models.config import AdapterConfig
from mmms_deploy.models.description import parse_description
from mmms_deploy.models.fpn import ParallelFPN
from mmms_deploy.models.top_down_fpn import TopDownFPN
from tests.support.tiny import HIERA, tiny_config

SIZE = (64, 96)
WIDTHS = (8, 16, 24, 32)


def test_a_vit_has_the_papers_adapter() -> None:
    """A description of before, which names none, means what it meant."""
    config = parse_description({"family": "mmms"}, "here")
    assert config.adapter == AdapterConfig()
    network = MMMS(tiny_config())
    assert isinstance(network.fpn, ParallelFPN)
    assert network.config == tiny_config()
    assert isinstance(MMMS(tiny_config(adapter=AdapterConfig(kind="parallel_fpn"))).fpn, ParallelFPN)


def test_a_pyramid_has_the_top_down_one_and_says_so(tmp_path) -> None:
    network = random_network(tiny_config(backbone=HIERA, adapter=AdapterConfig(width=24)), 0)
    assert isinstance(network.fpn, TopDownFPN)
    assert network.fpn.lateral_32[0].weight.shape == (24, 64, 1, 1)
    save_checkpoint(tmp_path / "net.safetensors", network)
    file = read_checkpoint_file(tmp_path / "net.safetensors")
    assert file.description is not None
    assert file.description["adapter"] == {"kind": "top_down", "width": 24}
    assert {"fpn.lateral_4.0.weight", "fpn.lateral_4.1.bias", "fpn.output_32.0.weight"} <= file.state.keys()


def test_the_other_kind_is_refused() -> None:
    with pytest.raises(DescriptionError, match="adapter 'top_down' for the backbone timm:vit_tiny_patch16_224"):
        MMMS(tiny_config(adapter=AdapterConfig(kind="top_down")))
    with pytest.raises(DescriptionError, match="adapter 'parallel_fpn' for the backbone sam2_hiera_t"):
        MMMS(tiny_config(backbone=HIERA, adapter=AdapterConfig(kind="parallel_fpn")))


def test_a_width_is_positive() -> None:
    with pytest.raises(DescriptionError, match="width must be at least 1"):
        parse_description({"adapter": {"width": 0}}, "here")


def maps_of(strides: tuple[int, ...], size: tuple[int, int] = SIZE) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 4 + s, size[0] // s, size[1] // s, generator=generator) for s in strides)


def adapter(strides: tuple[int, ...]) -> TopDownFPN:
    torch.manual_seed(0)
    made = TopDownFPN([4 + s for s in strides], strides, WIDTHS, 12, SIZE)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@torch.no_grad()
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 8, 16), (8, 32), (16,)], ids=str)
def test_the_top_down_sum(strides) -> None:
    made, maps = adapter(strides), maps_of(strides)

    def lateral(stride: int) -> torch.Tensor:
        conv, norm = made.get_submodule(f"lateral_{stride}")
        x = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], maps[strides.index(stride)])
        x = x + conv.bias[:, None, None]
        centred = x - x.mean((1, 2, 3), keepdim=True)
        scaled = centred / (centred.square().mean((1, 2, 3), keepdim=True) + norm.eps).sqrt()
        return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]

    sums: dict[int, torch.Tensor] = {}
    above = None
    for scale in (32, 16, 8, 4):
        grid = (SIZE[0] // scale, SIZE[1] // scale)
        if scale > strides[-1]:
            continue
        enlarged = 0.0 if above is None else F.interpolate(above, size=grid, mode="bilinear", align_corners=False)
        if scale in strides:
            above = sums[scale] = lateral(scale) + enlarged
        else:
            sums[scale] = torch.as_tensor(enlarged)
    for scale in (8, 16, 32):
        if scale not in sums:
            x = sums[scale // 2]
            sums[scale] = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    for scale, got in zip((4, 8, 16, 32), made(maps), strict=True):
        torch.testing.assert_close(got, made.get_submodule(f"output_{scale}")(sums[scale]), rtol=1e-4, atol=1e-4)
        assert got.shape[1:] == (WIDTHS[(4, 8, 16, 32).index(scale)], SIZE[0] // scale, SIZE[1] // scale)


@torch.no_grad()
def test_maps_of_another_size_are_resized() -> None:
    """An encoder that runs at another size than the network, as the given size says."""
    strides = (4, 8, 16, 32)
    made, maps = adapter(strides), maps_of(strides, (128, 128))
    grids = [(SIZE[0] // s, SIZE[1] // s) for s in strides]
    conv, norm = made.lateral_4
    x = F.interpolate(norm(conv(maps[0])), size=grids[0], mode="bilinear", align_corners=False)
    captured = {}
    made.output_4.register_forward_pre_hook(lambda module, inputs: captured.update(sum=inputs[0]))
    outputs = made(maps)
    assert [tuple(y.shape[2:]) for y in outputs] == grids
    without = made((maps[0], *(torch.zeros_like(y) for y in maps[1:])))
    assert len(without) == 4
    rest = captured["sum"] - x
    assert rest.std() > 0

"""The windowed ViT: windows, positions, sizes."""

from __future__ import annotations

import pytest
import torch

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.windowed_vit import WindowedViT

NARROW = ViTConfig(dim=8, depth=8, heads=2)


def test_windows_are_rectangles_of_the_grid() -> None:
    vit = WindowedViT(NARROW, (448, 672))
    assert vit.windows == (2, 3)
    places = torch.arange(28 * 42, dtype=torch.float32).reshape(1, -1, 1)
    windows = vit.into_windows(places)
    assert windows.shape == (6, 14 * 14, 1)
    rows, columns = windows[4, :, 0] // 42, windows[4, :, 0] % 42
    assert (int(rows.min()), int(rows.max())) == (14, 27)
    assert (int(columns.min()), int(columns.max())) == (14, 27)
    assert torch.equal(vit.out_of_windows(windows), places)


def test_a_patch_of_another_window_is_seen_by_blocks_over_all_tokens_alone() -> None:
    torch.manual_seed(0)
    vit = WindowedViT(NARROW, (448, 448)).eval()
    assert vit.period == 2
    before = torch.randn(1, 28 * 28, 8)
    changed = before.clone()
    changed[0, -1] = 5 * torch.randn(8)  # in the last window
    with torch.no_grad():
        within, over_all = ((vit(changed, n, n) != vit(before, n, n)).any(2)[0].reshape(28, 28) for n in (1, 2))
    assert not within[:14].any()
    assert within[14:, 14:].float().mean() > 0.99
    assert over_all.float().mean() > 0.99


@pytest.mark.parametrize(("depth", "period"), [(8, 2), (12, 6), (24, 6), (32, 8)])
def test_every_fourth_part_of_the_blocks_sees_all_tokens(depth: int, period: int) -> None:
    assert WindowedViT(ViTConfig(dim=4, depth=depth, heads=1), (32, 32)).period == period


@pytest.mark.parametrize("size", [(448, 448), (672, 896), (512, 480), (32, 64)])
def test_sizes_of_equal_windows(size: tuple[int, int]) -> None:
    vit = WindowedViT(NARROW, size)
    with torch.no_grad():
        assert vit(vit.embed(torch.zeros(1, 3, *size))).shape == (1, size[0] * size[1] // 256, 8)


@pytest.mark.parametrize(
    ("size", "fix"), [((480, 928), "896 or 960"), ((464, 448), "448 or 480"), ((448, 452), "448 or 480")]
)
def test_other_sizes_are_refused_with_the_nearest_ones(size: tuple[int, int], fix: str) -> None:
    with pytest.raises(SizeError) as error:
        WindowedViT(NARROW, size)
    assert fix in error.value.fix


def test_a_larger_patch_has_larger_windows() -> None:
    vit = WindowedViT(ViTConfig(patch=(14, 14), dim=8, depth=8, heads=2), (448, 448))
    assert (vit.grid, vit.windows) == ((32, 32), (2, 2))


def test_positions_are_brought_to_another_grid() -> None:
    vit = WindowedViT(NARROW, (64, 96))
    table = torch.randn(1, 1 + 16, 8)
    adapted = vit.adapt_positions(table, None)
    assert adapted.shape == vit.pos_embed.shape
    assert torch.equal(adapted[:, :1], table[:, :1])
    expected = torch.nn.functional.interpolate(
        table[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2), size=(4, 6), mode="bicubic", align_corners=False
    )
    assert torch.equal(adapted[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 24, 8))


def test_heads_divide_the_width() -> None:
    with pytest.raises(DescriptionError, match="3 attention heads"):
        WindowedViT(ViTConfig(dim=8, depth=4, heads=3), (32, 32))

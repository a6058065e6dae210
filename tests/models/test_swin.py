"""The Swin Transformer, against timm's own and by hand."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from mmms_deploy.models.swin import (
    FORBIDDEN,
    PatchMerging,
    SwinBlock,
    SwinTransformer,
    from_windows,
    relative_position_index,
    shift_mask,
    swin_grids,
    to_windows,
)

WINDOW = 3
SETTINGS = {"dim": 8, "depths": (2, 2, 2, 2), "heads": (1, 2, 2, 4), "window": WINDOW}


def eventful(size: tuple[int, int]) -> SwinTransformer:
    """A network in which no weight is at its neutral value."""
    generator = torch.Generator().manual_seed(0)
    network = SwinTransformer(size, **SETTINGS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def timm_s(network: SwinTransformer, size: tuple[int, int]) -> torch.nn.Module:
    """timm's network with the same weights; it counts a merging to the stage after it, and has no norms of maps."""
    other = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=size,
        embed_dim=SETTINGS["dim"],
        depths=SETTINGS["depths"],
        num_heads=SETTINGS["heads"],
        window_size=WINDOW,
        always_partition=True,
        strict_img_size=False,
        num_classes=0,
    )
    state = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) + 1)
        state[".".join(parts)] = tensor
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert all(name.startswith("norm.") for name in missing)
    assert all(name.startswith(("norm0.", "norm1.", "norm2.", "norm3.")) for name in unexpected)
    return other.eval()


@pytest.mark.parametrize("size", [(96, 96), (96, 192)])
@torch.no_grad()
def test_it_computes_what_timm_s_does(size) -> None:
    """Where windows fit the maps; timm rolls before it pads, and the official code pads before it rolls."""
    network = eventful(size)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    found = network(image)
    raw = timm_s(network, size).forward_intermediates(image, intermediates_only=True)
    assert len(found) == len(raw) == 4
    for number, (mine, theirs) in enumerate(zip(found, raw, strict=True)):
        norm = network.get_submodule(f"norm{number}")
        torch.testing.assert_close(mine, norm(theirs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [(6, 9), (7, 10), (5, 4)])
@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_a_block_by_pairs_of_positions(grid, shifted) -> None:
    """Attention over all pairs of the padded map's positions that share a window and were close before the roll."""
    block = SwinBlock(8, 2, WINDOW, shifted=shifted).eval()
    for parameter in block.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(1, *grid, 8, generator=torch.Generator().manual_seed(1))
    height, width = (length + -length % WINDOW for length in grid)
    padded = torch.zeros(height, width, 8)
    padded[: grid[0], : grid[1]] = block.norm1(x)[0]
    tokens = padded.reshape(-1, 8)
    places = [divmod(n, width) for n in range(height * width)]
    shift = WINDOW // 2 if shifted else 0
    q, k, v = block.attn.qkv(tokens).reshape(-1, 3, 2, 4).permute(1, 2, 0, 3)
    scores = torch.full((2, len(places), len(places)), -torch.inf)
    for i, (yi, xi) in enumerate(places):
        for j, (yj, xj) in enumerate(places):
            own, other = (
                (((y - shift) % height) // WINDOW, ((z - shift) % width) // WINDOW) for y, z in ((yi, xi), (yj, xj))
            )
            if own == other and max(abs(yi - yj), abs(xi - xj)) < WINDOW:
                # In a window that the roll filled from both ends, only positions of one end are neighbours.
                row = (yi - yj + WINDOW - 1) * (2 * WINDOW - 1) + xi - xj + WINDOW - 1
                bias = block.attn.relative_position_bias_table[row]
                scores[:, i, j] = (q[:, i] * k[:, j]).sum(1) / 2 + bias
    mixed = (torch.softmax(scores, dim=2) @ v).transpose(0, 1).flatten(1)
    attended = block.attn.proj(mixed).reshape(height, width, 8)[: grid[0], : grid[1]]
    expected = x + attended
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(x, shift_mask(grid, WINDOW)), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_image_that_fits_no_patch_is_padded_with_zeros() -> None:
    network = eventful((38, 45))
    image = torch.randn(1, 3, 38, 45)
    padded = torch.zeros(1, 3, 40, 48)
    padded[:, :, :38, :45] = image
    for mine, other in zip(network(image), network(padded), strict=True):
        assert torch.equal(mine, other)
    assert network.grids == ((10, 12), (5, 6), (3, 3), (2, 2)) == swin_grids((38, 45))


def test_which_bias_belongs_to_which_pair() -> None:
    index = relative_position_index(WINDOW)
    for i in range(WINDOW**2):
        for j in range(WINDOW**2):
            (yi, xi), (yj, xj) = divmod(i, WINDOW), divmod(j, WINDOW)
            assert index[i, j] == (yi - yj + WINDOW - 1) * (2 * WINDOW - 1) + xi - xj + WINDOW - 1


@pytest.mark.parametrize(("grid", "window"), [((8, 12), 4), ((7, 10), 4), ((9, 9), 3), ((3, 3), 4)])
def test_the_mask_keeps_apart_what_only_the_roll_brought_together(grid, window) -> None:
    """Positions that were neighbours before the roll may attend to each other; others may not."""
    mask = shift_mask(grid, window)
    height, width = (length + -length % window for length in grid)
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=2)
    rolled = to_windows(torch.roll(places, (-(window // 2),) * 2, (0, 1))[None], window)
    near = ((rolled[:, :, None] - rolled[:, None, :]).abs() < window).all(dim=3)
    assert mask.shape == (rolled.shape[0], 1, window**2, window**2)
    if min(height, width) > window:
        assert torch.equal(mask[:, 0] == 0, near)
    else:  # one window: everything is near, and the mask still separates the rolled part
        assert bool((mask == FORBIDDEN).any())


def test_windows_are_cut_and_put_together() -> None:
    x = torch.arange(2 * 6 * 8 * 3.0).reshape(2, 6, 8, 3)
    windows = to_windows(x, 2)
    assert torch.equal(windows[1], x[0, :2, 2:4].reshape(4, 3))
    assert torch.equal(windows[12], x[1, :2, :2].reshape(4, 3))
    assert torch.equal(from_windows(windows, (6, 8), 2), x)


@torch.no_grad()
def test_the_order_of_merged_neighbours() -> None:
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    found: Tensor = merging(torch.arange(9.0).reshape(1, 3, 3, 1))
    assert found.shape == (1, 2, 2, 4)
    assert found[0, 0, 0].tolist() == [0, 3, 1, 4]
    assert found[0, 1, 1].tolist() == [8, 0, 0, 0]

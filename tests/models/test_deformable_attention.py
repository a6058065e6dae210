"""Deformable attention against a computation point by point, positions by hand, and the pixel decoder's maps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mmms_deploy.models.deformable_attention import DeformableAttention, DeformableTransformer, cell_centres
from mmms_deploy.models.pixel_decoder import PixelDecoder
from mmms_deploy.models.sine_position import sine_code, sine_positions

GRIDS = ((2, 3), (3, 5))
SETTINGS = {"depth": 1, "hidden": 16, "heads": 4, "points": 2}


def eventful(module: torch.nn.Module) -> torch.nn.Module:
    """The module in float64, with no weight at a neutral value."""
    generator = torch.Generator().manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def at(level: Tensor, x: float, y: float) -> Tensor:
    """A level (h, w, c) between its cells, x and y in cells from the first one's centre; zeros around it."""
    total = torch.zeros(level.shape[2], dtype=level.dtype)
    left, top = math.floor(x), math.floor(y)
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < level.shape[0] and 0 <= column < level.shape[1]:
            total += (1 - abs(x - column)) * (1 - abs(y - row)) * level[row, column]
    return total


@torch.no_grad()
def test_every_point_is_where_the_offsets_say() -> None:
    """One token at a time, each head, level and point by itself (Deformable DETR, equation 3)."""
    heads, points, dim, grids = 2, 2, 4, ((1, 2), (2, 3))
    attention = eventful(DeformableAttention(dim, heads, points, grids))
    count = sum(height * width for height, width in grids)
    query, source = numbers(1, count, dim), numbers(1, count, dim).flip(1)
    offsets = attention.sampling_offsets(query).reshape(count, heads, len(grids), points, 2)
    weights = attention.attention_weights(query).reshape(count, heads, -1).softmax(dim=2)
    values = attention.value_proj(source)
    mixed = torch.zeros_like(values)
    places = [(y, x, h, w) for h, w in grids for y in range(h) for x in range(w)]
    for (token, (row, column, height, width)), head in itertools.product(enumerate(places), range(heads)):
        first, part = 0, slice(head * dim // heads, (head + 1) * dim // heads)
        for level, (h, w) in enumerate(grids):
            cells = values[0, first : first + h * w, part].reshape(h, w, -1)
            first += h * w
            for point in range(points):
                dx, dy = offsets[token, head, level, point].tolist()
                x, y = (column + 0.5) / width * w - 0.5 + dx, (row + 0.5) / height * h - 0.5 + dy
                mixed[0, token, part] += weights[token, head, level * points + point] * at(cells, x, y)
    torch.testing.assert_close(attention(query, source), attention.output_proj(mixed), rtol=0, atol=1e-6)


def test_centres_of_cells() -> None:
    centres = cell_centres(((1, 2), (2, 1)))
    assert centres.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]


def test_positions_by_hand() -> None:
    positions = sine_positions((2, 3), 8)
    assert positions.shape == (6, 8)
    y, x = 2 * math.pi * 2 / (2 + 1e-6), 2 * math.pi * 1 / (3 + 1e-6)
    expected = [f(v) for v in (y, y / 100, x, x / 100) for f in (math.sin, math.cos)]
    assert positions[3].tolist() == pytest.approx(expected, abs=1e-5), "row 1, column 0"
    assert sine_code(torch.tensor([[1.0, 2.0]]), 6).shape == (1, 2, 6)


@torch.no_grad()
def test_maps_keep_their_place_among_the_levels() -> None:
    """Tokens are cut apart as they were joined: layers without effect but the norms leave every map where it was."""
    transformer = eventful(DeformableTransformer(1, 8, 16, 2, 2, GRIDS))
    layer = transformer.encoder.layers[0]
    for part in (layer.self_attn.output_proj, layer.linear2):
        part.weight.zero_()
        part.bias.zero_()
    maps = [numbers(2, 8, *grid) for grid in GRIDS]
    for found, given in zip(transformer(maps), maps, strict=True):
        expected = layer.norm2(layer.norm1(given.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_levels_are_told_apart_by_their_mark() -> None:
    transformer = eventful(DeformableTransformer(1, 8, 16, 2, 2, GRIDS))
    maps = [numbers(1, 8, *grid) for grid in GRIDS]
    before = transformer(maps)
    transformer.level_embed[1] += 1
    after = transformer(maps)
    assert torch.equal(before[0], after[0]), "the coarse level's tokens read values only, and these have no mark"
    assert (before[1] - after[1]).abs().max() > 1e-3


@pytest.mark.parametrize("refine", [False, True])
@torch.no_grad()
def test_the_pixel_decoders_maps(refine) -> None:
    size, widths = (32, 64), (8, 16, 24, 40)
    grids = [(size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)]
    decoder = eventful(PixelDecoder(widths, grids, 32, **SETTINGS, refine=refine))
    maps = [numbers(2, width, *grid) for width, grid in zip(widths, grids, strict=True)]
    pixels, mixed = decoder(maps)
    assert pixels.shape == (2, 32, 8, 16)
    assert [tuple(level.shape[2:]) for level in mixed] == [(1, 2), (2, 4), (4, 8)], "coarsest first"
    assert any(name.startswith("refine.") for name in decoder.state_dict()) == refine
    for changed in range(4):
        others = [x.flip(3) if number == changed else x for number, x in enumerate(maps)]
        assert (decoder(others)[0] - pixels).abs().max() > 1e-4, "every map counts"

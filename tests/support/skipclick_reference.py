"""SkipClick a second time, as functions of an official state dict; shares nothing with the package.

Written from the description of what the official software computes: its click maps, its resizing, its feedback.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
EXTRACTOR = "feature_extractor.dinov2."
TAKEN = (2, 5, 8, 11)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    count, dim = x.shape[1:]
    q, k, v = linear(state, f"{name}.qkv", x)[0].split(dim, dim=1)
    answers = []
    for h in range(heads):
        part = slice(h * dim // heads, (h + 1) * dim // heads)
        weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(dim // heads), dim=1)
        answers.append(weights @ v[:, part])
    assert len(answers[0]) == count
    return linear(state, f"{name}.proj", torch.cat(answers, dim=1)[None])


def block(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    first = state.get(f"{name}.ls1.gamma", torch.tensor(1.0))
    second = state.get(f"{name}.ls2.gamma", torch.tensor(1.0))
    x = x + first * attention(state, f"{name}.attn", norm(state, f"{name}.norm1", x), heads)
    hidden = linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", x))
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + second * linear(state, f"{name}.mlp.fc2", hidden)


def table(state: State, name: str, skip: int, size: tuple[int, int], antialias: bool) -> Tensor:
    """A square position table at another grid, without its first entries."""
    entries = state[name][:, skip:]
    side = math.isqrt(entries.shape[1])
    maps = entries.transpose(1, 2).unflatten(2, (side, side))
    if size != (side, side):
        maps = F.interpolate(maps, size=size, mode="bicubic", align_corners=False, antialias=antialias)
    return maps.flatten(2).transpose(1, 2)


def patches(state: State, name: str, image: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(image, weight, state[f"{name}.bias"], stride=weight.shape[2]).flatten(2).transpose(1, 2)


def dinov2(state: State, image: Tensor, heads: int) -> list[Tensor]:
    """The raw patch tokens after the blocks 2, 5, 8 and 11, counted from 0."""
    size = state[f"{EXTRACTOR}patch_embed.proj.weight"].shape[2]
    grid = (image.shape[2] // size, image.shape[3] // size)
    x = patches(state, f"{EXTRACTOR}patch_embed.proj", image) + table(state, f"{EXTRACTOR}pos_embed", 1, grid, True)
    first = state[f"{EXTRACTOR}cls_token"] + state[f"{EXTRACTOR}pos_embed"][:, :1]
    x = torch.cat([first, state[f"{EXTRACTOR}register_tokens"], x], dim=1)
    taken = []
    for number in range(TAKEN[-1] + 1):
        x = block(state, f"{EXTRACTOR}blocks.{number}", x, heads)
        if number in TAKEN:
            taken.append(x[:, 5:])
    return taken


def group_norm(state: State, name: str, x: Tensor) -> Tensor:
    y = (x - x.mean((1, 2, 3), keepdim=True)) / torch.sqrt(x.var((1, 2, 3), unbiased=False, keepdim=True) + 1e-5)
    return y * state[f"{name}.weight"].reshape(1, -1, 1, 1) + state[f"{name}.bias"].reshape(1, -1, 1, 1)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


class Official:
    """The official software: a picture is set, clicks are answered.

    Args:
        state: An official state dict.
        size: Network size (H, W).
        heads: Attention heads of the extractor and of the mixing blocks.
        levels: How many of the extractor's four results are used.
    """

    def __init__(self, state: State, size: tuple[int, int], heads: tuple[int, int], levels: int = 4) -> None:
        self.state, self.size, self.heads, self.levels = state, size, heads, levels
        self.skips = state["neck.down_16.0.weight"].shape[1] == 2 * state["patch_embed_coords.proj.bias"].shape[0]

    def set_image(self, picture: np.ndarray) -> None:
        """(H0, W0, 3) uint8."""
        self.original = picture.shape[:2]
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        image = F.interpolate(image, size=self.size, mode="bilinear", align_corners=True)
        image = (image - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(STD).reshape(1, 3, 1, 1)
        self.taken = dinov2(self.state, image, self.heads[0])
        self.points: list[tuple[float, float, bool]] = []
        self.previous = torch.zeros(1, 1, *self.original)

    def click(self, x: float, y: float, positive: bool) -> Tensor:
        """Click and return the probability (H0, W0), which is what the next click sees."""
        self.points.append((y / self.original[0] * self.size[0], x / self.original[1] * self.size[1], positive))
        previous = F.interpolate(self.previous, size=self.size, mode="bilinear", align_corners=True)
        self.previous = self.answer(self.logits(previous))
        return self.previous[0, 0]

    def answer(self, logits: Tensor) -> Tensor:
        return F.interpolate(torch.sigmoid(logits), size=self.original, mode="bilinear", align_corners=True)

    def disks(self, positive: bool) -> Tensor:
        least = torch.full(self.size, 1e6)
        rows, columns = torch.meshgrid(torch.arange(self.size[0]), torch.arange(self.size[1]), indexing="ij")
        for row, column, kind in self.points:
            if kind == positive:
                least = torch.minimum(least, (rows - row) ** 2 + (columns - column) ** 2)
        return (least <= 25).float()

    def logits(self, previous: Tensor) -> Tensor:
        """Logits (1, 1, H, W) for the clicks so far and a previous probability."""
        state = self.state
        coords = torch.stack([previous[0, 0], self.disks(True), self.disks(False)])[None]
        size = state["patch_embed_coords.proj.weight"].shape[2]
        grid = (self.size[0] // size, self.size[1] // size)
        used = self.taken if self.levels == 4 else self.taken[:1]
        x = linear(state, "fuse", torch.cat(used, dim=2)) if self.levels == 4 else used[0]
        x = (
            x
            + patches(state, "patch_embed_coords.proj", coords)
            + table(state, "backbone_mix.pos_embed", 0, grid, False)
        )
        number = 0
        while f"backbone_mix.blocks.{number}.norm1.weight" in state:
            x = block(state, f"backbone_mix.blocks.{number}", x, self.heads[1])
            number += 1
        mixed = x.transpose(1, 2).unflatten(2, grid)
        seen = [mixed] * 4
        if self.skips:
            seen = [torch.cat([mixed, s.transpose(1, 2).unflatten(2, grid)], dim=1) for s in self.taken]
        logits = self.head(self.neck(seen))
        return F.interpolate(logits, size=self.size, mode="bilinear", align_corners=True)

    def neck(self, seen: list[Tensor]) -> list[Tensor]:
        state = self.state

        def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
            return F.conv2d(x, state[f"neck.{name}.weight"], state[f"neck.{name}.bias"], stride=stride)

        def up(name: str, x: Tensor) -> Tensor:
            return F.conv_transpose2d(x, state[f"neck.{name}.weight"], state[f"neck.{name}.bias"], stride=2)

        def gn(name: str, x: Tensor) -> Tensor:
            return group_norm(state, f"neck.{name}", x)

        a = gelu(gn("down_4.1", up("down_4.0", seen[0])))
        a = gelu(gn("down_4.6", conv("down_4.5", gn("down_4.4", up("down_4.3", a)))))
        b = gelu(gn("down_8.3", conv("down_8.2", gn("down_8.1", up("down_8.0", seen[1])))))
        c = gelu(gn("down_16.1", conv("down_16.0", seen[2])))
        d = gelu(gn("down_32.3", conv("down_32.2", gn("down_32.1", conv("down_32.0", seen[3], 2)))))
        return [a, b, c, d]

    def head(self, maps: list[Tensor]) -> Tensor:
        state, levels = self.state, []
        for number, x in enumerate(maps):
            name = f"head.convs.{number}.conv"
            level = torch.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"]))
            levels.append(F.interpolate(level, size=maps[0].shape[2:], mode="bilinear", align_corners=False))
        name = "head.fusion_conv.conv"
        fused = torch.relu(F.conv2d(torch.cat(levels, dim=1), state[f"{name}.weight"], state[f"{name}.bias"]))
        return F.conv2d(fused, state["head.conv_seg.weight"], state["head.conv_seg.bias"])

"""SAM 2's image encoder: files as its release lays them out, and its arithmetic written a second time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.releases import State, Weights

TRUNK, NECK, DECODER = "image_encoder.trunk.", "image_encoder.neck.", "sam_mask_decoder."
STAGES = (1, 2, 2, 1)
WINDOWS = (8, 4, 14, 7)
GLOBAL = (4,)


def sam2(
    *, dim: int = 8, stages: tuple[int, ...] = STAGES, table: int = 7, memory: bool = True, seed: int = 0
) -> State:
    """Weights of ``sam2_hiera_tiny.pt`` under its names, narrow; of decoder and memory only some."""
    w = Weights(seed)
    trunk: State = {"pos_embed": w.normal(1, dim, table, table), "pos_embed_window": w.normal(1, dim, 8, 8)}
    trunk.update(w.layer("patch_embed.proj", dim, 3, 7, 7))
    number, inputs = 0, dim
    for stage, depth in enumerate(stages):
        width = dim * 2**stage
        for _ in range(depth):
            trunk.update(_block(w, f"blocks.{number}", inputs, width))
            number, inputs = number + 1, width
    state = {TRUNK + name: tensor for name, tensor in trunk.items()}
    for number in range(4):
        state.update(w.layer(f"{NECK}convs.{number}.conv", 256, dim * 2 ** (3 - number), 1, 1))
    state.update(w.layer(f"{DECODER}conv_s0", 32, 256, 1, 1))
    state.update(w.layer(f"{DECODER}conv_s1", 64, 256, 1, 1))
    if memory:
        state["no_mem_embed"] = w.normal(1, 1, 256)
        state["maskmem_tpos_enc"] = w.normal(7, 1, 1, 64)
        state.update(w.layer("memory_attention.layers.0.self_attn.q_proj", 256, 256))
        state.update(w.layer(f"{DECODER}output_upscaling.0", 64, 256, 2, 2))
        state["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = w.normal(2, 128)
    return state


def sam2_file(**settings: Any) -> dict[str, Any]:
    """What ``torch.load`` gives for an official file."""
    return {"model": sam2(**settings)}


def _block(w: Weights, name: str, inputs: int, width: int) -> Iterator[tuple[str, Tensor]]:
    yield from w.norm(f"{name}.norm1", inputs)
    yield from w.layer(f"{name}.attn.qkv", 3 * width, inputs)
    yield from w.layer(f"{name}.attn.proj", width, width)
    yield from w.norm(f"{name}.norm2", width)
    yield from w.layer(f"{name}.mlp.layers.0", 4 * width, width)
    yield from w.layer(f"{name}.mlp.layers.1", width, 4 * width)
    if inputs != width:
        yield from w.layer(f"{name}.proj", width, inputs)


def expected_stages(
    state: State,
    rgb: Tensor,
    *,
    stages: tuple[int, ...] = STAGES,
    windows: tuple[int, ...] = WINDOWS,
    everywhere: tuple[int, ...] = GLOBAL,
    heads: int = 1,
) -> list[Tensor]:
    """The trunk's four maps, window by window.

    Args:
        state: Weights under the release's names.
        rgb: (1, 3, H, W).
        stages: Blocks of each stage.
        windows: Side of the windows of each stage; the first block of a stage has that of the stage before.
        everywhere: Numbers of the blocks without windows.
        heads: Heads of the first stage.
    """
    p = {name.removeprefix(TRUNK): t.to(rgb.dtype) for name, t in state.items() if name.startswith(TRUNK)}
    x = F.conv2d(rgb, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=4, padding=3)
    height, width = x.shape[2:]
    x = x + F.interpolate(p["pos_embed"], size=(height, width), mode="bicubic", align_corners=False)
    rows, columns = torch.arange(height) % 8, torch.arange(width) % 8
    x = (x + p["pos_embed_window"][:, :, rows][:, :, :, columns])[0].permute(1, 2, 0)
    maps, number = [], 0
    for stage, depth in enumerate(stages):
        for place in range(depth):
            pooled = stage > 0 and place == 0
            side = windows[stage - 1] if pooled else windows[stage]
            q = {
                name.removeprefix(f"blocks.{number}."): t
                for name, t in p.items()
                if name.startswith(f"blocks.{number}.")
            }
            x = _run_block(x, q, None if number in everywhere else side, heads * 2**stage, pooled=pooled)
            number += 1
        maps.append(x.permute(2, 0, 1)[None])
    return maps


def _run_block(x: Tensor, p: State, side: int | None, heads: int, *, pooled: bool) -> Tensor:
    height, width = x.shape[:2]
    normed = F.layer_norm(x, x.shape[2:], p["norm1.weight"], p["norm1.bias"], 1e-6)
    step = 2 if pooled else 1
    if "proj.weight" in p:
        x = F.linear(normed, p["proj.weight"], p["proj.bias"])
    if pooled:
        x = _pool(x)
    mixed = torch.zeros_like(x)
    for top in range(0, height, side or height):
        for left in range(0, width, side or width):
            window = torch.zeros(side or height, side or width, normed.shape[2], dtype=x.dtype)
            part = normed[top : top + len(window), left : left + window.shape[1]]
            window[: part.shape[0], : part.shape[1]] = part
            out = _attend(window, p, heads, pooled=pooled)
            place = mixed[top // step : (top + len(window)) // step, left // step : (left + window.shape[1]) // step]
            place[:] = out[: place.shape[0], : place.shape[1]]
    x = x + mixed
    normed = F.layer_norm(x, x.shape[2:], p["norm2.weight"], p["norm2.bias"], 1e-6)
    hidden = F.gelu(F.linear(normed, p["mlp.layers.0.weight"], p["mlp.layers.0.bias"]))
    return x + F.linear(hidden, p["mlp.layers.1.weight"], p["mlp.layers.1.bias"])


def _attend(x: Tensor, p: State, heads: int, *, pooled: bool) -> Tensor:
    query, key, value = F.linear(x, p["attn.qkv.weight"], p["attn.qkv.bias"]).chunk(3, dim=2)
    if pooled:
        query = _pool(query)
    shape, parts = query.shape, []
    for q, k, v in zip(*(t.flatten(0, 1).chunk(heads, dim=1) for t in (query, key, value)), strict=True):
        parts.append(torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=1) @ v)
    return F.linear(torch.cat(parts, dim=1).reshape(shape), p["attn.proj.weight"], p["attn.proj.bias"])


def _pool(x: Tensor) -> Tensor:
    """The largest of 2 x 2 tokens, (H, W, C) -> (H / 2, W / 2, C)."""
    return torch.stack([x[i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(dim=0)


def expected_neck(state: State, stages: list[Tensor]) -> list[Tensor]:
    """What the neck gives to the mask decoder at strides 4, 8 and 16, and its map of stride 32."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight, bias = (state[f"{name}.{part}"].to(x.dtype) for part in ("weight", "bias"))
        return torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x) + bias[:, None, None]

    x4, x8, x16, x32 = (conv(f"{NECK}convs.{3 - k}.conv", x) for k, x in enumerate(stages))
    x16 = x16 + x32.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return [conv(f"{DECODER}conv_s0", x4), conv(f"{DECODER}conv_s1", x8), x16, x32]

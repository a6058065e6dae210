"""What is measured: networks by name, exported when their bundles are not there yet, and made-up images and clicks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bench.errors import RecipeError
from mmms_deploy.bundle import Bundle, Manifest, find_bundle
from mmms_deploy.bundle.packed import NAMES
from mmms_deploy.imaging.modality import as_stored
from mmms_deploy.installed import pip_install
from mmms_deploy.progress import OnProgress
from mmms_deploy.spelling import did_you_mean

# --- networks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """A network to measure.

    Attributes:
        what: What it is, in words.
        bundle: Name of its bundle.
        random_seed: Seed of random weights; None for a bundle that ships with mmms-deploy.
        overrides: Fields of the network's description that differ from those of the full-size network.
    """

    what: str
    bundle: str
    random_seed: int | None = 0
    overrides: dict[str, Any] = field(default_factory=dict)


def _with(*modalities: str) -> dict[str, Any]:
    return {"modalities": [{"name": name, "channels": 3} for name in modalities]}


RECIPES = {
    "demo": Recipe("the demo of mmms-deploy, SAM 2's Hiera-T, RGB", "demo", random_seed=None),
    "demo-small": Recipe("the small demo of mmms-deploy, RGB", "demo-small", random_seed=None),
    "rgb": Recipe("full-size MMMS, DINOv2-B14, RGB, random weights", "mmms-rgb"),
    "rgbd": Recipe("full-size MMMS, DINOv2-B14, RGB and depth, random weights", "mmms-rgbd", overrides=_with("depth")),
    "rgbdl": Recipe(
        "full-size MMMS, DINOv2-B14, RGB, depth and lidar, random weights",
        "mmms-rgbdl",
        overrides=_with("depth", "lidar"),
    ),
}


def recipe(name: str) -> Recipe:
    """Return a recipe by its own name or by its bundle's.

    Raises:
        RecipeError: No recipe has that name.
    """
    found = next((known for key, known in RECIPES.items() if name in (key, known.bundle)), None)
    if found is None:
        given = f"recipe {name!r} was requested{did_you_mean(name, RECIPES)}"
        raise RecipeError(given, expected=f"one of {', '.join(RECIPES)}", fix="correct it")
    return found


def bundle_of(name: str, folder: Path = Path("bundles"), *, on_progress: OnProgress | None = None) -> Path:
    """Return the path of a recipe's bundle: one that exists, one that ships with the package, or one exported now.

    Args:
        name: Name of the recipe.
        folder: Where bundles are.
        on_progress: Receives every step of an export as it starts.

    Raises:
        RecipeError: There is no such recipe, another bundle has its name, or the ``[export]`` extra is missing.
        ExportError: The export failed.
    """
    wanted = recipe(name)
    path = folder / wanted.bundle
    if path.exists():
        _check(wanted, path)
        return path
    if wanted.bundle in NAMES:
        return find_bundle(wanted.bundle)
    try:
        from mmms_deploy.export import exporter
    except ImportError as error:
        raise RecipeError(
            f"there is no bundle at {path}, and what exports one is not installed: {error.name or error}",
            expected="the [export] extra, or the bundle",
            fix=f"{pip_install('export,cpu')}, or name a bundle that exists instead of a recipe",
        ) from error
    source = exporter.Source(random_seed=wanted.random_seed, overrides=dict(wanted.overrides))
    exporter.export_bundle(source, path, on_progress=on_progress)
    return path


def _check(wanted: Recipe, path: Path) -> None:
    """Refuse a bundle that has the recipe's name and is of another network."""
    manifest = Bundle(path, verify=False).manifest
    modalities = [modality.name for modality in manifest.modalities]
    expected = [str(modality["name"]) for modality in wanted.overrides.get("modalities", [])]
    if manifest.provenance.random_seed != wanted.random_seed or modalities != expected:
        raise RecipeError(
            f"{path} is not {wanted.what}",
            expected="the recipe's own bundle under its name",
            fix="pass the bundle's path instead of the recipe's name, or move the bundle away",
            command_fix=f"name the bundle instead of the recipe: mmms-bench {path}; or move it away",
        )


# --- images and clicks ------------------------------------------------------------------------------------------------

Point = tuple[float, float, bool]
"""A click: x and y in image pixels, and whether it is positive."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with its modalities and clicks.

    Attributes:
        rgb: (H0, W0, 3) uint8.
        modalities: (H0, W0, C) numbers as a file would hold them, by name.
        clicks: The clicks, the first one positive.
    """

    rgb: npt.NDArray[np.uint8]
    modalities: dict[str, npt.NDArray[Any]]
    clicks: tuple[Point, ...]


def make_pictures(manifest: Manifest, count: int, clicks: int, size: tuple[int, int]) -> list[Picture]:
    """Return pictures for a network, the same in every run.

    They are coarse noise; the modalities lie in the range that the network's normalisation expects.

    Args:
        manifest: The bundle's manifest.
        count: Number of pictures.
        clicks: Clicks on each.
        size: (H0, W0) in pixels.
    """
    return [_picture(manifest, seed, clicks, size) for seed in range(count)]


def _picture(manifest: Manifest, seed: int, clicks: int, size: tuple[int, int]) -> Picture:
    rng = np.random.default_rng(seed)
    height, width = size
    modalities = {}
    for spec in manifest.modalities:
        standard = _coarse(rng, size, spec.channels) * 4.0 - 2.0
        modalities[spec.name] = as_stored(standard * np.asarray(spec.std) + np.asarray(spec.mean), spec)
    places = rng.random((clicks, 2)) * [width - 1, height - 1]
    return Picture(
        rgb=(_coarse(rng, size, 3) * 255.0).astype(np.uint8),
        modalities=modalities,
        clicks=tuple((float(x), float(y), index % 3 != 1) for index, (x, y) in enumerate(places.tolist())),
    )


def _coarse(rng: np.random.Generator, size: tuple[int, int], channels: int) -> npt.NDArray[Any]:
    """Return (H0, W0, channels) in [0, 1): squares of 16 x 16 pixels, each of one random value."""
    height, width = size
    blocks = rng.random((-(-height // 16), -(-width // 16), channels))
    return blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]

"""Networks that can be measured by name: their bundles are exported when they are not there yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmms_deploy.bench.errors import RecipeError
from mmms_deploy.bundle import Bundle
from mmms_deploy.progress import OnProgress


@dataclass(frozen=True)
class Recipe:
    """A network to measure.

    Attributes:
        what: What it is, for people.
        bundle: Name of its bundle.
        random_seed: Seed of random weights; None for the demo checkpoint.
        overrides: Fields of the network's description that differ from the full-size default.
    """

    what: str
    bundle: str
    random_seed: int | None = 0
    overrides: dict[str, Any] = field(default_factory=dict)


def _with(*modalities: str) -> dict[str, Any]:
    return {"modalities": [{"name": name, "channels": 3} for name in modalities]}


RECIPES = {
    "demo": Recipe("the checkpoint that ships with mmms-deploy", "demo", random_seed=None),
    "rgb": Recipe("full-size MMMS, DINOv2-B14, RGB, random weights", "mmms-rgb"),
    "rgbd": Recipe("full-size MMMS, DINOv2-B14, RGB and depth, random weights", "mmms-rgbd", overrides=_with("depth")),
    "rgbdl": Recipe(
        "full-size MMMS, DINOv2-B14, RGB, depth and lidar, random weights",
        "mmms-rgbdl",
        overrides=_with("depth", "lidar"),
    ),
}


def recipe(name: str) -> Recipe:
    """Return a recipe, by its name or by that of its bundle.

    Raises:
        RecipeError: There is none of that name.
    """
    found = next((known for key, known in RECIPES.items() if name in (key, known.bundle)), None)
    if found is None:
        raise RecipeError(f"recipe {name!r} was asked for", expected=f"one of {', '.join(RECIPES)}", fix="correct it")
    return found


def bundle_of(
    name: str,
    folder: Path = Path("bundles"),
    *,
    on_progress: OnProgress | None = None,
) -> Path:
    """Return the path of a recipe's bundle, after exporting it when it does not exist.

    Args:
        name: Name of the recipe.
        folder: Where bundles are.
        on_progress: Receives every step of an export as it starts.

    Raises:
        RecipeError: There is no such recipe, another bundle has its name, or exporting needs what is not installed.
        ExportError: The export failed.
    """
    wanted = recipe(name)
    path = folder / wanted.bundle
    if path.exists():
        _check(wanted, path)
        return path
    try:
        from mmms_deploy.export import exporter
    except ImportError as error:
        raise RecipeError(
            f"there is no bundle at {path}, and exporting one needs what is not installed: {error.name or error}",
            expected="the [export] extra, or the bundle",
            fix='pip install "mmms-deploy[export,cpu]", or name a bundle that exists instead of a recipe',
        ) from error
    source = exporter.Source(
        checkpoint=exporter.demo_checkpoint() if wanted.random_seed is None else None,
        random_seed=wanted.random_seed,
        overrides=dict(wanted.overrides),
    )
    exporter.export_bundle(source, path, on_progress=on_progress)
    return path


def _check(wanted: Recipe, path: Path) -> None:
    """Refuse a bundle that only has the recipe's name."""
    manifest = Bundle(path, verify=False).manifest
    modalities = [modality.name for modality in manifest.modalities]
    expected = [str(modality["name"]) for modality in wanted.overrides.get("modalities", [])]
    if manifest.provenance.random_seed != wanted.random_seed or modalities != expected:
        raise RecipeError(
            f"{path} is not {wanted.what}",
            expected="the recipe's own bundle under its name",
            fix=f"name the bundle instead of the recipe: mmms-bench {path}; or move it away",
        )

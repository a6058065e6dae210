"""Pictures of results: masks are not kept, so the clicks of a case are repeated."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from mmms_deploy.evaluation.clicking import ObjectResult
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.errors import CaseError
from mmms_deploy.evaluation.measures import area_under_curve
from mmms_deploy.evaluation.predictor import Predictor, settled
from mmms_deploy.evaluation.results import SceneResult
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.replay.metrics import iou
from mmms_deploy.session.overlay import draw_overlay
from mmms_deploy.session.result import Click

_WINDOW = 0.4
"""Pictures of small objects show a part of the image, at least this share of its sides."""


@dataclass(frozen=True)
class Case:
    """One object of an evaluation.

    Attributes:
        scene: Its scene's results.
        result: Its own.
    """

    scene: SceneResult
    result: ObjectResult

    @property
    def name(self) -> str:
        """Its name: ``DATASET:SCENE:OBJECT``."""
        return f"{self.scene.dataset}:{self.scene.scene}:{self.result.name}"


def cases_of(results: Iterable[SceneResult]) -> Iterator[Case]:
    """Yield all objects of an evaluation."""
    return (Case(scene, one) for scene in results for one in scene.objects)


def find_case(results: Iterable[SceneResult], name: str) -> Case:
    """Return the case with a name, or with a part of a name that only one case has.

    Raises:
        CaseError: There is none, or there are several.
    """
    found: list[Case] = []
    name = unicodedata.normalize("NFC", name)
    if name.startswith(("'=", "'+", "'-", "'@")):
        name = name[1:]  # copied from objects.csv, where the apostrophe keeps spreadsheets from computing it
    for case in cases_of(results):
        if case.name == name:
            return case
        if name in case.name:
            found.append(case)
    if len(found) == 1:
        return found[0]
    shown = ", ".join(case.name for case in found[:5]) + (", ..." if len(found) > 5 else "")
    raise CaseError(
        f"{len(found)} cases have {name!r} in their name" + (f": {shown}" if found else ""),
        expected="DATASET:SCENE:OBJECT as in objects.csv and the report, or a part that no other case has",
        fix="look it up in objects.csv",
    )


def worst_cases(results: Iterable[SceneResult], count: int, max_clicks: int) -> dict[str, list[Case]]:
    """Return the objects with the least area under their IoU curve, worst first, by data set.

    Args:
        results: The scenes.
        count: How many of each data set.
        max_clicks: The limit.
    """
    found: dict[str, list[tuple[float, int, int, Case]]] = {}
    for scene in results:
        kept = found.setdefault(scene.dataset, [])
        for number, one in enumerate(scene.objects):
            kept.append((area_under_curve(one.ious, max_clicks), scene.index, number, Case(scene, one)))
        kept.sort(key=lambda entry: entry[:3])
        del kept[count:]
    return {name: [case for *_, case in entries] for name, entries in found.items()}


@dataclass(frozen=True)
class Frame:
    """The answer to a click.

    Attributes:
        clicks: All clicks so far.
        mask: (H, W) bool.
        iou: IoU of the mask, measured again.
    """

    clicks: tuple[Click, ...]
    mask: Mask
    iou: float


def replay(predictor: Predictor, scene: Scene, result: ObjectResult) -> Iterator[Frame]:
    """Repeat the clicks of a case.

    Args:
        predictor: What was evaluated.
        scene: The case's scene, with the modalities that the predictor receives.
        result: The case's results.

    Raises:
        CaseError: The scene has no such object.
    """
    surface = surface_of(scene, result.name)
    predictor.set_image(scene.image, **scene.modalities)
    clicks: list[Click] = []
    for x, y, positive in result.clicks:
        clicks.append(Click(x, y, positive))
        mask = settled(predictor, predictor.click(x, y, positive), surface.mask, scene.void)
        yield Frame(tuple(clicks), mask, iou(mask, surface.mask, scene.void))


def surface_of(scene: Scene, name: str) -> Surface:
    """Return the surface with a name.

    Raises:
        CaseError: The scene has none.
    """
    for surface in scene.surfaces:
        if surface.name == name:
            return surface
    raise CaseError(
        f"scene {scene.name!r} has no object {name!r}",
        expected="the data set that was evaluated",
        fix="check that the folder has not changed since",
    )


def draw_truth(scene: Scene, surface: Surface) -> Pillow.Image:
    """Draw an object as the data set has it."""
    return draw_overlay(scene.image, surface.mask)


def draw_frame(scene: Scene, frame: Frame) -> Pillow.Image:
    """Draw a mask and the clicks that led to it."""
    return draw_overlay(scene.image, frame.mask, frame.clicks)


def window_of(surface: Surface, clicks: Sequence[Click]) -> tuple[int, int, int, int]:
    """Return the part of the image that a small picture of a case should show.

    Args:
        surface: The object.
        clicks: All clicks on it.

    Returns:
        Left, top, right and bottom in pixels, as Pillow crops; the whole image for large objects.
    """
    height, width = surface.mask.shape
    box = []
    for axis, length, places in ((0, width, [c.x for c in clicks]), (1, height, [c.y for c in clicks])):
        inside = np.flatnonzero(surface.mask.any(axis=axis))
        along = [int(inside[0]), int(inside[-1]), *map(int, places)]
        low, high = min(along), max(along)
        half = max((high - low) * 0.7, _WINDOW * length / 2)
        middle = min(max((low + high) / 2, half), length - half) if 2 * half < length else length / 2
        box.append((max(0, int(middle - half)), min(length, int(middle + half) + 1)))
    (left, right), (top, bottom) = box
    return left, top, right, bottom

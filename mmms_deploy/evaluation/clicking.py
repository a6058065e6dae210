"""Clicking through one object: the simulated annotator and a predictor take turns."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.annotator import Annotator, SimulatedClick
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.measures import boundary_iou
from mmms_deploy.evaluation.predictor import Predictor, settled
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.replay.metrics import iou


class ObjectResult(Struct, frozen=True, kw_only=True):
    """The result of clicking through one object. Lists have one entry for each click; masks are not kept.

    Attributes:
        name: The surface's name.
        pixels: Its number of pixels, without void.
        clicks: (x, y, positive) in image pixels.
        ious: IoU after each click.
        boundary_ious: Boundary IoU after each click.
        predict_seconds: Wall time of the predictor's answer to each click.
        simulate_seconds: Wall time in which the simulated annotator chose each click.
    """

    name: str
    pixels: int
    clicks: tuple[tuple[int, int, bool], ...]
    ious: tuple[float, ...]
    boundary_ious: tuple[float, ...]
    predict_seconds: tuple[float, ...]
    simulate_seconds: tuple[float, ...]


OnClick = Callable[[SimulatedClick, Mask], None]
"""Called after every click with the click and the mask (H, W) bool that followed."""


def click_through(
    predictor: Predictor,
    scene: Scene,
    surface: Surface,
    max_clicks: int,
    stop_at: float | None = None,
    on_click: OnClick | None = None,
) -> ObjectResult:
    """Click on an object until the limit, or until no error is left.

    Args:
        predictor: The predictor; the scene's image is set, there are no clicks, and the previous mask is empty.
        scene: The scene.
        surface: The object.
        max_clicks: The limit.
        stop_at: IoU at which to stop earlier; None to go on to the limit, so that curves are complete.
        on_click: Called after every click.

    Raises:
        MaskError: The predictor's mask has another shape than the image.
    """
    annotator = Annotator(surface.mask, scene.void)
    mask: Mask = surface.mask & False
    ious: list[float] = []
    boundary_ious: list[float] = []
    predicting: list[float] = []
    simulating: list[float] = []
    while len(ious) < max_clicks and not (stop_at is not None and ious and ious[-1] >= stop_at):
        start = perf_counter()
        click = annotator.click(mask)
        chosen = perf_counter()
        if click is None:
            break
        answer = predictor.click(click.x, click.y, click.positive)
        predicting.append(round(perf_counter() - chosen, 6))
        simulating.append(round(chosen - start, 6))
        mask = settled(predictor, answer, surface.mask, scene.void)
        ious.append(iou(mask, surface.mask, scene.void))
        boundary_ious.append(boundary_iou(mask, surface.mask, scene.void))
        if on_click is not None:
            on_click(click, mask)
    counted = surface.mask if scene.void is None else surface.mask & ~scene.void
    return ObjectResult(
        name=surface.name,
        pixels=int(counted.sum()),
        clicks=tuple((click.x, click.y, click.positive) for click in annotator.clicks),
        ious=tuple(ious),
        boundary_ious=tuple(boundary_ious),
        predict_seconds=tuple(predicting),
        simulate_seconds=tuple(simulating),
    )

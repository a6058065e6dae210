"""Several surfaces in one image: the joint mask, NoCMS and FRMS, and the multi-instance task (NCI, NFO, NFI).

NoCMS and FRMS are the measures of MMMS (arXiv 2509.12963, section III and appendix E). NCI, NFO and NFI are those of
the multi-instance interactive segmentation task of DynaMITe (A. K. Rana, S. Mahadevan, A. Hermans, B. Leibe, ICCV 2023,
arXiv 2304.06668), defined as its public evaluation code computes them. Both are measured with predictors that know one
object at a time, whose masks are pasted into a joint mask that decides which object has a pixel; and with those that
answer for all objects at once, whose label map is the joint mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.annotator import Annotator, next_click
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.evaluation.measures import MAX_CLICKS
from mmms_deploy.evaluation.predictor import JointPredictor, Predictor, labels_of, return_to, settled, start_over
from mmms_deploy.evaluation.scene import Scene
from mmms_deploy.replay.metrics import as_mask, iou

MIST_CLICKS = 10
"""Clicks per object in an image's budget, as in DynaMITe."""
CLICKED_RADIUS = 5
"""Pixels around a click that are not clicked on again, as in DynaMITe's evaluation."""


class JointMask:
    """One label for every pixel: 0 is the background, l = 1, 2, ... are the surfaces.

    Args:
        shape: (H, W) in pixels.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.labels: npt.NDArray[np.int32] = np.zeros(shape, np.int32)

    def paste(self, label: int, mask: npt.NDArray[np.bool_]) -> None:
        """Set a surface's mask. Its pixels are taken from other surfaces; pixels that it gives up become background.

        Args:
            label: The surface, from 1.
            mask: (H, W) bool.
        """
        checked = as_mask("mask", mask, (self.labels.shape[0], self.labels.shape[1]))
        self.labels[self.labels == label] = 0
        self.labels[checked] = label

    def read(self, label: int) -> Mask:
        """Return what is left of a surface's mask, (H, W) bool."""
        mask: Mask = self.labels == label
        return mask


class SurfaceResult(Struct, frozen=True, kw_only=True):
    """The result of one surface.

    Attributes:
        name: Its name.
        clicks: Clicks made on it, over all visits.
        iou: IoU of its part of the joint mask in the end.
        reached: NoCMS: whether its mask reached the target within the limit when it was last worked on.
            Multi-instance task: whether it is at the target in the end.
        visits: How often the annotator turned to it.
    """

    name: str
    clicks: int
    iou: float
    reached: bool
    visits: int


class MultiSurfaceResult(Struct, frozen=True, kw_only=True):
    """NoCMS and FRMS of one image.

    Attributes:
        target: t, a fraction.
        average: a, a fraction.
        surfaces: In the scene's order.
        mean_iou: Mean IoU over the surfaces in the end.
    """

    target: float
    average: float
    surfaces: tuple[SurfaceResult, ...]
    mean_iou: float


class MultiInstanceResult(Struct, frozen=True, kw_only=True):
    """The multi-instance task on one image.

    Attributes:
        target: The IoU that every object is to reach, a fraction.
        budget: Clicks that the image may take: the limit per object times its objects.
        surfaces: In the scene's order.
    """

    target: float
    budget: int
    surfaces: tuple[SurfaceResult, ...]

    @property
    def clicks(self) -> int:
        """Clicks on the whole image."""
        return sum(surface.clicks for surface in self.surfaces)


class _Work:
    """A scene while it is segmented: the joint mask, and an annotator with its clicks for every surface."""

    def __init__(self, predictor: Predictor, scene: Scene) -> None:
        self.predictor, self.scene = predictor, scene
        self.joint = JointMask((scene.image.shape[0], scene.image.shape[1]))
        self.annotators = [Annotator(surface.mask, scene.void) for surface in scene.surfaces]
        self.ious = [0.0] * len(scene.surfaces)
        self.visits = [0] * len(scene.surfaces)
        self.stuck = [False] * len(scene.surfaces)
        self._active: int | None = None
        self.measure()

    def used(self, index: int) -> int:
        """Return the number of clicks made on a surface so far."""
        return len(self.annotators[index].clicks)

    def take_up(self, index: int) -> Mask:
        """Turn to a surface; return what is left of its mask."""
        mask = self.joint.read(index + 1)
        if self._active != index:
            clicks = self.annotators[index].clicks
            modalities = dict(self.scene.modalities)
            if clicks:
                truth, void = self.scene.surfaces[index].mask, self.scene.void
                return_to(self.predictor, self.scene.image, modalities, clicks, mask, truth, void)
            else:
                start_over(self.predictor, self.scene.image, modalities)
            self._active = index
            self.visits[index] += 1
        return mask

    def click(self, index: int, mask: Mask) -> Mask | None:
        """Make one click on the current surface; return its mask, or None when there is nothing to click on."""
        click = self.annotators[index].click(mask)
        if click is None:
            self.stuck[index] = True
            return None
        answer = self.predictor.click(click.x, click.y, click.positive)
        return settled(self.predictor, answer, self.scene.surfaces[index].mask, self.scene.void)

    def iou_of(self, index: int, mask: Mask) -> float:
        """Return the IoU of a mask with a surface."""
        return iou(mask, self.scene.surfaces[index].mask, self.scene.void)

    def paste(self, index: int, mask: Mask) -> None:
        """Put a surface's mask into the joint mask, and measure every surface again."""
        self.joint.paste(index + 1, mask)
        self.measure()

    def measure(self) -> None:
        """Measure every surface's part of the joint mask."""
        self.ious = [self.iou_of(index, self.joint.read(index + 1)) for index in range(len(self.ious))]

    def result(self, index: int, reached: bool) -> SurfaceResult:
        """Return the result of a surface."""
        return SurfaceResult(
            name=self.scene.surfaces[index].name,
            clicks=self.used(index),
            iou=self.ious[index],
            reached=reached,
            visits=self.visits[index],
        )


class _AllAtOnce(_Work):
    """A scene while a predictor segments it that answers for all objects at once; its label map is the joint mask.

    An error of an object where the truth has another object is corrected by a click on that other object, and one where
    the truth has the background by a click on the background. Clicks, and the pixels around them, are those of the
    image: no object is clicked on where another one was.
    """

    def __init__(self, predictor: JointPredictor, scene: Scene) -> None:
        super().__init__(predictor, scene)
        self._joint_predictor = predictor
        self._shape = (scene.image.shape[0], scene.image.shape[1])
        self._clicked = np.zeros(self._shape, np.bool_)
        self._truth = JointMask(self._shape)
        for number, surface in enumerate(scene.surfaces, start=1):
            self._truth.paste(number, surface.mask)
        self._made = [0] * len(scene.surfaces)
        self._answer = self.joint.labels
        start_over(predictor, scene.image, dict(scene.modalities))

    def used(self, index: int) -> int:
        """Return the number of clicks made to correct a surface so far."""
        return self._made[index]

    def take_up(self, index: int) -> Mask:
        """Turn to a surface; return its part of the label map."""
        if self._active != index:
            self._active = index
            self.visits[index] += 1
        return self.joint.read(index + 1)

    def click(self, index: int, mask: Mask) -> Mask | None:
        """Make one click to correct a surface; return its mask, or None when there is nothing to click on."""
        full = sum(self._made) >= self._joint_predictor.most_clicks
        click = None if full else next_click(self.scene.surfaces[index].mask, mask, self._clicked, self.scene.void)
        if click is None:
            self.stuck[index] = True
            return None
        number = index + 1 if click.positive else int(self._truth.labels[click.y, click.x])
        answer = self._joint_predictor.click_on(number, click.x, click.y)
        self._answer = labels_of(answer, self._shape)
        self._made[index] += 1
        self._exclude(click.x, click.y)
        found: Mask = self._answer == index + 1
        return found

    def _exclude(self, x: int, y: int) -> None:
        top, left = max(0, y - CLICKED_RADIUS), max(0, x - CLICKED_RADIUS)
        part = self._clicked[top : y + CLICKED_RADIUS + 1, left : x + CLICKED_RADIUS + 1]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        part |= (rows + top - y) ** 2 + (columns + left - x) ** 2 <= CLICKED_RADIUS**2

    def paste(self, index: int, mask: Mask) -> None:
        """Take the newest label map, and measure every surface again."""
        self.joint.labels = self._answer
        self.measure()


def _work_on(predictor: Predictor, scene: Scene) -> _Work:
    return _AllAtOnce(predictor, scene) if isinstance(predictor, JointPredictor) else _Work(predictor, scene)


def multi_surface(
    predictor: Predictor, scene: Scene, target: float, average: float, max_clicks: int = MAX_CLICKS
) -> MultiSurfaceResult:
    """Segment all surfaces of an image into one joint mask, as NoCMS@(t, a) and FRMS@(t, a) are defined.

    Until the mean IoU over the surfaces reaches a, the surface of smallest IoU (of equals the first) is clicked on
    until its mask reaches t; then the mask is pasted. Clicks on a surface add up over visits. A surface is not taken
    again when it has used its clicks or is at t already.

    Args:
        predictor: The predictor, with the scene's image set.
        scene: The scene.
        target: t, a fraction.
        average: a, a fraction, at most t.
        max_clicks: Clicks a surface may use.

    Raises:
        MeasureError: Not 0 < a <= t <= 1, or the limit is below 1.
    """
    if not 0 < average <= target <= 1 or max_clicks < 1:
        raise MeasureError(
            f"NoCMS@({target}, {average}) with {max_clicks} clicks",
            expected="0 < a <= t <= 1 as fractions, and one click or more",
            fix="pass what the paper uses: t = 0.8, a = 0.7 and 20 clicks",
        )
    work = _work_on(predictor, scene)
    count = len(scene.surfaces)
    reached = [value >= target for value in work.ious]
    while sum(work.ious) / count < average:
        open_ones = [
            index
            for index in range(count)
            if work.used(index) < max_clicks and not work.stuck[index] and work.ious[index] < target
        ]
        if not open_ones:
            break
        index = min(open_ones, key=lambda i: work.ious[i])
        mask = work.take_up(index)
        value = work.ious[index]
        while value < target and work.used(index) < max_clicks:
            answer = work.click(index, mask)
            if answer is None:
                break
            mask, value = answer, work.iou_of(index, answer)
        reached[index] = value >= target
        work.paste(index, mask)
    # A surface that was never worked on, because the mean was reached without it, did not fail.
    return MultiSurfaceResult(
        target=target,
        average=average,
        surfaces=tuple(work.result(i, reached[i] or not (work.used(i) or work.stuck[i])) for i in range(count)),
        mean_iou=sum(work.ious) / count,
    )


def multi_instance(
    predictor: Predictor, scene: Scene, target: float, clicks_per_object: int = MIST_CLICKS
) -> MultiInstanceResult:
    """Segment all objects of an image with one budget of clicks, as in DynaMITe's multi-instance task.

    Every object gets one click, in the scene's order. Then, as long as an object is below the target and the budget of
    ``clicks_per_object`` times the number of objects lasts, the object of smallest IoU (of equals the first) gets one
    more: DynaMITe's strategy "worst". Every answer is pasted into the joint mask at once; or it is the joint mask,
    where the predictor answers for all objects.

    Args:
        predictor: The predictor, with the scene's image set.
        scene: The scene.
        target: The IoU that every object is to reach, a fraction.
        clicks_per_object: Clicks per object in the budget.

    Raises:
        MeasureError: The target is no fraction, or the clicks per object are below 1.
    """
    if not 0 < target <= 1 or clicks_per_object < 1:
        raise MeasureError(
            f"target {target} with {clicks_per_object} clicks per object",
            expected="a fraction above 0 and at most 1, and one click or more",
            fix="pass what DynaMITe uses: 0.85 and 10 clicks",
        )
    work = _work_on(predictor, scene)
    count = len(scene.surfaces)
    budget, made = clicks_per_object * count, 0
    first = list(range(count))
    while made < budget:
        open_ones = [i for i in range(count) if work.ious[i] < target and not work.stuck[i]]
        if first:
            index = first.pop(0)
            mask = work.take_up(index) & False  # the first click is at the object's centre, whatever is there already
        elif open_ones:
            index = min(open_ones, key=lambda i: work.ious[i])
            mask = work.take_up(index)
        else:
            break
        answer = work.click(index, mask)
        if answer is not None:
            made += 1
            work.paste(index, answer)
    return MultiInstanceResult(
        target=target,
        budget=budget,
        surfaces=tuple(work.result(i, work.ious[i] >= target) for i in range(count)),
    )


class MultiSurfaceSummary(Struct, frozen=True, kw_only=True):
    """NoCMS and FRMS of a data set.

    Attributes:
        target: t, a fraction.
        average: a, a fraction.
        nocms: Mean number of clicks per surface over the data set; a failed surface counts as the limit.
        frms: Share (0..1) of the surfaces that did not reach t within the limit.
        failed: Their number.
        surfaces: Number of surfaces.
        mean_iou: Mean over the images of their surfaces' mean IoU in the end.
        untouched: Surfaces that were never clicked on, because the mean was reached without them; each counts 0 clicks
            in NoCMS, and none in FRMS.
    """

    target: float
    average: float
    nocms: float
    frms: float
    failed: int
    surfaces: int
    mean_iou: float
    untouched: int = 0


def summarise_surfaces(results: Sequence[MultiSurfaceResult], max_clicks: int = MAX_CLICKS) -> MultiSurfaceSummary:
    """Average NoCMS and FRMS over images.

    Raises:
        MeasureError: There is no image.
    """
    if not results:
        raise MeasureError("NoCMS of no images", expected="one image or more", fix="check the data set's folder")
    surfaces = [surface for result in results for surface in result.surfaces]
    failed = [not surface.reached for surface in surfaces]
    clicks = [max_clicks if lost else surface.clicks for surface, lost in zip(surfaces, failed, strict=True)]
    return MultiSurfaceSummary(
        target=results[0].target,
        average=results[0].average,
        nocms=sum(clicks) / len(surfaces),
        frms=sum(failed) / len(surfaces),
        failed=sum(failed),
        surfaces=len(surfaces),
        mean_iou=sum(result.mean_iou for result in results) / len(results),
        untouched=sum(surface.visits == 0 for surface in surfaces),
    )


class MultiInstanceSummary(Struct, frozen=True, kw_only=True):
    """The multi-instance task on a data set.

    Attributes:
        target: The IoU that every object is to reach, a fraction.
        nci: Normalised clicks per image: the mean over the images of an image's clicks over its objects.
        nfo: Number of failed objects: below the target in the end.
        nfi: Number of failed images: those with a failed object.
        images: Number of images.
        objects: Number of objects.
        mean_iou: Mean over the images of their objects' mean IoU in the end.
    """

    target: float
    nci: float
    nfo: int
    nfi: int
    images: int
    objects: int
    mean_iou: float


def summarise_instances(results: Sequence[MultiInstanceResult]) -> MultiInstanceSummary:
    """Average the multi-instance task over images.

    Raises:
        MeasureError: There is no image.
    """
    if not results:
        raise MeasureError("NCI of no images", expected="one image or more", fix="check the data set's folder")
    count = len(results)
    return MultiInstanceSummary(
        target=results[0].target,
        nci=sum(result.clicks / len(result.surfaces) for result in results) / count,
        nfo=sum(not surface.reached for result in results for surface in result.surfaces),
        nfi=sum(not all(surface.reached for surface in result.surfaces) for result in results),
        images=count,
        objects=sum(len(result.surfaces) for result in results),
        mean_iou=sum(sum(s.iou for s in result.surfaces) / len(result.surfaces) for result in results) / count,
    )

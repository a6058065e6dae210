"""Answers in a crop of the picture, and as the mean with the mirror image.

Without either, a session shows the network the whole picture, and the click stage's own state is all that it keeps
between clicks. Here a click begins with the crop (:mod:`mmms_deploy.session.zoom`). Where it is another one than at the
click before, the state is drawn anew: the disks of all clicks, and the previous probability, cut out of the picture's;
or the labels that both stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from mmms_deploy.arguments import shown
from mmms_deploy.bundle import Manifest
from mmms_deploy.bundle.contract import ClickMemory, ResizeRule
from mmms_deploy.bundle.names import LABELS, MAPS
from mmms_deploy.bundle.protocol import Outside, ZoomRule
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import SessionError
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize, through_image
from mmms_deploy.session.canvas import Answered, Canvas, Viewed
from mmms_deploy.session.click_labels import drawn_labels
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.interactions import MaskInput, Snapshot, previous_of, previous_rule
from mmms_deploy.session.pipeline import PipelineState, StagePipeline
from mmms_deploy.session.result import Click
from mmms_deploy.session.zoom import Box, click_in, draw_disks, next_box, whole

Encoded: TypeAlias = tuple[float, float, float, float]
"""A click as the click stage takes it."""


class RunClick(Protocol):
    """Runs the click stage on the newest of all clicks; :class:`~mmms_deploy.session.click_run.ClickRun` is it."""

    def __call__(
        self, features: PipelineState, state: Mapping[str, Value], clicks: Sequence[Encoded], *, outside: bool
    ) -> PipelineState:
        """Return the stage's outputs."""
        ...


_LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1, so that their logits are finite; about float32's resolution."""


@dataclass(frozen=True, eq=False)
class Given:
    """A mask that was put in, as a layer of a canvas.

    Attributes:
        mask: The mask.
    """

    mask: MaskInput

    @property
    def box(self) -> Box:
        """The whole picture."""
        return whole((len(self.mask.packed), self.mask.width))

    def probability(self, rule: ResizeRule) -> FloatArray:
        """Return its probability (H0, W0): 0 and 1, or what the network sees of one that was given as a probability."""
        if self.mask.binary:
            return self.mask.mask.astype(np.float32)
        return np.clip(resize(self.mask.previous[0, 0], self.box.size, rule), 0.0, 1.0)

    def above(self, rule: ResizeRule, threshold: float) -> BoolArray:
        """Return the mask (H0, W0) as it was given."""
        return self.mask.mask


class Views:
    """Answers clicks in crops, as the mean with the mirror image, or both.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.
        zoom: The crop's rule; None for the whole picture.
        flip: Whether an answer is the mean with that to the mirror image.
        run: Runs the click stage.
        fetch: Returns an answer (H, W) of the click stage, named by its output, on the host.

    Raises:
        SessionError: The bundle takes no picture, or its click stage keeps what cannot be drawn for another crop.
    """

    def __init__(
        self,
        manifest: Manifest,
        pipeline: StagePipeline,
        zoom: ZoomRule | None,
        flip: bool,
        run: RunClick,
        fetch: Callable[[PipelineState], FloatArray],
    ) -> None:
        self._manifest, self._pipeline = manifest, pipeline
        self.zoom, self._mirrors = zoom, (False, True) if flip else (False,)
        self._run, self._fetch = run, fetch
        labelled = manifest.clicks.memory is ClickMemory.LABELS
        asked = "flip" if zoom is None or (flip and labelled) else "zoom"
        self._previous = _checked(manifest, pipeline, asked)

    @property
    def flip(self) -> bool:
        """Whether an answer is the mean with that to the mirror image."""
        return len(self._mirrors) > 1

    def after_mask(self, current: Snapshot, mask: MaskInput) -> Snapshot:
        """Return the snapshot after a mask was put in. The next click takes the crop around it."""
        layer = Given(mask)
        canvas = self._canvas(layer.box.size).cover(layer, keep=False)
        return Snapshot(current.interactions.push(mask), {}, None, viewed=Viewed(canvas, mask.previous[0, 0]))

    def after_click(self, image: ImageState, current: Snapshot, click: Click) -> Snapshot:
        """Choose the crop, run the image stage where its features are not there, and answer the click.

        Raises:
            EngineError: A stage failed.
            AnswerError: An answer has values that are no probabilities.
        """
        assert image.size is not None
        assert image.crops is not None
        interactions, before = current.interactions.push(click), current.viewed
        canvas = self._canvas(image.size) if before is None else before.canvas
        box = self._box(image.size, canvas, None if before is None else before.box, interactions.corners)
        newest = [self._encoded(click, box, mirrored) for mirrored in self._mirrors]
        # MFP's code looks at both at once: one of them is enough.
        outside = any(min(encoded[:2]) < 0 for encoded in newest)
        answers, states = [], []
        stays = before is not None and before.box == box
        # In the same crop the state has the clicks before: without a modulation, nothing looks at them again.
        earlier = () if stays and self._manifest.clicks.modulation is None else current.clicks
        for index, mirrored in enumerate(self._mirrors):
            features = image.crops.at(box, mirrored=mirrored)
            encoded = [*(self._encoded(one, box, mirrored) for one in earlier), newest[index]]
            if before is not None and stays:
                state = before.states[index]
            else:
                state = self._drawn(canvas, box, encoded[:-1], mirrored)
            done = self._run(features, state, encoded, outside=outside)
            answers.append(self._fetch(done))
            states.append({link.input: done.value(link.output) for link in self._manifest.state})
        answer = mean_by_logits(answers[0], answers[1][:, ::-1]) if self.flip else answers[0]
        self._feed_back(answer, box, states)
        answer.setflags(write=False)
        keep = self.zoom is not None and self.zoom.outside == Outside.KEPT
        viewed = Viewed(canvas.cover(Answered(box, answer), keep=keep), answer, box, tuple(states))
        return Snapshot(interactions, {}, None, viewed=viewed)

    def whole_answer(self, viewed: Viewed) -> FloatArray:
        """Return an answer for the whole picture, (H, W) at the network's size."""
        full = viewed.canvas.probability()
        reduced: FloatArray = previous_of(full, self._manifest.size, self._manifest.clicks)[0, 0]
        np.clip(reduced, 0.0, 1.0, out=reduced)
        return reduced

    def _canvas(self, size: tuple[int, int]) -> Canvas:
        return Canvas(size, self._manifest.clicks.mask_resize)

    def _box(self, size: tuple[int, int], canvas: Canvas, current: Box | None, clicks: Sequence[Click]) -> Box:
        if self.zoom is None:
            return whole(size)
        threshold = self._manifest.clicks.threshold if self.zoom.threshold is None else self.zoom.threshold
        return next_box(current, canvas.bounds(threshold), clicks, size, self.zoom)

    def _encoded(self, click: Click, box: Box, mirrored: bool) -> Encoded:
        return click_in(click, box, self._manifest.size, self._manifest.clicks.coordinates, mirrored=mirrored)

    def _drawn(self, canvas: Canvas, box: Box, clicks: Sequence[Encoded], mirrored: bool) -> dict[str, Value]:
        """Return the click stage's state in a crop: the clicks before and the previous probability, or their labels."""
        network, rule = self._manifest.size, self._manifest.clicks
        state = {}
        for link in self._manifest.state:
            name = link.input
            if not (clicks if name == MAPS else canvas.layers):
                state[name] = self._pipeline.filled(name, link.start)
            elif name == MAPS:
                state[name] = self._pipeline.upload(name, draw_disks(clicks, network, rule.radius))
            elif name == LABELS:
                seen = previous_of(canvas.part(box), network, rule)[0, 0]
                state[name] = self._pipeline.upload(name, drawn_labels(seen, clicks, rule))
            else:
                seen = np.clip(previous_of(canvas.part(box), network, rule), 0.0, 1.0)
                state[name] = self._pipeline.upload(name, _turned(seen, mirrored))
        return state

    def _feed_back(self, answer: FloatArray, box: Box, states: Sequence[dict[str, Value]]) -> None:
        """Put the previous probability of the next click into the states, where it is not the click stage's own."""
        rule = self._manifest.clicks
        if self._previous is None or (rule.previous_resize is None and not self.flip):
            return
        seen = through_image(answer, box.size, rule.mask_resize, previous_rule(rule))[None, None]
        for state, mirrored in zip(states, self._mirrors, strict=True):
            state[self._previous] = self._pipeline.upload(self._previous, _turned(seen, mirrored))


def _checked(manifest: Manifest, pipeline: StagePipeline, asked: str) -> str | None:
    """Return the state that is the previous mask, after checking that a session can draw all of the state itself."""
    height, width = manifest.size
    shapes = {link.input: pipeline.inputs[link.input].shape for link in manifest.state}
    if manifest.clicks.memory is ClickMemory.LABELS and set(shapes) == {LABELS} and asked == "zoom":
        return None  # the click stage moves the labels itself
    previous = [name for name, shape in shapes.items() if name != MAPS and shape == (1, 1, height, width)]
    drawable = shapes.get(MAPS, (1, 2, height, width)) == (1, 2, height, width)
    rule = manifest.clicks
    plain = rule.memory is ClickMemory.MAPS and rule.points is None and rule.answers is None
    if not plain or not drawable or len(previous) > 1 or set(shapes) - {MAPS, *previous}:
        keeps = f"whose click stage keeps {', '.join(shapes) or 'nothing'}"
        if rule.listed is not None:
            keeps = "which takes all clicks as a list"
        raise SessionError(
            f"{asked} was asked of {manifest.name}, {keeps}",
            expected="a click stage that keeps the disks of the clicks and the previous mask, which can be drawn for"
            " another part of the picture",
            fix=f"leave out {asked}",
            command_fix=f"leave out --{asked}",
        )
    return previous[0] if previous else None


def _turned(array: FloatArray, mirrored: bool) -> FloatArray:
    return np.ascontiguousarray(array[..., ::-1]) if mirrored else array


def mean_by_logits(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the probability whose logit is the mean of two probabilities' logits; (H, W) float32 each."""
    total = np.zeros(first.shape, np.float64)
    for probability in (first, second):
        safe = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
        total += np.log(safe / (1 - safe))
    mean: FloatArray = (1 / (1 + np.exp(-total / 2))).astype(np.float32)
    return mean


def checked_zoom(zoom: object, published: ZoomRule | None) -> ZoomRule | None:
    """Return the crop's rule that a caller asks for, checked.

    Args:
        zoom: True for the published rule of the bundle's family, False for none, or a rule.
        published: That rule; None where the family has none, and RITM's is taken.

    Raises:
        SessionError: It is something else.
    """
    if zoom is None or zoom is False:
        return None
    if zoom is True:
        return published or ZoomRule()
    if isinstance(zoom, ZoomRule):
        return zoom
    raise SessionError(
        f"zoom is {shown(zoom)}",
        expected="True, False, or a mmms_deploy.bundle.ZoomRule",
        fix="pass zoom=True, or zoom=ZoomRule(expansion=1.4, smallest=200, iou=0.5)",
    )

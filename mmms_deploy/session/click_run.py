"""One run of the click stage: the newest click, and what some networks take of the previous mask beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmms_deploy.bundle import Manifest
from mmms_deploy.bundle.names import MODULATED
from mmms_deploy.engines.protocol import Value
from mmms_deploy.imaging.modulation import Point, modulate
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.pipeline import PipelineState, StagePipeline
from mmms_deploy.session.views import Encoded


class ClickRun:
    """Runs the click stage.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.
        click: Name of the input that takes the newest click.
        previous: Name of the input that takes the previous mask; None when there is none.
        answer: Name of the output that is the answer.
        fetch: Returns an answer (H, W) on the host.
    """

    def __init__(
        self,
        manifest: Manifest,
        pipeline: StagePipeline,
        click: str,
        previous: str | None,
        answer: str,
        fetch: Callable[[Value], FloatArray],
    ) -> None:
        self._rule, self._pipeline = manifest.clicks, pipeline
        self._click, self._previous, self._answer, self._fetch = click, previous, answer, fetch

    def __call__(
        self,
        features: PipelineState,
        state: Mapping[str, Value],
        clicks: Sequence[Encoded],
        *,
        outside: bool = False,
    ) -> PipelineState:
        """Answer the newest click.

        Args:
            features: The image's features.
            state: The click stage's state before the click.
            clicks: All clicks so far, as the click stage takes them, oldest first; without a modulation the newest
                one is enough.
            outside: Whether the newest one lies outside of the part of the picture that the network sees, or of its
                mirror image, so that nothing is modulated around it.
        """
        values = self._given(state, clicks[-1])
        values |= self._previous_for(features, values, clicks, outside)
        return self._pipeline.run(self._pipeline.set(features, values))

    def together(
        self, features: PipelineState, rows: Sequence[tuple[Mapping[str, Value], Encoded]], count: int
    ) -> list[PipelineState]:
        """Answer one click on each of several objects in one run of the stage for so many.

        Args:
            features: The image's features.
            rows: The click stage's state before the click, and the click, for every object.
            count: How many objects the stage takes.
        """
        given = [self._given(state, click) for state, click in rows]
        blank = given[0] if len(given) == count else self._given(rows[0][0], (0.0, 0.0, 0.0, 0.0))
        return self._pipeline.run_batch(features, count, given, blank)

    def _given(self, state: Mapping[str, Value], click: Encoded) -> dict[str, Value]:
        encoded = np.array([click], dtype=np.float32)
        return {**state, self._click: self._pipeline.upload(self._click, encoded)}

    def _previous_for(
        self, features: PipelineState, values: Mapping[str, Value], clicks: Sequence[Encoded], outside: bool
    ) -> dict[str, Value]:
        """Return what the click stage takes in the place of the previous mask, and beside it, at one click."""
        rule, name = self._rule, self._previous
        if name is None or (rule.modulation is None and not rule.first_pass):
            return {}
        previous, taken = self._fetch(values[name]), {}
        modulated = rule.modulation is not None
        if rule.first_pass and not previous.any():
            first = {**values, **({MODULATED: self._pipeline.zeros(MODULATED)} if modulated else {})}
            done = self._pipeline.run(self._pipeline.set(features, first))
            taken[name] = done.value(self._answer)
            previous = self._fetch(taken[name])
        if rule.modulation is not None:
            points = [Point(x, y, positive > 0.5) for x, y, positive, _ in clicks]
            changed = previous if outside else modulate(previous, points, rule.modulation)
            taken[MODULATED] = self._pipeline.upload(MODULATED, changed[None, None])
        return taken

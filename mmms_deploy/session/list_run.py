"""The runs of a network that takes all clicks as a list: the first click's stages, and the click stage."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from mmms_deploy.bundle import Manifest, Rate
from mmms_deploy.bundle.contract import ClickList
from mmms_deploy.errors import ClickError
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.click_stage import ClickTensors
from mmms_deploy.session.pipeline import PipelineState, StagePipeline

Row = Sequence[float]
"""A click as the list holds it, see ``ClickList``."""


class ListRun:
    """Runs the stages of clicks. There is no state: everything follows from the features and the list.

    Args:
        manifest: The bundle's manifest; its contract has a list of clicks.
        pipeline: Its stages.
        tensors: The tensors of its click stage.
        listed: The contract's list.
    """

    def __init__(self, manifest: Manifest, pipeline: StagePipeline, tensors: ClickTensors, listed: ClickList) -> None:
        self._name, self._pipeline, self._tensors, self._listed = manifest.name, pipeline, tensors, listed
        self._compiled: list[tuple[float, float]] = []

    def compiled(self, since: float) -> float:
        """Return the seconds that compiling for longer lists took in the call that began at a time.

        Args:
            since: The time, by ``perf_counter``.
        """
        taken = sum(seconds for start, seconds in self._compiled if start >= since)
        self._compiled.clear()
        return taken

    def propose(self, features: PipelineState, click: Row) -> PipelineState:
        """Run everything up to the first click's stage; the click stage does not run.

        Args:
            features: The image's features.
            click: The first click.
        """
        assert self._tensors.proposals is not None
        name = self._tensors.proposals.click
        values = {name: self._pipeline.upload(name, np.array([click], dtype=np.float32))}
        return self._pipeline.run(self._pipeline.set(features, values), Rate.FIRST_CLICK)

    def answer(self, features: PipelineState, rows: Sequence[Row], choice: int | None = None) -> PipelineState:
        """Run the click stage.

        Args:
            features: The image's features, and with proposals those of the first click.
            rows: All clicks, oldest first.
            choice: Which proposal was chosen; None for a network without.

        Raises:
            ClickError: There are more clicks than the longest list has rows.
            BundleCorruptError, EngineError: The click stage cannot be compiled for so many rows, or failed.
        """
        name, listed = self._tensors.click, self.padded(rows)
        size = listed.shape[1]
        start = perf_counter()
        seconds = self._pipeline.prepare(size)
        if seconds:
            self._compiled.append((start, seconds))
        values = {name: self._pipeline.upload(name, listed, size)}
        if self._tensors.proposals is not None:
            chosen = self._tensors.proposals.choice
            values[chosen] = self._pipeline.upload(chosen, np.array([[choice]], dtype=np.float32))
        return self._pipeline.run(self._pipeline.set(features, values), rows=size)

    def padded(self, rows: Sequence[Row]) -> FloatArray:
        """Return clicks as the smallest list that holds them, (1, Q, fields) float32.

        Raises:
            ClickError: There are more clicks than the longest list has rows.
        """
        size = self._listed.size_for(len(rows))
        if size is None:
            most = self._listed.sizes[-1]
            raise ClickError(
                f"click {len(rows)}",
                expected=f"at most {most}: {self._name} was exported with a list of so many clicks",
                fix="undo a click, or export again with a longer list: 'clicks.listed.sizes' in the description",
            )
        array = np.zeros((1, size, self._listed.fields), dtype=np.float32)
        if rows:
            array[0, : len(rows)] = rows
        return array

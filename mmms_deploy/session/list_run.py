"""The runs of a network that takes all clicks as a list: the first click's stages, and the click stage."""

from __future__ import annotations

from collections.abc import Sequence

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
        name, padded = self._tensors.click, self.padded(rows)
        size = padded.shape[1]
        values = {name: self._pipeline.upload(name, padded, size)}
        if self._tensors.proposals is not None:
            chosen = self._tensors.proposals.choice
            values[chosen] = self._pipeline.upload(chosen, np.array([[choice]], dtype=np.float32))
        return self._pipeline.run(self._pipeline.set(features, values), rows=size)

    def prepare(self, clicks: int) -> float:
        """Compile the click stage for lists up to so many clicks, and return how many seconds that took.

        A list grows click by click, so that all smaller sizes are needed on the way.

        Args:
            clicks: How many; more than the longest list holds are refused when they are answered.

        Raises:
            EngineError: It cannot be compiled.
        """
        needed = self._listed.size_for(clicks)
        return sum(self._pipeline.prepare(size) for size in self._listed.sizes if needed is not None and size <= needed)

    def padded(self, rows: Sequence[Row]) -> FloatArray:
        """Return clicks as the smallest list that holds them, (1, Q, fields) float32.

        Raises:
            ClickError: There are more clicks than the longest list has rows.
        """
        size = self._listed.size_for(len(rows))
        if size is None:
            most = f"{self._listed.sizes[-1]}{' over all objects' if self._listed.objects > 1 else ''}"
            raise ClickError(
                f"click {len(rows)}",
                expected=f"at most {most}: {self._name} was exported with a list of so many clicks",
                fix="undo a click, or export again with a longer list: 'clicks.listed.sizes' in the description",
            )
        array = np.zeros((1, size, self._listed.fields), dtype=np.float32)
        if rows:
            array[0, : len(rows)] = rows
        return array

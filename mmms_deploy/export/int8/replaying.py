"""Masks of a bundle with other graphs in the place of its own: golden clicks, closed loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import onnx_ir as ir

from mmms_deploy.bundle import Bundle, Precision, Rate
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.onnxruntime.cpu import PROVIDER, OnnxRuntimeCpu, import_onnxruntime, session_options
from mmms_deploy.engines.protocol import Value, names
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import AnswerError
from mmms_deploy.replay.verification import replay


@dataclass(frozen=True)
class Likeness:
    """How alike masks are to the checkpoint's own, after every golden click.

    Attributes:
        mean: Mean IoU, 0 to 1.
        least: The smallest.
    """

    mean: float
    least: float


class Substitutes(OnnxRuntimeCpu):
    """ONNX Runtime on a bundle's float32 graphs, of which some can be replaced.

    What the float32 graphs compute of an image is computed once: every replay sees the same images in the same order.

    Args:
        bundle: The bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, Precision.FP32)
        manifest = bundle.manifest
        self._clicks = frozenset(stage.name for stage in manifest.stages if stage.rate >= Rate.FIRST_CLICK)
        self._outputs = {stage.name: names(stage.graphs[Precision.FP32].outputs) for stage in manifest.stages}
        self._replaced: dict[str, Any] = {}
        self._known: dict[tuple[str, int], dict[str, Value]] = {}
        self._runs: dict[str, int] = {}

    def __enter__(self) -> Substitutes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage, or its substitute, or return what it computed before."""
        run = self._runs[stage] = self._runs.get(stage, -1) + 1
        if stage in self._replaced:
            values = self._replaced[stage].run_with_ort_values(self._outputs[stage], dict(inputs))
            return dict(zip(self._outputs[stage], values, strict=True))
        # Only images are repeated; a stage behind another one that is replaced sees other features.
        if stage in self._clicks or self._replaced.keys() - self._clicks:
            return super().execute(stage, inputs)
        if (stage, run) not in self._known:
            self._known[stage, run] = super().execute(stage, inputs)
        return self._known[stage, run]

    def likeness(self, graphs: Mapping[str, ir.Model], clicks: int | None = None) -> Likeness:
        """Replay the golden clicks with some stages replaced, and compare the masks with the checkpoint's.

        Args:
            graphs: The graphs that take the place of the float32 ones, by the name of their stage.
            clicks: How many clicks of every picture; None for all.
        """
        ort = import_onnxruntime()
        options = session_options(ort, available_cores())
        self._replaced = {
            stage: ort.InferenceSession(
                ir.serde.serialize_model(model).SerializeToString(), options, providers=[PROVIDER]
            )
            for stage, model in graphs.items()
        }
        self._runs = {}
        try:
            report = replay(self.bundle, EngineRequest(precision=Precision.FP32), engine=self, clicks=clicks)
        except AnswerError:
            return Likeness(0.0, 0.0)  # numbers that are not finite
        finally:
            self._replaced = {}
        return Likeness(float(np.mean([check.iou for check in report.checks])), report.worst.iou)

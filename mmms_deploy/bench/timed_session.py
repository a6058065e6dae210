"""A session whose calls are timed: each call as its user sees it, and where inside of it the time goes.

A timer of the host's clock stands between the session and its runner. On a GPU, a timer of CUDA events can be added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bench.workload import Picture, Point
from mmms_deploy.bundle import AnswerForm, Bundle, Manifest, StageGraph, TensorSpec
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.runner import CudaRunner
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.protocol import (
    Array,
    DecidesLabels,
    Engine,
    EngineInfo,
    Finish,
    Finisher,
    PreparesImages,
    Runner,
    Value,
)
from mmms_deploy.errors import CudaError
from mmms_deploy.imaging.decision import Enlargement
from mmms_deploy.session import Session
from mmms_deploy.session.result import ClickResult

# --- the session ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSample:
    """One ``set_image``, in milliseconds.

    Attributes:
        total: The whole call.
        prepare: Checking, resizing and normalising the image and its modalities; where the GPU resizes and normalises,
            handing the pixels over.
        stages: Each stage that ran, by name: by the host's clock, or by the GPU's when stages are timed there.
        up: Bytes copied to the GPU, when stages are timed there.
    """

    total: float
    prepare: float
    stages: dict[str, float]
    up: int = 0


@dataclass(frozen=True)
class ClickSample:
    """One ``Session.click``, in milliseconds; the parts add up to the total.

    Attributes:
        total: The whole call.
        engine: Running the click stage: by the host's clock, or by the GPU's when stages are timed there.
        transfer: Handing the click over and fetching the answer. On a GPU also launching the stage and waiting for it,
            beyond its own time.
        mask: Bringing the answer to the image's size and thresholding it.
        rest: Everything else: checks, state, history.
        up: Bytes copied to the GPU, when stages are timed there.
        down: Bytes copied from the GPU, when stages are timed there.
    """

    total: float
    engine: float
    transfer: float
    mask: float
    rest: float
    up: int = 0
    down: int = 0

    @property
    def host(self) -> float:
        """Everything beside running the click stage."""
        return self.total - self.engine


class TimedSession:
    """A session whose calls are timed.

    Args:
        engine: An open engine; other sessions may share it. The caller closes it.
        on_gpu: Whether stages are timed on the GPU, if the engine works on one. While other sessions work on the same
            GPU, their time would count too.
        compact: Whether every answer that reaches the host is a disc instead, as compact as an object's. Random weights
            answer with noise, whose outline is everywhere, and a processor takes long to enlarge that.
    """

    def __init__(self, engine: Engine, *, on_gpu: bool = False, compact: bool = False) -> None:
        timed = TimedEngine(engine, on_gpu=on_gpu, answer=disc(engine.bundle.manifest) if compact else None)
        self._session = Session(engine.bundle, engine=timed)
        self._calls = timed.call_timers[-1]
        self._gpu = timed.stage_timers[-1]
        self._stages = tuple(engine.graphs)

    def set_image(self, picture: Picture) -> ImageSample:
        """Set an image."""
        self._take()
        start = perf_counter()
        timings = self._session.set_image(picture.rgb, **picture.modalities)
        total = 1e3 * (perf_counter() - start)
        spent, gpu = self._take()
        stages = {name: spent[CallTimer.run(name)] for name in self._stages if CallTimer.run(name) in spent}
        if gpu is None:
            return ImageSample(total, timings.prepare, stages)
        return ImageSample(total, timings.prepare, gpu.stages, gpu.up)

    @property
    def _proposes(self) -> bool:
        answers = self._session.bundle.manifest.clicks.answers
        return answers is not None and answers.proposals

    def prepare(self, clicks: int) -> None:
        """Compile what so many clicks on an object need, so that none of them has to.

        Args:
            clicks: How many.
        """
        listed = self._session.bundle.manifest.clicks.listed
        if listed is not None and self._proposes:
            longest = listed.size_for(clicks) or listed.sizes[-1]
            for size in (size for size in listed.sizes if size <= longest):
                self._session._pipeline.prepare(size)

    def click(self, point: Point) -> ClickSample:
        """Make a click; where the network's list of points, or its smallest list, is full, on one that starts over.

        With proposals, where a first click costs more than all others, the longest list has to be full.
        """
        rule = self._session.bundle.manifest.clicks
        most = None if rule.points is None else rule.points.most
        if rule.listed is not None:
            most = rule.listed.sizes[-1 if self._proposes else 0]
        if most is not None and len(self._session.clicks) >= most:
            self._session.reset()
        self._take()
        start = perf_counter()
        result = self._session.click(*point)
        total = 1e3 * (perf_counter() - start)
        spent, gpu = self._take()
        transfer = spent.pop(CallTimer.TRANSFER, 0.0)
        engine = sum(spent.values())
        mask = result.timings.mask
        rest = total - engine - transfer - mask
        if gpu is None:
            return ClickSample(total, engine, transfer, mask, rest)
        # The host launches, does something else and waits, while the GPU works: its time lies within both.
        on_gpu = sum(gpu.stages.values())
        return ClickSample(total, on_gpu, transfer + engine - on_gpu, mask, rest, gpu.up, gpu.down)

    def _take(self) -> tuple[dict[str, float], GpuSpent | None]:
        """Return what was spent since the last call, on the host and on the GPU."""
        return self._calls.take(), None if self._gpu is None else self._gpu.take()

    @property
    def on_gpu(self) -> bool:
        """Whether stages are timed on a GPU."""
        return self._gpu is not None

    @property
    def is_cuda_graph(self) -> bool:
        """Whether a click is one CUDA graph; False when stages are not timed on a GPU."""
        return self._gpu is not None and self._gpu.is_cuda_graph

    @property
    def result(self) -> ClickResult:
        """The answer to the clicks so far."""
        return self._session.result

    def close(self) -> None:
        """Close the session."""
        if self._gpu is not None:
            self._gpu.close()
        self._session.close()

    def __enter__(self) -> TimedSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def disc(manifest: Manifest) -> npt.NDArray[np.float32]:
    """Return an answer (1, 1, H, W), as a bundle's network gives it, that is a disc with a soft border of 8 pixels.

    Args:
        manifest: The bundle's manifest.
    """
    height, width = manifest.size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot(rows - height / 2, columns - width / 2)
    inside = np.clip((min(height, width) / 4 - away) / 8 + 0.5, 0.0, 1.0, dtype=np.float32)
    logits = manifest.clicks.answer_form is AnswerForm.LOGITS
    answer: npt.NDArray[np.float32] = (16 * inside - 8 if logits else inside)[None, None]
    answer.flags.writeable = False
    return answer


# --- by the host's clock ----------------------------------------------------------------------------------------------


class CallTimer:
    """Milliseconds that one session spent in its runner, by the kind of call: ``run NAME`` or ``transfer``."""

    TRANSFER = "transfer"
    """Every call that moves tensors: uploads, zeros, downloads, and waiting for them."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = defaultdict(float)

    @staticmethod
    def run(stage: str) -> str:
        """Return the kind of a stage's runs."""
        return f"run {stage}"

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        """Add the time inside the block to a kind of call."""
        start = perf_counter()
        try:
            yield
        finally:
            self._spent[kind] += 1e3 * (perf_counter() - start)

    def take(self) -> dict[str, float]:
        """Return what was spent since the last call, and start anew."""
        spent = dict(self._spent)
        self._spent.clear()
        return spent


class TimedRunner:
    """A runner whose calls are timed.

    Args:
        runner: The runner that does the work.
        timer: Receives the time of each call.
        answer: An array that is returned for every value of its shape that is downloaded as float32; None for none.
    """

    def __init__(self, runner: Runner, timer: CallTimer, answer: npt.NDArray[np.float32] | None = None) -> None:
        self._runner = runner
        self._timer = timer
        self._answer = answer

    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Copy an array to the device."""
        with self._timer.timing(CallTimer.TRANSFER):
            return self._runner.upload(spec, array)

    @property
    def prepares_images(self) -> bool:
        """Whether the runner can resize and normalise images."""
        return isinstance(self._runner, PreparesImages) and self._runner.prepares_images

    def upload_prepared(
        self, spec: TensorSpec, array: Array, rule: ImageSpec | ModalitySpec, *, mirrored: bool = False
    ) -> Value | None:
        """Copy an image or a modality to the device, and prepare it there."""
        if not isinstance(self._runner, PreparesImages):
            return None
        with self._timer.timing(CallTimer.TRANSFER):
            return self._runner.upload_prepared(spec, array, rule, mirrored=mirrored)

    def zeros(self, spec: TensorSpec) -> Value:
        """Return zeros on the device."""
        with self._timer.timing(CallTimer.TRANSFER):
            return self._runner.zeros(spec)

    def prepare(self, stage: str) -> float:
        """Make a stage ready to run."""
        return self._runner.prepare(stage)

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage."""
        with self._timer.timing(CallTimer.run(stage)):
            return self._runner.run(stage, inputs)

    def download(self, value: Value) -> Array:
        """Copy a value to the host."""
        with self._timer.timing(CallTimer.TRANSFER):
            return self._runner.download(value)

    def download_float32(self, value: Value) -> npt.NDArray[np.float32]:
        """Copy a value's numbers to the host as float32."""
        with self._timer.timing(CallTimer.TRANSFER):
            found = self._runner.download_float32(value)
        return found if self._answer is None or self._answer.shape != found.shape else self._answer

    def expect(self, finish: Finish) -> bool:
        """Say which mask is wanted, where the runner makes masks."""
        return isinstance(self._runner, Finisher) and self._runner.expect(finish)

    def finished(self, value: Value, finish: Finish) -> npt.NDArray[np.bool_] | None:
        """Return a mask, where the runner makes masks. What it takes is the session's time for the mask."""
        return self._runner.finished(value, finish) if isinstance(self._runner, Finisher) else None

    def expect_labels(self, how: Enlargement, shape: tuple[int, int, int]) -> bool:
        """Say which maps are decided between, where the runner decides."""
        return isinstance(self._runner, DecidesLabels) and self._runner.expect_labels(how, shape)

    def decided(
        self, planes: npt.NDArray[np.float32], owners: npt.NDArray[np.uint8], how: Enlargement
    ) -> npt.NDArray[np.uint8] | None:
        """Decide between maps, where the runner does. What it takes is the session's time for the mask."""
        return self._runner.decided(planes, owners, how) if isinstance(self._runner, DecidesLabels) else None

    def detach(self, value: Value) -> Value:
        """Return a value with memory of its own."""
        return self._runner.detach(value)

    def synchronize(self) -> None:
        """Wait until the device is done."""
        with self._timer.timing(CallTimer.TRANSFER):
            self._runner.synchronize()

    def close(self) -> None:
        """Free the buffers."""
        self._runner.close()


class TimedEngine:
    """An engine whose runners are timed; everything else is the engine's own.

    Args:
        engine: The engine that does the work; the caller closes it.
        on_gpu: Whether stages are timed on the GPU too, if the engine works on one.
        answer: As for :class:`TimedRunner`.
    """

    def __init__(self, engine: Engine, *, on_gpu: bool = False, answer: npt.NDArray[np.float32] | None = None) -> None:
        self._engine = engine
        self._on_gpu = on_gpu
        self._answer = answer
        self.call_timers: list[CallTimer] = []
        self.stage_timers: list[StageTimer | None] = []

    @property
    def info(self) -> EngineInfo:
        """What the engine really is."""
        return self._engine.info

    @property
    def bundle(self) -> Bundle:
        """The bundle it executes."""
        return self._engine.bundle

    @property
    def graphs(self) -> Mapping[str, StageGraph]:
        """The graph of every stage, by name."""
        return self._engine.graphs

    def open(self) -> TimedRunner:
        """Return a new runner. Its timers are the last ones in ``call_timers`` and ``stage_timers``."""
        runner = self._engine.open()
        self.call_timers.append(CallTimer())
        self.stage_timers.append(stage_timer(self._engine, runner) if self._on_gpu else None)
        return TimedRunner(runner, self.call_timers[-1], self._answer)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


# --- on the GPU -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GpuSpent:
    """What a session's runner did on the GPU since the last question.

    Attributes:
        stages: Milliseconds on the GPU of each stage that ran, by name: from the moment its first operation could start
            to the end of its last. A click stage's copies in and out, and gaps that the host leaves, are part of it.
        up: Bytes to the GPU.
        down: Bytes from the GPU.
    """

    stages: dict[str, float]
    up: int
    down: int


class StageTimer:
    """Times the stages of one session's runner on the GPU. Two CUDA events around a stage take microseconds.

    Args:
        cuda: The GPU.
        runner: The runner. Closing the timer restores it.
    """

    def __init__(self, cuda: Cuda, runner: CudaRunner) -> None:
        self._cuda = cuda
        self._runner = runner
        self._usual = runner.watch
        self._spare: list[tuple[Any, Any]] = []
        self._pending: list[tuple[str, tuple[Any, Any]]] = []
        runner.watch = self._watch

    @property
    def is_cuda_graph(self) -> bool:
        """Whether a click is one CUDA graph."""
        return self._runner.is_cuda_graph

    @contextmanager
    def _watch(self, stage: str, stream: Any) -> Iterator[None]:
        cuda = self._cuda
        pair = self._spare.pop() if self._spare else (cuda.create_event(), cuda.create_event())
        try:
            cuda.record_event(pair[0], stream)
            yield
            cuda.record_event(pair[1], stream)
        except BaseException:
            self._spare.append(pair)
            raise
        self._pending.append((stage, pair))

    def take(self) -> GpuSpent:
        """Wait for the stages that were launched, and return what was spent since the last call.

        Raises:
            CudaError: The GPU failed.
        """
        self._cuda.activate()
        stages: dict[str, float] = defaultdict(float)
        while self._pending:
            stage, pair = self._pending.pop(0)
            self._spare.append(pair)
            stages[stage] += self._cuda.elapsed(*pair)
        moved = self._runner.take_moved()
        return GpuSpent(dict(stages), moved.up, moved.down)

    def close(self) -> None:
        """Free the events, and time no further stage. Safe to call twice."""
        self._runner.watch = self._usual
        pairs = [*self._spare, *(pair for _, pair in self._pending)]
        self._spare, self._pending = [], []
        for pair in pairs:
            for event in pair:
                with suppress(CudaError):
                    self._cuda.destroy_event(event)


def stage_timer(engine: Engine, runner: Runner) -> StageTimer | None:
    """Return a timer of a runner that works on a GPU; None for any other."""
    if isinstance(engine, CudaEngine) and isinstance(runner, CudaRunner):
        return StageTimer(engine.cuda, runner)
    return None

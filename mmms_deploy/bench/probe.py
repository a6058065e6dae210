"""One session, measured from outside as its user sees it, and from inside by where the time goes."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from mmms_deploy.bench.gauge import DeviceSpent
from mmms_deploy.bench.timed import Ledger, TimedEngine
from mmms_deploy.bench.workload import Picture, Point
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.session import Session
from mmms_deploy.session.result import ClickResult


@dataclass(frozen=True)
class ImageSample:
    """One ``set_image``, in milliseconds.

    Attributes:
        total: The whole call.
        prepare: Checking, resizing and normalising the image and its modalities.
        stages: Each stage that ran, by name: by the processor's clock, or on the GPU when that is watched.
        up: Bytes that went to the GPU, when that is watched.
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
        engine: Running the click stage: by the processor's clock, or on the GPU when that is watched.
        transfer: Handing the click over and fetching the answer; on a GPU also asking for the stage and waiting for it,
            beyond its own time.
        mask: Bringing the answer to the image's size and thresholding it.
        rest: Everything else: checks, state, history.
        up: Bytes that went to the GPU, when that is watched.
        down: Bytes that came from it.
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


class Probe:
    """A session whose calls are timed.

    Args:
        engine: An open engine; other sessions may share it. The caller closes it.
        watched: Whether stages are timed on the GPU, where there is one; a session that shares the GPU with others that
            work at the same time would count their time too.
    """

    def __init__(self, engine: Engine, *, watched: bool = False) -> None:
        timed = TimedEngine(engine, watched=watched)
        self._session = Session(engine.bundle, engine=timed)
        self._ledger = timed.ledgers[-1]
        self._gauge = timed.gauges[-1]
        self._stages = tuple(engine.graphs)

    def set_image(self, picture: Picture) -> ImageSample:
        """Set an image."""
        self._take()
        start = perf_counter()
        timings = self._session.set_image(picture.rgb, **picture.modalities)
        total = 1e3 * (perf_counter() - start)
        spent, device = self._take()
        stages = {name: spent[Ledger.run(name)] for name in self._stages if Ledger.run(name) in spent}
        if device is None:
            return ImageSample(total, timings.prepare, stages)
        return ImageSample(total, timings.prepare, device.stages, device.up)

    def click(self, point: Point) -> ClickSample:
        """Make a click."""
        self._take()
        start = perf_counter()
        result = self._session.click(*point)
        total = 1e3 * (perf_counter() - start)
        spent, device = self._take()
        transfer = spent.pop(Ledger.TRANSFER, 0.0)
        engine = sum(spent.values())
        mask = result.timings.mask
        rest = total - engine - transfer - mask
        if device is None:
            return ClickSample(total, engine, transfer, mask, rest)
        # The host asks, does something else and waits, while the GPU works: its time lies within both.
        on_gpu = sum(device.stages.values())
        return ClickSample(total, on_gpu, transfer + engine - on_gpu, mask, rest, device.up, device.down)

    def _take(self) -> tuple[dict[str, float], DeviceSpent | None]:
        """What was spent since the last call, on the host and on the GPU."""
        return self._ledger.take(), None if self._gauge is None else self._gauge.take()

    @property
    def on_gpu(self) -> bool:
        """Whether stages are timed on a GPU."""
        return self._gauge is not None

    @property
    def is_graph(self) -> bool:
        """Whether a click is one CUDA graph, as far as the GPU is watched."""
        return self._gauge is not None and self._gauge.is_graph

    @property
    def result(self) -> ClickResult:
        """The answer to the clicks so far."""
        return self._session.result

    def close(self) -> None:
        """Close the session."""
        if self._gauge is not None:
            self._gauge.close()
        self._session.close()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

"""One session, measured from outside as its user sees it, and from inside by where the time goes."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from mmms_deploy.bench.timed import Ledger, TimedEngine
from mmms_deploy.bench.workload import Picture, Point
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.result import ClickResult
from mmms_deploy.session import Session


@dataclass(frozen=True)
class ImageSample:
    """One ``set_image``, in milliseconds.

    Attributes:
        total: The whole call.
        prepare: Checking, resizing and normalising the image and its modalities.
        stages: Each stage that ran, by name.
    """

    total: float
    prepare: float
    stages: dict[str, float]


@dataclass(frozen=True)
class ClickSample:
    """One ``Session.click``, in milliseconds; the parts add up to the total.

    Attributes:
        total: The whole call.
        engine: Running the click stage.
        transfer: Handing the click over and fetching the answer.
        mask: Bringing the answer to the image's size and thresholding it.
        rest: Everything else: checks, state, history.
    """

    total: float
    engine: float
    transfer: float
    mask: float
    rest: float

    @property
    def host(self) -> float:
        """Everything beside running the click stage."""
        return self.total - self.engine


class Probe:
    """A session whose calls are timed.

    Args:
        engine: An open engine; other sessions may share it. The caller closes it.
    """

    def __init__(self, engine: Engine) -> None:
        timed = TimedEngine(engine)
        self._session = Session(engine.bundle, engine=timed)
        self._ledger = timed.ledgers[-1]
        self._stages = tuple(engine.graphs)

    def set_image(self, picture: Picture) -> ImageSample:
        """Set an image."""
        self._ledger.take()
        start = perf_counter()
        timings = self._session.set_image(picture.rgb, **picture.modalities)
        total = 1e3 * (perf_counter() - start)
        spent = self._ledger.take()
        stages = {name: spent[Ledger.run(name)] for name in self._stages if Ledger.run(name) in spent}
        return ImageSample(total, timings.prepare, stages)

    def click(self, point: Point) -> ClickSample:
        """Make a click."""
        self._ledger.take()
        start = perf_counter()
        result = self._session.click(*point)
        total = 1e3 * (perf_counter() - start)
        spent = self._ledger.take()
        transfer = spent.pop(Ledger.TRANSFER, 0.0)
        engine = sum(spent.values())
        mask = result.timings.mask
        return ClickSample(total, engine, transfer, mask, total - engine - transfer - mask)

    @property
    def result(self) -> ClickResult:
        """The answer to the clicks so far."""
        return self._session.result

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

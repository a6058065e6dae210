"""An engine that keeps the time of what a session asks of it; everything else is the engine's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from mmms_deploy.bench.gauge import Gauge, gauge_of
from mmms_deploy.bundle import Bundle, StageGraph, TensorSpec
from mmms_deploy.engines.protocol import Array, Engine, EngineInfo, Runner, Value


class Ledger:
    """Milliseconds one session spent in its runner, by what was asked: ``run NAME``, ``transfer``."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def book(self, entry: str) -> Iterator[None]:
        """Add the time inside the block to an entry."""
        start = perf_counter()
        try:
            yield
        finally:
            self._spent[entry] += 1e3 * (perf_counter() - start)

    def take(self) -> dict[str, float]:
        """Return what was spent since the last call, and start anew."""
        spent = dict(self._spent)
        self._spent.clear()
        return spent

    @staticmethod
    def run(stage: str) -> str:
        """Return the entry of a stage's runs."""
        return f"run {stage}"

    TRANSFER = "transfer"
    """Entry of everything that moves tensors: uploads, zeros, downloads, and waiting for them."""


class TimedRunner:
    """A runner that books its calls.

    Args:
        runner: The runner that does the work.
        ledger: Where its time is booked.
    """

    def __init__(self, runner: Runner, ledger: Ledger) -> None:
        self._runner = runner
        self._ledger = ledger

    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Copy an array to the device."""
        with self._ledger.book(Ledger.TRANSFER):
            return self._runner.upload(spec, array)

    def zeros(self, spec: TensorSpec) -> Value:
        """Return zeros on the device."""
        with self._ledger.book(Ledger.TRANSFER):
            return self._runner.zeros(spec)

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage."""
        with self._ledger.book(Ledger.run(stage)):
            return self._runner.run(stage, inputs)

    def download(self, value: Value) -> Array:
        """Copy a value to the host."""
        with self._ledger.book(Ledger.TRANSFER):
            return self._runner.download(value)

    def synchronize(self) -> None:
        """Wait for what was asked for."""
        with self._ledger.book(Ledger.TRANSFER):
            self._runner.synchronize()

    def close(self) -> None:
        """Free the buffers."""
        self._runner.close()


class TimedEngine:
    """An engine whose runners keep the time.

    Args:
        engine: The engine that does the work; the caller closes it.
        watched: Whether its runners are watched on the GPU too, where there is one.
    """

    def __init__(self, engine: Engine, *, watched: bool = False) -> None:
        self._engine = engine
        self._watched = watched
        self.ledgers: list[Ledger] = []
        self.gauges: list[Gauge | None] = []

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
        """Return a new runner; its ledger is the last one in ``ledgers``, and so is its gauge."""
        runner = self._engine.open()
        self.ledgers.append(Ledger())
        self.gauges.append(gauge_of(self._engine, runner) if self._watched else None)
        return TimedRunner(runner, self.ledgers[-1])

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

"""What a session costs beside its engine: preparing the image, state, history, enlarging the mask to the image.

    taskset -c 0 python benchmarks/host_overhead.py bundles/demo
    taskset -c 0 python benchmarks/host_overhead.py bundles/demo --instant

Every time is compared with the time that one copy of the image or the mask takes on the same core in the same run. On
a busy machine the milliseconds double, and the ratios stay. The package imports nothing from here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Role, StageGraph, TensorSpec
from mmms_deploy.engines.protocol import Array, Engine, EngineInfo, Runner, Value, checked_array
from mmms_deploy.engines.select import open_engine

SIZE = (1080, 1920)


class Stopwatch:
    """Counts the time inside an engine's stages. With ``instant``, no stage runs, and all get the same answer."""

    def __init__(self, engine: Engine, *, instant: bool) -> None:
        self.engine = engine
        self.instant = instant
        self.seconds = 0.0

    @property
    def info(self) -> EngineInfo:
        """What the engine really is."""
        return self.engine.info

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self.engine.bundle

    @property
    def graphs(self) -> Mapping[str, StageGraph]:
        """The graph of every stage."""
        return self.engine.graphs

    def open(self) -> Runner:
        """Return a timed runner."""
        return StopwatchRunner(self, self.engine.open())

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class StopwatchRunner:
    """A runner that times :meth:`run`."""

    def __init__(self, watch: Stopwatch, runner: Runner) -> None:
        self.watch = watch
        self.runner = runner
        self.zeros, self.download = runner.zeros, runner.download
        self.synchronize, self.close = runner.synchronize, runner.close
        self.kept: dict[str, dict[str, Value]] = {}

    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Upload without timing: uploads are part of what a session costs."""
        return self.runner.upload(spec, array)

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage, or answer at once."""
        start = perf_counter()
        if self.watch.instant:
            outputs = self.kept.get(stage) or self.kept.setdefault(stage, self._answer(stage))
        else:
            outputs = self.runner.run(stage, inputs)
        self.watch.seconds += perf_counter() - start
        return dict(outputs)

    def _answer(self, stage: str) -> dict[str, Value]:
        """Return smooth blobs as the probability: a mask with a long outline, like a network's answer."""
        outputs = {}
        for spec in self.watch.graphs[stage].outputs:
            array = np.zeros(spec.shape, dtype=spec.dtype)
            if spec.role is Role.PROBABILITY:
                rows, columns = np.mgrid[: spec.shape[2], : spec.shape[3]]
                array[0, 0] = 0.5 + 0.5 * np.sin(rows / 30) * np.cos(columns / 40)
            outputs[spec.name] = self.runner.upload(spec, checked_array(spec, array))
        return outputs


def median(action: Callable[[], None], count: int) -> float:
    """Return the median duration of an action, in milliseconds."""
    seconds = []
    for _ in range(count):
        start = perf_counter()
        action()
        seconds.append(perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def move(session: Session) -> None:
    """Undo and redo one click."""
    session.undo()
    session.redo()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="Any bundle; with --instant only its shapes matter.")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--precision", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--instant", action="store_true", help="Run no stage; answer with blobs.")
    options = parser.parse_args()

    bundle = Bundle(options.bundle)
    engine = open_engine(bundle, engine=options.engine, precision=options.precision, threads=options.threads)
    watch = Stopwatch(engine, instant=options.instant)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    extra = {m.name: rng.random((*SIZE, m.channels), dtype=np.float32) for m in bundle.manifest.modalities}
    image_target = np.empty_like(image)
    mask, mask_target = np.zeros(SIZE, dtype=np.bool_), np.empty(SIZE, dtype=np.bool_)
    with Session(bundle, engine=watch, history_limit=20) as session:
        session.set_image(image, **extra)
        prepare = float(np.median([session.set_image(image, **extra).prepare for _ in range(7)]))
        host, total, enlarge = [], [], []
        for number in range(options.clicks):
            watch.seconds = 0.0
            start = perf_counter()
            result = session.click(number * 37 % SIZE[1], number * 53 % SIZE[0], number % 3 > 0)
            elapsed = perf_counter() - start
            total.append(1e3 * elapsed)
            host.append(1e3 * (elapsed - watch.seconds))
            enlarge.append(result.timings.mask)
        copy_image = median(lambda: np.copyto(image_target, image), 50)
        copy_mask = median(lambda: np.copyto(mask_target, mask), 200)
        undo = median(lambda: move(session), 20) / 2
    engine.close()
    print(f"{engine.info}; image {SIZE[1]} x {SIZE[0]}, network {bundle.manifest.size[1]} x {bundle.manifest.size[0]}")
    clicks = float(np.median(host))
    enlarging = float(np.median(enlarge))
    rows = {
        "preparing an image": (prepare, copy_image, "copies of the image"),
        "a click, all but the stages": (clicks, copy_mask, "copies of the mask"),
        "  of which enlarging the mask": (enlarging, copy_mask, "copies of the mask"),
        "  of which state, history, upload, download": (clicks - enlarging, copy_mask, "copies of the mask"),
        "undo or redo": (undo, copy_mask, "copies of the mask"),
    }
    for name, (milliseconds, unit, what) in rows.items():
        print(f"{name:<46} {milliseconds:8.3f} ms  {milliseconds / unit:8.1f} {what}")
    print(f"{'the whole click':<46} {float(np.median(total)):8.3f} ms")


if __name__ == "__main__":
    main()

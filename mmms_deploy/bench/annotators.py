"""Many annotators on one engine: clicks a second, what one of them waits for, memory, and whether answers are right.

An annotator is an :class:`~mmms_deploy.AsyncSession` that clicks, waits for the answer, thinks, and clicks again. Two
loads are measured: with no time to think, which is all that the engine can do; and with time to think, which is what an
annotator sees. The time to think is log-normal: the times that people take are never zero, have no longest one, and are
skewed to the right (Luce, Response Times, 1986). Its mean is an option; the standard deviation of its logarithm is 0.5.
With many annotators that hardly matters: their clicks together come at random, whatever each one's distribution is.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import math
import random
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from mmms_deploy.bench.measure import StepCounter
from mmms_deploy.bench.report import Better, Metric
from mmms_deploy.bench.workload import Picture
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import ResidentBudgetError
from mmms_deploy.progress import OnProgress
from mmms_deploy.session import AsyncSession, Workers
from mmms_deploy.session.result import ClickResult
from mmms_deploy.session.workers import AT_ONCE

SPREAD = 0.5
"""Standard deviation of the logarithm of the time to think."""
THINK = 2.0
"""Seconds to think, on average, where nothing else is said."""
CLICKS = 10
"""Most clicks of an annotator on an image."""
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Load:
    """What annotators do.

    Attributes:
        think: Seconds between an answer and the next click, on average; 0 for none.
        clicks: Clicks of each on an image; with time to think, each sets another image once in so many clicks.
        at_once: How many calls run at once; the others wait.
        seed: Of the times to think.
    """

    think: float = THINK
    clicks: int = CLICKS
    at_once: int = AT_ONCE
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.think:g} s to think" if self.think else "no time to think"

    def drawn(self, rng: random.Random) -> float:
        """Return a time to think in seconds."""
        if not self.think:
            return 0.0
        return rng.lognormvariate(math.log(self.think) - SPREAD**2 / 2, SPREAD)


@dataclass
class Crowd:
    """What annotators at the same time saw.

    Attributes:
        annotators: How many.
        load: What they did.
        clicks: Milliseconds of every click, from asking to the answer.
        images: Milliseconds of every image that was set meanwhile.
        thought: Seconds that all of them thought, together.
        seconds: Seconds from the first click to the last answer.
    """

    annotators: int
    load: Load
    clicks: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)
    thought: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Clicks a second of all, while all of them click."""
        if not self.load.think:
            return len(self.clicks) / self.seconds
        # Some end before others: how often each clicked is not how many clicks there were in the whole time.
        return self.annotators * len(self.clicks) / (self.thought + 1e-3 * (sum(self.clicks) + sum(self.images)))


@dataclass
class Together:
    """Annotators that share an engine; their sessions are open.

    Attributes:
        sessions: Their sessions, each with an image.
        pictures: Images with clicks, taken in turns.
    """

    sessions: list[AsyncSession]
    pictures: Sequence[Picture]

    async def work(self, load: Load, counter: StepCounter) -> Crowd:
        """Let all of them click at the same time, and return what they saw."""
        crowd = Crowd(len(self.sessions), load)
        start = perf_counter()
        await asyncio.gather(*(self._annotate(number, crowd, counter) for number in range(len(self.sessions))))
        crowd.seconds = perf_counter() - start
        return crowd

    async def _annotate(self, number: int, crowd: Crowd, counter: StepCounter) -> None:
        session, load = self.sessions[number], crowd.load
        rng = random.Random(f"{load.seed} {number}")
        picture, place = self._picture(number), 0
        # Where each of them is in its image is drawn, so that not all images come at once.
        changes = rng.randrange(load.clicks) if load.think else load.clicks
        await session.reset()
        for done in range(load.clicks):
            thought = load.drawn(rng)
            await asyncio.sleep(thought)
            crowd.thought += thought
            if done == changes:
                picture, place = self._picture(number + 1), 0
                crowd.images.append(await _timed(lambda p=picture: session.set_image(p.rgb, **p.modalities)))  # type: ignore[misc]
            point = picture.clicks[place]
            crowd.clicks.append(await _timed(lambda p=point: session.click(*p)))  # type: ignore[misc]
            place += 1
            counter.step()

    async def equal(self, clicks: int, counter: StepCounter) -> list[bool]:
        """Let all make the same clicks once more, at the same time; return which answers are those of one alone.

        Args:
            clicks: Clicks of each.
            counter: Counts them.
        """
        alone = self.sessions[0]
        known = {}
        for number in range(min(len(self.pictures), len(self.sessions))):
            known[number] = await _answers(alone, self._picture(number), clicks)
        found: list[bool] = []

        async def one(number: int, session: AsyncSession) -> None:
            answers = await _answers(session, self._picture(number), clicks, counter)
            expected = known[number % len(self.pictures)]
            found.extend(mine == other for mine, other in zip(answers, expected, strict=True))

        await asyncio.gather(*(one(number, session) for number, session in enumerate(self.sessions)))
        return found

    def _picture(self, number: int) -> Picture:
        return self.pictures[number % len(self.pictures)]


async def _timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    await call()  # type: ignore[misc]
    return 1e3 * (perf_counter() - start)


async def _answers(
    session: AsyncSession, picture: Picture, clicks: int, counter: StepCounter | None = None
) -> list[tuple[int, int]]:
    """Return what stands for every bit of the answers to a picture's clicks."""
    await session.set_image(picture.rgb, **picture.modalities)
    answers = []
    for point in picture.clicks[:clicks]:
        result = await session.click(*point)
        answers.append(await asyncio.to_thread(_bits, result))
        if counter is not None:
            counter.step()
    return answers


def _bits(result: ClickResult) -> tuple[int, int]:
    return zlib.crc32(result.network_probability.tobytes()), zlib.crc32(result.mask.tobytes())


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What was measured with some number of annotators.

    Attributes:
        annotators: How many.
        busy: With no time to think.
        thinking: With time to think; None where none was asked for.
        each: MiB that a session adds, with its image and clicks: on the GPU where the engine works on one, else in RAM;
            None where this system does not say, or more memory was freed meanwhile.
        equal: Which answers at the same time were those of a session alone, bit by bit;
            none where that was not compared.
    """

    annotators: int
    busy: Crowd
    thinking: Crowd | None
    each: float | None
    equal: list[bool]


def see(
    engine: Engine,
    pictures: Sequence[Picture],
    annotators: int,
    load: Load,
    on_progress: OnProgress | None = None,
    *,
    compared: bool = True,
) -> Seen:
    """Measure some number of annotators on one engine.

    Args:
        engine: The engine, open.
        pictures: Images with their clicks, taken in turns.
        annotators: How many.
        load: What they do; without time to think they are measured, too.
        on_progress: Receives every click.
        compared: Whether answers are compared with those of one alone.

    Raises:
        ResidentBudgetError: The GPU has no room for so many.
        EngineError: A stage failed.
    """
    load = Load(load.think, min(load.clicks, _most_clicks(engine, pictures)), load.at_once, load.seed)
    return asyncio.run(_seen(engine, pictures, annotators, load, on_progress, compared=compared))


def _most_clicks(engine: Engine, pictures: Sequence[Picture]) -> int:
    """Return how many clicks an object may have with pictures and network."""
    rule = engine.bundle.manifest.clicks
    most = [len(picture.clicks) for picture in pictures]
    if rule.points is not None:
        most.append(rule.points.most)
    if rule.listed is not None:
        most.append(rule.listed.sizes[0])
    return min(most)


async def _seen(
    engine: Engine,
    pictures: Sequence[Picture],
    annotators: int,
    load: Load,
    on_progress: OnProgress | None,
    *,
    compared: bool,
) -> Seen:
    busy_load = Load(0.0, load.clicks, load.at_once, load.seed)
    phases = 1 + bool(load.think) + compared
    counter = StepCounter(on_progress, _named(annotators), phases * annotators * load.clicks)
    with Workers(load.at_once) as workers:
        sessions = [
            AsyncSession(engine.bundle, engine=engine, workers=workers, keep_image=False) for _ in range(annotators)
        ]
        together = Together(sessions, pictures)
        try:
            before = held_mib(engine)
            for number, session in enumerate(sessions):
                picture = together._picture(number)
                await session.set_image(picture.rgb, **picture.modalities)
                await session.click(*picture.clicks[0])
            busy = await together.work(busy_load, counter)
            after = held_mib(engine)
            thinking = await together.work(load, counter) if load.think else None
            equal = await together.equal(load.clicks, counter) if compared else []
        finally:
            await asyncio.gather(*(session.close() for session in sessions))
    # What a library frees meanwhile can be more than one session takes.
    each = None if before is None or after is None or after < before else (after - before) / annotators
    return Seen(annotators, busy, thinking, each, equal)


def held_mib(engine: Engine) -> float | None:
    """Return MiB that are held now: on the GPU by the engine's account, else in RAM; None where that is unknown."""
    if isinstance(engine, CudaEngine):
        return engine.memory().held / 2**20
    gc.collect()
    _give_back()
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    return None if found is None else int(found[1]) / 1024


def _give_back() -> None:
    """Let glibc give the system what was freed, so that memory that is held once more counts; nothing elsewhere."""
    trim = None
    with suppress(OSError, AttributeError, TypeError):
        trim = ctypes.CDLL(None).malloc_trim
    if trim is not None:
        trim(0)


def _named(annotators: int) -> str:
    return f"{annotators} annotator{'s' if annotators != 1 else ''}"


# --- metrics ----------------------------------------------------------------------------------------------------------


def annotator_metrics(
    engine: Engine,
    pictures: Sequence[Picture],
    counts: Sequence[int],
    load: Load,
    on_progress: OnProgress | None = None,
) -> list[Metric]:
    """Measure several numbers of annotators on one engine.

    Args:
        engine: The engine, open.
        pictures: Images with their clicks.
        counts: Numbers of annotators.
        load: What they do.
        on_progress: Receives every click.
    """
    groups: dict[str, list[Metric]] = {"rate": [], "wait": [], "each": [], "alike": []}
    for count in counts:
        try:
            seen = see(engine, pictures, count, load, on_progress)
        except ResidentBudgetError as error:
            groups["rate"].append(Metric(key=f"rate.{count}", title=_named(count), unit="1/s", why=error.given))
            continue
        for metric in _metrics(seen, engine):
            groups[metric.group].append(metric)
    return [metric for group in groups.values() for metric in group]


def _metrics(seen: Seen, engine: Engine) -> list[Metric]:
    count, metrics = seen.annotators, []
    for kind, crowd in (("busy", seen.busy), ("think", seen.thinking)):
        if crowd is None:
            continue
        key, title = f"{kind}.{count}", f"{_named(count)}, {crowd.load}"
        if crowd.load.think:
            key = f"{kind}_{crowd.load.think:g}s.{count}"
        metrics += [
            Metric(key=f"rate.{key}", title=title, unit="1/s", samples=(crowd.rate,), better=Better.HIGHER),
            Metric(key=f"wait.{key}", title=title, unit="ms", samples=tuple(crowd.clicks)),
        ]
        if crowd.images:
            title = f"  an image among them, {_named(count)}"
            metrics.append(Metric(key=f"wait.image.{key}", title=title, unit="ms", samples=tuple(crowd.images)))
    where = "on the GPU" if isinstance(engine, CudaEngine) else "RAM"
    each = () if seen.each is None else (seen.each,)
    why = "" if each else f"memory was freed meanwhile, or {sys.platform} does not say how much a process holds"
    title = f"{where} a session, of {count}"
    metrics.append(Metric(key=f"each.{count}", title=title, unit="MiB", samples=each, why=why))
    share = sum(seen.equal) / len(seen.equal)
    title = f"{_named(count)}, share of {len(seen.equal)} answers"
    metrics.append(Metric(key=f"alike.{count}", title=title, unit="ratio", samples=(share,), better=Better.HIGHER))
    return metrics


def annotator_note(load: Load) -> str:
    """Return what a reader of these metrics should know."""
    return (
        f"Annotators: at most {load.at_once} call{'s' if load.at_once != 1 else ''} at once, up to {load.clicks} clicks"
        f" each; the time to think is log-normal with a mean of {load.think:g} s (spread of its logarithm {SPREAD:g},"
        f" seed {load.seed}), and one of so many clicks comes after another image was set. A click's time is from"
        " asking to the answer, waiting included."
    )

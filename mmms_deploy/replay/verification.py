"""Replaying a bundle's golden clicks on this machine, through the same session that will serve."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType

import numpy as np

from mmms_deploy.bundle import GOLDEN_NAME, Bundle, GateCheck, Precision
from mmms_deploy.engines.choice import Candidate
from mmms_deploy.engines.protocol import Engine, EngineInfo
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import candidates, check_shared, open_request
from mmms_deploy.engines.verdicts import Verdict, write_verdict
from mmms_deploy.errors import (
    BundleCorruptError,
    EngineError,
    MMMSDeployError,
    SessionError,
    VerificationError,
)
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.replay.golden import GoldenCase, load_golden
from mmms_deploy.replay.metrics import iou
from mmms_deploy.replay.starting import set_golden
from mmms_deploy.session import FeatureSource, Session
from mmms_deploy.session.result import ClickResult

LIMITS: Mapping[Precision, float] = MappingProxyType(
    {Precision.FP32: 0.99, Precision.FP16: 0.97, Precision.BF16: 0.95, Precision.INT8: 0.95}
)
"""Smallest intersection over union with the reference mask, on the certain pixels, by precision.

The previous mask feeds back, so that the differences of a reduced precision add up over a sequence of clicks.
"""

CLOSE = 0.02
"""Scores of answers that differ by less may change their order in another precision: BF16 has about 0.004 between 0.5
and 1."""

CLOSE_PROPOSALS = 0.1
"""The same of proposals for a first click. Where a proposal looks hangs on thresholds inside of the network, so that a
reduced precision moves a score farther: by 0.04 in BF16, on narrow random networks."""

OnResult = Callable[["ClickCheck", ClickResult], None]
"""Receives, after every click, its check and the session's whole answer."""


@dataclass(frozen=True)
class ClickCheck:
    """How one golden click came out.

    Attributes:
        case: Index of the image, from 0.
        click: Index of the click in its sequence, from 0.
        iou: Intersection over union of the mask and the reference, on the certain pixels; 1 when both are empty. Of a
            network that answers for several objects at once, the smallest of all of them.
        certain: Share of the image's pixels that count.
        object: Share of the image's pixels that count and are in the reference mask.
        milliseconds: Time of the whole click.
    """

    case: int
    click: int
    iou: float
    certain: float
    object: float
    milliseconds: float


@dataclass(frozen=True)
class VerificationReport:
    """What a replay found.

    Attributes:
        bundle: Path of the bundle.
        engine: What executed.
        checks: Every click, in the order of the replay.
        limit: The smallest intersection over union that passes.
        seconds: Duration of the replay.
    """

    bundle: str
    engine: EngineInfo
    checks: tuple[ClickCheck, ...]
    limit: float
    seconds: float

    @property
    def worst(self) -> ClickCheck:
        """The click that fits its reference least."""
        return min(self.checks, key=lambda check: check.iou)

    @property
    def telling(self) -> bool:
        """Whether some reference mask is neither empty nor full, so that another engine could have missed it."""
        return any(0 < check.object < check.certain for check in self.checks)

    @property
    def milliseconds(self) -> float:
        """Median time of a click, in milliseconds."""
        return float(np.median([check.milliseconds for check in self.checks]))

    @property
    def failures(self) -> tuple[ClickCheck, ...]:
        """The clicks below the limit."""
        return tuple(check for check in self.checks if not check.iou >= self.limit)

    def check(self) -> GateCheck:
        """Return the replay as one comparison of the export gate."""
        worst = self.worst
        return GateCheck(
            name=f"replay on {self.engine} against the checkpoint",
            measure="smallest IoU of a mask on its certain pixels",
            worst=worst.iou,
            limit=self.limit,
            where=f"image {worst.case + 1}, click {worst.click + 1}",
            samples=len(self.checks),
        )

    def raise_for_failures(self) -> None:
        """Raise :class:`~mmms_deploy.errors.VerificationError` when a click is below the limit."""
        if not self.failures:
            return
        worst = self.worst
        raise VerificationError(
            f"{len(self.failures)} of {len(self.checks)} golden clicks of {self.bundle} give another mask on"
            f" {self.engine}; the worst has IoU {worst.iou:.4f} (image {worst.case + 1}, click {worst.click + 1})",
            expected=f"IoU of at least {self.limit} at every click",
            fix="try another engine or precision; if this one is FP32, report it with the versions above",
            command_fix="try another --engine or --precision; if this one is FP32, report it with the versions above",
        )


def replay(
    bundle: Bundle | str | os.PathLike[str],
    request: EngineRequest | None = None,
    *,
    engine: Engine | None = None,
    limit: float | None = None,
    on_progress: OnProgress | None = None,
    on_result: OnResult | None = None,
    store: FeatureSource | None = None,
    clicks: int | None = None,
) -> VerificationReport:
    """Replay the golden clicks of a bundle, closed loop, and compare every mask with the checkpoint's own.

    Args:
        bundle: A bundle, or the path of one; its files are compared with their hashes when a path is given.
        request: Which engine replays; None leaves the choice open, as a ``Session`` does.
        engine: An open engine of this bundle that fits the request; it stays open. None opens one.
        limit: The smallest intersection over union that passes; None takes that of the precision in ``LIMITS``.
        on_progress: Receives every golden click as a step, and every step of a build by TensorRT.
        on_result: Receives the check and the answer of every click.
        store: Where the session keeps its features, such as one that rounds them; None for nowhere.
        clicks: How many clicks of every picture, from the first on; None for all.

    Returns:
        What was found, good or bad.

    Raises:
        BundleError: The bundle cannot be used, or its files differ from its manifest.
        EngineError: There is no usable engine.
    """
    return _replay(
        bundle, request or EngineRequest(), engine, limit, "golden clicks", on_progress, on_result, store, clicks
    )


def _replay(
    bundle: Bundle | str | os.PathLike[str],
    request: EngineRequest,
    engine: Engine | None,
    limit: float | None,
    task: str,
    on_progress: OnProgress | None,
    on_result: OnResult | None = None,
    store: FeatureSource | None = None,
    clicks: int | None = None,
) -> VerificationReport:
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    cases = [case if clicks is None else case.first(clicks) for case in load_golden(bundle.file(GOLDEN_NAME))]
    total = sum(len(case.clicks) for case in cases)
    start = perf_counter()
    checks: list[ClickCheck] = []
    with ExitStack() as resources:
        if engine is None:
            engine = resources.enter_context(closing(open_request(bundle, request, on_progress)))
        else:
            check_shared(engine, bundle, request)
        session = resources.enter_context(
            Session(bundle, engine=engine, history_limit=0, keep_image=False, store=store)
        )
        for index, case in enumerate(cases):
            for check, result in _checks(session, index, case):
                checks.append(check)
                if on_result is not None:
                    on_result(check, result)
                if on_progress is not None:
                    on_progress(Progress(task, len(checks), total, finished=len(checks) == total))
        info = session.engine
    return VerificationReport(
        bundle=bundle.reference,
        engine=info,
        checks=tuple(checks),
        limit=LIMITS[info.precision] if limit is None else limit,
        seconds=perf_counter() - start,
    )


def verify(
    bundle: Bundle | str | os.PathLike[str],
    request: EngineRequest | None = None,
    *,
    engine: Engine | None = None,
    limit: float | None = None,
    on_progress: OnProgress | None = None,
) -> VerificationReport:
    """Do what :func:`replay` does, with the same arguments, and fail when a mask differs.

    Returns:
        What was found; every click passed.

    Raises:
        VerificationError: A mask is below the limit.
        BundleError: The bundle cannot be used, or its files differ from its manifest.
        EngineError: There is no usable engine.
    """
    report = replay(bundle, request, engine=engine, limit=limit, on_progress=on_progress)
    report.raise_for_failures()
    return report


@dataclass(frozen=True)
class EngineOutcome:
    """How one engine and precision did on this machine.

    Attributes:
        engine: Name of the engine.
        precision: What it was to compute in.
        report: What the replay found; None when there was none.
        error: Why there was none; None when there was one.
        kept: Whether the verdict was kept for ``device="auto"``.
    """

    engine: str
    precision: Precision
    report: VerificationReport | None
    error: MMMSDeployError | None
    kept: bool

    @property
    def passed(self) -> bool:
        """Whether every mask kept the limit; a reduced precision needs a mask that tells something."""
        if self.report is None or self.report.failures:
            return False
        return self.precision is Precision.FP32 or self.report.telling


def replay_engines(
    bundle: Bundle | str | os.PathLike[str],
    request: EngineRequest | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[EngineOutcome, ...]:
    """Replay the golden clicks with every installed engine in every precision, and keep the verdicts.

    One engine is open at a time, and one that fails does not end the others. TensorRT compiles what was not compiled.
    From then on ``device="auto"`` takes the fastest that passed, on this machine and with these versions.

    Args:
        bundle: A bundle, or the path of one; its files are compared with their hashes when a path is given.
        request: Its device, threads and options for a GPU count here; None replays on every device.
        on_progress: Receives every engine's golden clicks as a task of its own, named for engine and precision, first
            before the engine is opened; and every step of a build by TensorRT.

    Returns:
        What was found, good or bad.

    Raises:
        BundleError: The bundle cannot be used, or its files differ from its manifest.
        EngineUnavailableError: There is no engine for the device.
    """
    request = request or EngineRequest()
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    cases = load_golden(bundle.file(GOLDEN_NAME))  # a bad replay is no engine's fault
    total = sum(len(case.clicks) for case in cases)
    outcomes = []
    for candidate in candidates(bundle, request):
        if on_progress is not None:
            on_progress(Progress(str(candidate), 0, total))
        outcomes.append(_outcome(bundle, candidate, request, on_progress))
        if on_progress is not None and outcomes[-1].report is None:
            on_progress(Progress(str(candidate), 0, total, finished=True))
    return tuple(outcomes)


def _outcome(
    bundle: Bundle, candidate: Candidate, request: EngineRequest, on_progress: OnProgress | None
) -> EngineOutcome:
    """Replay with one engine, and keep the verdict."""
    name, precision = candidate.backend.name, candidate.precision
    reason = "replayed with every other engine"
    try:
        engine = candidate.backend.open(bundle, precision, request, reason=reason, on_progress=on_progress)
    except (BundleCorruptError, EngineError) as error:
        return EngineOutcome(name, precision, None, error, kept=False)
    try:
        with closing(engine):
            report = _replay(bundle, EngineRequest(), engine, None, str(candidate), on_progress)
    except EngineError as error:
        return EngineOutcome(name, precision, None, error, kept=False)
    outcome = EngineOutcome(name, precision, report, None, kept=False)
    return replace(outcome, kept=_keep(bundle, candidate, report, passed=outcome.passed))


def keep(bundle: Bundle, request: EngineRequest, report: VerificationReport) -> bool:
    """Keep what a replay with one engine found, as :func:`replay_engines` does with every engine.

    Only what computed in float32 is kept: a reduced precision is taken when it was compared with float32 on this
    machine, not because nothing else was measured.

    Args:
        bundle: The bundle.
        request: What was requested of the replay.
        report: What it found, with the limit of the precision.

    Returns:
        Whether it was kept; not when caching is off.
    """
    info = report.engine
    if info.precision is not Precision.FP32 or report.limit != LIMITS[info.precision]:
        return False
    replayed = [one for one in candidates(bundle, request) if one.exact and one.backend.name == info.name]
    return bool(replayed) and _keep(bundle, replayed[0], report, passed=not report.failures)


def _keep(bundle: Bundle, candidate: Candidate, report: VerificationReport, *, passed: bool) -> bool:
    verdict = Verdict(
        engine=candidate.backend.name,
        version=candidate.version,
        precision=candidate.precision,
        passed=passed,
        iou=report.worst.iou,
        limit=report.limit,
        milliseconds=report.milliseconds,
        threads=report.engine.threads,
    )
    return write_verdict(bundle, verdict)


def _worst_iou(session: Session, labels: UInt8Array, certain: BoolArray) -> float:
    """Return the smallest intersection over union of an object, on the certain pixels.

    Args:
        session: The session after a click.
        labels: (H0, W0), the reference's objects.
        certain: (H0, W0) bool.
    """
    found = session.labels
    return min(iou(found == label, labels == int(name), void=~certain) for name, label in session.surfaces.items())


def _rounded_otherwise(result: ClickResult, choice: int) -> bool:
    """Whether another proposal was taken than by the reference, with a score that is close to that one's."""
    if not 0 <= choice < len(result.candidates) or result.candidates[choice].taken:
        return False
    best = max(candidate.score for candidate in result.candidates)
    return best - result.candidates[choice].score < CLOSE_PROPOSALS


def _checks(session: Session, index: int, case: GoldenCase) -> Iterator[tuple[ClickCheck, ClickResult]]:
    try:
        set_golden(session, case)
        for number, (x, y, positive) in enumerate(case.clicks.tolist()):
            if case.surfaces is not None:
                session.select(str(case.surfaces[number]))
            result = session.click(x, y, positive > 0.5)
            milliseconds = result.timings.total
            if number == 0 and case.choice is not None and _rounded_otherwise(result, case.choice):
                result = session.choose(case.choice)
            certain = case.certain[number]
            check = ClickCheck(
                case=index,
                click=number,
                iou=iou(result.mask, case.masks[number], void=~certain)
                if case.labels is None
                else _worst_iou(session, case.labels[number], certain),
                certain=float(certain.mean()),
                object=float((case.masks[number] & certain).mean()),
                milliseconds=milliseconds,
            )
            yield check, result
    except SessionError as error:
        raise BundleCorruptError(
            f"golden image {index + 1} of {session.bundle.reference} does not fit its bundle: {error.given}",
            expected=error.expected,
            fix="export the checkpoint again",
        ) from error

"""Choosing an engine for a bundle: by device, by name, by precision; never silently another one than asked for.

What a caller leaves open is chosen by what was measured on this machine: ``mmms-verify BUNDLE --all-engines`` replays
the golden clicks with every engine and precision and keeps the verdicts. Without them the choice is the first engine in
float32; a reduced precision is never chosen unless it passed here. Nor does anybody wait for minutes who asked for no
engine: TensorRT comes first only when its plans are compiled, or when nothing else computes on the GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.devices import split_device
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.registry import BACKENDS, DEVICES, Backend, Candidate, backends, candidates, why_not_cuda
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import BundleCorruptError, EngineError, EngineUnavailableError, MMMSDeployWarning

if TYPE_CHECKING:
    from mmms_deploy.engines.tensorrt.build import OnPhase

__all__ = ["BACKENDS", "DEVICES", "Backend", "Choice", "check_shared", "choose", "open_engine", "open_request"]


@dataclass(frozen=True)
class Choice:
    """What to open.

    Attributes:
        order: What to try, best first; what follows the first is taken, aloud, when that cannot be opened.
        reason: Why the first comes first.
        compromise: What the first is instead of what was wanted; None when it is what was wanted.
    """

    order: tuple[Candidate, ...]
    reason: str
    compromise: str | None = None


def choose(
    bundle: Bundle,
    *,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    strict: bool = False,
) -> Choice:
    """Choose an engine and a precision, without opening anything; the arguments are those of :func:`open_engine`.

    Raises:
        EngineUnavailableError: There is none that fits.
        EngineConflictError: Two installed packages exclude each other.
    """
    if precision is not None and precision not in list(Precision):
        raise EngineUnavailableError(
            f"precision {precision!r} was asked for",
            expected=f"one of {', '.join(Precision)}",
            fix="pass precision=None",
        )
    possible = candidates(bundle, device, engine)
    exact = _by_time([c for c in possible if c.exact])
    if precision is None:
        open_to = [c for c in possible if c.exact or (c.passed and not strict)]
        if exact:
            order, waiting = _quick_first(_by_time(open_to), bundle, engine)
            return Choice(order, _reason(order, bundle) + waiting + _no_gpu(device, engine, order))
    wanted = Precision.FP32 if precision is None else Precision(precision)
    fitting, waiting = _quick_first(_by_time([c for c in possible if c.precision is wanted]), bundle, engine)
    if fitting:
        asked = f"{wanted} was asked for" + ("" if len(fitting) == 1 else f"; {_reason(fitting, bundle)}")
        asked += waiting + _no_gpu(device, engine, fitting)
        others = () if strict or wanted is Precision.FP32 else _quick_first(exact, bundle, engine)[0]
        return Choice((*fitting, *others), asked)
    why, fix = _why_not(bundle, wanted, possible, backends(device, engine))
    if strict:
        able = dict.fromkeys(str(c.precision) for c in possible)
        raise EngineUnavailableError(
            f"precision {wanted} is not possible: {why}",
            expected=f"one of {', '.join(able)}",
            fix=f"pass precision={next(iter(able))!r}, or {fix}",
        )
    order, waiting = _quick_first(exact or _by_time(possible), bundle, engine)
    given = f"{wanted} is not possible: {why}{waiting}"
    return Choice(order, given, f"{order[0].precision} instead of {wanted}: {why} ({fix})")


def _no_gpu(device: str, engine: str | None, found: Sequence[Candidate]) -> str:
    """Say why nothing on a GPU was considered, where somebody may have expected it."""
    if device != "auto" or engine is not None or any(candidate.backend.device == "cuda" for candidate in found):
        return ""
    why = why_not_cuda()
    return "" if why is None else f"; on the CPU, because {why}"


def _by_time(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Sort: what passed on this machine by its time, then what was not tried, then what failed."""

    def rank(candidate: Candidate) -> tuple[int, float]:
        if candidate.verdict is None:
            return 1, 0.0
        return (0, candidate.verdict.milliseconds) if candidate.verdict.passed else (2, 0.0)

    return tuple(sorted(found, key=rank))


def _quick_first(found: tuple[Candidate, ...], bundle: Bundle, engine: str | None) -> tuple[tuple[Candidate, ...], str]:
    """Put what opens at once before what would compile for minutes, on the GPU, unless an engine was asked for by name.

    The CPU does not come before the GPU for that: where nothing else computes on it, minutes are spent.

    Returns:
        The order, and what to say about it in a reason.
    """
    if engine is not None:
        return found, ""
    known = [candidate.asked(bundle) for candidate in found]
    slow = next((i for i, candidate in enumerate(known) if candidate.not_compiled is not None), len(known))
    overtaking = [candidate for candidate in known[slow:] if _quick(candidate)]
    order = [*known[:slow], *overtaking, *(candidate for candidate in known[slow:] if not _quick(candidate))]
    # Should plans turn out to be damaged, the next engine is taken, not compiled for minutes after all.
    order = [replace(one, may_build=not any(map(_quick, order[i + 1 :]))) for i, one in enumerate(order)]
    if not overtaking:
        return tuple(order), ""
    late = known[slow]
    speed = f", {late.verdict.milliseconds:.1f} ms a click when it passed here," if late.verdict is not None else ""
    return tuple(order), f"; {late}{speed} would first be compiled for minutes: {late.not_compiled}"


def _quick(candidate: Candidate) -> bool:
    """Return whether a candidate on the GPU opens at once, and nothing speaks against it."""
    return candidate.backend.device == "cuda" and candidate.not_compiled is None and not candidate.failed


def _reason(order: tuple[Candidate, ...], bundle: Bundle) -> str:
    first = order[0]
    measured = sum(candidate.passed and candidate.not_compiled is None for candidate in order)
    if first.verdict is None:
        ready = " that opens at once" if any(candidate.not_compiled is not None for candidate in order[1:]) else ""
        known = (
            "nothing was measured" if all(candidate.verdict is None for candidate in order) else "it was not measured"
        )
        return (
            f"the first engine in {first.precision}{ready}; {known} here yet, mmms-verify {bundle.path}"
            " --all-engines does"
        )
    if first.failed:
        return f"the only one left, and it failed the golden replay here: smallest IoU {first.verdict.iou:.4f}"
    if not first.passed:
        return "the only one left; its golden replay here proves nothing, because all golden masks are empty or full"
    fastest = "" if measured == 1 else f"the fastest of {measured} that "
    return (
        f"{fastest}passed the golden replay here: {first.verdict.milliseconds:.1f} ms a click, smallest IoU"
        f" {first.verdict.iou:.4f}"
    )


def _why_not(bundle: Bundle, wanted: Precision, possible: list[Candidate], named: list[Backend]) -> tuple[str, str]:
    """Return why no engine computes in a precision here, and what to do about it."""
    able = [backend for backend in named if wanted in backend.computes]
    able.sort(key=lambda backend: backend.device != possible[0].backend.device)  # what this machine has comes first
    if not able:
        names = " and ".join(dict.fromkeys(candidate.backend.name for candidate in possible))
        return f"{names} on {possible[0].backend.device} does not run it", "another engine"
    source = able[0].computes[wanted]
    if source not in bundle.manifest.precisions:
        what = "it" if source is wanted else f"graphs in {source}"
        return f"the bundle does not hold {what}", f"export the checkpoint in {source}"
    return f"{able[0].name} is not installed", f'pip install "mmms-deploy[{able[0].device}]"'


def open_engine(
    bundle: Bundle,
    *,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    strict: bool = False,
    on_progress: OnPhase | None = None,
) -> Engine:
    """Open the engine that fits, and prove that it is what was asked for.

    Opening takes seconds, unless TensorRT has to compile first, which takes minutes: when it is asked for by name, or
    is the only engine that works on the GPU, and its plans are not in the cache. It says so aloud then.

    Args:
        bundle: What to execute.
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.
        engine: Name of an engine; None takes the fastest that passed on this machine, or else the first.
        precision: ``fp32``, ``fp16`` or ``bf16``; None takes ``fp32``, or a faster one that passed on this machine.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use.
        strict: Whether to refuse another engine, precision or number of threads than asked for instead of warning,
            and to take ``fp32`` when no precision was asked for.
        on_progress: Told of every step (:class:`~mmms_deploy.engines.tensorrt.build.Phase`) while TensorRT compiles,
            from another thread.

    Returns:
        The engine, open; its ``info`` says why it was chosen. The caller closes it.

    Raises:
        EngineUnavailableError: No such engine, device or precision, here or in this version.
        EngineConflictError: Two installed packages exclude each other.
        BundleCorruptError: A graph is not what the manifest says.
        EngineError: ``threads`` is not positive.

    Warns:
        MMMSDeployWarning: Something else than asked for was taken.
    """
    if threads is not None and threads < 1:
        raise EngineError(f"{threads} threads were asked for", expected="1 or more", fix="pass threads=None")
    choice = choose(bundle, device=device, engine=engine, precision=precision, strict=strict)
    refused: list[tuple[Candidate, BundleCorruptError | EngineUnavailableError]] = []
    for candidate in choice.order:
        reason = f"{refused[0][0]} is not possible: {refused[0][1].given}" if refused else choice.reason
        try:
            opened = candidate.backend.open(
                bundle,
                candidate.precision,
                threads,
                reason,
                strict,
                ordinal=candidate.ordinal,
                may_build=candidate.may_build,
                on_progress=on_progress,
            )
        except (BundleCorruptError, EngineUnavailableError) as error:
            if strict:
                raise
            refused.append((candidate, error))
            continue
        return _spoken(opened, candidate, bundle, choice, refused, threads, strict=strict)
    raise refused[0][1]


def open_request(bundle: Bundle, request: EngineRequest, on_progress: OnPhase | None = None) -> Engine:
    """Do what :func:`open_engine` does, for a request."""
    return open_engine(
        bundle,
        device=request.device,
        engine=request.engine,
        precision=request.precision,
        threads=request.threads,
        strict=request.strict,
        on_progress=on_progress,
    )


def _spoken(
    opened: Engine,
    candidate: Candidate,
    bundle: Bundle,
    choice: Choice,
    refused: list[tuple[Candidate, BundleCorruptError | EngineUnavailableError]],
    threads: int | None,
    *,
    strict: bool,
) -> Engine:
    """Say what differs from what was asked for."""
    notes = [f"{candidate} is taken instead of {other}: {error.given}" for other, error in refused]
    if choice.compromise is not None and not refused:
        notes.append(f"{candidate.backend.name} runs {bundle.path} in {choice.compromise}")
    if candidate.failed:
        notes.append(f"{candidate} failed the golden replay of {bundle.path} on this machine")
    if threads is not None and opened.info.threads != threads:
        having = "no CPU threads" if opened.info.threads is None else f"{opened.info.threads} threads"
        notes.append(f"{candidate.backend.name} computes with {having} instead of {threads}")
    if notes and strict:
        opened.close()
        raise EngineUnavailableError(
            notes[0], expected="exactly what was asked for", fix="ask for what is possible, or leave strict out"
        )
    for note in notes:
        warnings.warn(note, MMMSDeployWarning, stacklevel=4)
    return opened


def _is_on(engine: Engine, device: str) -> bool:
    kind, ordinal = split_device(device)
    options = getattr(engine, "options", None)
    here = options.ordinal if isinstance(options, CudaOptions) else 0
    return kind == "auto" or (kind == engine.info.device and (kind == device or ordinal == here))


def check_shared(engine: Engine, bundle: Bundle, device: str, precision: str | None, threads: int | None) -> None:
    """Check that an engine that is open already is what a session asks for.

    Args:
        engine: The engine.
        bundle: The session's bundle.
        device: As in :func:`open_engine`, and so are the others.
        precision: None fits any.
        threads: None fits any.

    Raises:
        EngineError: It executes another bundle, or is something else.
    """
    if not isinstance(engine, Engine):
        raise EngineError(
            f"engine={engine!r} was given",
            expected=f"an open engine, or one of the names {', '.join(b.name for b in BACKENDS)}",
            fix="pass engine=None to take the best for the device",
        )
    info = engine.info
    if engine.bundle.manifest.digest != bundle.manifest.digest:
        raise EngineError(
            f"the engine executes {engine.bundle.path}, the session is for {bundle.path}",
            expected="an engine of the same bundle",
            fix="open_engine(bundle), then Session(bundle, engine=...)",
        )
    if not _is_on(engine, device) or precision not in (None, info.precision) or threads not in (None, info.threads):
        raise EngineError(
            f"device={device!r}, precision={precision!r}, threads={threads!r} were asked of an open engine: {info}",
            expected="what the engine is",
            fix="leave device, precision and threads alone, or open another engine",
        )

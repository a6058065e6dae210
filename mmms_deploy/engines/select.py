"""Choosing an engine for a bundle: by device, by name, by precision; another one than requested only with a warning.

What a caller leaves open is decided by what was measured on this machine: ``mmms-verify BUNDLE --all-engines`` replays
the golden clicks with every engine and precision and keeps the verdicts. Without verdicts the first engine in float32
is taken; a reduced precision is never taken unless it passed here. Unless the caller names TensorRT, opening never
starts a build that takes minutes while another engine on the GPU opens at once.

This module decides and returns facts (:mod:`mmms_deploy.engines.choice`), and :mod:`mmms_deploy.engines.explain` turns
them into sentences.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines import explain, registry
from mmms_deploy.engines.choice import Candidate, Choice, Impossible, Obstacle
from mmms_deploy.engines.cuda.devices import require_gpu, split_device
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.registry import DEVICES, Backend
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.verdicts import read_verdict
from mmms_deploy.errors import BundleCorruptError, EngineUnavailableError, MMMSDeployWarning
from mmms_deploy.progress import OnProgress

# --- what is possible here --------------------------------------------------------------------------------------------


def backends(request: EngineRequest) -> list[Backend]:
    """Return the engines of the requested device and name, installed or not.

    Raises:
        EngineUnavailableError: There is none in this version.
    """
    kind, _ = split_device(request.device)
    if kind not in DEVICES:
        raise explain.unknown_device(request.device)
    fitting = [backend for backend in registry.BACKENDS if kind in ("auto", backend.device)]
    if not fitting:
        raise explain.no_engine_for_device(request.device)
    named = [backend for backend in fitting if request.engine in (None, backend.name)]
    if not named:
        raise explain.unknown_engine(str(request.engine), request.device)
    return named


def candidates(bundle: Bundle, request: EngineRequest) -> list[Candidate]:
    """Return every installed engine and precision that could execute a bundle, float32 first.

    Whether the CPU can compute in a precision shows when the engine is opened.

    Args:
        bundle: The bundle.
        request: Its device and engine count here.

    Raises:
        EngineUnavailableError: There is none.
        EngineConflictError: Two installed packages exclude each other.
    """
    named, ordinal = backends(request), request.ordinal
    if all(backend.device == "cuda" for backend in named):
        require_gpu(ordinal)  # without one, no wheel helps
    here: list[tuple[Backend, str]] = []
    missing: list[EngineUnavailableError] = []
    for backend in named:
        try:
            here.append((backend, backend.usable(ordinal)[1]))
        except EngineUnavailableError as error:
            missing.append(error)
    if not here:
        raise explain.none_installed(missing)
    held = bundle.manifest.precisions
    found = [
        Candidate(backend, precision, version, ordinal=ordinal)
        for backend, version in here
        for precision, source in backend.computes.items()
        if source in held
    ]
    if not found:
        raise explain.no_graphs(bundle, [backend for backend, _ in here])
    found.sort(key=lambda candidate: not candidate.exact)
    return [replace(c, verdict=read_verdict(bundle, c.backend.name, c.version, c.precision)) for c in found]


# --- what is taken ----------------------------------------------------------------------------------------------------


def choose(bundle: Bundle, request: EngineRequest) -> Choice:
    """Choose an engine and a precision, without opening anything.

    Raises:
        EngineUnavailableError: There is none that fits.
        EngineConflictError: Two installed packages exclude each other.
    """
    if request.precision is not None and request.precision not in list(Precision):
        raise explain.unknown_precision(request.precision)
    possible = candidates(bundle, request)
    exact = _by_time([candidate for candidate in possible if candidate.exact])
    if request.precision is None and exact:
        left_open = [c for c in possible if c.exact or (c.passed and not request.strict)]
        order, overtaken = _quick_first(_by_time(left_open), bundle, request)
        return Choice(bundle, order, None, overtaken, _no_gpu(request, order))
    wanted = Precision.FP32 if request.precision is None else Precision(request.precision)
    fitting, overtaken = _quick_first(_by_time([c for c in possible if c.precision is wanted]), bundle, request)
    if fitting:
        others = () if request.strict or wanted is Precision.FP32 else _quick_first(exact, bundle, request)[0]
        return Choice(bundle, (*fitting, *others), wanted, overtaken, _no_gpu(request, fitting))
    impossible = _why_not(bundle, wanted, possible, backends(request))
    if request.strict:
        raise explain.impossible_precision(impossible, possible)
    order, overtaken = _quick_first(exact or _by_time(possible), bundle, request)
    return Choice(bundle, order, wanted, overtaken, impossible=impossible)


def _no_gpu(request: EngineRequest, found: Sequence[Candidate]) -> str | None:
    """Return why nothing on a GPU was considered, where the caller may have expected it."""
    if request.device != "auto" or request.engine is not None or any(c.backend.device == "cuda" for c in found):
        return None
    return registry.why_not_cuda()


def _by_time(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Sort: what passed on this machine by its time, then what was not measured, then what failed."""

    def rank(candidate: Candidate) -> tuple[int, float]:
        if candidate.verdict is None:
            return 1, 0.0
        return (0, candidate.verdict.milliseconds) if candidate.verdict.passed else (2, 0.0)

    return tuple(sorted(found, key=rank))


def _quick_first(
    found: tuple[Candidate, ...], bundle: Bundle, request: EngineRequest
) -> tuple[tuple[Candidate, ...], Candidate | None]:
    """Put what opens at once before what would first compile, on the GPU, unless an engine was requested by name.

    The CPU does not come before the GPU for that: where nothing else computes on it, the build takes its minutes.

    Returns:
        The order, and the first that was overtaken.
    """
    if request.engine is not None:
        return found, None
    known = [candidate.checked(bundle) for candidate in found]
    slow = next((i for i, candidate in enumerate(known) if candidate.not_compiled is not None), len(known))
    overtaking = [candidate for candidate in known[slow:] if candidate.opens_at_once]
    order = [*known[:slow], *overtaking, *(candidate for candidate in known[slow:] if not candidate.opens_at_once)]
    # Should plans turn out to be damaged, the next engine is taken, not compiled for minutes after all.
    order = [
        replace(one, may_build=not any(other.opens_at_once for other in order[i + 1 :])) for i, one in enumerate(order)
    ]
    return tuple(order), known[slow] if overtaking else None


def _why_not(bundle: Bundle, wanted: Precision, possible: list[Candidate], named: list[Backend]) -> Impossible:
    """Return why no engine computes in a precision here."""
    device = possible[0].backend.device
    able = [backend for backend in named if wanted in backend.computes]
    able.sort(key=lambda backend: backend.device != device)  # what this machine has comes first
    if not able:
        names = tuple(dict.fromkeys(candidate.backend.name for candidate in possible))
        return Impossible(wanted, Obstacle.ENGINES, device, names)
    source = able[0].computes[wanted]
    if source not in bundle.manifest.precisions:
        return Impossible(wanted, Obstacle.GRAPHS, able[0].device, (able[0].name,), source)
    return Impossible(wanted, Obstacle.INSTALLATION, able[0].device, (able[0].name,))


# --- opening it -------------------------------------------------------------------------------------------------------


def open_engine(
    bundle: Bundle | str | os.PathLike[str],
    *,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    strict: bool = False,
    cuda_options: CudaOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Open the engine that fits, and check that it is what was requested.

    Opening takes seconds, unless TensorRT has to compile first, which takes minutes: when it is requested by name, or
    is the only engine that works on the GPU, and its plans are not in the cache. Then it warns of that.

    Args:
        bundle: What to execute: a bundle, or the path of one.
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.
        engine: Name of an engine; None takes the fastest that passed on this machine, or else the first.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; None takes ``fp32``, or a faster one that passed here.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use.
        strict: Whether to refuse another engine, precision or number of threads than requested instead of warning,
            and to take ``fp32`` when no precision was requested.
        cuda_options: How an engine works on a GPU; None takes the defaults. An engine on the CPU ignores them.
        on_progress: Receives every step while TensorRT compiles, from another thread.

    Returns:
        The engine, open; its ``info`` says why it was chosen. The caller closes it.

    Raises:
        EngineUnavailableError: No such engine, device or precision, here or in this version.
        EngineConflictError: Two installed packages exclude each other.
        BundleCorruptError: A graph is not what the manifest says.
        EngineError: An argument has a wrong type, ``threads`` is out of range, or ``device`` and ``cuda_options`` name
            different GPUs.

    Warns:
        MMMSDeployWarning: Something else than requested was taken.
    """
    request = EngineRequest(device, engine, precision, threads, strict, cuda_options)
    return open_request(bundle if isinstance(bundle, Bundle) else Bundle(bundle), request, on_progress)


def open_request(bundle: Bundle, request: EngineRequest, on_progress: OnProgress | None = None) -> Engine:
    """Do what :func:`open_engine` does, for a request."""
    choice = choose(bundle, request)
    refused: list[explain.Refusal] = []
    for candidate in choice.order:
        try:
            opened = candidate.backend.open(
                bundle,
                candidate.precision,
                request,
                reason=explain.reason(choice, refused),
                may_build=candidate.may_build,
                on_progress=on_progress,
            )
        except (BundleCorruptError, EngineUnavailableError) as error:
            if request.strict:
                raise
            refused.append((candidate, error))
            continue
        differences = explain.differences(opened, candidate, choice, refused, request)
        if differences and request.strict:
            opened.close()
            raise explain.refused_when_strict(differences[0])
        for difference in differences:
            warnings.warn(difference, MMMSDeployWarning, stacklevel=3)
        return opened
    raise refused[0][1]


def check_shared(engine: Engine, bundle: Bundle, request: EngineRequest) -> None:
    """Check that an engine that is open already is what a session requests.

    Args:
        engine: The engine.
        bundle: The session's bundle.
        request: What the session requests; its ``engine`` does not count.

    Raises:
        EngineError: It executes another bundle, or is something else.
    """
    if isinstance(engine, type) or not isinstance(engine, Engine):
        raise explain.not_an_engine(engine)
    if engine.bundle.manifest.digest != bundle.manifest.digest:
        raise explain.other_bundle(engine, bundle)
    info, options = engine.info, getattr(engine, "options", None)
    fits = (
        _is_on(engine, request.device),
        request.precision in (None, info.precision),
        request.threads in (None, info.threads),
        request.cuda_options in (None, options),
    )
    if not all(fits):
        raise explain.other_engine(engine, request)


def _is_on(engine: Engine, device: str) -> bool:
    kind, ordinal = split_device(device)
    options = getattr(engine, "options", None)
    here = options.ordinal if isinstance(options, CudaOptions) else 0
    return kind == "auto" or (kind == engine.info.device and (kind == device or ordinal == here))

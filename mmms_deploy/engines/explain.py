"""What is said about the choice of an engine: the one place that turns its facts into sentences.

Errors carry two ways out, one for a caller in Python and one for a user of the command line.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines import registry
from mmms_deploy.engines.checks import ALIASES, shown
from mmms_deploy.engines.choice import Candidate, Choice, Impossible, Obstacle
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.registry import DEVICES, Backend
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import BundleCorruptError, EngineError, EngineUnavailableError
from mmms_deploy.installed import pip_install
from mmms_deploy.spelling import closest, did_you_mean

Refusal = tuple[Candidate, BundleCorruptError | EngineUnavailableError]
"""A candidate that could not be opened, and why."""

# --- why an engine was chosen -----------------------------------------------------------------------------------------


def reason(choice: Choice, refused: Sequence[Refusal] = ()) -> str:
    """Return why an engine was taken.

    Args:
        choice: The choice.
        refused: Those of its order that could not be opened.
    """
    if refused:
        return f"{refused[0][0]} is not possible: {refused[0][1].given}"
    waiting = _waiting(choice.overtaken)
    if choice.impossible is not None:
        return f"{choice.impossible.wanted} is not possible: {_obstacle(choice.impossible)}{waiting}"
    no_gpu = "" if choice.no_gpu is None else f"; on the CPU, because {choice.no_gpu}"
    if choice.requested is None:
        return f"{_first(choice.order, choice.bundle)}{waiting}{no_gpu}"
    fitting = tuple(candidate for candidate in choice.order if candidate.precision is choice.requested)
    compared = "" if len(fitting) == 1 else f"; {_first(fitting, choice.bundle)}"
    return f"{choice.requested} was requested{compared}{waiting}{no_gpu}"


def _first(order: tuple[Candidate, ...], bundle: Bundle) -> str:
    """Return why the first comes first."""
    first = order[0]
    if first.verdict is None:
        ready = " that opens at once" if any(candidate.not_compiled is not None for candidate in order[1:]) else ""
        unknown = all(candidate.verdict is None for candidate in order)
        known = "nothing was measured" if unknown else "it was not measured"
        return (
            f"the first engine in {first.precision}{ready}; {known} here yet, mmms-verify {bundle.reference}"
            " --all-engines does"
        )
    if first.failed:
        return f"the only one left, and it failed the golden replay here: smallest IoU {first.verdict.iou:.4f}"
    if not first.passed:
        return "the only one left; its golden replay here shows nothing, because all golden masks are empty or full"
    measured = sum(candidate.passed and candidate.not_compiled is None for candidate in order)
    fastest = "" if measured == 1 else f"the fastest of {measured} that "
    return (
        f"{fastest}passed the golden replay here: {first.verdict.milliseconds:.1f} ms a click, smallest IoU"
        f" {first.verdict.iou:.4f}"
    )


def _waiting(overtaken: Candidate | None) -> str:
    if overtaken is None:
        return ""
    verdict = overtaken.verdict
    speed = f", {verdict.milliseconds:.1f} ms a click when it passed here," if verdict is not None else ""
    return f"; {overtaken}{speed} would first be compiled for minutes: {overtaken.not_compiled}"


def _obstacle(impossible: Impossible) -> str:
    if impossible.obstacle is Obstacle.ENGINES:
        return f"{' and '.join(impossible.engines)} on {impossible.device} does not run it"
    if impossible.obstacle is Obstacle.GRAPHS:
        missing = "it" if impossible.source is impossible.wanted else f"graphs in {impossible.source}"
        return f"the bundle does not hold {missing}"
    return f"{impossible.engines[0]} is not installed"


def _way_out(impossible: Impossible) -> str:
    if impossible.obstacle is Obstacle.ENGINES:
        return "another engine"
    if impossible.obstacle is Obstacle.GRAPHS:
        return f"export the checkpoint in {impossible.source}"
    return pip_install(impossible.device)


# --- what differs from the request ------------------------------------------------------------------------------------


def differences(
    engine: Engine, taken: Candidate, choice: Choice, refused: Sequence[Refusal], request: EngineRequest
) -> list[str]:
    """Return what differs from the request, a sentence each; empty when nothing does.

    Args:
        engine: The open engine.
        taken: The candidate that it is.
        choice: The choice.
        refused: Those of its order that could not be opened.
        request: What was requested.
    """
    found = [f"{taken} is taken instead of {other}: {error.given}" for other, error in refused]
    path = choice.bundle.reference
    if choice.impossible is not None and not refused:
        lost = choice.impossible
        found.append(
            f"{taken.backend.name} runs {path} in {taken.precision} instead of {lost.wanted}: {_obstacle(lost)}"
            f" ({_way_out(lost)})"
        )
    if taken.failed:
        found.append(f"{taken} failed the golden replay of {path} on this machine")
    if request.threads is not None and engine.info.threads != request.threads:
        having = "no CPU threads" if engine.info.threads is None else f"{engine.info.threads} threads"
        found.append(f"{taken.backend.name} computes with {having} instead of {request.threads}")
    return found


def refused_when_strict(difference: str) -> EngineUnavailableError:
    """A strict request was not met."""
    return EngineUnavailableError(
        difference,
        expected="exactly what was requested",
        fix="request what is possible, or pass strict=False",
        command_fix="request what is possible, or leave --strict out",
    )


# --- what cannot be chosen --------------------------------------------------------------------------------------------


def unknown_precision(precision: str) -> EngineUnavailableError:
    """A precision that does not exist was requested."""
    meant = closest(precision, Precision, ALIASES)
    return EngineUnavailableError(
        f"precision {precision[:60]!r} was requested{did_you_mean(precision, Precision, ALIASES)}",
        expected=f"one of {', '.join(Precision)}",
        fix=f'pass precision="{meant}", or precision=None' if meant else "pass precision=None",
        command_fix=f"pass --precision {meant}, or leave it out" if meant else "leave --precision out",
    )


def unknown_device(device: str) -> EngineUnavailableError:
    """A device that does not exist was requested."""
    meant = closest(device, DEVICES, ALIASES)
    first, first_option = (
        (f'device="{meant}" or ', f"--device {meant} or ") if meant not in (None, "auto") else ("", "")
    )
    return EngineUnavailableError(
        f"device {device[:60]!r} was requested{did_you_mean(device, DEVICES, ALIASES)}",
        expected=f"one of {', '.join(DEVICES)}, cuda:1, cuda:2, ...",
        fix=f'pass {first}device="auto"',
        command_fix=f"pass {first_option}--device auto",
    )


def no_engine_for_device(device: str) -> EngineUnavailableError:
    """This version has no engine for a device."""
    return EngineUnavailableError(
        f"device {device!r} was requested, but this version of mmms-deploy has no engine for it",
        expected=f"a device with an engine: {_listed()}",
        fix='pass device="cpu" or device="auto"',
        command_fix="pass --device cpu or --device auto",
    )


def unknown_engine(engine: str, device: str) -> EngineUnavailableError:
    """This version has no engine of that name for the device."""
    names = [backend.name for backend in registry.BACKENDS]
    meant = None if engine in names else closest(engine, names, ALIASES)
    first, first_option = (f'pass engine="{meant}", or ', f"pass --engine {meant}, or ") if meant else ("", "")
    return EngineUnavailableError(
        f"engine {engine[:60]!r} was requested on device {device!r}"
        + ("" if meant is None else did_you_mean(engine, names, ALIASES)),
        expected=f"one of {_listed()}",
        fix=f"{first}{'' if first else 'pass '}engine=None to take the best for the device",
        command_fix=f"{first_option}leave --engine out to take the best for the device",
    )


def _listed() -> str:
    return ", ".join(f"{backend.name} ({backend.device})" for backend in registry.BACKENDS)


def none_installed(missing: Sequence[EngineUnavailableError]) -> EngineUnavailableError:
    """No engine for the request is installed."""
    if len(missing) == 1:
        return missing[0]
    last = missing[-1]  # that of the CPU, when both are possible: it works on every machine
    return EngineUnavailableError(
        f"no engine is installed: {', '.join(dict.fromkeys(error.given for error in missing))}",
        expected="one engine beside the base install",
        fix=last.fix,
        command_fix=last.command_fix,
    )


def no_graphs(bundle: Bundle, here: Sequence[Backend]) -> EngineUnavailableError:
    """The installed engines can load none of a bundle's graphs."""
    held = ", ".join(bundle.manifest.precisions) or "no precision in which every stage exists"
    loadable = dict.fromkeys(str(source) for backend in here for source in backend.computes.values())
    return EngineUnavailableError(
        f"{bundle.reference} has graphs in {held},"
        f" of which {' and '.join(backend.name for backend in here)} can load none",
        expected=f"graphs in {', '.join(loadable)}",
        fix="export the checkpoint again",
    )


def impossible_precision(impossible: Impossible, possible: Sequence[Candidate]) -> EngineUnavailableError:
    """A precision that was strictly requested is not possible."""
    able = list(dict.fromkeys(str(candidate.precision) for candidate in possible))
    return EngineUnavailableError(
        f"precision {impossible.wanted} is not possible: {_obstacle(impossible)}",
        expected=f"one of {', '.join(able)}",
        fix=f"pass precision={able[0]!r}, or {_way_out(impossible)}",
        command_fix=f"pass --precision {able[0]}, or {_way_out(impossible)}",
    )


# --- an engine that is open already -----------------------------------------------------------------------------------


def not_an_engine(given: object) -> EngineError:
    """Something else was given in the place of an engine."""
    return EngineError(
        f"engine={shown(given)} was given",
        expected=f"an open engine, or one of the names {', '.join(b.name for b in registry.BACKENDS)}",
        fix="pass engine=None to take the best for the device",
    )


def other_bundle(engine: Engine, bundle: Bundle) -> EngineError:
    """The open engine executes another bundle."""
    return EngineError(
        f"the engine executes {engine.bundle.reference}, the session is for {bundle.reference}",
        expected="an engine of the same bundle",
        fix="open_engine(bundle), then Session(bundle, engine=...)",
    )


def other_engine(engine: Engine, request: EngineRequest) -> EngineError:
    """The open engine is not what was requested beside it."""
    wanted = ", ".join(f"{name}={getattr(request, name)!r}" for name in ("device", "precision", "threads"))
    options = "" if request.cuda_options is None else f", cuda_options={request.cuda_options}"
    return EngineError(
        f"{wanted}{options} were requested of an open engine: {engine.info}",
        expected="what the engine is",
        fix="leave device, precision, threads and cuda_options alone, or open another engine",
    )

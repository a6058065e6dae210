"""Choosing an engine for a bundle: by device, by name, by precision; never silently another one than asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import EngineError, EngineUnavailableError, MMMSDeployWarning

DEVICES = ("auto", "cpu", "cuda")


class _EngineClass(Protocol):
    def __call__(self, bundle: Bundle, precision: Precision, threads: int | None = None) -> Engine: ...


@dataclass(frozen=True)
class Backend:
    """An engine that can be chosen.

    Attributes:
        name: What ``engine=`` takes.
        device: The device it computes on.
        precisions: What it can run, best first.
        module: Where it is; imported when it is chosen.
        factory: Name of the class in that module.
    """

    name: str
    device: str
    precisions: tuple[Precision, ...]
    module: str
    factory: str

    def open(self, bundle: Bundle, precision: Precision, threads: int | None) -> Engine:
        """Open the engine."""
        factory = cast(_EngineClass, getattr(import_module(self.module), self.factory))
        return factory(bundle, precision, threads)


BACKENDS: tuple[Backend, ...] = (
    Backend(
        name="onnxruntime",
        device="cpu",
        precisions=(Precision.FP32, Precision.FP16),
        module="mmms_deploy.engines.onnxruntime_cpu",
        factory="OnnxRuntimeCpu",
    ),
)
"""Every engine of this version; ``auto`` takes the first."""


def open_engine(
    bundle: Bundle,
    *,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    strict: bool = False,
) -> Engine:
    """Open the engine that fits, and prove that it is what was asked for.

    Args:
        bundle: What to execute.
        device: ``auto``, ``cpu`` or ``cuda``.
        engine: Name of an engine; None takes the best for the device.
        precision: ``fp32``, ``fp16`` or ``bf16``; None takes the engine's best.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use.
        strict: Whether to refuse another precision than asked for, or than the engine's best, instead of warning.

    Returns:
        The engine, open. The caller closes it.

    Raises:
        EngineUnavailableError: No such engine, device or precision, here or in this version.
        EngineConflictError: Two installed packages exclude each other.
        BundleCorruptError: A graph is not what the manifest says.
        EngineError: ``threads`` is not positive.

    Warns:
        MMMSDeployWarning: Another precision was taken.
    """
    if threads is not None and threads < 1:
        raise EngineError(f"{threads} threads were asked for", expected="1 or more", fix="pass threads=None")
    backend = _backend(device, engine)
    chosen = _precision(bundle, backend, precision, strict=strict)
    return backend.open(bundle, chosen, threads)


def _backend(device: str, engine: str | None) -> Backend:
    listed = ", ".join(f"{b.name} ({b.device})" for b in BACKENDS)
    if device not in DEVICES:
        raise EngineUnavailableError(
            f"device {device!r} was asked for", expected=f"one of {', '.join(DEVICES)}", fix='pass device="auto"'
        )
    fitting = [b for b in BACKENDS if device in ("auto", b.device)]
    if not fitting:
        raise EngineUnavailableError(
            f"device {device!r} was asked for, but this version of mmms-deploy has no engine for it",
            expected=f"a device with an engine: {listed}",
            fix='pass device="cpu" or device="auto"',
        )
    named = [b for b in fitting if engine in (None, b.name)]
    if not named:
        raise EngineUnavailableError(
            f"engine {engine!r} was asked for on device {device!r}",
            expected=f"one of {listed}",
            fix="pass engine=None to take the best for the device",
        )
    return named[0]


def _precision(bundle: Bundle, backend: Backend, asked: str | None, *, strict: bool) -> Precision:
    here = f"{backend.name} on {backend.device}"
    held = bundle.manifest.precisions
    possible = [p for p in backend.precisions if p in held]
    listed = ", ".join(held) or "none in which every stage exists"
    if asked is not None and asked not in list(Precision):
        raise EngineUnavailableError(
            f"precision {asked!r} was asked for", expected=f"one of {', '.join(Precision)}", fix="pass precision=None"
        )
    if not possible:
        raise EngineUnavailableError(
            f"{bundle.path} has precisions {listed}, of which {here} runs none",
            expected=f"one of {', '.join(backend.precisions)}",
            fix="export the checkpoint again in a precision this engine runs",
        )
    wanted = Precision(asked) if asked is not None else backend.precisions[0]
    if wanted in possible:
        return wanted
    why = "the bundle does not hold it" if wanted not in held else f"{here} does not run it"
    if strict:
        raise EngineUnavailableError(
            f"precision {wanted} is not possible: {why}",
            expected=f"one of {', '.join(possible)}",
            fix=f"pass precision={str(possible[0])!r}, or export the checkpoint in {wanted}",
        )
    warnings.warn(
        f"{here} runs {bundle.path} in {possible[0]} instead of {wanted}: {why}", MMMSDeployWarning, stacklevel=3
    )
    return possible[0]


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
    if (
        device not in ("auto", info.device)
        or precision not in (None, info.precision)
        or threads not in (None, info.threads)
    ):
        raise EngineError(
            f"device={device!r}, precision={precision!r}, threads={threads!r} were asked of an open engine: {info}",
            expected="what the engine is",
            fix="leave device, precision and threads alone, or open another engine",
        )

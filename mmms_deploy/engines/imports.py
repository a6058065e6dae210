"""The one place that imports the libraries of the engines: without their telemetry, and any failure has a name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmms_deploy import telemetry
from mmms_deploy.engines.process import ModuleLock
from mmms_deploy.errors import EngineUnavailableError

LIBRARIES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda")
"""The modules that nothing else in this repository may import."""

_lock = ModuleLock()


def import_library(name: str, *needed: str, called: str, expected: str, fix: str) -> Any:
    """Import a library of an engine.

    Args:
        name: Name of the module.
        needed: Attributes without which it is broken, such as a folder that an uninstallation left.
        called: What to call it in messages, such as its distribution and version.
        expected: What would be right, for the error.
        fix: What to do otherwise, for the error.

    Raises:
        EngineUnavailableError: It cannot be imported, for any reason at all, or is broken. An interrupt is let through.
    """
    try:
        with _lock.lock, telemetry.off(name):
            module = import_module(name)
    # A library that cannot start raises anything: RuntimeError without a home folder, OSError, even SystemExit.
    except (Exception, SystemExit) as error:
        raise EngineUnavailableError(
            f"{called} is installed but cannot be imported: {in_words(error)}", expected=expected, fix=fix
        ) from error
    missing = [attribute for attribute in needed if getattr(module, attribute, None) is None]
    if missing:
        raise EngineUnavailableError(
            f"{called} is installed but broken: the module {name} has no {', '.join(missing)}",
            expected=expected,
            fix=fix,
        )
    return module


def is_absent(error: EngineUnavailableError, name: str) -> bool:
    """Return whether a library could not be imported because it is not there at all."""
    cause = error.__cause__
    return isinstance(cause, ModuleNotFoundError) and (cause.name or "").partition(".")[0] == name.partition(".")[0]


def in_words(error: BaseException) -> str:
    """Return what an error of a library says, in one line, after its type where that is not plain from the words."""
    text = " ".join(str(error).split())
    if isinstance(error, (ImportError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

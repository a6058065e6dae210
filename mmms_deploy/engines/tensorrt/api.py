"""The Python APIs of TensorRT 10.12 to 11 and of TensorRT for RTX as one: importing them, and reading their messages.

Only names that all of them have are used, except behind a ``hasattr``. Flags are used by name, never by number: the
numbers differ between 10 and 11. These libraries rarely raise: a call returns ``None`` or ``False``, and the reason
goes to a logger, one for the whole process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmms_deploy.documents import document
from mmms_deploy.engines.imports import import_library, is_absent
from mmms_deploy.engines.process import ModuleLock
from mmms_deploy.engines.wheels import install_command
from mmms_deploy.errors import EngineUnavailableError

TENSORRT = "tensorrt"
RTX = "tensorrt_rtx"
LIBRARIES = (TENSORRT, RTX)
"""The modules, in the order in which they are tried."""

_TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
_OLDEST = {TENSORRT: (10, 12), RTX: (1, 7)}
_PLACE = re.compile(r"^\[\w+\.\w+::\w+::\d+\]\s*|\s*\(?\bIn [\w()]+ at \S+?:\d+\)?")
"""The place in the library's source that a message names."""
_KEPT = 400
"""Messages kept of each severity; the kernel list of a build is one message of severity VERBOSE."""


@dataclass(frozen=True)
class Library:
    """The library that was imported.

    Attributes:
        title: ``TensorRT`` or ``TensorRT-RTX``.
        version: Its version.
        ahead_of_time: Whether it compiles without the GPU that will run the plan.
    """

    title: str
    version: str
    ahead_of_time: bool

    def __str__(self) -> str:
        return f"{self.title} {self.version}"


def load_tensorrt(library: str | None = None) -> Any:
    """Import TensorRT or TensorRT for RTX, lazily.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.

    Returns:
        The module. Use nothing of it before a GPU was found, except a builder of TensorRT-RTX: without a GPU, the
        module returns invalid objects that end the process when they are used.

    Raises:
        EngineUnavailableError: It is not installed, cannot be loaded, or is too old.
    """
    if library is not None and library not in LIBRARIES:
        raise EngineUnavailableError(
            f"TensorRT library {library!r} was requested",
            expected=f"one of {', '.join(LIBRARIES)}",
            fix="pass library=None to take the one that is installed",
            command_fix="omit --library to take the one that is installed",
        )
    for name in LIBRARIES if library is None else (library,):
        # A wheel without its libraries raises ImportError or OSError; a source package without network, RuntimeError.
        try:
            module = import_library(
                name,
                called=_TITLES[name],
                expected="its bindings and its libraries in the same version",
                fix=f"install both again: {_install(name)}",
            )
        except EngineUnavailableError as error:
            if is_absent(error, name):
                continue
            raise
        _check_version(name, module)
        return module
    missing = library or TENSORRT
    raise EngineUnavailableError(
        f"{_TITLES[missing]} is not installed",
        expected=f"the package {missing.replace('_', '-')} beside the base install",
        fix=_install(missing),
    )


def _install(name: str) -> str:
    if name == RTX:
        return "pip install tensorrt-rtx"
    return f"{install_command('cuda')}; {document('gpu-host')} says how without a network"


def _check_version(name: str, module: Any) -> None:
    version = str(getattr(module, "__version__", "unknown"))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST[name]:
        raise EngineUnavailableError(
            f"{_TITLES[name]} {version} is installed",
            expected=f"{'.'.join(map(str, _OLDEST[name]))} or newer",
            fix=f"pip install --upgrade {name.replace('_', '-')}",
        )


def describe(trt: Any) -> Library:
    """Return which library a module is."""
    rtx = hasattr(trt, "ComputeCapability")
    return Library(_TITLES[RTX if rtx else TENSORRT], str(trt.__version__), ahead_of_time=rtx)


def create(kind: Any, *arguments: Any) -> Any:
    """Return a new object of a class of the library, or None where the library cannot create it.

    In that case the constructors raise ``TypeError`` ("factory function returned nullptr").
    """
    try:
        return kind(*arguments)
    except TypeError:
        return None


# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass
class Messages:
    """Messages of the library that were collected during a call.

    Attributes:
        errors: Its errors, in order.
        warnings: Its warnings, in order.
        details: Among its other messages, the list of kernels and the memory figures at the end of a build.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def text(self, most: int = 3) -> str:
        """Return the first errors as one line, without the places in the library's source."""
        plain = [_PLACE.sub("", " ".join(error.split())) for error in self.errors]
        lines = list(dict.fromkeys(plain))
        more = f" (and {len(lines) - most} more)" if len(lines) > most else ""
        return "; ".join(lines[:most]) + more


class _SharedLogger:
    """The one logger of a library in a process, and the collectors that receive its messages now."""

    def __init__(self, trt: Any) -> None:
        self._lock = threading.Lock()
        self._collectors: list[Messages] = []
        self.logger = self._make_logger(trt)

    def _make_logger(self, trt: Any) -> Any:
        severities = trt.ILogger.Severity
        bad = (severities.ERROR, severities.INTERNAL_ERROR)

        def receive(severity: Any, message: str) -> None:
            if severity in bad:
                chosen = "errors"
            elif severity == severities.WARNING:
                chosen = "warnings"
            elif "LayerType: " in message or message.startswith("Total "):
                chosen = "details"
            else:
                return
            with self._lock:
                for messages in self._collectors:
                    kept: list[str] = getattr(messages, chosen)
                    if len(kept) < _KEPT:
                        kept.append(message)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                receive(severity, msg)

        return Logger()

    @contextmanager
    def collect(self) -> Iterator[Messages]:
        messages = Messages()
        with self._lock:
            self._collectors.append(messages)
        try:
            yield messages
        finally:
            with self._lock:
                self._collectors = [other for other in self._collectors if other is not messages]


_LOGGERS: dict[str, _SharedLogger] = {}
_LOGGERS_LOCK = ModuleLock()


def _shared_logger(trt: Any) -> _SharedLogger:
    with _LOGGERS_LOCK.lock:
        return _LOGGERS.setdefault(trt.__name__, _LOGGERS.get(trt.__name__) or _SharedLogger(trt))


def logger(trt: Any) -> Any:
    """Return the logger for every builder, runtime and parser of this process; the library ignores a second one."""
    return _shared_logger(trt).logger


@contextmanager
def listening(trt: Any) -> Iterator[Messages]:
    """Collect the messages of a library during the block, from any thread.

    Yields:
        The messages; complete when the block is left.
    """
    with _shared_logger(trt).collect() as messages:
        yield messages

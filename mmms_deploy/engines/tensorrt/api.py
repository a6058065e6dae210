"""TensorRT's Python API, 10.12 to 11, and that of TensorRT for RTX, as one: importing it, and hearing what it says.

Only names that all of these have are used, except where ``hasattr`` asks first. Flags are named, never numbered: their
numbers differ between 10 and 11. Almost nothing in these libraries raises: a call returns ``None`` or ``False``, and
says why to a logger, of which a process has one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from mmms_deploy.engines.wheels import install_command
from mmms_deploy.errors import EngineUnavailableError

TENSORRT = "tensorrt"
RTX = "tensorrt_rtx"
LIBRARIES = (TENSORRT, RTX)
"""The modules, in the order in which they are tried."""

_TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
_OLDEST = {TENSORRT: (10, 12), RTX: (1, 7)}
_PLACE = re.compile(r"^\[\w+\.\w+::\w+::\d+\]\s*|\s*\(?\bIn [\w()]+ at \S+?:\d+\)?")
"""Where in the library's source something was noticed."""
_KEPT = 400
"""Messages kept of each severity; the kernel list of a build is one message of severity VERBOSE."""


@dataclass(frozen=True)
class Library:
    """Which library was imported.

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
        The module. Nothing of it may be touched before a GPU was seen, except a builder of TensorRT-RTX: without a GPU
        it hands out hollow objects that end the process when they are used.

    Raises:
        EngineUnavailableError: It is not installed, cannot be loaded, or is too old.
    """
    if library is not None and library not in LIBRARIES:
        raise EngineUnavailableError(
            f"TensorRT library {library!r} was asked for",
            expected=f"one of {', '.join(LIBRARIES)}",
            fix="leave it out to take the one that is installed",
        )
    for name in LIBRARIES if library is None else (library,):
        try:
            module = import_module(name)
        # A wheel without its libraries raises ImportError or OSError; a source package without network, RuntimeError.
        except (ImportError, OSError, RuntimeError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                continue
            raise EngineUnavailableError(
                f"{_TITLES[name]} is installed but cannot be imported: {error}",
                expected="its bindings and its libraries in the same version",
                fix=f"install both again: {_install(name)}",
            ) from error
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
    return f"{install_command('cuda')}; docs/gpu-host.md says how without a network"


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
    """Return a new object of a class of the library; None when the library has none to give, as its functions do.

    Its constructors raise ``TypeError`` then ("factory function returned nullptr").
    """
    try:
        return kind(*arguments)
    except TypeError:
        return None


# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass
class Messages:
    """What a library said while something was done.

    Attributes:
        errors: Its errors, in order.
        warnings: Its warnings, in order.
        details: Of the rest, the list of kernels and the account of memory at the end of a build.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def text(self, most: int = 3) -> str:
        """Return the first errors as one line, without the places in the library's source where they were noticed."""
        plain = [_PLACE.sub("", " ".join(error.split())) for error in self.errors]
        said = list(dict.fromkeys(plain))
        more = f" (and {len(said) - most} more)" if len(said) > most else ""
        return "; ".join(said[:most]) + more


class _Ears:
    """The one logger that a library takes in a process, and who listens to it at the moment."""

    def __init__(self, trt: Any) -> None:
        self._lock = threading.Lock()
        self._listening: list[Messages] = []
        self.logger = self._make_logger(trt)

    def _make_logger(self, trt: Any) -> Any:
        severities = trt.ILogger.Severity
        bad = (severities.ERROR, severities.INTERNAL_ERROR)

        def hear(severity: Any, message: str) -> None:
            if severity in bad:
                chosen = "errors"
            elif severity == severities.WARNING:
                chosen = "warnings"
            elif "LayerType: " in message or message.startswith("Total "):
                chosen = "details"
            else:
                return
            with self._lock:
                for messages in self._listening:
                    kept: list[str] = getattr(messages, chosen)
                    if len(kept) < _KEPT:
                        kept.append(message)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                hear(severity, msg)

        return Logger()

    @contextmanager
    def listening(self) -> Iterator[Messages]:
        messages = Messages()
        with self._lock:
            self._listening.append(messages)
        try:
            yield messages
        finally:
            with self._lock:
                self._listening = [other for other in self._listening if other is not messages]


_EARS: dict[str, _Ears] = {}
_EARS_LOCK = threading.Lock()


def _ears(trt: Any) -> _Ears:
    with _EARS_LOCK:
        return _EARS.setdefault(trt.__name__, _EARS.get(trt.__name__) or _Ears(trt))


def logger(trt: Any) -> Any:
    """Return the logger for every builder, runtime and parser of this process: a library ignores any second one."""
    return _ears(trt).logger


@contextmanager
def listening(trt: Any) -> Iterator[Messages]:
    """Collect what a library says during the block, in any thread.

    Yields:
        The messages; complete when the block is left.
    """
    with _ears(trt).listening() as messages:
        yield messages

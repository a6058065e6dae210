"""Telemetry of libraries: off when this package imports or calls them, unless the user switches it on.

OpenVINO posts to an analytics service when it is imported: from a forked child, with a client id that it keeps under
the home folder; behind a firewall the program ends two seconds later. NNCF posts with the same library. ONNX Runtime,
from 1.32 on, keeps a device id and a database of events in the cache folder. They decide while they are imported, so it
has to be prevented then. What the program that we are part of decided before us stays.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

VARIABLE = "MMMS_DEPLOY_TELEMETRY"
"""Environment variable that leaves telemetry to the libraries: ``1``. Anything else switches it off."""
ORT_VARIABLE = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime's own variable; it counts when the module is imported, for the whole life of the process."""
OPENVINO_MODULE = "openvino_telemetry"
"""What OpenVINO and NNCF send with. Where it is not installed, they take stubs of their own that send nothing."""


def wanted() -> bool:
    """Return whether the user wants the libraries' telemetry."""
    return os.environ.get(VARIABLE, "").strip().lower() in ("1", "on", "true", "yes")


def describe() -> str:
    """Return in words whether the libraries send telemetry when this package imports them."""
    given = os.environ.get(VARIABLE, "").strip()
    if wanted():
        return f"on, as each library decides ({VARIABLE}={given})"
    hosts = os.environ.get(ORT_VARIABLE)
    exception = "" if hosts in (None, "1") else f"; ONNX Runtime's as {ORT_VARIABLE}={hosts} says"
    ignored = given and given.lower() not in ("0", "off", "false", "no")
    misunderstood = f"; {VARIABLE}={given} means nothing, 1 switches it on" if ignored else ""
    return f"off{exception}{misunderstood or f' ({VARIABLE}=1 switches it on)'}"


@contextmanager
def off(library: str) -> Iterator[None]:
    """Import a library without its telemetry.

    Nothing is changed where the program that we are part of imported the library, or what it sends with, or set its
    variable. Afterwards everything is as before, so that what the program imports and starts later is not concerned.

    Args:
        library: Name of the module that is imported inside of the context.
    """
    name = library.partition(".")[0]
    if wanted() or name in sys.modules:
        yield
    elif name == "onnxruntime" and ORT_VARIABLE not in os.environ:
        os.environ[ORT_VARIABLE] = "1"
        try:
            yield
        finally:
            os.environ.pop(ORT_VARIABLE, None)
    elif name in ("openvino", "nncf") and OPENVINO_MODULE not in sys.modules:
        hidden = _Hidden()
        sys.meta_path.insert(0, hidden)
        try:
            yield
        finally:
            sys.meta_path.remove(hidden)
    else:
        yield


class _Hidden:
    """Hides what OpenVINO and NNCF send with, from this thread only."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == OPENVINO_MODULE and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is hidden from what imports it ({VARIABLE})", name=name)
        return None

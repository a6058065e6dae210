"""OpenVINO's module, and what all engines of a process share: its core and its threads.

OpenVINO starts threads when it first compiles a graph. A child that is forked afterwards has none of them, and cannot
start new ones: OpenVINO hangs there, even in a new core (https://github.com/openvinotoolkit/openvino/issues/416). A
child that is forked before that can use OpenVINO.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from mmms_deploy.documents import document
from mmms_deploy.engines.imports import import_library, in_words
from mmms_deploy.engines.process import in_children, keep_forever
from mmms_deploy.engines.wheels import require_openvino
from mmms_deploy.errors import EngineUnavailableError


@lru_cache(maxsize=1)
def import_openvino() -> Any:
    """Import OpenVINO, lazily.

    Raises:
        EngineUnavailableError: It is not installed, or its libraries cannot be loaded.
    """
    name, version = require_openvino()
    return import_library(
        "openvino",
        *("__version__", "Core", "Model", "Tensor", "Type", "opset13", "properties"),
        called=f"{name} {version}",
        expected="a working OpenVINO",
        fix=f"pip install --force-reinstall {name}",
    )


_cores: list[Any] = []
"""The one ``openvino.Core`` of this process, once it is made."""
_computed_in: set[int] = set()
"""The processes in which OpenVINO started its threads: this one, or those that it was forked from."""


def core() -> Any:
    """Return the one ``openvino.Core`` of this process, so that its engines share plugin and threads.

    Raises:
        EngineUnavailableError: OpenVINO cannot be used here.
    """
    ov = import_openvino()
    if not _cores:
        try:
            made = ov.Core()
            made.get_property("CPU", "FULL_DEVICE_NAME")
        except Exception as error:  # OpenVINO raises RuntimeError, and others from its bindings
            raise EngineUnavailableError(
                f"OpenVINO {ov.__version__} cannot use the CPU: {in_words(error)}",
                expected="its CPU plugin",
                fix="pip install --force-reinstall openvino",
            ) from error
        _cores.append(made)
    return _cores[0]


def _in_child() -> None:
    for inherited in _cores:
        keep_forever(inherited)
    _cores.clear()


in_children(_in_child)


def start_threads() -> None:
    """Check that OpenVINO's threads are those of this process; note that it has some from now on.

    Raises:
        EngineUnavailableError: They were started before this process was forked. OpenVINO would wait for them for ever.
    """
    if _computed_in - {os.getpid()}:
        raise EngineUnavailableError(
            f"OpenVINO was used in process {min(_computed_in)} before this process {os.getpid()} was forked from it",
            expected="a process that is forked before OpenVINO is first used, or that is not forked",
            fix="open sessions after the fork only, start processes with spawn, or use ONNX Runtime"
            f" ({document('engines')})",
        )
    _computed_in.add(os.getpid())


def bf16_capable() -> bool:
    """Return whether OpenVINO computes in BF16 on this CPU."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

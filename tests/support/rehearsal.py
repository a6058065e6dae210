"""A GPU host made of stand-ins, on which the real commands and the real ``tests/gpu`` run from end to end.

A process that is started with :func:`environment` finds, in ``site``, a ``cuda.bindings.runtime`` and a ``tensorrt`` of
its own, and ONNX Runtime with a CUDA provider: those of ``tests.standins``. Memory, streams and CUDA graphs are those
of the CUDA stand-in, and ONNX Runtime computes on the CPU. They take the arguments of the real ones alone,
and fail as those do. Times, memory and speed mean nothing here: only a GPU can show them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

SITE = ROOT / "tests" / "standins" / "site"
TENSORRT = "MMMS_REHEARSAL_TENSORRT"
"""Environment variable: the version of TensorRT, one whose API is listed; ``off`` for none."""
FAILS = "MMMS_REHEARSAL_FAILS"
"""Environment variable: what fails, with commas; ``tests.standins.cuda`` lists it."""
TORCH = "MMMS_REHEARSAL_TORCH"
"""Environment variable: ``on`` lets PyTorch take the CPU for a GPU."""


def environment(cache: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process on the GPU host.

    Args:
        cache: Where it keeps plans and verdicts.
        variables: Further variables.
    """
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), str(ROOT), os.environ.get("PYTHONPATH")))),
        "MMMS_DEPLOY_CACHE": str(cache),
        "COLUMNS": "160",
        **variables,
    }


def run(*arguments: object, env: dict[str, str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments on the GPU host; a module's name is given after ``-m``."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)

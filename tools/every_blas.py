"""Runs the tests of what multiplies with NumPy once with every common kernel of OpenBLAS that this CPU can execute.

OpenBLAS chooses its kernel by the CPU, and kernels sum in another order: a test that passes on one machine can fail on
the next. This runs the tests with the kernels of the common processors; `make test` runs them with the one that
OpenBLAS chooses itself.

    python tools/every_blas.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
VARIABLE = "OPENBLAS_CORETYPE"

TESTS = {
    "imaging/resize.py": (
        "tests/imaging/test_resize.py",
        "tests/imaging/test_preprocess.py",
        "tests/session/test_masks.py",
        "tests/session/test_previous.py",
    ),
    "export/int8/layers.py": ("tests/export/int8/test_layers.py",),
    "imaging/image_resize.py": (
        "tests/imaging/test_image_resize.py",
        "tests/imaging/test_resize.py",
        "tests/imaging/test_preprocess.py",
    ),
    "imaging/mask_resize.py": (
        "tests/imaging/test_mask_strips.py",
        "tests/imaging/test_resize.py",
        "tests/session/test_geometry.py",
    ),
    "imaging/mask_strips.py": ("tests/imaging/test_mask_strips.py",),
    "imaging/decision.py": ("tests/imaging/test_decision.py",),
    "export/half/gate.py": ("tests/export/half/test_parts.py::test_cosine",),
    "evaluation/datasets/outlines.py": ("tests/evaluation/datasets/test_drawn.py",),
}
"""The modules that multiply with NumPy, and the tests of what they compute (tests/project/test_blas.py compares)."""

NEEDS = {
    "SkylakeX": {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"},
    "Zen": {"avx2", "fma"},
    "Haswell": {"avx2", "fma"},
}
"""Kernels of OpenBLAS, and the instructions of the CPU that they take (as Linux names them)."""


def kernels(flags: set[str]) -> list[str]:
    """Return the kernels that a CPU can execute.

    Args:
        flags: The CPU's instruction sets, as Linux names them.
    """
    return [name for name, needed in NEEDS.items() if needed <= flags]


def cpu_flags() -> set[str]:
    """Return the instruction sets of this CPU; none where Linux does not tell."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(found.group(1).split()) if found else set()


def main() -> int:
    """Run the tests with every kernel; return 1 when they fail with one."""
    tests = sorted({test for tests in TESTS.values() for test in tests})
    failed = []
    for kernel in kernels(cpu_flags()):
        print(f"--- {kernel}", flush=True)
        environment = {**os.environ, VARIABLE: kernel}
        # One engine is enough: no engine multiplies with NumPy.
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not slow and not gpu and not wheel"]
        command += ["-k", "not openvino and not standin", *tests]
        if subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode:
            failed.append(kernel)
    if failed:
        print(f"failed with {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

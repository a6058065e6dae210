"""Skips what needs the packages of the export, which a GPU host need not have."""

from __future__ import annotations

import pytest

EXPORTING = ("onnx_ir", "onnxscript", "safetensors", "skimage", "timm", "torch")
"""What exporting needs."""


def skip_without_export() -> None:
    """Skip the test that runs where a package of the export is missing."""
    for name in EXPORTING:
        pytest.importorskip(name, reason=f"exporting a bundle needs {name}", exc_type=ImportError)

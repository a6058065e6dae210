"""A file like the package's wheel."""

from __future__ import annotations

import zipfile
from pathlib import Path


def write_wheel(folder: Path) -> Path:
    """Write a file like a wheel of the package, of which nothing but the name and the form counts."""
    path = folder / "mmms_deploy-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mmms_deploy/__init__.py", "")
    return path

"""Writing a file whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from mmms_deploy.bundle import writing


def write_text(path: Path, content: bytes) -> None:
    """Write a file beside its destination and rename it into place, or leave nothing.

    Args:
        path: The file; an existing one is replaced.
        content: Its content.

    Raises:
        OutputWriteError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

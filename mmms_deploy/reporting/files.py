"""Writing a report whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.files import write_file


def write_text(path: Path, content: bytes) -> None:
    """Write a file beside its destination and rename it into place, or leave nothing.

    Args:
        path: The file; an existing one is replaced.
        content: Its content.

    Raises:
        OutputWriteError: It cannot be written; or what is there is a link, folder, FIFO, socket or block device.
    """
    write_file(path, content)

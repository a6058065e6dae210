"""The demo in tests: the small one under its name, because the other needs the weights of its backbone."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.bundle import find_bundle


def small_as_demo(folder: Path) -> Path:
    """Put the small demo into a folder as ``demo``, which comes before the bundle of the package; return its path."""
    link = folder / "demo"
    link.symlink_to(find_bundle("demo-small"))
    return link

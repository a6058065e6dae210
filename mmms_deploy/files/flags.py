"""Flags of ``os.open``, by name."""

from __future__ import annotations

import os


def flags(*names: str) -> int:
    """Return flags of ``os.open`` joined; one that this system does not have counts as 0."""
    joined = 0
    for name in names:
        joined |= getattr(os, name, 0)
    return joined

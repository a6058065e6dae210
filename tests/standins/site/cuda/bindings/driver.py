"""Stands in for the module of cuda-python."""

from __future__ import annotations

from typing import Any

from tests.standins.cuda import GPU


def __getattr__(name: str) -> Any:
    if name.startswith("cu") and hasattr(GPU.driver_calls, name):
        return getattr(GPU.driver_calls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

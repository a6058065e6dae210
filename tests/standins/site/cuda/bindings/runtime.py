"""Stands in for the module of cuda-python."""

from __future__ import annotations

from typing import Any

from tests.standins.cuda import GPU, cudaEvent_t, cudaGraph_t, cudaGraphExec_t, cudaStream_t

__all__ = ["cudaEvent_t", "cudaGraphExec_t", "cudaGraph_t", "cudaStream_t"]


def __getattr__(name: str) -> Any:
    if name.startswith("cuda") and hasattr(GPU, name):
        return getattr(GPU, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

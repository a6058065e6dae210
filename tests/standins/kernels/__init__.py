"""Plain models of the package's kernels in NumPy, which the stand-in of the CUDA driver runs in their place.

A model takes the memory of the GPU, how it was launched, and the arguments in the order of the kernel's parameters. It
does for the threads of its launch what the kernel does for them, and nothing for those that are not there.

launch: how a kernel was launched.
answer: ``answer.cu``.
image: ``image.cu``.
labels: ``labels.cu``.
on_processor: their sources, compiled for the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.standins.kernels import answer, image, labels

MODELS: dict[str, Callable[..., Any]] = {**answer.MODELS, **image.MODELS, **labels.MODELS}
"""The model of every kernel, by the kernel's name."""

"""bfloat16 in PyTorch on a CPU, computed as it should be."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def without_onednn() -> AbstractContextManager[object]:
    """Return a context in which PyTorch computes with its own kernels instead of oneDNN's.

    On CPUs with AMX, oneDNN computes some strided bfloat16 convolutions wrongly, so that no digit of the result is
    right: with 4 to 24 input channels and kernels and strides of 4 to 32 pixels, all that these networks have
    (https://github.com/pytorch/pytorch/issues/169688).
    """
    return torch.backends.mkldnn.flags(enabled=False)

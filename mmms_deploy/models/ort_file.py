"""Weights in a file of ONNX Runtime's own format (.ort), as tensors; SAM 2's two position tables from their sum."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mmms_deploy.errors import CheckpointCorruptError
from mmms_deploy.models.hiera import tables_of_map
from mmms_deploy.weights.ort_file import read_ort_file

_WINDOW = 8
"""Side of the windows of the first stage, in all of SAM 2's encoders."""


def read_ort_tensors(path: Path) -> dict[str, Tensor]:
    """Read the weights of a network that was exported from PyTorch and saved by ONNX Runtime.

    Args:
        path: The file.

    Returns:
        The weights under their names in PyTorch.

    Raises:
        CheckpointCorruptError: The file is damaged, or holds no weights under such names.
    """
    weights = read_ort_file(path)
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.arrays.items()}
    if weights.positions is None:
        return state
    try:
        table, window = tables_of_map(torch.from_numpy(weights.positions.copy()), _WINDOW)
    except (ValueError, RuntimeError) as error:
        raise CheckpointCorruptError(
            f"{path}: its positions are none of SAM 2's: {error}",
            expected="the sum of a table, enlarged, and a window's table, repeated",
            fix="copy it again and compare its hash with the source's",
        ) from error
    return {**state, "image_encoder.trunk.pos_embed": table, "image_encoder.trunk.pos_embed_window": window}

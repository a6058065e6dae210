"""Linear interpolation along one axis as a matrix, for rewrites that move or replace an interpolation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def interpolation_matrix(source: int, target: int, *, corners: bool = False) -> Tensor:
    """Return linear interpolation, torch's with ``align_corners=corners``, as a (target, source) matrix.

    Its rows sum to one. Bilinear interpolation of a map x is R x C^T with the matrices of its rows and its columns.
    """
    columns = F.interpolate(torch.eye(source)[None], size=target, mode="linear", align_corners=corners)
    return columns[0].T.contiguous()


def moved(matrix: Tensor, by: int) -> Tensor:
    """Return the matrix whose row i is row i + ``by``, with zeros beyond the ends; ``by`` is -1, 0 or 1."""
    zero = torch.zeros_like(matrix[:1])
    return torch.cat([zero, matrix, zero])[1 + by : 1 + by + len(matrix)]

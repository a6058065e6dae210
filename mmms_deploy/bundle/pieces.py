"""Files that are put together from pieces: bytes, and tensors of files that are there anyway.

The weights of a bundle's graphs are those of a checkpoint and of a backbone, widened to float32, often transposed, some
multiplied by a factor that an export folds into them. A packed bundle does not hold them a second time: it holds the
bytes between them, and where each tensor comes from. What comes out is compared with its hash by the caller, so that
nothing here has to be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from mmms_deploy.weights.position_map import position_map

FloatArray = npt.NDArray[np.float32]
Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""The tensors of a file, by name."""
_MOST = 1 << 29
"""The most numbers of one piece."""


class Bytes(msgspec.Struct, tag="bytes", frozen=True, forbid_unknown_fields=True):
    """Bytes of the archive.

    Attributes:
        length: How many; they follow those of the piece of this kind before.
    """

    length: int


class Halves(msgspec.Struct, tag="halves", frozen=True, forbid_unknown_fields=True):
    """float16 numbers of the archive, whose two bytes lie apart: all low ones, then all high ones, which compress.

    Attributes:
        count: How many; their bytes follow those of the piece before.
    """

    count: int


class Stored(msgspec.Struct, tag="tensor", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tensor of a file, as float32 or float16, little-endian, in C order.

    Attributes:
        source: The file, by its name in the :class:`Recipe`.
        tensor: Name of the tensor.
        axes: The order of its axes, as :func:`numpy.transpose` takes it; empty for its own.
        along: The axis, after that, along which the factors lie.
        factors: Factors (how many entries of the axis, factor); empty for none. Products are rounded to float32.
        half: Whether the numbers are written as float16.
    """

    source: str
    tensor: str
    axes: tuple[int, ...] = ()
    along: int = 0
    factors: tuple[tuple[int, float], ...] = ()
    half: bool = False


class Positions(msgspec.Struct, tag="positions", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A position map of two tables (:func:`~mmms_deploy.weights.position_map.position_map`), as float32.

    Attributes:
        source: The file of the tables, by its name in the :class:`Recipe`.
        table: Name of the table of the whole image, (1, C, h, w).
        window: Name of the table of one window, (1, C, m, n).
        grid: (H, W).
        axes: The order of the map's axes (1, C, H, W).
        corrected: Whether as many int32 of the archive are added to the numbers' bits; they follow the bytes of the
            piece before. A machine may have summed in another order when the bundle was exported.
    """

    source: str
    table: str
    window: str
    grid: tuple[int, int]
    axes: tuple[int, int, int, int]
    corrected: bool = False


Piece: TypeAlias = Bytes | Halves | Stored | Positions


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file with tensors.

    Attributes:
        file: Name of the file of a checkpoint that ships packed, too; empty for a backbone.
        backbone: Name of a backbone whose published weights it has; empty for a checkpoint.
    """

    file: str = ""
    backbone: str = ""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the files of a bundle are put together.

    Attributes:
        sources: Files with tensors, by the names that pieces use.
        files: Pieces, in order, of the files that are not in the archive whole.
    """

    sources: dict[str, Source]
    files: dict[str, tuple[Piece, ...]]


def assemble(pieces: Sequence[Piece], held: bytes, source: Callable[[str], Tensors]) -> Iterator[bytes | memoryview]:
    """Yield a file, part by part.

    Args:
        pieces: What it is made of.
        held: The archive's bytes of this file.
        source: Returns the tensors of a source.

    Raises:
        ValueError: The pieces do not fit to the bytes, or to the tensors.
    """
    rest = memoryview(held)

    def take(length: int) -> memoryview:
        nonlocal rest
        if not 0 <= length <= len(rest):
            raise ValueError(f"a piece of {length} bytes, where {len(rest)} are left")
        taken, rest = rest[:length], rest[length:]
        return taken

    for piece in pieces:
        if isinstance(piece, Bytes):
            yield take(piece.length)
            continue
        if isinstance(piece, Halves):
            yield np.frombuffer(take(2 * piece.count), np.uint8).reshape(2, -1).T.tobytes()
            continue
        made = _stored(piece, source) if isinstance(piece, Stored) else _map(piece, source)
        if isinstance(piece, Positions) and piece.corrected:
            bits = made.view("<i4") + np.frombuffer(take(made.nbytes), "<i4").reshape(made.shape)
            made = bits.view("<f4")
        half = isinstance(piece, Stored) and piece.half
        yield made.astype("<f2").tobytes() if half else made.tobytes()
    if rest:
        raise ValueError(f"{len(rest)} bytes belong to no piece")


def _tensor(tensors: Tensors, name: str) -> FloatArray:
    if name not in tensors:
        raise ValueError(f"there is no tensor {name!r:.200}")
    return tensors[name].astype("<f4")


def _stored(piece: Stored, source: Callable[[str], Tensors]) -> FloatArray:
    tensor = _tensor(source(piece.source), piece.tensor)
    if piece.axes:
        tensor = tensor.transpose(piece.axes)
    return little_endian(scaled(tensor, piece.along, piece.factors) if piece.factors else tensor)


def scaled(tensor: FloatArray, along: int, factors: Sequence[tuple[int, float]]) -> FloatArray:
    """Multiply a tensor by factors along an axis, as :class:`Stored` has them.

    Raises:
        ValueError: There are more or fewer factors than entries.
    """
    if not 0 <= along < tensor.ndim or any(count < 0 for count, _ in factors):
        raise ValueError("factors along an axis that is not there")
    length = tensor.shape[along]
    if sum(count for count, _ in factors) != length:
        raise ValueError(f"factors for another length than {length}")
    each = np.array([factor for count, value in factors for factor in repeat(value, count)], np.float32)
    return tensor * each.reshape([length if axis == along else 1 for axis in range(tensor.ndim)])


def _map(piece: Positions, source: Callable[[str], Tensors]) -> FloatArray:
    table, window = (_tensor(source(piece.source), name) for name in (piece.table, piece.window))
    if table.ndim != 4 or window.ndim != 4 or min(*piece.grid, *table.shape, *window.shape) < 1:
        raise ValueError("tables of a position map that are none")
    if math.prod(piece.grid) * table.shape[1] > _MOST:
        raise ValueError(f"a position map of {piece.grid} is too large")
    return little_endian(position_map(table, window, piece.grid).transpose(piece.axes))


def little_endian(array: npt.NDArray[Any]) -> FloatArray:
    """Return numbers as a file has them: float32, little-endian, contiguous."""
    return np.ascontiguousarray(array, "<f4")

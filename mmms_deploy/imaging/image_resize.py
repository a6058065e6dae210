"""Resizes an image with its channels last, in pieces that threads share.

A separable resize is two multiplications with sparse, banded matrices, and here each is cut into bands: a few output
pixels, whose weights are a small dense matrix. Neighbouring bands make a run, in which each band reads its input at the
same distance from the one before (the weights have some zeros for that). So one call of NumPy multiplies a whole run,
on a strided view of the input that copies nothing. A call for each small matrix would cost more than the products, and
threads would wait for each other between them, because Python's lock changes hands more slowly than such a call takes.

A piece is some output rows. Its rows come first: the image is read once, in order, converted to float32 in a buffer,
and shrinks at once. Then the columns, while the channels still lie beside each other: weights that have a zero for
every other channel cost less than parting the channels first, which comes last, on what little is left. (Of many
channels the zeros would cost more.) The result is the same bits for any number of threads, since a piece is computed in
one way (:mod:`mmms_deploy.imaging.threads`).

Each product is too small for the BLAS library to spread over threads of its own, because its threads and the engine's,
on the same cores, can stall each other for a time slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.resize_weights import resampling_weights
from mmms_deploy.imaging.scratch import scratch
from mmms_deploy.imaging.threads import shared, usable

FloatArray: TypeAlias = npt.NDArray[np.float32]

# Multiplications in one matrix product. OpenBLAS uses a second thread from twice this number on (SMP_THRESHOLD_MIN
# times GEMM_MULTITHREAD_THRESHOLD in its interface/gemm.c).
_PRODUCT = 1 << 18
_ROWS = 112
"""Output rows of a piece, about."""
_CONVERTED = 1 << 19
"""Numbers that are converted to float32 at a time, about, in runs of rows."""
_WIDTH = 12288
"""Numbers (pixels times channels) of a row that a piece has at most, about: short rows are read slowly from memory."""
_COLUMN_BANDS = 16
"""Bands in a run of columns."""
_BESIDE = 4
"""Channels up to which they lie beside each other while columns are resized."""
_WORTH_THREADS = 1 << 20
"""Numbers of an image from which on its resize is worth another thread."""


class _Run(NamedTuple):
    """Output pixels [start, stop) of input pixels [first, last), in B bands of N pixels.

    The output of band b is ``weights[b]`` (N, K) times the K input pixels from ``first + b * distance`` on. The weights
    of columns are transposed, and for channels that lie side by side: (B, K * C, N * C).
    """

    start: int
    stop: int
    first: int
    last: int
    distance: int
    weights: FloatArray


def resize_channels_last(
    image: npt.NDArray[Any], size: tuple[int, int], rule: ResizeRule, threads: int | None = None
) -> FloatArray:
    """Resize an image with its channels last, and put the channels first.

    Args:
        image: (H, W, C), any real dtype, finite; no side is 0.
        size: New (H, W), each at least 1.
        rule: The resize rule.
        threads: How many threads compute; None for as many as the work is worth and this process may use.

    Returns:
        (C, H, W) float32; the same bits for any number of threads.
    """
    height, width, channels = image.shape
    out = np.empty((channels, *size), dtype=np.float32)
    rows = image.reshape(height, width * channels)
    down = _row_runs(height, size[0], rule, min(width * channels, _WIDTH))
    across = _column_strips(width, size[1], rule, channels)

    pieces = [_Piece(runs, columns, channels) for runs in down for columns in across]
    if threads is None:
        threads = usable() if image.size >= _WORTH_THREADS else 1
    threads = min(threads, len(pieces))
    most = [max(counts) for counts in zip(*(piece.needs for piece in pieces), strict=True)]

    def work(some: Iterator[_Piece]) -> None:
        with _buffers(most) as buffers:
            for piece in some:
                piece.compute(rows, buffers, out)

    shared(work, pieces, threads)
    return out


class _Buffers(NamedTuple):
    """One thread's memory."""

    converted: FloatArray
    block: FloatArray
    planes: FloatArray
    resized: FloatArray


@contextmanager
def _buffers(counts: Sequence[int]) -> Iterator[_Buffers]:
    """A context in which this thread has buffers of so many numbers each."""
    with scratch(sum(counts)) as memory:
        ends = np.cumsum(counts)
        yield _Buffers(*(memory[end - count : end] for end, count in zip(ends, counts, strict=True)))


class _Piece:
    """Some output rows times some output columns, of an image with C channels."""

    def __init__(self, down: tuple[_Run, ...], across: tuple[_Run, ...], channels: int) -> None:
        self._down, self._across, self._channels = down, across, channels
        self._beside = channels if channels <= _BESIDE else 1
        self._top, self._left = down[0].start, across[0].start
        self._height, self._columns = down[-1].stop - self._top, across[-1].stop - self._left
        self._first, self._last = across[0].first, across[-1].last
        # Rows are cut into equally long parts, and are as long as all of them; what lies beyond the width is 0.
        self._width = (self._last - self._first) * channels
        self._parts = max(-(-self._width * run.weights[0].size // _PRODUCT) for run in down)
        self._step = -(-self._width // self._parts)

    @property
    def needs(self) -> tuple[int, int, int, int]:
        """How many numbers of each buffer it takes."""
        length = self._parts * self._step
        block = self._height * length
        return (
            max(run.last - run.first for run in self._down) * length,
            block,
            block if self._beside < self._channels else 0,
            self._height * self._columns * self._channels,
        )

    def compute(self, rows: npt.NDArray[Any], buffers: _Buffers, out: FloatArray) -> None:
        """Compute it from an image (H, W * C) into ``out`` (C, H', W')."""
        taken = rows[:, self._first * self._channels : self._last * self._channels]
        block = self._resize_rows(taken, buffers)
        height, columns, channels = self._height, self._columns, self._channels
        if self._beside < channels:
            planes = buffers.planes[: block.size].reshape(channels, height, -1)
            np.copyto(planes, block.reshape(height, -1, channels).transpose(2, 0, 1))
            piece = self._resize_columns(planes.reshape(channels * height, -1), buffers)
            piece = piece.reshape(channels, height, columns)
        else:
            piece = self._resize_columns(block, buffers).reshape(height, columns, channels).transpose(2, 0, 1)
        out[:, self._top : self._top + height, self._left : self._left + columns] = piece

    def _resize_rows(self, rows: npt.NDArray[Any], buffers: _Buffers) -> FloatArray:
        """Return the piece's rows: (H, W) of any real dtype -> (M, W)."""
        parts, step = self._parts, self._step
        buffer = buffers.converted[: len(buffers.converted) // (parts * step) * parts * step].reshape(-1, parts * step)
        buffer[:, self._width :] = 0.0
        block = buffers.block[: self._height * parts * step].reshape(self._height, parts * step)
        line, number = buffer.strides
        for run in self._down:
            target = buffer[: run.last - run.first, : self._width]
            np.copyto(target, rows[run.first : run.last], casting="unsafe")
            bands, outputs, reach = run.weights.shape
            windows = as_strided(
                buffer,
                (bands, parts, reach, step),
                (run.distance * line, step * number, line, number),
                writeable=False,
            )
            made = block[run.start - self._top : run.stop - self._top]
            made = made.reshape(bands, outputs, parts, step).transpose(0, 2, 1, 3)
            np.matmul(run.weights[:, None], windows, out=made)
        return block[:, : self._width]

    def _resize_columns(self, block: FloatArray, buffers: _Buffers) -> FloatArray:
        """Return rows with channels side by side (or one) at their new width: (M, W * C) -> (M, W' * C)."""
        beside, count = self._beside, len(block)
        resized = buffers.resized[: count * self._columns * beside].reshape(count, -1)
        line, number = block.strides
        for run in self._across:
            bands, reach, outputs = run.weights.shape
            step = -(-count // -(-count * reach * outputs // _PRODUCT))
            read = slice((run.first - self._first) * beside, (run.last - self._first) * beside)
            written = slice((run.start - self._left) * beside, (run.stop - self._left) * beside)
            for start in range(0, count, step):
                windows = as_strided(
                    block[start : start + step, read],
                    (bands, min(step, count - start), reach),
                    (run.distance * beside * number, line, number),
                    writeable=False,
                )
                made = resized[start : start + step, written]
                np.matmul(windows, run.weights, out=made.reshape(-1, bands, outputs).transpose(1, 0, 2))
        return resized


@lru_cache(maxsize=64)
def _row_runs(size_in: int, size_out: int, rule: ResizeRule, numbers: int) -> tuple[tuple[_Run, ...], ...]:
    """Return the runs of every piece, for an image of so many numbers in a row."""
    length = _length(size_in, size_out, 1)
    bands = int(np.clip(_CONVERTED / (numbers * length * size_in / size_out), 1, max(1, 64 // length)))
    pieces = max(1, round(size_out / _ROWS))
    rows = -(-size_out // pieces)
    rows += -rows % length
    return tuple(
        tuple(_runs(size_in, size_out, rule, (start, min(start + rows, size_out)), length, bands))
        for start in range(0, size_out, rows)
    )


@lru_cache(maxsize=64)
def _column_strips(size_in: int, size_out: int, rule: ResizeRule, channels: int) -> tuple[tuple[_Run, ...], ...]:
    """Return the runs of every strip of columns, with weights for numbers whose channels lie side by side."""
    beside = channels if channels <= _BESIDE else 1
    length = _length(size_in, size_out, beside)
    strips = max(1, round(size_in * channels / _WIDTH))
    columns = -(-size_out // strips)
    return tuple(
        tuple(
            run._replace(weights=_side_by_side(run.weights, beside))
            for run in _runs(size_in, size_out, rule, (start, min(start + columns, size_out)), length, _COLUMN_BANDS)
        )
        for start in range(0, size_out, columns)
    )


def _length(size_in: int, size_out: int, beside: int) -> int:
    """Return the output pixels of a band: more multiply more zeros, the more the wider the kernel; fewer are slower."""
    return int(np.clip(20 * size_out / size_in, 4, 64 // beside))


def _runs(
    size_in: int, size_out: int, rule: ResizeRule, outputs: tuple[int, int], length: int, bands: int
) -> Iterator[_Run]:
    """Yield the runs of some output pixels [start, stop), in order."""
    first, weight = resampling_weights(size_in, size_out, rule)
    last = np.minimum(first + weight.shape[1], size_in)
    start, end = outputs
    while start < end:
        length = min(length, end - start)
        count = min(bands, (end - start) // length)
        run = None
        while run is None:  # one band always fits
            run = _run(first, last, weight, start, length, count, size_in)
            count = max(1, count // 2)
        yield run
        start = run.stop


def _run(
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    start: int,
    length: int,
    bands: int,
    size_in: int,
) -> _Run | None:
    """Return so many bands from ``start`` on; None where windows at equal distances would leave the input."""
    pixel = start + np.arange(bands * length).reshape(bands, length)
    low, high = first[pixel[:, 0]], last[pixel[:, -1]]
    distance = int(low[-1] - low[0]) // (bands - 1) if bands > 1 else 0
    ahead = np.arange(bands) * distance
    origin = int((low - ahead).min())
    reach = int((high - ahead).max()) - origin
    origin = min(origin, size_in - int(ahead[-1]) - reach)
    if origin < 0:
        return None
    reach = int((high - ahead).max()) - origin
    if origin + int(ahead[-1]) + reach > size_in:
        return None
    dense = np.zeros((bands, length, reach + weight.shape[1]), dtype=np.float64)
    index = (first[pixel] - (origin + ahead)[:, None])[..., None] + np.arange(weight.shape[1])
    np.put_along_axis(dense, index, weight[pixel], axis=2)
    weights = np.ascontiguousarray(dense[..., :reach], dtype=np.float32)
    weights.setflags(write=False)
    return _Run(start, start + bands * length, origin, origin + int(ahead[-1]) + reach, distance, weights)


def _side_by_side(weights: FloatArray, channels: int) -> FloatArray:
    """Return weights (B, N, K) for numbers with C channels side by side, transposed: (B, K * C, N * C)."""
    wide = np.kron(weights, np.eye(channels, dtype=np.float32)[None]).transpose(0, 2, 1)
    wide = np.ascontiguousarray(wide)
    wide.setflags(write=False)
    return wide

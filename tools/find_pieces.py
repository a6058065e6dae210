"""Finds the tensors of weights files in a bundle's files: what a packed bundle need not hold a second time."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from mmms_deploy.bundle.pieces import (
    Bytes,
    FloatArray,
    Halves,
    Piece,
    Positions,
    Stored,
    Tensors,
    little_endian,
    scaled,
)
from mmms_deploy.weights.position_map import position_map

_LEAST = 256
"""Bytes of a tensor from which naming it is shorter than having it."""
_MOST_RUNS = 8
"""How often a factor may change along an axis."""
_EQUAL = 0.5
"""Share of a position map's numbers that have to come out right at once; the others are corrected."""
_MAP_AXES = ((0, 1, 2, 3), (0, 2, 3, 1))


class PieceFinder:
    """Finds tensors as they are, with their axes in another order, multiplied by factors, and in position maps.

    Args:
        sources: The tensors of the files, by the names that pieces get.
    """

    def __init__(self, sources: Mapping[str, Tensors]) -> None:
        self._same: dict[bytes, Stored] = {}
        self._shapes: dict[tuple[int, ...], list[tuple[Stored, FloatArray]]] = defaultdict(list)
        self._tables: list[tuple[str, str, FloatArray]] = []
        for source, tensors in sources.items():
            for name, stored in tensors.items():
                tensor = little_endian(stored)
                if tensor.nbytes < _LEAST:
                    continue
                if tensor.ndim == 4 and tensor.shape[0] == 1:
                    self._tables.append((source, name, tensor))
                for axes in itertools.permutations(range(tensor.ndim)):
                    moved = little_endian(tensor.transpose(axes))
                    piece = Stored(source, name, axes if axes != tuple(range(tensor.ndim)) else ())
                    self._same.setdefault(moved.tobytes(), piece)
                    if tensor.ndim > 1:
                        self._shapes[moved.shape].append((piece, moved))

    def pieces(self, file: Path) -> tuple[list[Piece], bytes]:
        """Return what a file of a bundle is made of, and its bytes that no tensor has.

        Args:
            file: A graph (``.onnx``), or any other file, of which nothing is found.
        """
        content = file.read_bytes()
        found: list[Piece] = []
        held, done = bytearray(), 0
        for raw, shape in _initializers(content) if file.suffix == ".onnx" else ():
            start = content.find(raw, done)
            piece, correction = self._find(raw, shape)
            if start < 0 or piece is None:
                continue
            if start > done:
                found.append(Bytes(start - done))
            held += content[done:start] + correction
            found.append(piece)
            done = start + len(raw)
        if done < len(content):
            found.append(Bytes(len(content) - done))
        return found, bytes(held + content[done:])

    def _find(self, raw: bytes, shape: tuple[int, ...]) -> tuple[Piece | None, bytes]:
        if raw in self._same:
            return self._same[raw], b""
        numbers = np.frombuffer(raw, "<f4").reshape(shape)
        for stored, tensor in self._shapes.get(shape, ()):
            for axis in range(tensor.ndim):
                factors = _factors(tensor, numbers, axis)
                if factors is not None:
                    return Stored(stored.source, stored.tensor, stored.axes, axis, factors), b""
        return self._map(numbers)

    def _map(self, numbers: FloatArray) -> tuple[Positions | None, bytes]:
        for axes in _MAP_AXES:
            whole = tuple(numbers.shape[axes.index(axis)] for axis in range(4)) if numbers.ndim == 4 else (0,) * 4
            for (source, table, a), (other, window, b) in itertools.permutations(self._tables, 2):
                grid = whole[2], whole[3]
                if source != other or whole[:2] != a.shape[:2] or whole[:2] != b.shape[:2]:
                    continue
                if grid[0] % b.shape[2] or grid[1] % b.shape[3]:
                    continue
                made = little_endian(position_map(a, b, grid).transpose(axes))
                wrong = numbers.view("<i4") - made.view("<i4")
                if (wrong == 0).mean() > _EQUAL:
                    corrected = bool(wrong.any())
                    piece = Positions(source, table, window, grid, axes, corrected)
                    return piece, wrong.tobytes() if corrected else b""
        return None, b""


def halves(content: bytes, sources: Mapping[str, Tensors] | None = None) -> tuple[list[Piece], bytes]:
    """Return what a safetensors file of float16 numbers is made of, and what an archive holds of it.

    Args:
        content: The file.
        sources: The tensors of files that are there anyway, by the names that pieces get; what has the same name and
            the same float16 numbers in one of them is not held.
    """
    header = 8 + int.from_bytes(content[:8], "little")
    facts = {name: one for name, one in json.loads(content[8:header]).items() if name != "__metadata__"}
    kinds = {one["dtype"] for one in facts.values()}
    if kinds != {"F16"}:
        raise ValueError(f"weights of {kinds}, which are not all float16")
    pieces: list[Piece] = [Bytes(header)]
    held, start = bytearray(content[:header]), header

    def hold(end: int) -> None:
        """Hold what lies between the last tensor that was found and here."""
        if end > start:
            apart = np.frombuffer(content[start:end], np.uint8).reshape(-1, 2).T
            pieces.append(Halves(apart.shape[1]))
            held.extend(apart.tobytes())

    for name, one in sorted(facts.items(), key=lambda fact: fact[1]["data_offsets"]):
        first, last = (header + offset for offset in one["data_offsets"])
        found = _stored_half(name, content[first:last], sources or {})
        if found is not None:
            hold(first)
            pieces.append(found)
            start = last
    hold(len(content))
    return pieces, bytes(held)


def _stored_half(name: str, raw: bytes, sources: Mapping[str, Tensors]) -> Stored | None:
    """Return the tensor of a name in the first file whose float16 numbers are these; None where there is none."""
    if len(raw) < _LEAST:
        return None
    for source, tensors in sources.items():
        if name in tensors and tensors[name].astype("<f2").tobytes() == raw:
            return Stored(source, name, half=True)
    return None


def _initializers(content: bytes) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Yield the float32 constants of a graph that are worth a piece, in the order of the file."""
    for tensor in onnx.load_model_from_string(content).graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) >= _LEAST:
            yield tensor.raw_data, tuple(tensor.dims)


def _factors(tensor: FloatArray, numbers: FloatArray, axis: int) -> tuple[tuple[int, float], ...] | None:
    """Return the factors along an axis by which a tensor becomes these numbers, in runs; None where there are none."""
    rows, made = (np.moveaxis(one, axis, 0).reshape(tensor.shape[axis], -1) for one in (tensor, numbers))
    largest = np.arange(len(rows)), np.abs(rows).argmax(axis=1)
    if not np.all(rows[largest]):
        return None
    quotients = (made[largest] / rows[largest]).astype(np.float32)
    # A product was rounded, so the factor may be a neighbour of the quotient; one of them is right for all of a run.
    runs: list[tuple[int, float]] = []
    start = 0
    while start < len(rows):
        near = quotients[start] * (1 + np.arange(-3, 4, dtype=np.float64) * 2.0**-24)
        right = {float(f): _length(rows[start:], made[start:], np.float32(f)) for f in near.astype(np.float32)}
        factor = max(right, key=lambda one: right[one])
        if not right[factor] or len(runs) == _MOST_RUNS:
            return None
        runs.append((right[factor], factor))
        start += right[factor]
    factors = tuple(runs)
    return factors if np.array_equal(scaled(tensor, axis, factors), numbers) else None


def _length(rows: FloatArray, made: FloatArray, factor: np.float32) -> int:
    """Return how many rows from the first on a factor is right for."""
    wrong = np.flatnonzero((rows * factor != made).any(axis=1))
    return int(wrong[0]) if len(wrong) else len(rows)

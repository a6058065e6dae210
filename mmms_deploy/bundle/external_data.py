"""What an ONNX graph names outside of itself, read from its bytes before any library sees it.

A tensor of a graph may lie in another file, and a hash of the graph does not cover that file. So every such place, in
initializers, in attributes, in subgraphs at any depth, in functions and in training information, must be a file that
the manifest lists with its hash. The run-time half has no ``onnx``: this reads protobuf's wire format itself, only the
fields that lead to a tensor, and refuses what no writer of ONNX produces where libraries could read it differently
(a part that is there twice, a wrong wire type, a group).

Field numbers are those of onnx.proto; ``tests/bundle/test_external_data.py`` compares them with the package ``onnx``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmms_deploy.bundle.names import FILE_NAME
from mmms_deploy.errors import BundleCorruptError, FileReadError
from mmms_deploy.files import open_regular

MODEL, TRAINING, GRAPH, NODE, ATTRIBUTE = "ModelProto", "TrainingInfoProto", "GraphProto", "NodeProto", "AttributeProto"
FUNCTION, SPARSE, TENSOR, ENTRY = "FunctionProto", "SparseTensorProto", "TensorProto", "StringStringEntryProto"

CHILDREN: Mapping[str, Mapping[int, str]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    TRAINING: {1: GRAPH, 2: GRAPH},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    TENSOR: {13: ENTRY},
}
"""For every message of onnx.proto on the way to a tensor, its fields that lead there."""
SINGLE: Mapping[str, frozenset[int]] = {
    MODEL: frozenset({7}),
    TRAINING: frozenset({1, 2}),
    ATTRIBUTE: frozenset({5, 6, 22}),
    SPARSE: frozenset({1, 2}),
}
"""Those of them that may be there once. Protobuf merges two, so that each could look harmless alone."""
TEXTS: Mapping[str, frozenset[int]] = {NODE: frozenset({4}), ENTRY: frozenset({1, 2})}
"""Texts that are looked at: the operator of a node, key and value of an entry."""
LOCATION_FIELD = 14
"""``TensorProto.data_location``; 1 is a file."""

_KEYS = (b"location", b"offset", b"length", b"checksum")
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 5_000_000
_MOST_TEXT = 4096
_DEPTH = 100  # as protobuf itself
_LARGEST = (1 << 31) - 1
_WINDOW = 1 << 18
_SUFFIX = ".onnx"


@dataclass(frozen=True)
class _Place:
    """A tensor's place outside of its graph."""

    location: bytes
    offset: int
    length: int


def external_parts(file: Path) -> dict[str, list[tuple[int, int]]]:
    """Return which parts of other files a graph that was checked takes.

    Args:
        file: The graph.

    Returns:
        For every file that it names, the parts as (offset, length) in bytes, in the order of the graph; a length of 0
        is the rest of the file.

    Raises:
        BundleCorruptError: It is no readable ONNX graph.
    """
    parts: dict[str, list[tuple[int, int]]] = {}
    for place in _read(file).places:
        parts.setdefault(place.location.decode("utf-8", "backslashreplace"), []).append((place.offset, place.length))
    return parts


def check_graph(file: Path, sizes: Mapping[str, int]) -> frozenset[str]:
    """Check that a graph is ONNX and reads nothing but files of its bundle.

    Args:
        file: The graph.
        sizes: Bytes of every file that the bundle's manifest lists, by name.

    Returns:
        The names of the files that hold tensors of the graph.

    Raises:
        BundleCorruptError: It is no readable ONNX graph; or it names a file that the manifest does not list, or a part
            that the file does not have.
    """
    places = _read(file).places
    for place in places:
        _check_place(file, place, sizes)
    return frozenset(place.location.decode() for place in places)


def _read(file: Path) -> _Reader:
    if file.suffix != _SUFFIX:
        # Libraries choose another format by the name, such as ONNX Runtime's own (.ort).
        raise _refused(file, f"its name does not end in {_SUFFIX}")
    try:
        with open_regular(file) as stream:
            reader = _Reader(stream, os.fstat(stream.fileno()).st_size)
            reader.message(MODEL, reader.size)
    except FileReadError as error:
        raise _refused(file, error.reason) from error
    except (OSError, _MalformedError) as error:
        raise _refused(file, f"{error}") from error
    if not reader.graphs:
        raise _refused(file, "there is no graph in it")
    return reader


def _check_place(file: Path, place: _Place, sizes: Mapping[str, int]) -> None:
    name = place.location.decode("utf-8", "backslashreplace")
    if not FILE_NAME.fullmatch(name) or name not in sizes or name == file.name:
        raise BundleCorruptError(
            f"{file} takes weights from {name[:200]!r}, which the manifest does not list",
            expected="weights in the graph itself or in files of the bundle, each listed with its hash",
            fix="do not use this bundle: its hashes do not cover its weights; export the checkpoint again",
        )
    if place.offset + place.length > sizes[name]:
        raise BundleCorruptError(
            f"{file} takes {place.length} bytes at {place.offset} from {name}, which has {sizes[name]}",
            expected="weights inside their file",
            fix="copy the bundle again, or export the checkpoint again",
        )


def _refused(file: Path, reason: str) -> BundleCorruptError:
    return BundleCorruptError(
        f"{file} is no readable ONNX graph: {reason}",
        expected=f"an ONNX graph, NAME{_SUFFIX}, as mmms-export writes them",
        fix="copy the bundle again, or export the checkpoint again",
    )


class _MalformedError(Exception):
    """The bytes are no ONNX, or a form of it that no writer produces."""


class _Reader:
    """Walks through the messages of a file; what does not lead to a tensor is skipped and not read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        if size > _LARGEST:
            raise _MalformedError(f"it has {size} bytes, more than a message of protobuf can have")
        self.size = size
        self.places: list[_Place] = []
        self.graphs = 0
        self._stream = stream
        self._position = 0
        self._window = b""
        self._start = 0
        self._fields = 0

    def message(self, kind: str, end: int, depth: int = 0) -> None:
        """Walk through the message of a kind between the position and ``end``."""
        if depth > _DEPTH:
            raise _MalformedError(f"nested more than {_DEPTH} levels deep")
        children, single, texts = CHILDREN.get(kind, {}), SINGLE.get(kind, frozenset()), TEXTS.get(kind, frozenset())
        seen: set[int] = set()
        entries: dict[bytes, bytes] = {}
        external = False
        while self._position < end:
            number, wire, value = self._field(end)
            if number in children or number in texts:
                if wire != _LENGTH:
                    raise _MalformedError(f"field {number} of a {kind} has wire type {wire}")
                if number in single and number in seen:
                    raise _MalformedError(f"field {number} of a {kind} is there twice")
                seen.add(number)
            if wire != _LENGTH:
                external = external or (kind == TENSOR and number == LOCATION_FIELD and value != 0)
                continue
            child, after = children.get(number), self._position + value
            if child == ENTRY:
                key, content = self._entry(after)
                if key not in _KEYS or key in entries:
                    raise _MalformedError(f"a tensor's external data has {key[:40]!r}, or has it twice")
                entries[key] = content
            elif child is not None:
                self.graphs += child == GRAPH
                self.message(child, after, depth + 1)
            elif number in texts and self._bytes(value) == b"EPContext":
                # It holds, or names, a program for one execution provider.
                raise _MalformedError("it has an operator EPContext, a program in a file of its own")
            self._position = after
        if self._position != end:
            raise _MalformedError(f"a {kind} is cut off")
        if external or entries:
            self.places.append(
                _Place(entries.get(b"location", b""), _number(entries, b"offset"), _number(entries, b"length"))
            )

    def _entry(self, end: int) -> tuple[bytes, bytes]:
        """Read key and value of an entry of external data."""
        found: dict[int, bytes] = {}
        while self._position < end:
            number, wire, value = self._field(end)
            if wire != _LENGTH or number in found or number not in TEXTS[ENTRY]:
                raise _MalformedError("an entry of external data is no key with a value")
            found[number] = self._bytes(value)
            self._position += value
        return found.get(1, b""), found.get(2, b"")

    def _field(self, end: int) -> tuple[int, int, int]:
        """Read a field's number and wire type, and its value, or for a text or message its length.

        The position is then after the value, or before the text or message, which ends at or before ``end``.
        """
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise _MalformedError(f"it has more than {_MOST_FIELDS} fields")
        tag = self._varint(end, 5)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise _MalformedError(f"there is no field {number}")
        if wire == _VARINT:
            return number, wire, self._varint(end, 10)
        if wire not in (_LENGTH, _FIXED64, _FIXED32):
            raise _MalformedError(f"field {number} has wire type {wire}")
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire) or (self._varint(end, 5) if wire == _LENGTH else 0)
        if self._position + length > end:
            raise _MalformedError(f"field {number} is cut off")
        if wire != _LENGTH:
            self._position += length
        return number, wire, length

    def _varint(self, end: int, most: int) -> int:
        value = 0
        for index in range(most):
            if self._position >= end:
                raise _MalformedError("a number is cut off")
            byte = self._byte()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value
        raise _MalformedError("a number is too long")

    def _byte(self) -> int:
        at = self._position - self._start
        if not 0 <= at < len(self._window):
            self._fill()
            at = 0
        self._position += 1
        return self._window[at]

    def _bytes(self, length: int) -> bytes:
        """Return a text at the position, which stays."""
        if length > _MOST_TEXT:
            raise _MalformedError(f"a name has {length} bytes")
        at = self._position - self._start
        if not 0 <= at <= len(self._window) - length:
            self._fill()
            at = 0
        text = self._window[at : at + length]
        if len(text) != length:
            raise _MalformedError("it is cut off")
        return text

    def _fill(self) -> None:
        self._stream.seek(self._position)
        self._window, self._start = self._stream.read(_WINDOW), self._position
        if not self._window and self._position < self.size:
            raise _MalformedError("it is cut off")


def _number(entries: Mapping[bytes, bytes], key: bytes) -> int:
    text = entries.get(key, b"0")
    # Nothing else means the same to all libraries.
    if not text.isdigit() or len(text) > 19:
        raise _MalformedError(f"the {key.decode()} of external data is {text[:40]!r}")
    return int(text)

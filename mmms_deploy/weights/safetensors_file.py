"""Files in the format safetensors, read and written with NumPy alone.

Eight bytes say how long the header is; the header is JSON with the type, the shape and the place of every tensor; the
numbers follow. What is written here has the bytes that the library safetensors writes of the same tensors.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mmms_deploy.errors import CheckpointCorruptError, FileReadError
from mmms_deploy.files import decode_json, open_regular
from mmms_deploy.weights.arrays import WIDE_TYPES, Array, widened

_LARGEST_HEADER = 100_000_000
"""Bytes, as the library has it."""
_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_NAMES = {np.dtype("<f2"): "F16", np.dtype("<f4"): "F32", np.dtype("<f8"): "F64"}
_ALIGNED = 8
_UNREADABLE = (FileReadError, OSError, ValueError, KeyError, TypeError, struct.error, MemoryError)


def begins_as_safetensors(head: bytes, size: int) -> bool:
    """Whether the first bytes of a file of ``size`` bytes are a length that it can have, and JSON after it."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(path: Path) -> dict[str, Array]:
    """Read the floating-point tensors of a file; others are left out. bfloat16 becomes float32.

    Args:
        path: The file.

    Raises:
        CheckpointCorruptError: It cannot be read, or is damaged.
    """
    try:
        with open_regular(path) as stream:
            return _tensors(stream, os.fstat(stream.fileno()).st_size, path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def tensors_of(content: bytes, name: str) -> dict[str, Array]:
    """Read the floating-point tensors of a file's content, as :func:`read_safetensors` does.

    Args:
        content: The content.
        name: What messages call it.

    Raises:
        CheckpointCorruptError: It is damaged.
    """
    try:
        return _tensors(io.BytesIO(content), len(content), name)
    except _UNREADABLE as error:
        raise _unreadable(name, error) from error


def safetensors_bytes(tensors: Mapping[str, Array]) -> bytes:
    """Return the content of a file with these tensors.

    Args:
        tensors: Tensors of one type, float16, float32 or float64, by name.
    """
    header, parts, start = {}, [], 0
    for name in sorted(tensors):
        part = np.ascontiguousarray(tensors[name]).tobytes()
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, start + len(part)],
        }
        parts.append(part)
        start += len(part)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def _tensors(stream: BinaryIO, size: int, name: Path | str) -> dict[str, Array]:
    """Read the tensors of a file of ``size`` bytes from its start."""
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(size - 8, _LARGEST_HEADER):
        raise ValueError("its header is cut off")
    header = decode_json(stream.read(length), name)
    content = stream.read()
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return {n: _tensor(n, facts, content) for n, facts in header.items() if _is_weight(n, facts)}


def _unreadable(name: Path | str, error: Exception) -> CheckpointCorruptError:
    reason = error.reason if isinstance(error, FileReadError) else str(error) or type(error).__name__
    return CheckpointCorruptError(
        f"{name!s:.200} is no readable safetensors file: {reason}",
        expected="a complete safetensors file",
        fix="copy it again and compare its hash with the source's",
    )


def _is_weight(name: str, facts: object) -> bool:
    return name != "__metadata__" and isinstance(facts, dict) and facts.get("dtype") in _TYPES


def _tensor(name: str, facts: Mapping[str, object], content: bytes) -> Array:
    kind = _TYPES[str(facts["dtype"])]
    shape, place = facts["shape"], facts["data_offsets"]
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        raise ValueError(f"{name} has no shape and place")
    if not all(type(number) is int and number >= 0 for number in (*shape, *place)):
        raise ValueError(f"{name} has an impossible shape or place")
    sizes, (first, last) = shape, place
    if last > len(content) or last - first != math.prod(sizes) * WIDE_TYPES[kind].itemsize:
        raise ValueError(f"the place of {name} does not fit its shape, or is outside of the file")
    return widened(kind, np.frombuffer(content[first:last], dtype=WIDE_TYPES[kind]).reshape(sizes))

"""The framing of binary answers: a header in JSON, and a payload of numbers behind it.

A frame is a little-endian uint32, the length of the header in bytes; the header in UTF-8, padded with spaces to a
multiple of four bytes; and the payload. So the payload begins at a multiple of four, and JavaScript can look at its
numbers where they lie. Live answers and ``features.bin`` are such frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

ALIGNMENT = 4
"""Bytes: the payload begins at a multiple of it."""


def frame(header: object, payload: Iterable[bytes | memoryview] = ()) -> bytes:
    """Return a frame.

    Args:
        header: What JSON can hold.
        payload: The parts of the payload, in order.
    """
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % ALIGNMENT)
    return b"".join((len(text).to_bytes(4, "little"), text, *payload))


def unframe(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the payload of a frame.

    Args:
        content: What :func:`frame` returned.

    Raises:
        ValueError: It is no frame.
    """
    length = int.from_bytes(content[:4], "little")
    if len(content) < 4 + length or length % ALIGNMENT:
        raise ValueError(f"a frame of {len(content)} bytes announces a header of {length}")
    header = msgspec.json.decode(content[4 : 4 + length], type=dict)
    return header, memoryview(content)[4 + length :]

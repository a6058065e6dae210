"""The elements of a MATLAB file, checked before SciPy reads them: SciPy ends the process where a number has no type.

A file of version 5 is a header of 128 bytes and a list of elements. An element is a tag (type and size in bytes) and
its content, padded to 8 bytes; short content stands in the tag. An array is an element whose content is elements, and
structs and cells hold arrays. (MathWorks, "MAT-File Format", chapter 1.)
"""

from __future__ import annotations

import struct
import zlib

HEADER = 128
ARRAY, COMPRESSED = 14, 15
_NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18})
_DEEPEST = 16
_LARGEST = 1 << 28
"""The most bytes that a compressed element may hold."""


def check_elements(content: bytes) -> None:
    """Check that every element of a MATLAB file has a known type and lies within the file.

    Args:
        content: The file.

    Raises:
        ValueError: It has not, or the file is of another version.
    """
    if len(content) < HEADER or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no MATLAB file of version 5")
    _check(content[HEADER:], "<" if content[126:128] == b"IM" else ">", depth=0)


def _check(content: bytes, order: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"its elements are nested more than {_DEEPEST} deep")
    at = 0
    while at < len(content):
        if at + 8 > len(content):
            raise ValueError("an element is cut off")
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # at most four bytes of content stand in the tag itself
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError("a short element has more than four bytes")
        else:
            start, end = at + 8, at + 8 + size
            if kind != COMPRESSED:
                end += -size % 8
        if start + size > len(content):
            raise ValueError("an element reaches beyond the end")
        if kind == ARRAY:
            _check(content[start : start + size], order, depth + 1)
        elif kind == COMPRESSED:
            _check(_unpacked(content[start : start + size]), order, depth + 1)
        elif kind not in _NUMBERS:
            raise ValueError(f"an element has the unknown type {kind}")
        at = end


def _unpacked(packed: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, _LARGEST)
    if unpacking.unconsumed_tail:
        raise ValueError(f"an element unpacks to more than {_LARGEST >> 20} MiB")
    return content

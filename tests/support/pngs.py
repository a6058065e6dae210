"""PNG files written by hand, with every choice that the format leaves: depths, filters, passes, text chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, bits: int = 8, colour: int = PALETTE, interlaced: int = 0) -> bytes:
    """The chunk IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def chunks_of(content: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of every chunk."""
    found, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    return found


def picture(
    samples: np.ndarray,
    bits: int = 8,
    colour: int = PALETTE,
    *,
    filters: Sequence[int] = (0,),
    interlaced: bool = False,
    between: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
    part: int = 1 << 30,
) -> bytes:
    """A PNG file of one sample a pixel.

    Args:
        samples: (H, W) whole numbers.
        bits: Of a sample.
        colour: :data:`GREY` or :data:`PALETTE`.
        filters: Numbers of the filters, which rows take in turn.
        interlaced: Whether in the passes of Adam7.
        between: Chunks before the samples.
        after: Chunks after the samples.
        part: Bytes of a chunk IDAT.
    """
    height, width = samples.shape
    data = b""
    for x, y, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        data += _rows(samples[y::down, x::across], bits, filters)
    packed = zlib.compress(data)
    start = header(width, height, bits, colour, int(interlaced))
    table = [chunk(b"PLTE", bytes(range(256)) * 3 if bits == 8 else bytes(3 << bits))] if colour == PALETTE else []
    parts = [chunk(b"IDAT", packed[place : place + part]) for place in range(0, len(packed), part)]
    return b"".join([SIGNATURE, start, *table, *between, *parts, *after, chunk(b"IEND", b"")])


def _rows(samples: np.ndarray, bits: int, filters: Sequence[int]) -> bytes:
    if not samples.size:
        return b""
    step = max(1, bits // 8)
    shifts = np.arange(bits - 1, -1, -1)
    packed = np.packbits(((samples[:, :, None] >> shifts) & 1).astype(np.uint8).reshape(len(samples), -1), axis=1)
    above = np.zeros(packed.shape[1], np.int64)
    found = b""
    for number, row in enumerate(packed.astype(np.int64)):
        left, corner = (np.concatenate([np.zeros(step, np.int64), line])[: len(row)] for line in (row, above))
        kind = filters[number % len(filters)]
        guess = (0, left, above, (left + above) // 2, _paeth(left, above, corner))[kind]
        found += bytes([kind]) + ((row - guess) & 255).astype(np.uint8).tobytes()
        above = row
    return found


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    first = (to_left <= to_above) & (to_left <= to_corner)
    return np.where(first, left, np.where(to_above <= to_corner, above, corner))

"""Damage to files, drawn from a seed: bytes, texts, and entries of archives whose checksums fit again."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

NUMBERS = (0, 1, 127, 128, 255, 256, 32767, 65535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1)
WORDS = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"1" * 400,
    b"1" * 5000,
    b'""',
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xff\xfe",
    b"[]",
    b"{}",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"..",
    b"/etc/passwd",
    b"\0",
    b"%s%n",
    b"(10000000000, 10000000000)",
    b"'O'",
    b"99999999999999999999",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**9, 10**18, 10**400, 0.5, 1e300, "", "x", "\x00", "../x", "é", [], {}, [[]], {"a": 1},
)  # fmt: skip


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Change a few bytes, or move, cut or repeat a part."""
    out = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        at = draw.randrange(len(out) + 1)
        # Headers decide more than pixels do.
        if draw.random() < 0.5:
            at = min(at, draw.randrange(1, 200))
        kind = draw.randrange(9)
        size = draw.choice((1, 1, 2, 4, 8, 64))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at : at + size] = draw.randbytes(size)
        elif kind == 2:
            out[at : at + 4] = draw.choice(NUMBERS).to_bytes(8, draw.choice(("little", "big")))[-4:]
        elif kind == 3:
            del out[at : at + draw.choice((1, 2, 8, 100, 10_000))]
        elif kind == 4:
            out[at:at] = out[at : at + draw.choice((1, 8, 100))]
        elif kind == 5:
            out = out[:at]
        elif kind == 6:
            out[at:at] = draw.choice(WORDS)
        elif kind == 7:
            out[at : at + 8] = struct.pack(draw.choice(("<Q", ">Q")), draw.choice(NUMBERS))
        else:
            digits = [index for index, byte in enumerate(out[:4000]) if 48 <= byte <= 57]
            if digits:
                at = draw.choice(digits)
                out[at : at + 1] = draw.choice((b"9", b"0", b"-1", b"9" * 12, b"9" * 30, b"x"))
    return bytes(out)


def damaged_archive(draw: random.Random, content: bytes) -> bytes:
    """Damage one entry of a zip archive, and give the archive checksums that fit."""
    if draw.random() < 0.3:
        return damaged(draw, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(info.filename, info.compress_type, archive.read(info)) for info in archive.infolist()]
    chosen = draw.randrange(len(entries))
    name, packing, inside = entries[chosen]
    change = draw.randrange(5)
    if change == 0:
        del entries[chosen]
    elif change == 1:
        entries[chosen] = (draw.choice((name + "x", "x" + name, "", "../" + name, name.upper())), packing, inside)
    else:
        entries[chosen] = (name, packing, damaged(draw, inside))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, packing, inside in entries:
            archive.writestr(zipfile.ZipInfo(name), inside, packing)
    return out.getvalue()


def damaged_json(draw: random.Random, content: bytes) -> bytes:
    """Put another value somewhere into a JSON document, or damage its bytes."""
    if draw.random() < 0.4:
        return damaged(draw, content)
    return json.dumps(changed(draw, json.loads(content)), ensure_ascii=draw.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def changed(draw: random.Random, root: Any) -> Any:
    """Return a document with one or a few other values, keys or lengths in it."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        rest = [root]
        while rest:
            one = rest.pop()
            keys = list(one) if isinstance(one, dict) else list(range(len(one)))
            places += [(one, key) for key in keys]
            rest += [one[key] for key in keys if isinstance(one[key], dict | list)]
        if not places:
            return deepcopy(draw.choice(VALUES))
        place, key = draw.choice(places)
        kind = draw.randrange(5)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[draw.choice(("", "x", "size", "é", "\x00"))] = deepcopy(place[key])
        elif kind == 2:
            place[key] = [deepcopy(place[key]) for _ in range(draw.choice((1, 2, 5)))]
        elif kind == 3 and isinstance(place[key], int | float) and not isinstance(place[key], bool):
            place[key] = draw.choice((-place[key], place[key] * 1000, place[key] + 1, place[key] // 3, 0, 10**15))
        else:
            place[key] = deepcopy(draw.choice(VALUES))
    return root


def damaged_safetensors(draw: random.Random, content: bytes) -> bytes:
    """Damage the header of a safetensors file and give it a length that fits, or damage the bytes."""
    if draw.random() < 0.4:
        return damaged(draw, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = damaged_json(draw, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]

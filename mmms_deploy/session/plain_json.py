"""JSON of our own structs, also where a text is none of Unicode: a name may hold half of a surrogate pair."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

import msgspec

from mmms_deploy.files.documents import DEPTH

T = TypeVar("T")

UNFIT = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, MemoryError, TypeError)
"""What reading something else than our JSON raises."""


def encoded(found: msgspec.Struct) -> bytes:
    """Return a struct as JSON in one line, without a line end.

    Args:
        found: The struct.
    """
    try:
        return msgspec.json.encode(found)
    except UnicodeEncodeError:
        # JSON has a form for half of a surrogate pair, which msgspec does not write.
        return json.dumps(msgspec.to_builtins(found), allow_nan=False, separators=(",", ":")).encode("ascii")


def decoded(content: bytes, kind: Any) -> Any:
    """Return what :func:`encoded` wrote.

    Args:
        content: The JSON.
        kind: The struct's type, or a union of tagged ones.

    Raises:
        UNFIT: It is something else.
    """
    plain = json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    _check_depth(plain)
    return msgspec.convert(plain, kind)


def _check_depth(plain: object) -> None:
    level = [plain]
    for _ in range(DEPTH):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
            elif isinstance(value, list):
                below += value
        if not below:
            return
        level = below
    raise ValueError(f"nested more than {DEPTH} levels deep")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

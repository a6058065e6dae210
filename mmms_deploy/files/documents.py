"""JSON and TOML from files that others may have made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import NoReturn

from mmms_deploy.errors import FileReadError
from mmms_deploy.files.reading import MIB, read_bytes, unreadable

DEPTH = 64
"""The most levels of a document."""
_LIMIT = 4 * MIB


def read_json(path: object, limit: int = _LIMIT) -> object:
    """Read a JSON file.

    Args:
        path: The file.
        limit: The most bytes it may have.

    Returns:
        Dicts, lists, texts, numbers, booleans and None.

    Raises:
        FileReadError: It cannot be read, is no JSON in UTF-8, or is nested more than :data:`DEPTH` levels deep.
    """
    return decode_json(read_bytes(path, limit), path)


def read_toml(path: object, limit: int = _LIMIT) -> dict[str, object]:
    """Read a TOML file.

    Args:
        path: The file.
        limit: The most bytes it may have.

    Raises:
        FileReadError: It cannot be read, is no TOML in UTF-8, or is nested more than :data:`DEPTH` levels deep.
    """
    decoded = _decoded(read_bytes(path, limit), path, "TOML", tomllib.loads)
    assert isinstance(decoded, dict)
    return decoded


def decode_json(content: bytes | str, source: object, *, unique: bool = False) -> object:
    """Decode JSON, as :func:`read_json`.

    Args:
        content: The JSON.
        source: Where it comes from, for messages.
        unique: Whether an object that has a key twice is refused; otherwise the last one counts.

    Raises:
        FileReadError: It is no JSON in UTF-8, or is nested more than :data:`DEPTH` levels deep.
    """
    pairs = _unique if unique else None

    def decode(text: str) -> object:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=pairs)

    return _decoded(content, source, "JSON", decode)


def _decoded(content: bytes | str, source: object, language: str, decode: Callable[[str], object]) -> object:
    try:
        decoded = decode(content.decode("utf-8") if isinstance(content, bytes) else content)
        check_plain(decoded)
    # ValueError: also a number of too many digits, and bytes that are no UTF-8. tomllib lets what its parts raise pass.
    except (ValueError, RecursionError, MemoryError, OverflowError, TypeError, KeyError, IndexError) as error:
        reason = unreadable(source, error).reason
        raise FileReadError(
            f"{source} is no usable {language}: {reason}",
            reason=f"it is no usable {language}: {reason}",
            expected=f"{language} in UTF-8, at most {DEPTH} levels deep",
        ) from error
    return decoded


def check_plain(decoded: object, depth: int = DEPTH) -> None:
    """Check the depth of a decoded document, and that its texts can be written again.

    Args:
        decoded: Dicts, lists, texts and numbers.
        depth: The most levels.

    Raises:
        ValueError: It is nested too deeply, or a text holds half of a surrogate pair.
    """
    level, rest = 0, [decoded]
    while rest:
        level += 1
        if level > depth + 1:
            raise ValueError(f"nested more than {depth} levels deep")
        below: list[object] = []
        for value in rest:
            if isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii():
                value.encode()
        rest = below


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:100]!r} is there twice")
        found[key] = value
    return found

"""The text of Triton's ``config.pbtxt``: protobuf's text format, written without protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


class Word(str):
    """A value of an enum, such as ``TYPE_FP32``: written without quotation marks."""

    __slots__ = ()


Value: TypeAlias = "str | int | Mapping[str, Value] | Sequence[Value]"
"""A field's value: a text, a :class:`Word`, a bool, an integer, a message, or a list of any of them."""


def pbtxt(message: Mapping[str, Value]) -> str:
    """Return a message as text, a line for every field.

    Args:
        message: The fields by name, in order. An empty list is left out.
    """
    return "".join(f"{name}{_joined(value, '')}\n" for name, value in message.items() if not _is_empty(value))


def _is_empty(value: Value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 0


def _joined(value: Value, indent: str) -> str:
    """Return what follows a field's name: a message needs no colon."""
    return f" {_text(value, indent)}" if isinstance(value, Mapping) else f": {_text(value, indent)}"


def _text(value: Value, indent: str) -> str:
    if isinstance(value, str):
        return str(value) if isinstance(value, Word) else f'"{_escaped(value)}"'
    if isinstance(value, int):
        return str(value).lower()  # "true" and "false", too
    deeper = indent + "  "
    if isinstance(value, Mapping):
        fields = [f"{deeper}{name}{_joined(one, deeper)}\n" for name, one in value.items() if not _is_empty(one)]
        return "{\n" + "".join(fields) + indent + "}" if fields else "{}"
    if all(isinstance(one, Mapping) for one in value):
        return "[\n" + ",\n".join(deeper + _text(one, deeper) for one in value) + f"\n{indent}]"
    return "[" + ", ".join(_text(one, indent) for one in value) + "]"


def _escaped(text: str) -> str:
    """Return a text in which quotation marks, backslashes, control characters and bytes beyond ASCII are escaped."""
    escaped = text.translate(_ESCAPES).encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in escaped)

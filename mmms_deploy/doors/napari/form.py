"""The settings of an opening as a form: what each field is, its text, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

import msgspec

from mmms_deploy.doors.opening import Opening

_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``(.+?)``")
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        name: Its name in :class:`~mmms_deploy.doors.opening.Opening`.
        switch: Whether it is on or off; a text otherwise.
        default: What it is where nothing is said: a bool for a switch, otherwise its text, empty for None.
        help: What it does.
    """

    name: str
    switch: bool
    default: bool | str
    help: str


def fields() -> tuple[Field, ...]:
    """Return all settings of an opening, whatever they are, in their order."""
    said = {name: _plain(text) for name, text in _ATTRIBUTE.findall(cleandoc(Opening.__doc__ or ""))}
    found = []
    for field in msgspec.structs.fields(Opening):
        switch = isinstance(field.default, bool)
        default: Any = field.default if switch else _text(field.default)
        found.append(Field(field.name, switch, default, said.get(field.name, "")))
    return tuple(found)


def opening_of(values: Mapping[str, bool | str]) -> Opening:
    """Return the opening that a form says.

    Args:
        values: Settings by name, as :class:`Field` has them; an empty text is none.

    Raises:
        DoorError: A text is no such setting.
    """
    said = {name: value if isinstance(value, bool) else value.strip() for name, value in values.items()}
    return Opening.of({name: value for name, value in said.items() if value != ""})


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _plain(text: str) -> str:
    """Return a part of a docstring as plain text on one line."""
    return _ROLE.sub(lambda found: found[1] or found[2], " ".join(text.split()))

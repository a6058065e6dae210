"""What a kind of data set is: its name, its folders, its options, and the function that opens it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmms_deploy.documents import document
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.errors import DatasetLayoutError, DatasetOptionError
from mmms_deploy.spelling import did_you_mean

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_SHOWN = 12
"""How many entries of a folder an error lists."""


class OptionType(StrEnum):
    """How an option's text is read."""

    TEXT = "text"
    INTEGER = "integer"
    NAMES = "names"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a kind of data set.

    Attributes:
        name: Keyword of ``open_dataset`` and key in a data set argument.
        help: What it does, one line.
        default: Its value when it is not given, in the type that the opening function takes.
        type: How its text is read; names are separated by commas, ``none`` stands for no names.
        choices: The values allowed; empty for any.
        least: The smallest integer allowed.
    """

    name: str
    help: str
    default: str | int | tuple[str, ...] | None = None
    type: OptionType = OptionType.TEXT
    choices: tuple[str, ...] = ()
    least: int = 0

    def read(self, kind: str, value: object) -> object:
        """Return a given value in the type that the opening function takes.

        Args:
            kind: Name of the kind, for messages.
            value: Text as on a command line, or a Python value: an integer, or a sequence of names.

        Raises:
            DatasetOptionError: The value has another type, or is none of the choices.
        """
        given = f"option {self.name} of {kind} is {value!r}"
        fix = f"{self.name}: {self.help}"
        if value is None and self.default is None:
            return None
        if self.type is OptionType.INTEGER:
            number = _integer(value)
            if number is None or number < self.least:
                raise DatasetOptionError(given, expected=f"an integer, at least {self.least}", fix=fix)
            return number
        if self.type is OptionType.NAMES:
            names = _names(value)
            if names is None or len(set(names)) != len(names) or (self.choices and not set(names) <= set(self.choices)):
                expected = f"names from {', '.join(self.choices)}" if self.choices else "names"
                raise DatasetOptionError(
                    given, expected=f"{expected}, each once, separated by commas, or 'none'", fix=fix
                )
            return names
        if not isinstance(value, str) or not value or (self.choices and value not in self.choices):
            given += did_you_mean(str(value), self.choices)
            raise DatasetOptionError(given, expected=" or ".join(self.choices) or "text", fix=fix)
        return value


def _integer(value: object) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = () if value == "none" else value.split(",")
    if not isinstance(value, tuple | list):
        return None
    names = tuple(name for name in value if isinstance(name, str) and name)
    return names if len(names) == len(value) else None


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of a kind of data set, and the error for a folder of another layout.

    Attributes:
        kind: Name of the kind.
        tree: Drawing of the folders.
    """

    kind: str
    tree: str

    def error(self, root: Path, problem: str) -> DatasetLayoutError:
        """Return the error for a folder of another layout: what is wrong, what was found, what was expected."""
        return DatasetLayoutError(
            f"{root} is no data set of kind {self.kind!r}: {problem} ({_contents(root)})",
            expected=f"\n{self.tree}",
            fix=f"give the folder that holds these, or name another kind ({document('datasets')})",
        )

    def root(self, path: Path, *inside: str) -> Path:
        """Return the first of ``path`` and the folders ``inside`` it that exists, the innermost first.

        Raises:
            DatasetLayoutError: There is no folder at ``path``.
        """
        if not path.is_dir():
            raise self.error(path, "it is a file" if path.exists() else "there is nothing at this path")
        return next((path / name for name in inside if (path / name).is_dir()), path)

    def folder(self, root: Path, name: str) -> Path:
        """Return a folder of the data set.

        Raises:
            DatasetLayoutError: It does not exist.
        """
        if not (root / name).is_dir():
            raise self.error(root, f"there is no folder {name!r}")
        return root / name


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "nothing to list"
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"found: {', '.join(names[:_SHOWN])}{more}" if names else "found: nothing, it is empty"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data set.

    Attributes:
        name: The kind in ``open_dataset`` and in a data set argument.
        description: One line.
        tree: Drawing of its folders.
        options: Its options; their names are keywords of ``open``.
        open: Called with the path and every option by keyword.
        drawn: Whether its scenes are drawn, and its path is their number.
    """

    name: str
    description: str
    tree: str
    options: tuple[Option, ...]
    open: Callable[..., ListedDataset[Any]]
    drawn: bool = False


def split_option(default: str | None, *choices: str, help: str = "which part of the data set") -> Option:
    """The option ``split``."""
    return Option("split", help, default, choices=choices)


def modalities_option(*choices: str) -> Option:
    """The option ``modalities`` of a set whose modalities are known; all of them by default."""
    return Option("modalities", "which to read", choices, OptionType.NAMES, choices)


ANY_INTEGER = -(10**18)
"""For an option that may be negative: the least integer that is read."""


def min_area_option(default: int) -> Option:
    """The option ``min_area``."""
    return Option("min_area", "least number of pixels of a surface", default, OptionType.INTEGER, least=1)

"""Types of arguments and options: what the command line alone shows to be wrong is refused by name (exit code 2)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.bundle.manifest import Precision


class Text(click.ParamType[str]):
    """A text that is not empty."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it."""
        text = str(value)
        if not text.strip():
            self.fail("the text is empty", param, ctx)
        if "\0" in text:
            self.fail("no text of a command line holds the character NUL", param, ctx)
        return text


class FilePath(click.ParamType[Path]):
    """The path of a file or folder, whether or not it exists."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return it; bytes that are no UTF-8 stay as they are."""
        text = os.fspath(value)
        if not text:
            self.fail("the path is empty", param, ctx)
        if "\0" in text:
            self.fail("no path holds the character NUL", param, ctx)
        return Path(text)


class OneOf(click.ParamType[str]):
    """One of some names; the closest one is suggested.

    Args:
        names: The names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.name = "|".join(self.names)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the names as the help shows them."""
        return f"[{self.name}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it."""
        text = str(value)
        if text not in self.names:
            listed = ", ".join(map(repr, self.names))
            self.fail(f"{text!r} is not one of {listed}{did_you_mean(text, self.names)}", param, ctx)
        return text


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return it."""
        try:
            int(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is no whole number", param, ctx)
        return int(super().convert(value, param, ctx))


class Number(click.FloatRange):
    """A finite number in a range."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return float(super().convert(value, param, ctx))


class PrecisionsType(click.ParamType["tuple[Precision, ...]"]):
    """``fp32,fp16``: one precision or more, with commas."""

    name = "NAME[,NAME...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Precision, ...]:
        """Return them in the given order."""
        from mmms_deploy.bundle.manifest import Precision

        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in str(value).split(",")]
        unknown = [name for name in names if name not in list(Precision)]
        if unknown:
            meant = did_you_mean(unknown[0], Precision)
            self.fail(
                f"{', '.join(map(repr, unknown))} in {value!r} is none of {', '.join(Precision)}{meant}", param, ctx
            )
        return tuple(Precision(name) for name in names)


class SizeType(click.ParamType[tuple[int, int]]):
    """``448`` or ``448x672`` (height x width)."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (H, W)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no size such as 448 or 448x672 (height x width)", param, ctx)
        return int(match[1]), int(match[2] or match[1])

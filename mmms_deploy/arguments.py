"""What callers give, for messages and as flags: a value may be anything, and a mistake has a name in any case."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

_LONGEST = 200


def shown(value: object, longest: int = _LONGEST) -> str:
    """Return a value for a message: never long, and there is always one.

    Args:
        value: Anything; its own text may fail, or be endless.
        longest: Where the text is cut.
    """
    try:
        text = repr(value)
    except Exception:  # such as whole numbers of more than 4300 digits
        text = f"a {type(value).__qualname__} that cannot be shown"
    return text if len(text) <= longest else f"{text[:longest]} ..."


def flag(what: str, value: object, error: type[Exception]) -> bool:
    """Return a flag as a bool; what counts as true in Python counts as true here.

    Args:
        what: What it is called.
        value: What a caller gave.
        error: A named error, which is raised where the value is neither true nor false, as an array.
    """
    try:
        return bool(value)
    except Exception as cause:
        raise error(
            f"{what} is {shown(value, 80)}", expected="True or False", fix=f"pass {what}=True or {what}=False"
        ) from cause  # type: ignore[call-arg]


def items(what: str, given: object, error: type[Exception], *, expected: str, fix: str = "pass a list") -> list[Any]:
    """Return what a caller gives as a list of its items.

    What an iterator of the caller's raises by itself passes through.

    Args:
        what: What it is called.
        given: A list, or anything else that can be gone through once; texts, bytes and mappings are none.
        error: A named error.
        expected: What would have been right.
        fix: What to do.
    """
    try:
        if isinstance(given, str | bytes | Mapping):
            raise TypeError
        return list(iter(given))  # type: ignore[call-overload]  # a list's own length may be wrong
    except (TypeError, NotImplementedError) as cause:  # NotImplementedError: a memoryview of several axes
        raise error(f"{what} a {type(given).__qualname__}", expected=expected, fix=fix) from cause  # type: ignore[call-arg]


def real(value: object) -> float | None:
    """Return a number as a float; infinity where it is larger than any float, None where it is no number.

    Bools are none, and durations of NumPy, which count as its whole numbers.

    Args:
        value: Anything.
    """
    if isinstance(value, bool | Fraction) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf
    except (TypeError, ValueError):
        return None


def whole(value: object) -> int | None:
    """Return a whole number as an int; None where it is none. Bools are none, and durations of NumPy.

    Args:
        value: Anything.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None

"""Names that were meant: what is said when a name is not known and is close to one that is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_LEAST = 0.6


def closest(given: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str | None:
    """Return the known name that a given one was probably meant to be; None when none is close.

    Upper and lower case, and ``-`` and ``_``, count as the same.

    Args:
        given: What was given.
        known: The names that are known.
        aliases: What others call some of them, in lower case.
    """
    plain = {_plain(name): str(name) for name in reversed(list(known))}
    alias = (aliases or {}).get(_plain(given.strip()))
    if alias in plain:
        return plain[alias]
    found = difflib.get_close_matches(_plain(given), plain, n=1, cutoff=_LEAST)
    return plain[found[0]] if found else None


def did_you_mean(given: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """Return ``; did you mean 'openvino'?`` for the end of a sentence, or nothing when no known name is close."""
    name = closest(given, known, aliases)
    return "" if name is None else f"; did you mean {name!r}?"


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")

"""Lists of clicks and choices, as they are stored and sent, and the history that follows from one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from mmms_deploy.arguments import items, shown
from mmms_deploy.errors import ClickError
from mmms_deploy.session.choices import checked_choice
from mmms_deploy.session.history import History
from mmms_deploy.session.interactions import Choice, MaskInput
from mmms_deploy.session.result import Click, checked_click
from mmms_deploy.session.surfaces import checked_name

ClickLike: TypeAlias = "Click | Sequence[float] | Mapping[str, float]"
"""A click; ``[x, y, 1]`` or ``[x, y, 0]``, also without the label, which is 1 then; or ``{"x": ..., "y": ...,
"positive": ...}``. Or the choice of one of several answers to the clicks before it: ``{"choice": ...}``, its number."""

_EXPECTED = 'a list of clicks: Click objects, [x, y, 1 or 0], or {"x": ..., "y": ..., "positive": ...}'
_KEYS = frozenset({"x", "y", "positive"})
CHOICE = "choice"
"""Key of a choice in a list of clicks."""


def checked_clicks(clicks: Iterable[ClickLike], size: tuple[int, int]) -> tuple[Click | Choice, ...]:
    """Return clicks, and the choices among them, checked.

    Args:
        clicks: The clicks, oldest first; a numeric array (N, 2) or (N, 3) is such a list.
        size: (H0, W0) of the image.

    Raises:
        ClickError: They are no list of clicks, or one is outside of the image.
        ChoiceError: A choice is no whole number.
    """
    found: list[Click | Choice] = []
    for number, click in enumerate(items("the clicks are", clicks, ClickError, expected=_EXPECTED), start=1):
        if isinstance(click, Mapping) and set(click) == {CHOICE}:
            found.append(checked_choice(click[CHOICE]))
            continue
        x, y, positive = _parts(click, number)
        try:
            found.append(checked_click(x, y, positive, size))
        except ClickError as error:
            raise ClickError(
                f"click {number} of the list: {error.given}", expected=error.expected, fix=error.fix
            ) from error
    return tuple(found)


def checked_objects(clicks: object, size: tuple[int, int]) -> dict[str, Click]:
    """Return a click on each of several objects, checked.

    Args:
        clicks: A click by the name of every object.
        size: (H0, W0) of the image.

    Raises:
        ClickError: They are no such mapping, or a click is none or outside of the image.
        SurfaceError: A name is no text, or empty.
    """
    expected = 'a click on every object by its name: {"dog": (x, y), "cat": (x, y, 0)}'
    if not isinstance(clicks, Mapping):
        raise ClickError(f"the clicks are a {type(clicks).__qualname__}", expected=expected, fix="pass a dict")
    found: dict[str, Click] = {}
    for given_name, click in clicks.items():
        name = checked_name(given_name)
        try:
            (checked,) = checked_clicks([click], size)
        except ClickError as error:
            given = error.given.removeprefix("click 1 of the list: ").replace("click 1 of the list", "the click")
            raise ClickError(f"object {name!r}: {given}", expected=error.expected, fix=error.fix) from error
        if not isinstance(checked, Click):
            raise ClickError(
                f"object {name!r} has a choice in the place of a click", expected=expected, fix="call choose for it"
            )
        found[name] = checked
    return found


def _parts(click: object, number: int) -> tuple[object, object, object]:
    if isinstance(click, Click):
        return click.x, click.y, click.positive
    if isinstance(click, Mapping) and {"x", "y"} <= set(click) <= _KEYS:
        return click["x"], click["y"], click.get("positive", True)
    if isinstance(click, np.ndarray) and click.ndim == 1:
        click = click.tolist()
    if isinstance(click, Sequence) and not isinstance(click, str | bytes) and len(click) in (2, 3):
        return click[0], click[1], click[2] if len(click) == 3 else True
    flat = isinstance(click, int | float | np.integer | np.floating)
    raise ClickError(
        f"click {number} of the list is {_brief(click)}",
        expected=_EXPECTED,
        fix="pass a list of clicks, also for a single one: [[x, y, 1]]" if flat else "convert it, e.g. to [x, y, 1]",
    )


def _brief(value: object) -> str:
    return shown(value, 77)


class Interacted(Protocol):
    """A snapshot of any kind."""

    @property
    def interactions(self) -> Sequence[Any]:
        """What led to it, oldest first."""
        ...


S = TypeVar("S", bound=Interacted)


def history_of(wanted: Sequence[Any], held: History[S], blank: S, after: Callable[[S, Any, bool], S]) -> History[S]:
    """Return the history whose interactions are the wanted ones; only those that are not held yet are run.

    Args:
        wanted: All interactions, oldest first.
        held: What is there: its past, its present, and what was undone. The snapshot that has most of the wanted
            interactions' beginning is gone on from; steps that are wanted no longer can be redone, until something new
            is run.
        blank: The snapshot without interactions, from which everything is run where nothing held fits.
        after: Takes one more interaction; its last argument says whether the answer is wanted, which it is after the
            last one.

    Returns:
        The same history, where it is as wanted already. The answer of its current snapshot may be one that was never
        wanted before.
    """
    # Every snapshot's interactions begin with those of the one before: what is shared with the last one tells all.
    line = held.line
    pairs = zip(wanted, line[-1].interactions, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: _same(*pair), pairs))
    fitting = [place for place, snapshot in enumerate(line) if len(snapshot.interactions) <= common]
    history = held.at(fitting[-1]) if fitting else History(blank, held.limit)
    rest = wanted[len(history.current.interactions) :]
    for number, interaction in enumerate(rest, start=1):
        history = history.push(after(history.current, interaction, number == len(rest)))
    return history


def _same(one: object, other: object) -> bool:
    if isinstance(one, MaskInput) and isinstance(other, MaskInput):
        return one is other or (
            np.array_equal(one.previous, other.previous) and np.array_equal(one.packed, other.packed)
        )
    return one == other

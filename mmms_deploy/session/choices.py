"""The choice of one of several answers to the same clicks."""

from __future__ import annotations

from dataclasses import replace

from mmms_deploy.arguments import shown, whole
from mmms_deploy.bundle import Manifest
from mmms_deploy.errors import ChoiceError
from mmms_deploy.session.answers import Candidates
from mmms_deploy.session.interactions import Choice, MaskInput, Snapshot


def checked_choice(index: object) -> Choice:
    """Return a choice, checked as far as no answers are needed for it.

    Args:
        index: A whole number, from 0.

    Raises:
        ChoiceError: It is something else.
    """
    number = whole(index)
    if number is None:
        raise ChoiceError(
            f"the choice is {shown(index, 80)}",
            expected="the number of an answer, from 0, as in result.candidates",
            fix="pass its place: choose(1), not the candidate itself",
        )
    return Choice(number)


def chosen(choice: Choice, current: Snapshot, manifest: Manifest) -> Candidates:
    """Return the answers of a snapshot of which another one is taken.

    Args:
        choice: The choice.
        current: The snapshot before it.
        manifest: The bundle's manifest.

    Raises:
        ChoiceError: There are no answers to choose from, or none of that number.
    """
    found = current.candidates
    if found is None:
        raise _nothing(choice, current, manifest)
    if not 0 <= choice.index < len(found.scores):
        last = len(found.scores) - 1
        raise ChoiceError(
            f"answer {shown(choice.index, 80)} was chosen",
            expected=f"one from 0 to {last}: {manifest.name} gives {last + 1} answers",
            fix=f"pass 0 to {last}, the place in result.candidates",
            command_fix=f"pass --choose with a number from 0 to {last}",
        )
    return replace(found, taken=choice.index)


def one_answer(choice: Choice, name: str) -> ChoiceError:
    """Return the error for a choice with a network that gives one answer.

    Args:
        choice: The choice.
        name: Name of the bundle.
    """
    return ChoiceError(
        f"answer {shown(choice.index, 80)} was chosen, and {name} gives one answer to a click",
        expected="a network that gives several, such as SAM 2",
        fix="leave the choice out; further clicks correct the mask",
        command_fix="leave out --choose; further clicks correct the mask",
    )


def _nothing(choice: Choice, current: Snapshot, manifest: Manifest) -> ChoiceError:
    """Return the error for a choice where there are no answers to choose from."""
    given = f"answer {shown(choice.index, 80)} was chosen"
    answers = manifest.clicks.answers
    if answers is None or answers.candidates == 1:
        return one_answer(choice, manifest.name)
    if not current.interactions.clicked:
        return ChoiceError(f"{given} before a click", expected="a click, and then a choice", fix="click first")
    if isinstance(current.newest, MaskInput):
        return ChoiceError(
            f"{given} after a mask was put in, to which there are no answers",
            expected="a choice among the answers to a click",
            fix="call undo() to go back before the mask, or click again",
        )
    return ChoiceError(
        f"{given} after {current.interactions.clicked} clicks, and {manifest.name} gives several answers to the first"
        " one alone",
        expected="a choice after the first click on an object",
        fix="go back to the first click with undo(), choose, and click again",
        command_fix="put --choose right after the first click",
    )

"""What a request of the Python form asks for: its tensors as arguments of a session's calls.

| input | type, shape | means |
|---|---|---|
| ``image`` | uint8 (H0, W0, 3) | another picture, RGB |
| ``image_file`` | bytes (1,) | the same as the bytes of a file |
| ``click`` | float64 (3,) | a click more: x, y in image pixels, and 1 on the object or 0 off it |
| ``clicks`` | float64 (N, 3) | all clicks on the object, oldest first |
| ``action`` | bytes (1,) | ``undo``, ``redo`` or ``reset`` |
| a modality's name | numbers (H0, W0, C) | that modality |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.arguments import shown
from mmms_deploy.errors import DoorError
from mmms_deploy.spelling import did_you_mean

IMAGE, IMAGE_FILE, CLICK, CLICKS, ACTION = "image", "image_file", "click", "clicks", "action"
INPUTS = (IMAGE, IMAGE_FILE, CLICK, CLICKS, ACTION)
"""The inputs of every model in the Python form; modalities come after them."""
START, END, SEQUENCE = "START", "END", "CORRID"
"""What the sequence batcher adds to every request."""
MASK = "mask"
"""The output: uint8 (H0, W0), 1 on the object."""


class Action(StrEnum):
    """What else can be done with the clicks."""

    UNDO = "undo"
    REDO = "redo"
    RESET = "reset"


@dataclass(frozen=True, eq=False)
class Request:
    """What one request asks for.

    Attributes:
        image: Another picture, as ``Session.set_image`` takes it; None for the one that is there.
        modalities: Modalities by name.
        clicks: Clicks (N, 3); None for no change.
        whole: Whether they are all clicks on the object, and not further ones.
        action: What else to do; None for nothing.
    """

    image: npt.NDArray[Any] | bytes | None = None
    modalities: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    clicks: list[list[float]] | None = None
    whole: bool = False
    action: Action | None = None


@dataclass(frozen=True)
class Controls:
    """What the sequence batcher says of a request.

    Attributes:
        sequence: The correlation id of its sequence.
        start: Whether it begins the sequence.
        end: Whether it ends it.
    """

    sequence: int
    start: bool
    end: bool

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Controls:
        """Return those of a request, of whose inputs they are."""
        return cls(int(tensors[SEQUENCE].item()), bool(tensors[START].item()), bool(tensors[END].item()))


def read_request(tensors: Mapping[str, npt.NDArray[Any]], modalities: Collection[str]) -> Request:
    """Return what a request asks for.

    Args:
        tensors: Its inputs by name.
        modalities: Names of the bundle's modalities.

    Raises:
        DoorError: It asks for two things at once, or an input has another shape.
    """
    changes = [name for name in (CLICK, CLICKS, ACTION) if name in tensors]
    images = [name for name in (IMAGE, IMAGE_FILE) if name in tensors]
    maps = {name: tensors[name] for name in modalities if name in tensors}
    for given in (changes, images):
        if len(given) > 1:
            raise DoorError(
                f"a request has {' and '.join(given)}",
                expected="one of them",
                fix="send one request after the other, in the same sequence",
            )
    if maps and changes and not images:
        raise DoorError(
            f"a request has {', '.join(maps)} and {changes[0]} without a picture",
            expected="modalities together with the picture, or alone",
            fix="send the modalities first, and the clicks in a request of their own",
        )
    image: npt.NDArray[Any] | bytes | None = tensors.get(IMAGE)
    if IMAGE_FILE in tensors:
        image = _bytes(IMAGE_FILE, tensors[IMAGE_FILE])
    clicks, whole = None, CLICKS in tensors
    if CLICK in tensors or whole:
        clicks = _rows(changes[0], tensors[changes[0]])
    return Request(
        image=image,
        modalities=maps,
        clicks=clicks,
        whole=whole,
        action=_action(tensors[ACTION]) if ACTION in tensors else None,
    )


def _rows(name: str, given: npt.NDArray[Any]) -> list[list[float]]:
    """Return clicks as lists of three numbers; the session looks at the numbers."""
    if given.shape != (3,) if name == CLICK else given.ndim != 2 or given.shape[1] != 3:
        raise DoorError(
            f"{name} has the shape {given.shape}",
            expected="(3,): x, y, 1 or 0" if name == CLICK else "(N, 3): x, y, 1 or 0 for every click, oldest first",
            fix="send x and y in pixels of the picture, and 1 for a click on the object or 0 for one off it",
        )
    rows: list[list[float]] = np.atleast_2d(given).tolist()
    return rows


def _bytes(name: str, given: npt.NDArray[Any]) -> bytes:
    if given.shape != (1,) or not isinstance(given[0], bytes):
        raise DoorError(f"{name} has the shape {given.shape}", expected="(1,), of BYTES", fix="send one element")
    return bytes(given[0])


def _action(given: npt.NDArray[Any]) -> Action:
    word = _bytes(ACTION, given).decode("utf-8", "replace")
    try:
        return Action(word)
    except ValueError:
        known = [str(one) for one in Action]
        raise DoorError(
            f"{ACTION} is {shown(word)}",
            expected=f"one of {', '.join(known)}",
            fix=f"correct the word{did_you_mean(word, known)}",
        ) from None

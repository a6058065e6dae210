"""Both doors of CVAT as the comparison opens them, each in the forms of its tool.

The agent gets a picture as its worker does, decoded and pickled, and its shape is read by CVAT's own decoder. The
nuclio function gets JSON with a PNG in base64, and the page's rule puts the rows of its answer into the picture.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.cvat.agent import AgentSettings, Frame, Interactor, cvat_sdk
from mmms_deploy.doors.cvat.function import OK, Function
from mmms_deploy.doors.cvat.prompts import Point, as_point
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.picture import open_picture
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.page.layers import png_of
from mmms_deploy.session import Click


class CvatAgent:
    """The function of an agent, called as the agent's worker calls it."""

    name = "cvat"
    title = "CVAT agent"

    def missing(self) -> str | None:
        """Return why this door cannot be opened here, with the command that helps; None where it can."""
        try:
            cvat_sdk()
        except DoorError as error:
            return f"{error.given}: {error.fix}"
        return None

    def open(self, bundle: Bundle, opening: Opening) -> OpenAgent:
        """Open the door on a bundle.

        Raises:
            MMMSDeployError: It cannot be opened.
        """
        return OpenAgent(Interactor(bundle.path, AgentSettings(**msgspec.structs.asdict(opening))))


class CvatFunction:
    """The nuclio function, called as nuclio calls it."""

    name = "cvat-nuclio"
    title = "CVAT nuclio function"

    def missing(self) -> str | None:
        """Return None: the function needs nothing but this package."""
        return None

    def open(self, bundle: Bundle, opening: Opening) -> OpenFunction:
        """Open the door on a bundle.

        Raises:
            MMMSDeployError: It cannot be opened.
        """
        return OpenFunction(Function(bundle.path, **msgspec.structs.asdict(opening)))


@dataclass(frozen=True)
class _Prompts:
    """What the driver passes to ``detect``."""

    pos_points: tuple[Point, ...]
    neg_points: tuple[Point, ...]
    bounding_box: None = None


class OpenAgent:
    """An agent's function with a picture.

    Args:
        interactor: The function; it is closed with this.
    """

    def __init__(self, interactor: Interactor) -> None:
        self._interactor = interactor
        self._frame: Frame | None = None
        self._size = (0, 0)

    def set_image(self, image: UInt8Array) -> None:
        """Take another picture, as PNG, decoded and pickled as on the way to the worker."""
        picture = open_picture(png_of(image, fast=True), Refusal(DoorError, "the picture", "a PNG")).image
        sent = pickle.loads(pickle.dumps(picture))
        self._size = (image.shape[0], image.shape[1])
        self._frame = self._interactor.preprocess_image(None, sent)

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return what CVAT's decoder makes of the shape."""
        from cvat_sdk.masks import decode_mask

        assert self._frame is not None
        shapes = self._interactor.detect(None, self._frame, _Prompts(*_lists(clicks)))
        height, width = self._size
        if not shapes:
            return np.zeros(self._size, dtype=np.bool_)
        points = json.loads(json.dumps(shapes[0].points))
        decoded: BoolArray = decode_mask(points, image_width=width, image_height=height)
        return decoded

    def close(self) -> None:
        """Free everything."""
        self._frame = None
        self._interactor.close()


class OpenFunction:
    """A nuclio function with a picture.

    Args:
        function: The function; it is closed with this.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._image = ""
        self._size = (0, 0)

    def set_image(self, image: UInt8Array) -> None:
        """Take another picture, as PNG in base64."""
        self._image = base64.b64encode(png_of(image, fast=True)).decode("ascii")
        self._size = (image.shape[0], image.shape[1])

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return the answer's rows in the picture, as CVAT's page puts them there."""
        positives, negatives = _lists(clicks)
        request = {"image": self._image, "pos_points": positives, "neg_points": negatives, "obj_bbox": None}
        context, event = SimpleNamespace(logger=None, Response=SimpleNamespace), SimpleNamespace(body=_sent(request))
        response = self._function.respond(context, event)
        answer = json.loads(response.body)
        if response.status_code != OK:
            raise DoorError(f"the function answers: {answer['error']}")
        return placed(answer, self._size)

    def close(self) -> None:
        """Free everything."""
        self._function.close()


def placed(answer: dict[str, Any], size: tuple[int, int]) -> BoolArray:
    """Return the mask of a nuclio function's answer.

    Args:
        answer: ``mask`` with rows of 0 and 1, and ``bounds`` where they are a part of the picture.
        size: (H0, W0) of the picture.
    """
    rows = np.asarray(answer["mask"], dtype=np.uint8)
    x0, y0, x1, y1 = answer.get("bounds") or (0, 0, size[1] - 1, size[0] - 1)
    mask = np.zeros(size, dtype=np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = rows
    return mask


def _sent(request: dict[str, Any]) -> Any:
    return json.loads(json.dumps(request))


def _lists(clicks: Sequence[Click]) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    return tuple(as_point(c) for c in clicks if c.positive), tuple(as_point(c) for c in clicks if not c.positive)


doors = (CvatAgent(), CvatFunction())
"""The agent and the nuclio function."""

"""The door as it is compared with a session: over HTTP on this machine, its masks drawn by readers of their own."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.label_studio import NAME
from mmms_deploy.doors.label_studio.brush_decoding import mask_of_brush
from mmms_deploy.doors.label_studio.markup import EXAMPLE
from mmms_deploy.doors.label_studio.prompts import percent_of
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.picture import open_picture
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.page.layers import png_of
from mmms_deploy.server.packages import absent_package
from mmms_deploy.session import Click

_SECONDS = 120.0
"""How long the server may take to start, and to answer."""


class LabelStudioDoor:
    """The door; see :class:`~mmms_deploy.doors.conformance.door.Door`.

    Args:
        masks: The tag that masks are answered with, ``BrushLabels`` or ``BitmaskLabels``.
        name: As on the command line.
        title: As people know it.
    """

    def __init__(self, masks: str, name: str, title: str) -> None:
        self.name, self.title = name, title
        self._markup = EXAMPLE.replace("BrushLabels", masks)

    def missing(self) -> str | None:
        """Return why it cannot be opened here; None where it can."""
        return absent_package()

    def open(self, bundle: Bundle, opening: Opening) -> OpenLabelStudio:
        """Start a backend on the bundle.

        Raises:
            MMMSDeployError: It cannot be started.
        """
        return OpenLabelStudio(bundle, opening, self._markup)


class OpenLabelStudio:
    """A backend in a thread, and a client of it that says what Label Studio says.

    Args:
        bundle: The bundle.
        opening: How it is opened.
        markup: The labelling configuration.
    """

    def __init__(self, bundle: Bundle, opening: Opening, markup: str) -> None:
        from mmms_deploy.doors.label_studio.serving import configured
        from mmms_deploy.doors.label_studio.settings import LabelStudio
        from mmms_deploy.server.serving import in_thread
        from mmms_deploy.server.settings import Settings

        self._markup = markup
        self._task = 0
        self._data: dict[str, str] = {}
        self._size = (0, 0)
        settings = Settings(port=0, upload_bytes=1 << 30)
        with ExitStack() as resources:
            model = resources.enter_context(opening.model(bundle))
            _, port = resources.enter_context(
                in_thread(settings, lambda listens: configured(model, opening, LabelStudio(), settings, listens))
            )
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
            resources.callback(self._connection.close)
            self._ask("GET", "/health")
            self._ask("POST", "/setup", {"project": "1.1", "schema": markup})
            self._resources = resources.pop_all()

    def set_image(self, image: UInt8Array) -> None:
        """Take another picture, as a task with a PNG in a data URL."""
        content = base64.b64encode(png_of(image, fast=True)).decode("ascii")
        self._data = {"image": f"data:image/png;base64,{content}"}
        self._task += 1
        self._size = (image.shape[0], image.shape[1])

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return the mask after these clicks."""
        body = {
            "tasks": [{"id": self._task, "data": self._data}],
            "project": "1.1",
            "label_config": self._markup,
            "params": {"context": {"result": [self._region(click) for click in clicks]}},
        }
        (found,) = self._ask("POST", "/predict", body)["results"]
        if not found["result"]:
            return np.zeros(self._size, dtype=np.bool_)
        (region,) = found["result"]
        if region["type"] == "brushlabels":
            return mask_of_brush(region["value"]["rle"], (region["original_height"], region["original_width"]))
        content = base64.b64decode(region["value"]["imageDataURL"].partition(",")[2])
        picture = open_picture(content, Refusal(DoorError, "the bitmask", "a PNG")).image
        opaque: BoolArray = np.asarray(picture.convert("RGBA"))[:, :, 3] > 0
        return opaque

    def close(self) -> None:
        """Stop the server, and free everything."""
        self._resources.close()

    def _region(self, click: Click) -> dict[str, Any]:
        x, y = percent_of(click, self._size)
        return {
            "type": "keypointlabels",
            "from_name": "points",
            "to_name": "image",
            "original_width": self._size[1],
            "original_height": self._size[0],
            "image_rotation": 0,
            "is_positive": click.positive,
            "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": ["object"]},
        }

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            raise DoorError(
                f"{method} {path} answers {answer.status}: {found['error']['given']}",
                expected=found["error"]["expected"],
                fix=found["error"]["fix"],
            )
        return found


doors = (
    LabelStudioDoor("BrushLabels", NAME, "Label Studio backend, brush"),
    LabelStudioDoor("BitmaskLabels", f"{NAME}-bitmask", "Label Studio backend, bitmask"),
)

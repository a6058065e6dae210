"""The door as it is compared with a session: over HTTP on this machine, its brush drawn by an independent reader."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import io
import json
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from PIL import Image

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.conformance.door import OpenDoor
from mmms_deploy.doors.label_studio import NAME
from mmms_deploy.doors.label_studio.brush_decoding import mask_of_brush
from mmms_deploy.doors.label_studio.markup import EXAMPLE
from mmms_deploy.doors.label_studio.prompts import percent_of
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.installed import pip_install
from mmms_deploy.session import Click

_SECONDS = 120.0


class LabelStudioDoor:
    """The door; see :class:`~mmms_deploy.doors.conformance.door.Door`."""

    name = NAME
    title = "Label Studio backend"

    def missing(self) -> str | None:
        """Return why it cannot be opened here; None where it can."""
        absent = [one for one in ("fastapi", "uvicorn") if importlib.util.find_spec(one) is None]
        return f"{' and '.join(absent)} not installed: {pip_install('demo')}" if absent else None

    def open(self, bundle: Bundle, opening: Opening) -> OpenDoor:
        """Open it on a bundle.

        Raises:
            MMMSDeployError: It cannot be opened.
        """
        why = self.missing()
        if why is not None:
            raise DoorError(why, expected="FastAPI and uvicorn", fix=pip_install("demo"))
        return _OpenDoor(bundle, opening)


class _OpenDoor:
    """A server in a thread, and a client of it that says what Label Studio says."""

    def __init__(self, bundle: Bundle, opening: Opening) -> None:
        from mmms_deploy.doors.label_studio.serving import configured
        from mmms_deploy.doors.label_studio.settings import LabelStudio
        from mmms_deploy.server.serving import listening
        from mmms_deploy.server.settings import Settings

        settings = Settings(port=0, upload_bytes=1 << 30)
        # A path of the bundle names one on the hub or in the package, too: its files are there already.
        self._model = opening.model(bundle.path)
        listens = threading.Event()
        self._place = listening(settings)
        self._server = configured(self._model, opening, LabelStudio(), settings, listens.set)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._place]}, daemon=True)
        self._thread.start()
        if not listens.wait(_SECONDS):
            self.close()
            raise DoorError("the server does not start", expected="a server on this machine", fix="try again")
        self._port = self._place.getsockname()[1]
        self._task = 0
        self._data: dict[str, str] = {}
        self._size = (0, 0)
        self._ask("GET", "/health")
        self._ask("POST", "/setup", {"project": "1.1", "schema": EXAMPLE})

    def set_image(self, image: UInt8Array) -> None:
        """Take another picture, as a task with a PNG in a data URL."""
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", compress_level=1)
        self._data = {"image": "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")}
        self._task += 1
        self._size = (image.shape[0], image.shape[1])

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return the mask after these clicks."""
        body = {
            "tasks": [{"id": self._task, "data": self._data}],
            "project": "1.1",
            "label_config": EXAMPLE,
            "params": {"context": {"result": [self._region(click) for click in clicks]}},
        }
        (found,) = self._ask("POST", "/predict", body)["results"]
        if not found["result"]:
            return np.zeros(self._size, dtype=np.bool_)
        (region,) = found["result"]
        return mask_of_brush(region["value"]["rle"], (region["original_height"], region["original_width"]))

    def close(self) -> None:
        """Stop the server, and free everything."""
        self._server.should_exit = True
        self._thread.join(_SECONDS)
        self._place.close()
        self._model.close()

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
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS)) as connection:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = json.loads(answer.read())
        if answer.status != 200:
            raise DoorError(
                f"{method} {path} answers {answer.status}: {found['error']['given']}",
                expected=found["error"]["expected"],
                fix=found["error"]["fix"],
            )
        return found


door = LabelStudioDoor()
"""What :mod:`mmms_deploy.doors.conformance` opens."""

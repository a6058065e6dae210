"""What the calls of the API share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.page.model import BrowserModel
from mmms_deploy.server.errors import UnknownImageError
from mmms_deploy.server.saving import Results
from mmms_deploy.server.settings import ServedPicture, Settings
from mmms_deploy.server.shapes import ErrorAnswer
from mmms_deploy.server.tabs import Tabs

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in (
        (400, "The caller's mistake"),
        (401, "No token, or a wrong one"),
        (403, "A host or an origin that is refused"),
        (404, "No such session or image"),
        (409, "No image is set, or it does not fit the state"),
        (413, "Too large"),
        (503, "The server is full"),
    )
}
"""The errors of every call, for OpenAPI."""


@dataclass(frozen=True, eq=False)
class State:
    """What the calls share.

    Attributes:
        engine: The engine.
        settings: What the server may do.
        pictures: The pictures that it offers.
        tabs: The sessions.
        results: The folder for results.
        browser: The click stage for browsers.
        runtime: The files of onnxruntime-web by name; none where it was not fetched.
        page: The page's files by their address below ``/``.
        thumbnails: Those that were made already, by number.
    """

    engine: Engine
    settings: Settings
    pictures: Sequence[ServedPicture]
    tabs: Tabs
    results: Results
    browser: BrowserModel
    runtime: Mapping[str, Path]
    page: Mapping[str, Path]
    thumbnails: dict[int, bytes] = field(default_factory=dict)

    def picture(self, number: int) -> ServedPicture:
        """Return a picture of the server.

        Raises:
            UnknownImageError: There is none of that number.
        """
        if not 0 <= number < len(self.pictures):
            raise UnknownImageError(
                f"there is no image {number}",
                expected=f"an id from 0 to {len(self.pictures) - 1}" if self.pictures else "an uploaded image",
                fix="look at GET images",
            )
        return self.pictures[number]


def state_of(connection: HTTPConnection) -> State:
    """Return what the calls share, for a request or a live socket."""
    return cast(State, connection.app.state.shared)


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON.

    Args:
        content: What JSON can hold.
        status: The HTTP status.
        headers: More headers.
    """
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")

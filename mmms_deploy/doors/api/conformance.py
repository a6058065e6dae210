"""The API as the comparison of doors sees it: a server on a free port of this machine, and the client over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.api.client import Client
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.installed import pip_install
from mmms_deploy.server.settings import Settings
from mmms_deploy.session import Click

_SECONDS = 60.0
"""How long the server may take to start."""


class OpenApi:
    """A server in a thread, and a client of it.

    Args:
        bundle: The bundle.
        opening: How it is opened.
    """

    def __init__(self, bundle: Bundle, opening: Opening) -> None:
        from mmms_deploy.server.serving import address, configured, listening

        settings, listens = Settings(port=0, cleaning=opening.cleaning), threading.Event()
        with ExitStack() as resources:
            model = resources.enter_context(opening.model(bundle))
            place = resources.enter_context(listening(settings))
            server = configured(model.opened, settings, (), listens.set)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)

            def stop() -> None:
                server.should_exit = True
                thread.join()

            thread.start()
            resources.callback(stop)
            if not listens.wait(_SECONDS):
                raise DoorError("the server does not start", expected="a server on a free port of this machine")
            client = Client(address(settings, place.getsockname()[1]))
            self._client = resources.enter_context(client)
            self._resources = resources.pop_all()

    def set_image(self, image: UInt8Array) -> None:
        """Upload the picture as PNG."""
        self._client.set_image(image)

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Send the newest click, and return the mask of the answer's run lengths."""
        newest = clicks[-1]
        return self._client.click(newest.x, newest.y, newest.positive)

    def close(self) -> None:
        """Close the client, stop the server, and free the engine."""
        self._resources.close()


class ApiDoor:
    """The API over HTTP."""

    name = "api"
    title = "API over HTTP, Python client"

    def missing(self) -> str | None:
        """Return why it cannot be opened here; None where it can."""
        try:
            import fastapi  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            return f"{error.name or error} is not installed: {pip_install('demo')}"
        return None

    def open(self, bundle: Bundle, opening: Opening) -> OpenApi:
        """Start a server on the bundle.

        Raises:
            MMMSDeployError: It cannot be started.
        """
        return OpenApi(bundle, opening)


doors = (ApiDoor(),)

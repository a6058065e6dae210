"""The API as the comparison of doors sees it: a server on a free port of this machine, and the client over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.api.client import Client
from mmms_deploy.doors.opening import Opening
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.server.packages import absent_package
from mmms_deploy.server.settings import Settings
from mmms_deploy.session import Click


class OpenApi:
    """A server in a thread, and a client of it.

    Args:
        bundle: The bundle.
        opening: How it is opened.
    """

    def __init__(self, bundle: Bundle, opening: Opening) -> None:
        from mmms_deploy.server.serving import address, configured, in_thread

        settings = Settings(port=0)
        with ExitStack() as resources:
            model = resources.enter_context(opening.model(bundle))
            _, port = resources.enter_context(
                in_thread(settings, lambda listens: configured(model.opened, settings, (), listens))
            )
            self._client = resources.enter_context(Client(address(settings, port)))
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
        return absent_package()

    def open(self, bundle: Bundle, opening: Opening) -> OpenApi:
        """Start a server on the bundle.

        Raises:
            MMMSDeployError: It cannot be started.
        """
        return OpenApi(bundle, opening)


doors = (ApiDoor(),)

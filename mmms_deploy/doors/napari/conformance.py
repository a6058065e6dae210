"""The door for the comparison of all doors: a viewer's model, without a window, whose Points layer is clicked on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from queue import SimpleQueue

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.conformance.door import Door, OpenDoor
from mmms_deploy.doors.napari.viewer_session import ViewerSession
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, MMMSDeployError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.installed import pip_install
from mmms_deploy.session import Click


class NapariDoor:
    """The plugin of napari. A viewer's model has the layers and the events of a viewer, and needs no display."""

    name = "napari"
    title = "napari plugin"

    def missing(self) -> str | None:
        """Return why this door cannot be opened here, with the command that helps; None where it can."""
        return None if find_spec("napari") is not None else f"napari is not installed: {pip_install('napari')}"

    def open(self, bundle: Bundle, opening: Opening) -> OpenDoor:
        """Open the door on a bundle.

        Raises:
            DoorError: napari is not installed.
            BundleError: There is no usable bundle.
            EngineError: There is no usable engine.
        """
        missing = self.missing()
        if missing is not None:
            raise DoorError("napari is not installed", expected="napari, 0.5 or later", fix=pip_install("napari"))
        return _OpenNapari(bundle, opening)


class _OpenNapari:
    """A viewer's model with the plugin's session on it; this thread is that of the interface."""

    def __init__(self, bundle: Bundle, opening: Opening) -> None:
        from napari.components import ViewerModel

        self._bundle, self._opening = bundle, opening
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._errors: list[MMMSDeployError] = []
        self._viewer = ViewerModel()
        self._session = ViewerSession(self._viewer, post=self._calls.put, tell=self._errors.append)
        try:
            self._session.open(bundle, opening)
            self._wait()
        except BaseException:
            self.close()
            raise

    def set_image(self, image: UInt8Array) -> None:
        """Take another picture as an image layer, and press Start."""
        self._viewer.layers.clear()
        layer = self._viewer.add_image(image, name="picture", rgb=True)
        self._session.start(self._bundle, self._opening, layer)
        self._wait()

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return the pixels of the Labels layer that the object has after these clicks on the Points layer."""
        points = self._session.points
        if points is None:
            raise DoorError("clicks without a picture", expected="set_image first", fix="give a picture")
        for click in clicks[len(points.data) :]:
            self._session.positive = click.positive
            points.add((click.y, click.x))
        self._wait()
        standing, labels = self._session.standing, self._session.labels
        assert standing is not None
        assert labels is not None
        mask: BoolArray = labels.data == standing.surfaces[standing.surface]
        return mask

    def close(self) -> None:
        """Free everything."""
        self._session.close()
        self._viewer.layers.clear()

    def _wait(self) -> None:
        while self._session.busy:
            self._calls.get()()
        if self._errors:
            raise self._errors.pop(0)


doors: tuple[Door, ...] = (NapariDoor(),)
"""What ``mmms-verify --doors`` takes."""

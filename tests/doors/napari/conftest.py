from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from mmms_deploy.doors.napari.viewer_session import ViewerSession
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import MMMSDeployError

SIZE = (90, 160)


@pytest.fixture(scope="session")
def picture() -> Any:
    """A disk on a slope, (90, 160, 3) uint8."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    disk = (np.hypot(rows - 45, columns - 60) < 30) * 180
    return np.stack([disk, rows, columns], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def display() -> Iterator[None]:
    """A display without a screen, where windows need one; napari's own fixture opens them there."""
    if not sys.platform.startswith("linux"):
        yield
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb (apt-get install xvfb libgl1-mesa-dri)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as said, pytest.MonkeyPatch.context() as patch:
            number = said.readline().strip()
            assert number, "Xvfb did not start"
            patch.setenv("DISPLAY", f":{number}")
            patch.setenv("QT_QPA_PLATFORM", "xcb")
            yield
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def viewer(display: None, request: pytest.FixtureRequest) -> Any:
    """A real viewer, which napari's own fixture closes and looks for leaks of."""
    pytest.importorskip("napari", reason="napari is not installed (make test-napari)")
    pytest.importorskip("pytestqt", reason="pytest-qt is not installed (make test-napari)")
    return request.getfixturevalue("make_napari_viewer")()


class Clicking:
    """A viewer's model with a session on it; the test's thread is that of the interface.

    Attributes:
        viewer: The viewer's model.
        errors: What the user was told.
        session: The session.
    """

    def __init__(self, bundle: Any) -> None:
        from napari.components import ViewerModel

        self.viewer = ViewerModel()
        self.errors: list[MMMSDeployError] = []
        self._bundle = bundle
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.session = ViewerSession(self.viewer, post=self._calls.put, tell=self.errors.append)

    def start(self, image: Any, /, modalities: Any = None, **settings: Any) -> Any:
        """Add an image layer, or take one that is there, and begin on it."""
        layer = (
            self.viewer.add_image(image, name="photo", **settings) if isinstance(image, np.ndarray | list) else image
        )
        self.session.start(self._bundle, Opening(), layer, modalities)
        self.wait()
        return layer

    def wait(self) -> None:
        """Wait until every answer is there."""
        while self.session.busy:
            self._calls.get(timeout=60)()

    def click(self, *point: float, positive: bool = True) -> None:
        """Put a point, as the mouse does."""
        self.session.positive = positive
        self.session.points.add(point)
        self.wait()

    @property
    def labels(self) -> Any:
        """The Labels layer's numbers, of a plane."""
        return np.squeeze(self.session.labels.data)


@pytest.fixture
def clicking() -> Iterator[Callable[[Any], Clicking]]:
    """Opens a viewer's model on a bundle; needs napari and no display."""
    pytest.importorskip("napari", reason="napari is not installed (make test-napari)")
    opened: list[Clicking] = []

    def opens(bundle: Any) -> Clicking:
        opened.append(Clicking(bundle))
        return opened[-1]

    yield opens
    for one in opened:
        one.session.close()


@pytest.fixture(scope="session")
def manifest() -> Path:
    """The plugin's manifest."""
    import mmms_deploy.doors.napari as plugin

    return Path(plugin.__file__).parent / "napari.yaml"

"""Triton as the comparison of all doors sees it: the real server on this machine, over HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.conformance.door import OpenDoor
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.repository import write_repository
from mmms_deploy.doors.triton.requests import CLICK, CLICKS, IMAGE, MASK
from mmms_deploy.doors.triton.server import TritonServer, missing_server, this_python
from mmms_deploy.doors.triton.settings import RepositorySettings
from mmms_deploy.errors import DoorError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.installed import pip_install
from mmms_deploy.session import Click

_NAME = "conformance"


class TritonDoor:
    """The form with the Python backend, and a client of NVIDIA's."""

    name = "triton"
    title = "NVIDIA Triton (Python backend, HTTP)"

    def missing(self) -> str | None:
        """Return why there is no server or no client here, with the command that helps; None where there are both."""
        if find_spec("tritonclient") is None:
            return f"tritonclient is not installed: {pip_install('cpu,triton')}"
        return missing_server()

    def open(self, bundle: Bundle, opening: Opening) -> OpenDoor:
        """Write a model repository and start the server on it.

        Raises:
            DoorError: There is no server here, or it does not start.
        """
        return OpenTriton(bundle, opening)


class OpenTriton:
    """A server that is open on a bundle, and one sequence of it.

    Args:
        bundle: The bundle; it is not copied.
        opening: How the server opens it.

    Raises:
        DoorError: There is no server here, or it does not start.
    """

    def __init__(self, bundle: Bundle, opening: Opening) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mmms-deploy-triton.")
        try:
            repository = Path(self._folder.name) / "models"
            settings = RepositorySettings(name=_NAME, opening=opening, copy=False, python_path=this_python())
            write_repository(repository, bundle, settings)
            self._server = TritonServer(repository)
        except BaseException:
            self._folder.cleanup()
            raise
        self._http = _client()
        self._client = self._http.InferenceServerClient(self._server.address)
        self._sequence = 0
        self._clicks: list[list[float]] = []

    def set_image(self, image: UInt8Array) -> None:
        """Begin a sequence on another picture, which travels as numbers."""
        self._end()
        self._sequence += 1
        self._clicks = []
        self._mask({IMAGE: (image, "UINT8")}, start=True)

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return the mask after these clicks: the newest one alone is sent where it is the only new one."""
        rows = [[click.x, click.y, float(click.positive)] for click in clicks]
        further = rows[:-1] == self._clicks and bool(rows)
        sent = (CLICK, rows[-1]) if further else (CLICKS, rows)
        self._clicks = rows
        given = np.array(sent[1], dtype=np.float64)
        return self._mask({sent[0]: (given if further else given.reshape(-1, 3), "FP64")})

    def close(self) -> None:
        """End the server, and remove the model repository."""
        try:
            with suppress(DoorError):  # the sequence may have no picture
                self._end()
            self._client.close()
        finally:
            self._server.close()
            self._folder.cleanup()

    def _end(self) -> None:
        if self._sequence:
            self._mask({}, end=True)

    def _mask(
        self, tensors: dict[str, tuple[npt.NDArray[Any], str]], *, start: bool = False, end: bool = False
    ) -> BoolArray:
        inputs = []
        for name, (array, kind) in tensors.items():
            tensor = self._http.InferInput(name, list(array.shape), kind)
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            inputs.append(tensor)
        try:
            answer = self._client.infer(
                _NAME, inputs, sequence_id=self._sequence, sequence_start=start, sequence_end=end
            )
        except self._http.InferenceServerException as error:
            raise DoorError(
                f"Triton refuses a request with {', '.join(tensors) or 'nothing'}: {error.message()}",
                expected="a mask",
                fix="please report it with the versions of mmms-deploy and of Triton",
            ) from error
        mask: BoolArray = answer.as_numpy(MASK).astype(np.bool_)
        return mask


def _client() -> ModuleType:
    import tritonclient.http

    module: ModuleType = tritonclient.http
    return module


doors = (TritonDoor(),)

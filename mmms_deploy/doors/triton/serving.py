"""What answers in Triton's Python backend: requests in, masks out, errors with their whole text."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.requests import MASK
from mmms_deploy.doors.triton.sequences import Sequences
from mmms_deploy.errors import Door, DoorError, EngineError, MMMSDeployError

BUNDLE = "bundle"
"""The parameter that names the bundle, a folder beside model.py or anything else that names one."""


class Serving:
    """A bundle that answers Triton's requests. It is made in the process of Triton's Python backend.

    Args:
        settings: The parameters of the model's configuration: the bundle, and settings of an
            :class:`~mmms_deploy.doors.opening.Opening` by name. Names in capitals are Triton's own.
        idle: Seconds after which Triton forgets a sequence.
        folder: The folder that model.py lies in.

    Raises:
        DoorError: A setting is wrong, or this NumPy is another one than Triton was built for.
        BundleError, EngineError: There is no usable bundle or engine.
    """

    def __init__(self, settings: Mapping[str, str], idle: float, folder: Path) -> None:
        self._triton: Any = import_module("triton_python_backend_utils")
        self._check_arrays()
        given = {name: value for name, value in settings.items() if not name.isupper()}
        named = given.pop(BUNDLE)
        beside = folder / named
        opening = Opening.of(given)
        self._model = opening.model(beside if beside.is_dir() else named)
        self._sequences = Sequences(self._model, opening, idle)

    def respond(self, request: Any) -> Any:
        """Return the response to one of Triton's requests."""
        try:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            mask = self._sequences.answer(tensors)
        except MMMSDeployError as error:
            return self._triton.InferenceResponse(error=self._error(error))
        return self._triton.InferenceResponse([self._triton.Tensor(MASK, mask)])

    def close(self) -> None:
        """Free the sessions and the engine."""
        self._sequences.close()
        self._model.close()

    def _error(self, error: MMMSDeployError) -> Any:
        """Return an error for Triton: a fault of the request, or of the engine."""
        kind, codes = "INTERNAL" if isinstance(error, EngineError) else "INVALID_ARG", self._triton.TritonError
        text = error.message(Door.PYTHON)
        # Servers before 23.09 know no codes.
        return codes(text, getattr(codes, kind)) if hasattr(codes, kind) else codes(text)

    def _check_arrays(self) -> None:
        """Check that Triton's stub and this NumPy understand each other.

        A stub that was built for NumPy 1 reads arrays of NumPy 2 with wrong strides, sends them with 0 bytes, and says
        nothing. What it makes of a capsule shows that.
        """
        if int(np.__version__.partition(".")[0]) < 2:
            return
        given = np.arange(6, dtype=np.float64)
        try:
            taken = self._triton.Tensor.from_dlpack(MASK, given.__dlpack__()).as_numpy()
            same = taken.shape == given.shape and bool((taken == given).all())
        except Exception:  # whatever the stub makes of it
            same = False
        if not same:
            raise DoorError(
                f"Triton's Python stub does not understand arrays of NumPy {np.__version__}",
                expected="a NumPy that it was built for: 1.26 for servers before 2025",
                fix='pip install "numpy<2" into the Python that Triton finds, the first python3 in its PATH',
            )

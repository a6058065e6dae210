"""A stand-in of ``triton_python_backend_utils``: what Triton gives a model.py, and takes from it."""

from __future__ import annotations

from typing import Any

import numpy as np


class Tensor:
    """A tensor with a name."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array

    @classmethod
    def from_dlpack(cls, name: str, capsule: Any) -> Tensor:
        class Exporter:
            def __dlpack__(self, **_: Any) -> Any:
                return capsule

            def __dlpack_device__(self) -> tuple[int, int]:
                return 1, 0

        return cls(name, cls.understood(np.from_dlpack(Exporter())))

    @staticmethod
    def understood(array: np.ndarray) -> np.ndarray:
        """What the stub makes of an array."""
        return array


class TritonError:
    """An error, with its code."""

    INVALID_ARG, INTERNAL = "invalid argument", "internal"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        self.text, self.code = message, code


class InferenceResponse:
    """Outputs, or an error."""

    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.outputs = {tensor.name(): tensor.as_numpy() for tensor in output_tensors or []}
        self.failed = error


class InferenceRequest:
    """Inputs."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._tensors = tensors

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self._tensors.items()]

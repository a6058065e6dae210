"""What the CUDA engines need from a library: stages that read and write fixed addresses and run on a stream.

A :class:`Program` is a stage that is ready to run: weights on the GPU, shared by all sessions. An :class:`Executor` is
one session's use of it. With TensorRT they are an engine and an execution context, with ONNX Runtime a session and an
IO binding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mmms_deploy.bundle import Bundle, StageGraph, TensorSpec
from mmms_deploy.errors import BundleCorruptError


@dataclass(frozen=True)
class TensorIO:
    """An input or output of a program, as its library describes it.

    Attributes:
        dtype: NumPy name of its element type.
        shape: Static shape.
        is_input: Whether it is an input.
    """

    dtype: str
    shape: tuple[int, ...]
    is_input: bool


class Executor(Protocol):
    """One session's use of a program. Used by one thread at a time."""

    def set_scratch(self, address: int) -> None:
        """Set the address of its scratch memory: ``device_memory`` bytes of the program, which have to outlive it.

        Nothing is kept there between two runs. Executors that never run at the same time may share it.
        """
        ...

    def bind(self, name: str, address: int) -> None:
        """Set the address of an input or output on the GPU.

        Raises:
            EngineError: The library refuses it.
        """
        ...

    def enqueue(self, stream: Any) -> None:
        """Enqueue one run on a stream; does not wait for it.

        Raises:
            EngineError: The library refuses it.
        """
        ...

    def close(self) -> None:
        """Free what belongs to it. Safe to call twice."""
        ...


class Program(Protocol):
    """A stage that is ready to run on the GPU. May be used by several threads at the same time."""

    @property
    def io_spec(self) -> Mapping[str, TensorIO]:
        """Its inputs and outputs by name."""
        ...

    @property
    def weights(self) -> int:
        """Bytes of its weights on the GPU."""
        ...

    @property
    def device_memory(self) -> int:
        """Bytes of scratch memory that an executor needs; 0 when the library allocates its own."""
        ...

    def executor(self) -> Executor:
        """Return a new executor.

        Raises:
            EngineError: The library refuses it.
        """
        ...

    def close(self) -> None:
        """Release the weights; they are freed once the last executor is closed too. Safe to call twice."""
        ...


def check_program(bundle: Bundle, stage: str, graph: StageGraph, program: Program) -> None:
    """Check that a program's inputs and outputs are those of the manifest.

    Raises:
        BundleCorruptError: They are not.
    """
    for side, specs in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        promised = _sorted({spec.name: (spec.dtype, spec.shape) for spec in specs})
        found = _sorted(
            {n: (io.dtype, io.shape) for n, io in program.io_spec.items() if io.is_input == (side == "inputs")}
        )
        if promised != found:
            raise BundleCorruptError(
                f"stage {stage!r} of {bundle.path} has the {side} {found}",
                expected=f"what its manifest says: {promised}",
                fix="export the checkpoint again",
            )


def _sorted(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[tuple[str, str, tuple[int, ...]]]:
    return sorted((name, dtype, tuple(shape)) for name, (dtype, shape) in tensors.items())


def check_same(bundle: Bundle, what: str, ours: TensorSpec, other: TensorSpec) -> None:
    """Check that two tensors can hold each other's contents.

    Raises:
        BundleCorruptError: They cannot.
    """
    if (ours.dtype, ours.shape) != (other.dtype, other.shape):
        raise BundleCorruptError(
            f"{what} of {bundle.path}: {ours.name} is {ours.dtype} {ours.shape}",
            expected=f"{other.dtype} {other.shape}, as {other.name}",
            fix="export the checkpoint again",
        )

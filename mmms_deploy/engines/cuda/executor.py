"""What the CUDA engines need from a library: stages that read and write fixed addresses, asked for on a stream.

A :class:`Program` is a stage that is ready to run: weights on the GPU, shared by all sessions. An :class:`Executor` is
one session's use of it. TensorRT's engines and execution contexts are such, and so are ONNX Runtime's sessions and IO
bindings.
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

    def lend(self, address: int) -> None:
        """Give it scratch memory of the program's ``device_memory`` bytes, for as long as it lives.

        Nothing is kept there between two runs, so that executors that never run at the same time may share it.
        """
        ...

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output is on the GPU.

        Raises:
            EngineError: The library refuses it.
        """
        ...

    def enqueue(self, stream: Any) -> None:
        """Ask for one run on a stream; does not wait for it.

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
        """Bytes of scratch memory that an executor has to be lent; 0 when the library takes care of it itself."""
        ...

    def executor(self) -> Executor:
        """Return a new executor.

        Raises:
            EngineError: The library refuses it.
        """
        ...

    def close(self) -> None:
        """Let go of the weights; they are freed when the last executor is closed too. Safe to call twice."""
        ...


def check_program(bundle: Bundle, stage: str, graph: StageGraph, program: Program) -> None:
    """Check that a program's inputs and outputs are those that the manifest promises.

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

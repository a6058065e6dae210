"""What a session needs from a backend: run a stage on values that stay on the device.

An :class:`Engine` holds what is shared (weights, compiled graphs); a :class:`Runner` holds what belongs to one session
(buffers, a stream). A runner deals in *values*: opaque handles of tensors on the device. A value is never written to
once it was returned, so undo keeps an old handle and costs nothing. A backend with fixed addresses (CUDA graphs) keeps
a pool of buffers and takes one back when its handle is garbage collected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle, Precision, StageGraph, TensorSpec
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.imaging.decision import Enlargement

Array: TypeAlias = npt.NDArray[Any]
"""Any NumPy array; the docstrings give shape and dtype."""

Value: TypeAlias = object
"""Handle of a tensor on the device. Only the runner that made it can use it, until that one detaches it."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine really is, read back from its library and never from a flag.

    Attributes:
        name: Name of the engine, as ``engine=`` takes it.
        device: ``cpu`` or ``cuda``.
        precision: What it computes in.
        library: Name of the library that executes.
        version: Version of that library.
        threads: Threads a stage computes with; None where the device decides.
        providers: What the library says executes the graphs, e.g. ``("CPUExecutionProvider",)``.
        evidence: What shows the precision, e.g. ``67 of 67 matrix operations in bf16``.
        reason: Why this engine and precision were chosen; empty when they were opened directly.
    """

    name: str
    device: str
    precision: Precision
    library: str
    version: str
    threads: int | None
    providers: tuple[str, ...]
    evidence: str = field(default="", compare=False)
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.library} {self.version} on {self.device}, {self.precision}{threads}"


class Runner(Protocol):
    """One session's own buffers on a device. Used by one thread at a time."""

    def upload(self, spec: TensorSpec, array: Array) -> Value:
        """Copy an array to the device.

        Args:
            spec: The tensor it is for.
            array: Numbers of the spec's shape; converted to the spec's dtype. Free to be changed afterwards.
        """
        ...

    def zeros(self, spec: TensorSpec) -> Value:
        """Return a tensor of zeros of the spec's shape and dtype."""
        ...

    def prepare(self, stage: str) -> float:
        """Make a stage ready to run, and return the seconds that it took to compile; 0 where it is ready.

        Only the larger ones of several sizes of a stage are compiled later than when the engine is opened.

        Args:
            stage: Name of the stage.

        Raises:
            BundleCorruptError: The graph cannot be loaded, or is not what the manifest says.
            EngineError: The library does not compute it as requested, or the engine is closed.
        """
        ...

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage.

        Args:
            stage: Name of the stage.
            inputs: A value for every input of its graph.

        Returns:
            A new value for every output of its graph.

        Raises:
            EngineError: The library failed.
        """
        ...

    def download(self, value: Value) -> Array:
        """Wait for a value and copy it to the host, as an array of the spec's shape and dtype that the caller owns."""
        ...

    def download_float32(self, value: Value) -> npt.NDArray[np.float32]:
        """Wait for a value of a floating-point dtype and return its numbers as float32, which the caller owns."""
        ...

    def detach(self, value: Value) -> Value:
        """Return a value with memory of its own, which every runner of this engine can use as long as this one is open.

        Raises:
            EngineError: There is no memory for it.
        """
        ...

    def synchronize(self) -> None:
        """Wait until everything that was requested is done.

        Raises:
            EngineError: Something failed in the meantime.
        """
        ...

    def close(self) -> None:
        """Free the buffers. Safe to call twice; everything else fails afterwards."""
        ...


@dataclass(frozen=True)
class Finish:
    """How an answer becomes a mask: it is brought to the image's size and compared with a limit.

    Attributes:
        size: (H0, W0) of the image.
        rule: How it is resized.
        limit: What is above it belongs to the object; in the form of the answer, a probability or a logit.
    """

    size: tuple[int, int]
    rule: ResizeRule
    limit: float


@runtime_checkable
class Finisher(Protocol):
    """A runner that can make masks of answers where these are, so that bits are downloaded and no processor resizes.

    The masks are those of :func:`mmms_deploy.imaging.resize.resize_above`, but for pixels whose number is within
    rounding of the limit.
    """

    def expect(self, finish: Finish) -> bool:
        """Say which mask is wanted of the answers from now on, so that every run of the click stage makes it.

        It is worth the time of an image: memory may be allocated, and what was recorded is recorded anew.

        Returns:
            Whether it will be made; otherwise :meth:`finished` returns None.

        Raises:
            EngineError: The device failed; or there is no memory for it, and the engine is strict.

        Warns:
            MMMSDeployWarning: There is no memory for it.
        """
        ...

    def finished(self, value: Value, finish: Finish) -> npt.NDArray[np.bool_] | None:
        """Wait for an answer's mask and return it.

        Args:
            value: An answer (1, 1, h, w), of this run or an earlier one; of an earlier one the mask is made again.
            finish: How it becomes a mask; it is best what was expected.

        Returns:
            (H0, W0) bool, which the caller owns; None where this value's mask cannot be made here.

        Raises:
            EngineError: The device failed.
        """
        ...


@runtime_checkable
class DecidesLabels(Protocol):
    """A runner that can decide on its device which of several objects has each pixel of an image.

    Nothing of the maps is kept: they are given from the host at every call. The labels are those of
    :meth:`mmms_deploy.imaging.decision.LargestMap.labels`, but for pixels whose two largest numbers are within rounding
    of each other.
    """

    def expect_labels(self, how: Enlargement, shape: tuple[int, int, int]) -> bool:
        """Say which maps will be decided between, so that the first call takes no longer than the others.

        It is worth the time of an image: memory may be allocated.

        Args:
            how: How the maps are enlarged.
            shape: (R, h, w) of the maps; more of them may come.

        Returns:
            Whether the device will decide; otherwise :meth:`decided` returns None.

        Raises:
            EngineError: The device failed; or there is no memory for it, and the engine is strict.

        Warns:
            MMMSDeployWarning: There is no memory for it.
        """
        ...

    def decided(
        self, planes: npt.NDArray[np.float32], owners: npt.NDArray[np.uint8], how: Enlargement
    ) -> npt.NDArray[np.uint8] | None:
        """Return the owner of the largest map at every pixel of the image.

        Args:
            planes: (R, h, w) float32, finite.
            owners: (R,) uint8: the owner of every map. The lowest of the owners above 0 wins a tie between them, and
                any of them a tie with 0.
            how: How the maps are enlarged; it is best what was expected.

        Returns:
            (H0, W0) uint8, which the caller owns; None where the device cannot decide.

        Raises:
            EngineError: The device failed; or there is no memory for it, and the engine is strict.

        Warns:
            MMMSDeployWarning: There is no memory for it.
        """
        ...


@runtime_checkable
class PreparesImages(Protocol):
    """A runner that can resize and normalise images and modalities on its device. A runner may do without."""

    @property
    def prepares_images(self) -> bool:
        """Whether it does."""
        ...

    def upload_prepared(
        self, spec: TensorSpec, array: Array, rule: ImageSpec | ModalitySpec, *, mirrored: bool = False
    ) -> Value | None:
        """Copy an image or a modality to the device, and prepare it there.

        Args:
            spec: The tensor it is for: (1, C, H, W) float32.
            array: (H0, W0, C): uint8 of an image, or float32 of a modality in the network's unit, finite. Free to be
                changed afterwards.
            rule: The checkpoint's preparation.
            mirrored: Whether the network sees its mirror image, left and right exchanged.

        Returns:
            What :meth:`Runner.upload` returns for :func:`mmms_deploy.imaging.preprocess.prepare` of it, within 1e-5 of
            the range of its values; None where the host has to prepare it.

        Raises:
            EngineError: It failed.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """Executes the stages of one bundle on one device. May be shared by sessions and threads."""

    @property
    def info(self) -> EngineInfo:
        """What this engine really is."""
        ...

    @property
    def bundle(self) -> Bundle:
        """The bundle whose stages it executes."""
        ...

    @property
    def graphs(self) -> Mapping[str, StageGraph]:
        """The graph it runs for every stage, by the stage's name, in the order of the manifest."""
        ...

    def open(self) -> Runner:
        """Return a new runner, for one session.

        Raises:
            EngineError: The engine is closed.
        """
        ...

    def close(self) -> None:
        """Free the weights. Safe to call twice; its runners fail afterwards."""
        ...


def checked_array(spec: TensorSpec, array: Array) -> Array:
    """Return a C-ordered copy of ``array`` with the dtype of ``spec``, for uploading.

    Raises:
        ValueError: Its shape is not the spec's, which is a fault of the calling code.
    """
    if tuple(array.shape) != spec.shape:
        raise ValueError(f"{spec.name}: expected shape {spec.shape}, got {tuple(array.shape)}")
    return np.array(array, dtype=np.dtype(spec.dtype), order="C", copy=True)


def names(specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Return the names of tensors, in order."""
    return tuple(spec.name for spec in specs)

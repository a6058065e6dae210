"""Prepares the images of one session on the GPU.

The image's rows go up band by band through two pieces of pinned memory: the host copies rows to one of them, while the
GPU reads the other. Memory on the GPU for one band is enough, because a stream does one thing after the other. Nothing
grows with the image.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from ctypes import c_int32, c_uint64
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Role, TensorSpec
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.engines.cuda.images.plan import BAND, NARROWED, TABLES, Band, Plan, plan_for
from mmms_deploy.engines.cuda.kernels.module import Kernel, KernelModules
from mmms_deploy.engines.cuda.memory import Account, PinnedBuffer, Use
from mmms_deploy.engines.cuda.runtime import Cuda

DEVICE_BYTES = BAND + NARROWED + TABLES
"""What a session needs on the GPU to prepare its images."""
PINNED_BYTES = 2 * BAND
"""What it needs of pinned memory."""
_COLUMNS = (32, 8, 1)
"""Threads of a block that computes columns: along the columns, and along the rows."""
_LINES = 128
"""Threads of a block that computes lines, along the columns."""


class ImageKernels(NamedTuple):
    """The kernels of ``image.cu``.

    Attributes:
        narrow: Brings rows to the width of the result, by the numbers of the image.
        add: Adds them to the result.
    """

    narrow: dict[str, Kernel]
    add: Kernel


def image_kernels(modules: KernelModules) -> ImageKernels:
    """Return the kernels, loaded.

    Raises:
        EngineError: They cannot be loaded.
    """
    narrow = {dtype: modules.kernel("image", f"image_columns_{dtype}") for dtype in ("uint8", "float32")}
    return ImageKernels(narrow, modules.kernel("image", "image_lines"))


class _Staged:
    """A piece of pinned memory that is filled again once the GPU has read it.

    Attributes:
        pinned: The memory.
        event: Comes after the last upload of it.
        recorded: Whether it does; False when that could not be enqueued.
    """

    def __init__(self, pinned: PinnedBuffer, event: Any) -> None:
        self.pinned = pinned
        self.event = event
        self.recorded = False


class ImagePreparation:
    """Prepares images for one session. Used by one thread at a time, on whose GPU the session is.

    Args:
        cuda: The GPU.
        kernels: Its kernels.
        account: Allocates memory.
        stream: The session's stream.
        guard: Entered while operations are enqueued on the stream.
        cleanup: Frees everything in the end.

    Raises:
        ResidentBudgetError: There is no memory for it.
        CudaError: The GPU failed.
    """

    def __init__(
        self,
        cuda: Cuda,
        kernels: ImageKernels,
        account: Account,
        stream: Any,
        guard: AbstractContextManager[Any],
        cleanup: ExitStack,
    ) -> None:
        self._cuda = cuda
        self._kernels = kernels
        self._stream = stream
        self._guard = guard
        host = account.allocate_host(PINNED_BYTES)
        cleanup.callback(account.free_host, host, PINNED_BYTES)
        self._staged = []
        for number in range(2):
            event = cuda.create_event()
            cleanup.callback(cuda.destroy_event, event)
            self._staged.append(_Staged(PinnedBuffer(host + number * BAND, BAND), event))
        self._rows = account.allocate(Use.INPUTS, DEVICE_BYTES)
        cleanup.callback(account.free, Use.INPUTS, self._rows, DEVICE_BYTES)
        self._narrowed = self._rows + BAND
        self._tables = self._narrowed + NARROWED
        self._there: Plan | None = None

    def warm_up(self, spec: TensorSpec, address: int) -> None:
        """Enqueue the preparation of one pixel, for the input of a stage.

        Args:
            spec: The input.
            address: Where it is on the GPU.

        Raises:
            CudaError: It was refused.
        """
        _, channels, height, width = spec.shape
        dtype = "uint8" if spec.role is Role.IMAGE else "float32"
        pixel = np.zeros((1, 1, channels), dtype=dtype)
        rule = ImageSpec() if spec.role is Role.IMAGE else ModalitySpec(name=spec.name, channels=channels)
        plan = plan_for(pixel, rule, (height, width), mirrored=False)
        if plan is not None:
            self.prepare(pixel, plan, address)

    def prepare(self, array: npt.NDArray[Any], plan: Plan, address: int) -> int:
        """Enqueue the preparation of an image, which is free to be changed afterwards.

        Args:
            array: (H0, W0, C) numbers, as the plan says.
            plan: How they are prepared.
            address: Where on the GPU the result goes: (1, C, H, W) float32.

        Returns:
            The bytes that go up.

        Raises:
            CudaError: It was refused. The result is not there then.
        """
        moved = self._upload_tables(plan)
        for number, band in enumerate(band for band in plan.bands() if band.lines):
            moved += self._add_band(array, plan, band, address, self._staged[number % 2])
        return moved

    def _upload_tables(self, plan: Plan) -> int:
        """Have the tables of a plan on the GPU; return the bytes that go up for it."""
        if self._there is plan:
            return 0
        self._there = None
        self._upload(plan.tables, self._tables, self._staged[1])
        self._there = plan
        return plan.tables.nbytes

    def _add_band(self, array: npt.NDArray[Any], plan: Plan, band: Band, address: int, staged: _Staged) -> int:
        """Add a band's rows to the result; return the bytes that go up."""
        rows = array[band.top : band.top + band.rows]
        (height, columns), channels = plan.result, plan.channels
        first_row, row_weights, first_pixel, pixel_weights, norm = (self._tables + place for place in plan.places)
        self._fill(rows, staged)
        with self._guard:
            self._send(staged, self._rows, rows.nbytes)
            self._kernels.narrow[plan.dtype].launch(
                (-(-columns // _COLUMNS[0]), -(-band.rows // _COLUMNS[1]), channels),
                _COLUMNS,
                (
                    *map(c_uint64, (self._rows, self._narrowed, first_pixel, pixel_weights)),
                    *map(c_int32, (band.rows, plan.size[1], channels, columns, plan.taps[1])),
                ),
                self._stream,
            )
            self._kernels.add.launch(
                (-(-columns // _LINES), band.lines, channels),
                (_LINES, 1, 1),
                (
                    *map(c_uint64, (self._narrowed, address, first_row, row_weights, norm)),
                    *map(c_int32, (band.begin, band.top, band.rows, plan.size[0])),
                    *map(c_int32, (channels, height, columns, plan.taps[0])),
                ),
                self._stream,
            )
        return rows.nbytes

    def _upload(self, array: npt.NDArray[Any], target: int, staged: _Staged) -> None:
        self._fill(array, staged)
        with self._guard:
            self._send(staged, target, array.nbytes)

    def _fill(self, array: npt.NDArray[Any], staged: _Staged) -> None:
        """Copy numbers to pinned memory, once the GPU has read what was there."""
        pinned = staged.pinned
        if pinned.busy:
            with self._guard:
                if staged.recorded:
                    self._cuda.wait_for_event(staged.event)
                else:
                    self._cuda.synchronize(self._stream)
            pinned.busy = False
        np.copyto(pinned.array[: array.nbytes].view(array.dtype.newbyteorder("=")).reshape(array.shape), array)

    def _send(self, staged: _Staged, target: int, nbytes: int) -> None:
        """Upload from pinned memory."""
        staged.pinned.busy, staged.recorded = True, False
        self._cuda.upload(target, staged.pinned.address, nbytes, self._stream)
        self._cuda.record_event(staged.event, self._stream)
        staged.recorded = True

"""The pixels of frames, in a folder that ends with the process.

The agent's driver keeps what the function made of a frame for ten minutes after its last use and knows no limit of
bytes, and it gives the picture once. So what the driver keeps is a number; features are in the store, which has a
budget; and the pixels, from which an evicted frame is encoded again, are here: on the disk, without loss, as the driver
itself keeps the pictures that it downloaded. They go when the driver lets go of the frame, beyond a budget the least
recently used ones first, and with the process.
"""

from __future__ import annotations

import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np

from mmms_deploy.errors import MMMSDeployWarning, OutputWriteError
from mmms_deploy.files import write_file
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.store.memory import RecentlyUsed


class Pictures:
    """Pixels in files, by number.

    Args:
        budget: The most bytes; what is larger by itself is not kept.
    """

    def __init__(self, budget: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mmms-deploy-cvat-", ignore_cleanup_errors=True)
        self._files: RecentlyUsed[int, tuple[Path, tuple[int, ...]]] = RecentlyUsed(budget)
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path:
        """The folder."""
        return Path(self._folder.name)

    @property
    def bytes(self) -> int:
        """Bytes of all pictures that are kept."""
        return self._files.bytes

    def keep(self, number: int, pixels: UInt8Array) -> None:
        """Keep a picture.

        Args:
            number: What it is kept by.
            pixels: (H0, W0, 3) uint8.

        Warns:
            MMMSDeployWarning: It cannot be written; features that leave the store cannot be made again.
        """
        file = self.folder / f"{number}.rgb"
        size = pixels.nbytes
        if self._files.budget is not None and size > self._files.budget:
            return
        try:
            write_file(file, pixels.tobytes())
        except OutputWriteError as error:
            warnings.warn(f"{error.given}: this frame cannot be encoded again", MMMSDeployWarning, stacklevel=2)
            return
        with self._lock:
            left = self._files.keep(number, (file, pixels.shape), size)
        for old, _ in left:
            old.unlink(missing_ok=True)

    def find(self, number: int) -> UInt8Array | None:
        """Return a picture; None where it is not kept any more.

        Args:
            number: What it is kept by.
        """
        with self._lock:
            found = self._files.find(number)
        if found is None:
            return None
        file, shape = found
        try:
            pixels = np.fromfile(file, dtype=np.uint8)
        except OSError:
            return None
        return pixels.reshape(shape) if pixels.size == np.prod(shape) else None

    def forget(self, number: int) -> None:
        """Remove a picture.

        Args:
            number: What it is kept by.
        """
        with self._lock:
            left = self._files.drop([number])
        for file, _ in left:
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

"""``.npy`` and ``.npz`` files of plain numbers. Every header is checked before anything is allocated or unpacked.

NumPy's own reader believes a header: it asks for the 4 TB that forty bytes announce, unpacks an archive whatever it
grows to, and passes on what its parsers raise. Here the header's shape and type must account for the bytes that are
there, to the last one.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import FileReadError
from mmms_deploy.files.reading import GIB, MIB, as_path, open_regular, unreadable

LIMIT = 2 * GIB
"""The most bytes of all arrays of a file."""
_NUMBERS = "biufc"
_DIRECTORY = 4 * MIB
_MOST_ARRAYS = 4096
_CHUNK = MIB
_ENCRYPTED = 0x1
_MAGIC = b"\x93NUMPY"
_ZIP = b"PK"
_FIX = "write it again with numpy"

Array = npt.NDArray[Any]


def load_array(path: object, limit: int = LIMIT) -> Array:
    """Read a ``.npy`` file.

    Args:
        path: The file.
        limit: The most bytes of its numbers.

    Returns:
        Booleans, integers, floats or complex numbers, as stored.

    Raises:
        FileReadError: It cannot be read, is no ``.npy`` file of numbers, is cut off, or is larger than the limit.
    """
    place = as_path(path)
    with open_regular(place) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            if stream.peek(2)[:2] == _ZIP:
                raise ValueError("it is an archive, of several arrays (.npz) or of something else")
            return _array(stream, size, limit)
        # NumPy's and Python's parsers raise nearly anything for a damaged file.
        except Exception as error:
            raise _refused(place, error, "an .npy file") from error


def read_array(stream: io.BytesIO, where: str, limit: int = LIMIT) -> Array:
    """Read an ``.npy`` file that is in memory.

    Args:
        stream: All of it; read from its beginning.
        where: What it is, for messages.
        limit: The most bytes of its numbers.

    Returns:
        As :func:`load_array`.

    Raises:
        FileReadError: It is no ``.npy`` file of numbers, is cut off, or is larger than the limit.
    """
    stream.seek(0)
    try:
        return _array(stream, len(stream.getbuffer()), limit)
    except Exception as error:  # as above
        raise _refused(where, error, "an .npy file") from error


def load_arrays(path: object, limit: int = LIMIT) -> dict[str, Array]:
    """Read an ``.npz`` file, such as ``numpy.savez`` and ``savez_compressed`` write.

    Args:
        path: The file.
        limit: The most bytes of all its arrays together, unpacked.

    Returns:
        Arrays of booleans, integers, floats or complex numbers by name, as stored.

    Raises:
        FileReadError: It cannot be read, is no archive of numbers, is damaged, or is larger than the limit.
    """
    place = as_path(path)
    with open_regular(place) as stream:
        try:
            with zipfile.ZipFile(_Archive(stream)) as archive:
                return _arrays(archive, limit)
        # zipfile, zlib and the parsers of a header raise nearly anything for a damaged file.
        except Exception as error:
            raise _refused(place, error, "an .npz file") from error


def _arrays(archive: zipfile.ZipFile, limit: int) -> dict[str, Array]:
    entries = archive.infolist()
    if len(entries) > _MOST_ARRAYS:
        raise ValueError(f"it has {len(entries)} entries, more than {_MOST_ARRAYS}")
    total = sum(entry.file_size for entry in entries)
    if total > limit:
        raise ValueError(f"its arrays have {total} bytes, more than {limit}")
    found: dict[str, Array] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename or name in found:
            raise ValueError(f"its entry {entry.filename!r} is no array, or is there twice")
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its entry {entry.filename!r} is encrypted, or packed as numpy packs nothing")
        with archive.open(entry) as stream:
            try:
                found[name] = _array(stream, entry.file_size, limit)
            except Exception as error:
                raise ValueError(f"entry {entry.filename!r}: {unreadable('', error).reason}") from error
    return found


def _array(stream: IO[bytes], size: int, limit: int) -> Array:
    """Read an array of which ``size`` bytes with its header are said to be there."""
    shape, fortran, dtype = _header(stream)
    count = math.prod(shape)
    bytes_there = size - stream.tell()
    if count * dtype.itemsize != bytes_there:
        raise ValueError(
            f"its header announces {count * dtype.itemsize} bytes, shape {_shown(shape)} of {dtype}, and it has"
            f" {bytes_there}"
        )
    if bytes_there > limit:
        raise ValueError(f"it has {bytes_there} bytes, more than {limit}")
    array = np.empty(count, dtype=dtype)
    rest = array.view(np.uint8).data if count else memoryview(b"")
    while rest:
        # In parts, so that of an array that is cut off no more memory is used than there are bytes.
        part = stream.read(min(len(rest), _CHUNK))
        if not part:
            raise EOFError(f"{len(rest)} bytes are missing at its end")
        rest[: len(part)] = part
        rest = rest[len(part) :]
    if stream.read(1):  # at the end of an archive's entry, this also compares its checksum
        raise ValueError("it has more bytes than it says")
    return array.reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type of an array, of which the limits of NumPy and the type were checked."""
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin as an array of numpy does")
    version = tuple(stream.read(2))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError("its format has a version that arrays of plain numbers do not need")
    shape, fortran, dtype = readers[version](stream)
    if dtype.kind not in _NUMBERS or dtype.itemsize < 1 or dtype.subdtype is not None:
        raise ValueError(f"it holds {str(dtype)[:80]}, no plain numbers")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"its shape is {_shown(shape)}")
    return shape, fortran, dtype


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(f'{n:.3g}' if abs(n) > 10**12 else str(n) for n in shape[:8])})"


def _refused(path: Path | str, error: Exception, what: str) -> FileReadError:
    if isinstance(error, FileReadError):
        return error
    reason = unreadable(path, error).reason
    return FileReadError(
        f"{path} cannot be read: {reason}",
        reason=reason,
        expected=f"{what} of plain numbers, complete, and no pickled objects",
        fix=_FIX,
    )


class _Archive(io.BufferedIOBase):
    """A zip file whose list of contents is read only where it is of a sane size; zipfile reads all of it at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        # zipfile reads entries in small parts; more at once is the list.
        most = _DIRECTORY + 1 if size is None or size < 0 else size
        content = self._stream.read(min(most, _DIRECTORY + 1))
        if len(content) > _DIRECTORY:
            raise ValueError(f"its list of contents has more than {_DIRECTORY} bytes")
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

"""Files of ``torch.save``: where they keep their pickle and their tensors' numbers, read without executing anything.

A file of torch 1.6 or newer is a zip archive with ``data.pkl`` and one entry for every storage. An older one is five
pickles, one after the other, and then the storages. :mod:`mmms_deploy.weights.passive_pickle` reads the pickles. Of the
numbers, those of the tensors that are wanted are read, and no others.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from mmms_deploy.weights.arrays import WIDE_TYPES, Array, widened
from mmms_deploy.weights.passive_pickle import Contents, PickleError, Storage, StoredTensor, read_passively

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of an old file."""
_LARGEST_PICKLE = 1 << 30
"""Bytes. The pickle holds names and shapes; the numbers lie beside it."""
_LARGEST_TENSOR = 1 << 32
"""Elements. A tensor that repeats one number can claim any shape."""
_BYTES = {
    **dict.fromkeys(("float64", "int64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "qint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16"), 2),
    "complex128": 16,
}
"""Bytes of an element, where it is not one."""


@dataclass(frozen=True)
class StoragePlace:
    """Where a storage's bytes are in the file.

    Attributes:
        start: Offset in bytes.
        size: Number of bytes.
    """

    start: int
    size: int


@dataclass(frozen=True)
class TorchFile:
    """A file of ``torch.save``.

    Attributes:
        path: The file.
        contents: What its pickle holds.
        old: Whether it is of a version before 1.6.
        places: Where its storages are, by key.
        swapped: Whether its numbers are in the other byte order than this machine's.
    """

    path: Path
    contents: Contents
    old: bool
    places: Mapping[str, StoragePlace]
    swapped: bool

    def place(self, key: str) -> StoragePlace:
        """Return where a storage's bytes are.

        Raises:
            PickleError: The file has no such storage.
        """
        place = self.places.get(key)
        if place is None:
            raise PickleError(f"its storage {key} is missing")
        return place

    def storage_bytes(self, file: IO[bytes], key: str) -> bytearray:
        """Read a storage from the open file.

        Raises:
            PickleError: The file has no such storage, or not all of it.
        """
        place = self.place(key)
        file.seek(place.start)
        data = bytearray(file.read(place.size))
        if len(data) != place.size:
            raise PickleError(f"its storage {key} is cut off")
        return data

    def arrays(self, tensors: Mapping[str, StoredTensor]) -> dict[str, Array]:
        """Read tensors' numbers as arrays; bfloat16 becomes float32, which NumPy has.

        Args:
            tensors: The tensors, by any names; dense ones of floating-point numbers.

        Raises:
            PickleError: A tensor is of another type, its numbers are not all in the file, or its shape is impossible.
        """
        made = {}
        with self.path.open("rb") as file:
            for name, stored in tensors.items():
                stored_type = WIDE_TYPES.get(stored.dtype)
                if stored.kind != "dense" or stored_type is None:
                    raise PickleError(f"{name} is of the type {stored.dtype or stored.kind}")
                data = self.storage_bytes(file, stored.key)
                check_span(name, stored, stored_type.itemsize, len(data))
                count = len(data) // stored_type.itemsize
                flat = np.frombuffer(data, stored_type.newbyteorder("S") if self.swapped else stored_type, count)
                steps = tuple(step * stored_type.itemsize for step in stored.stride)
                view = np.lib.stride_tricks.as_strided(flat[stored.offset :], stored.size, steps)
                made[name] = widened(stored.dtype, np.array(view, dtype=stored_type, order="C"))
        return made


def check_span(name: str, stored: StoredTensor, itemsize: int, size: int) -> None:
    """Check that a tensor's shape is possible, and that its numbers lie in its storage.

    Args:
        name: Its name, for messages.
        stored: The tensor.
        itemsize: Bytes of an element.
        size: Bytes of its storage.

    Raises:
        PickleError: They do not.
    """
    if len(stored.size) != len(stored.stride):
        raise PickleError(f"{name} has {len(stored.size)} axes and {len(stored.stride)} strides")
    numbers = (stored.offset, *stored.size, *stored.stride)
    if min(numbers) < 0 or max(numbers) > sys.maxsize or math.prod(stored.size) > _LARGEST_TENSOR:
        raise PickleError(f"{name} has the impossible shape {list(stored.size)}")
    last = sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
    if math.prod(stored.size) and (stored.offset + last + 1) * itemsize > size:
        raise PickleError(f"{name} has numbers outside of its storage")


def open_torch_file(path: Path) -> TorchFile | None:
    """Read what a file of ``torch.save`` holds.

    Args:
        path: The file.

    Returns:
        The file; None when it is of another kind.

    Raises:
        PickleError: It is damaged.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return _open_archive(path, file)
        file.seek(0)
        return _open_old(path, file)


def _open_archive(path: Path, file: IO[bytes]) -> TorchFile | None:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            name = next((name for name in entries if name.rpartition("/")[2] == "data.pkl"), None)
            if name is None:
                return None
            folder = name.removesuffix("data.pkl")
            if entries[name].file_size > _LARGEST_PICKLE:
                raise PickleError("its pickle is too large")
            contents = read_passively(io.BytesIO(archive.read(name)))
            order = archive.read(folder + "byteorder").strip() if folder + "byteorder" in entries else b"little"
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise PickleError(str(error) or "a damaged zip archive") from error
    prefix = f"{folder}data/"
    places = {
        key.removeprefix(prefix): _place(file, info, size) for key, info in entries.items() if key.startswith(prefix)
    }
    return TorchFile(path, contents, False, places, order.decode("latin1") != sys.byteorder)


def _place(file: IO[bytes], info: zipfile.ZipInfo, size: int) -> StoragePlace:
    """Find an entry's bytes; torch does not compress them."""
    file.seek(info.header_offset)
    header = file.read(30)
    if info.compress_type != zipfile.ZIP_STORED or len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise PickleError(f"the entry {info.filename} is compressed or damaged")
    name, extra = struct.unpack("<HH", header[26:])
    start = info.header_offset + 30 + name + extra
    if start + info.file_size > size:
        raise PickleError(f"the entry {info.filename} is cut off")
    return StoragePlace(start, info.file_size)


def _open_old(path: Path, file: IO[bytes]) -> TorchFile | None:
    """Read five pickles: a magic number, the version, the machine, the object and its storages' keys."""
    try:
        if read_passively(file).value != _MAGIC:
            return None
    except PickleError:
        return None
    read_passively(file)
    machine = read_passively(file).value
    contents = read_passively(file)
    keys = read_passively(file).value
    if not isinstance(keys, list):
        raise PickleError("its list of storages is missing")
    places, size = {}, path.stat().st_size
    little = not isinstance(machine, Mapping) or machine.get("little_endian", True) is not False
    for key in keys:
        name = key.decode("latin1") if isinstance(key, bytes) else str(key)
        storage = contents.storages.get(name)
        header = file.read(8)
        if storage is None or len(header) != 8:
            raise PickleError(f"its storage {name} is missing or cut off")
        (count,) = struct.unpack("<q" if little else ">q", header)
        length = count * _itemsize(storage)
        start = file.tell()
        if count < 0 or start + length > size:
            raise PickleError(f"its storage {name} is cut off")
        places[name] = StoragePlace(start, length)
        file.seek(start + length)
    return TorchFile(path, contents, True, places, little != (sys.byteorder == "little"))


def plain_pickle_names(path: Path) -> dict[str, None] | None:
    """Return the dotted names in a file that is a plain pickle; None when it is none.

    Args:
        path: A file that :func:`open_torch_file` does not know.
    """
    with path.open("rb") as file:
        try:
            return read_passively(file).names
        except PickleError:
            return None


def _itemsize(storage: Storage) -> int:
    return _BYTES.get(storage.dtype, 1)

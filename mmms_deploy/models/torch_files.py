"""Files of ``torch.save``: where they keep their pickle and their tensors' numbers, read without executing anything.

A file of torch 1.6 or newer is a zip archive with ``data.pkl`` and one entry for every storage. An older one is five
pickles, one after the other, and then the storages. :mod:`mmms_deploy.models.passive_pickle` reads the pickles. The
numbers of the tensors that are wanted, and no others, are mapped from the file.
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
from typing import IO, Any

import torch
from torch import Tensor

from mmms_deploy.models.passive_pickle import Contents, PickleError, Storage, StoredTensor, read_passively

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of an old file."""
_LARGEST_PICKLE = 1 << 30
"""Bytes. The pickle holds names and shapes; the numbers lie beside it."""
_LARGEST_TENSOR = 1 << 32
"""Elements. A tensor that repeats one number can claim any shape."""


@dataclass(frozen=True)
class _Place:
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
    """

    path: Path
    contents: Contents
    old: bool
    _places: Mapping[str, _Place]
    _swapped: bool

    def load(self, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """Read tensors' numbers.

        Args:
            tensors: The tensors, by any names; all of them dense.

        Returns:
            The tensors, by the same names. They are mapped from the file where it allows that.

        Raises:
            PickleError: A tensor's numbers are not all in the file, or its shape is impossible.
        """
        storages: dict[str, Any] = {}
        loaded = {}
        size = self.path.stat().st_size
        # The whole file at once, private, as torch.load(mmap=True) maps it: what is not touched is not read.
        mapped: Any = None if self.old else torch.UntypedStorage.from_file(str(self.path), False, size)
        with self.path.open("rb") as file:
            for name, tensor in tensors.items():
                if tensor.key not in storages:
                    storages[tensor.key] = self._storage(file, mapped, tensor.key)
                loaded[name] = self._tensor(name, tensor, storages[tensor.key])
        return loaded

    def _storage(self, file: IO[bytes], mapped: Any, key: str) -> Any:
        place = self._places.get(key)
        if place is None:
            raise PickleError(f"its storage {key} is missing")
        if mapped is not None and place.size and place.start % 64 == 0:  # torch aligns them for any element type
            return mapped[place.start : place.start + place.size]
        file.seek(place.start)
        data = bytearray(file.read(place.size))
        if len(data) != place.size:
            raise PickleError(f"its storage {key} is cut off")
        numbers = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return numbers.untyped_storage()

    def _tensor(self, name: str, stored: StoredTensor, storage: Any) -> Tensor:
        dtype = getattr(torch, stored.dtype, None)
        if not isinstance(dtype, torch.dtype) or len(stored.size) != len(stored.stride):
            raise PickleError(f"{name} is of an unknown type ({stored.dtype or 'not named'})")
        numbers = (stored.offset, *stored.size, *stored.stride)
        if min(numbers) < 0 or max(numbers) > sys.maxsize or math.prod(stored.size) > _LARGEST_TENSOR:
            raise PickleError(f"{name} has the impossible shape {list(stored.size)}")
        last = sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
        if math.prod(stored.size) and (stored.offset + last + 1) * dtype.itemsize > storage.nbytes():
            raise PickleError(f"{name} has numbers outside of its storage")
        tensor = torch.empty(0, dtype=dtype).set_(storage, stored.offset, stored.size, stored.stride)
        if self._swapped and dtype.itemsize > 1:
            swapped = tensor.contiguous().numpy().byteswap() if dtype is not torch.bfloat16 else None
            if swapped is None:
                raise PickleError(f"{name} is bfloat16 of the other byte order")
            return torch.from_numpy(swapped)
        return tensor


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


def _place(file: IO[bytes], info: zipfile.ZipInfo, size: int) -> _Place:
    """Find an entry's bytes; torch does not compress them."""
    file.seek(info.header_offset)
    header = file.read(30)
    if info.compress_type != zipfile.ZIP_STORED or len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise PickleError(f"the entry {info.filename} is compressed or damaged")
    name, extra = struct.unpack("<HH", header[26:])
    start = info.header_offset + 30 + name + extra
    if start + info.file_size > size:
        raise PickleError(f"the entry {info.filename} is cut off")
    return _Place(start, info.file_size)


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
        places[name] = _Place(start, length)
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
    dtype: Any = getattr(torch, storage.dtype, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 1

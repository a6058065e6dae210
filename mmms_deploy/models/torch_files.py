"""Tensors of files of ``torch.save``, mapped from the file where it allows that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

from mmms_deploy.weights.passive_pickle import PickleError, StoredTensor
from mmms_deploy.weights.torch_files import TorchFile, check_span


def load_tensors(opened: TorchFile, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Read tensors' numbers.

    Args:
        opened: The file.
        tensors: The tensors, by any names; all of them dense.

    Returns:
        The tensors, by the same names. They are mapped from the file where it allows that.

    Raises:
        PickleError: A tensor's numbers are not all in the file, or its shape is impossible.
    """
    storages: dict[str, Any] = {}
    loaded = {}
    size = opened.path.stat().st_size
    # The whole file at once, private, as torch.load(mmap=True) maps it: what is not touched is not read.
    mapped: Any = None if opened.old else torch.UntypedStorage.from_file(str(opened.path), False, size)
    with opened.path.open("rb") as file:
        for name, tensor in tensors.items():
            if tensor.key not in storages:
                storages[tensor.key] = _storage(opened, file, mapped, tensor.key)
            loaded[name] = _tensor(opened, name, tensor, storages[tensor.key])
    return loaded


def _storage(opened: TorchFile, file: IO[bytes], mapped: Any, key: str) -> Any:
    place = opened.place(key)
    if mapped is not None and place.size and place.start % 64 == 0:  # torch aligns them for any element type
        return mapped[place.start : place.start + place.size]
    data = opened.storage_bytes(file, key)
    numbers = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return numbers.untyped_storage()


def _tensor(opened: TorchFile, name: str, stored: StoredTensor, storage: Any) -> Tensor:
    dtype = getattr(torch, stored.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise PickleError(f"{name} is of an unknown type ({stored.dtype or 'not named'})")
    check_span(name, stored, dtype.itemsize, storage.nbytes())
    tensor = torch.empty(0, dtype=dtype).set_(storage, stored.offset, stored.size, stored.stride)
    if opened.swapped and dtype.itemsize > 1:
        swapped = tensor.contiguous().numpy().byteswap() if dtype is not torch.bfloat16 else None
        if swapped is None:
            raise PickleError(f"{name} is bfloat16 of the other byte order")
        return torch.from_numpy(swapped)
    return tensor

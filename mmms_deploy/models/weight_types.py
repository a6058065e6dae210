"""Which types of tensors can be weights: floating-point numbers. Everything else is refused by name, never cast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError
from mmms_deploy.weights.passive_pickle import StoredTensor

WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types that weights may be stored in; they are used in float32."""

_LISTED = 6
_QUANTISED = "dequantise them before saving (multiply by their scale, as the software that quantised them does)"
_KINDS = {
    "quantised": ("quantised by torch", "save tensor.dequantize() of each"),
    "sparse": ("sparse", "save tensor.to_dense() of each"),
    "meta": ("of the device meta, so the file has no numbers for them", "save them after they were loaded to a CPU"),
    "other": (
        "of a class of their own (distributed, nested or subclassed tensors)",
        "save plain tensors: for DTensors tensor.full_tensor()",
    ),
}


def check_stored(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse tensors without dense numbers in a file: quantised, sparse, of the device meta, of another class.

    Raises:
        CheckpointCorruptError: There are some; the message names them.
    """
    for kind, (what, fix) in _KINDS.items():
        if bad := [name for name, tensor in tensors.items() if tensor.kind == kind]:
            raise CheckpointCorruptError(
                f"{path}: {_listing(bad)} {_are(bad)} {what}",
                expected="dense tensors of floating-point numbers",
                fix=fix,
            )


def check_types(path: Path, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Check that weights have floating-point numbers, and tables of integers have integers.

    Names that the network does not have are passed over.

    Args:
        path: The file, for messages.
        expected: The network's tensors, by name.
        given: The file's.

    Raises:
        CheckpointKeysError: A tensor is of another type; the message names it.
    """
    bad = {}
    for name, tensor in given.items():
        if name in expected:
            floats = expected[name].is_floating_point()
            if (
                tensor.dtype not in WEIGHT_TYPES
                if floats
                else tensor.dtype.is_floating_point or tensor.dtype.is_complex
            ):
                bad[name] = tensor.dtype
    if not bad:
        return
    listed = [f"{name} ({_name(dtype)})" for name, dtype in bad.items()]
    integers = not any(dtype in WEIGHT_TYPES for dtype in bad.values())
    types = ", ".join(_name(dtype) for dtype in WEIGHT_TYPES)
    raise CheckpointKeysError(
        f"{path}: {_listing(listed)} {_are(listed)} of a type that cannot be used there",
        expected=f"weights in {types}" if integers else "integers where the network has tables of indices",
        fix=_QUANTISED if integers else "save them in the type that the network has",
    )


def widened(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float32, the type that networks are built in; other tensors as they are.

    float16 and bfloat16 lose nothing. float64 is rounded, and refused where float32 ends (3.4e38).

    Raises:
        CheckpointCorruptError: A number is too large for float32.
    """
    made = {name: tensor.float() if tensor.dtype in WEIGHT_TYPES else tensor for name, tensor in state.items()}
    bad = [name for name, t in state.items() if t.dtype is torch.float64 and not made[name].isfinite().all()]
    if bad:
        raise CheckpointCorruptError(
            f"{path}: {_listing(bad)} {'hold' if len(bad) > 1 else 'holds'} numbers beyond float32's range (3.4e38)",
            expected="weights that float32 can hold",
            fix="take a checkpoint from before the training diverged",
        )
    return made


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        CheckpointCorruptError: There are some; the message names them.
    """
    bad = [
        name for name, tensor in state.items() if tensor.dtype in WEIGHT_TYPES and not _once(tensor).isfinite().all()
    ]
    if bad:
        raise CheckpointCorruptError(
            f"{path}: {_listing(bad)} {'holds' if len(bad) == 1 else 'hold'} NaN or infinite values",
            expected="finite weights",
            fix="take a checkpoint from before the training diverged",
        )


def _once(tensor: Tensor) -> Tensor:
    """Return an expanded tensor without its repetitions."""
    return (
        tensor[tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())] if tensor.ndim else tensor
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")

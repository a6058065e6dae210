"""Converts a modality's stored numbers to measurements in the network's unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import ModalityError
from mmms_deploy.imaging.arrays import hidden, unmasked
from mmms_deploy.imaging.resize import BoolArray, FloatArray


def measure(stored: npt.NDArray[Any], spec: ModalitySpec) -> FloatArray:
    """Scale and clip the measured values, and fill in the invalid ones, as the bundle says.

    Args:
        stored: (H, W, C) integers or floats. One channel is repeated to C where the spec says so, and equal channels
            (a grey picture saved in colour) count as one. What a masked array hides is invalid.
        spec: The checkpoint's preparation.

    Returns:
        (H, W, C) float32, finite, in the network's unit, not normalised yet.

    Raises:
        ModalityError: It has other channels or another dtype than the spec takes, values that are neither finite nor
            declared invalid, values that float32 cannot hold when they are scaled and clipped, or hidden ones and the
            spec declares nothing invalid.
    """
    what = f"modality {spec.name!r}"
    covered = hidden(stored)
    if covered is not None:
        _check_fill(covered, spec, what)
    stored, covered = _with_channels(unmasked(stored), covered, spec, what)
    factor = spec.factor(stored.dtype.name)
    if factor is None:
        known = ", ".join(spec.scale) if isinstance(spec.scale, dict) else ""
        raise ModalityError(
            f"{what} has dtype {stored.dtype}",
            expected=f"{known}: for these the bundle knows what a number means",
            fix="convert it to one of these, in the unit that the bundle's description gives for it",
        )
    invalid = _invalid(stored, spec)
    if covered is not None:
        invalid = covered if invalid is None else invalid | covered
    if stored.dtype.kind == "f":
        _check_finite(np.isfinite(stored), stored, invalid, what, "that are not finite")
    values: FloatArray
    if factor == 1.0 and stored.dtype == np.float32 and spec.clip is None and invalid is None:
        return stored
    with np.errstate(over="ignore", invalid="ignore"):  # a number may overflow that is invalid, or clipped next
        values = np.multiply(stored, np.float32(factor), dtype=np.float32)
    if spec.clip is not None:
        np.clip(values, *map(np.float32, spec.clip), out=values)
    if invalid is not None:
        values[invalid] = np.float32(spec.fill)
    _check_finite(np.isfinite(values), stored, None, what, "that float32 cannot hold when they are scaled")
    return values


def _check_fill(covered: BoolArray, spec: ModalitySpec, what: str) -> None:
    """Check that the bundle says what takes the place of a pixel that was not measured."""
    if not spec.invalid:
        raise ModalityError(
            f"{what} is a masked array that hides {np.count_nonzero(covered)} of {covered.size} values",
            expected="a number everywhere: the checkpoint's description declares no value invalid, so nothing says what"
            " takes the place of a missing one",
            fix="fill the holes the way the network was trained, e.g. array.filled(0), or declare them ('invalid' of"
            " the modality) and export again",
        )


def _with_channels(
    stored: npt.NDArray[Any], covered: BoolArray | None, spec: ModalitySpec, what: str
) -> tuple[npt.NDArray[Any], BoolArray | None]:
    """Return the numbers, and where they are hidden, with as many channels as the spec takes."""
    channels = stored.shape[2]
    if channels == spec.channels:
        return stored, covered
    if channels == 1 and spec.repeat:
        repeated = None if covered is None else np.repeat(covered, spec.channels, axis=2)
        return np.repeat(stored, spec.channels, axis=2), repeated
    if spec.channels == 1 and channels > 1:
        first = stored[:, :, :1]
        somewhere: BoolArray | None = None if covered is None else np.asarray(covered.any(axis=2, keepdims=True))
        shown = stored if somewhere is None else np.where(somewhere, first, stored)
        if np.array_equal(shown, np.broadcast_to(first, stored.shape), equal_nan=stored.dtype.kind == "f"):
            return np.ascontiguousarray(first), somewhere
        fix = command_fix = "choose one channel, or export a network for that number of channels"
    elif stored.shape[0] == spec.channels:
        fix = command_fix = "put the channels last"
    elif channels == 1:
        fix = f"repeat the channel: np.repeat(array[:, :, None], {spec.channels}, axis=2)"
        command_fix = f"save it with {spec.channels} equal channels"
    else:
        fix = command_fix = "check which file this is"
    raise ModalityError(
        f"{what} has {channels} channel{'s' if channels > 1 else ''} (shape {stored.shape})",
        expected=f"(H, W{'' if spec.channels == 1 else f', {spec.channels}'}) numbers",
        fix=fix,
        command_fix=command_fix,
    )


def _invalid(stored: npt.NDArray[Any], spec: ModalitySpec) -> BoolArray | None:
    """Return where nothing was measured; None for nowhere."""
    found: BoolArray | None = None
    for value in spec.invalid:
        if isinstance(value, str):
            if stored.dtype.kind != "f":
                continue
            here = np.isnan(stored) if value == "nan" else np.isinf(stored)
        else:
            here = stored == value
        found = here if found is None else found | here
    return found if found is not None and found.any() else None


def _check_finite(
    finite: BoolArray, stored: npt.NDArray[Any], invalid: BoolArray | None, what: str, problem: str
) -> None:
    if finite.all():
        return
    bad = ~finite if invalid is None else ~finite & ~invalid
    if bad.any():
        row, column, channel = (int(i) for i in np.argwhere(bad)[0])
        raise ModalityError(
            f"{what} has {int(bad.sum())} of {bad.size} values {problem}, the first"
            f" ({stored[row, column, channel]}) at x={column}, y={row}, channel {channel}",
            expected="finite numbers, or values that the checkpoint's description declares invalid",
            fix="fill the holes the way the network was trained, e.g. np.nan_to_num(array, nan=0.0), or declare them"
            " ('invalid' of the modality) and export again",
            command_fix="fill the holes the way the network was trained, or declare them ('invalid' of the modality)"
            " and export again",
        )


def as_stored(measured: npt.NDArray[Any], spec: ModalitySpec) -> npt.NDArray[Any]:
    """Return stored numbers that :func:`measure` converts to given measurements, for synthetic pictures.

    Args:
        measured: (H, W, C) numbers in the network's unit.
        spec: The checkpoint's preparation.

    Returns:
        (H, W, C) float32; when the spec does not take float32, rounded to a dtype that it takes.
    """
    dtype = np.dtype("float32" if spec.factor("float32") is not None else next(iter(dict(spec.scale))))  # type: ignore[arg-type]
    stored = np.asarray(measured, dtype=np.float64) / (spec.factor(dtype.name) or 1.0)
    if dtype.kind in "ui":
        stored = np.clip(np.rint(stored), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return stored.astype(dtype)

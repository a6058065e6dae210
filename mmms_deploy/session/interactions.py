"""The interactions of an annotator, clicks and masks put in by hand, and the click stage's state after each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ClickContract, ResizeRule
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import MaskInputError
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize_image
from mmms_deploy.session.result import Click


@dataclass(frozen=True, eq=False)
class MaskInput:
    """A mask that the caller put in the place of the network's answer.

    Attributes:
        mask: (H0, W0) bool, read-only: the session's mask until the next click.
        previous: (1, 1, H, W) float32 probability: the previous mask that the network sees at the next click.
    """

    mask: BoolArray
    previous: FloatArray


Interaction: TypeAlias = Click | MaskInput


@dataclass(frozen=True)
class Snapshot:
    """An annotation at one moment.

    Attributes:
        interactions: The interactions so far, oldest first.
        state: The state that the click stage takes at the next click, on the device, by the name of its input.
        probability: (1, 1, H, W), the newest answer or mask, on the device; None before the first interaction.
    """

    interactions: tuple[Interaction, ...]
    state: Mapping[str, Value]
    probability: Value | None

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks among the interactions, oldest first."""
        return tuple(interaction for interaction in self.interactions if isinstance(interaction, Click))

    @property
    def newest(self) -> Interaction | None:
        """The newest interaction."""
        return self.interactions[-1] if self.interactions else None


def checked_mask(
    mask: npt.NDArray[Any], image_size: tuple[int, int], network_size: tuple[int, int], rule: ClickContract
) -> MaskInput:
    """Check a mask that the caller puts in, and bring it to the network's size.

    Args:
        mask: (H0, W0) bool, or probabilities in [0, 1] in a float dtype.
        image_size: (H0, W0) of the image.
        network_size: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.

    Raises:
        MaskInputError: The mask has another shape or dtype, or values that are no probabilities.
    """
    expected = f"{image_size} bool, or probabilities from 0 to 1 in a float dtype, like the image"
    if isinstance(mask, np.ma.MaskedArray):
        raise MaskInputError("the mask is a masked array", expected=expected, fix="fill it: mask.filled(False)")
    try:
        array = np.asarray(mask)
    except (ValueError, TypeError) as error:  # ragged lists, tensors of a GPU
        raise MaskInputError(
            f"the mask is a {type(mask).__qualname__} that is no array: {error}",
            expected=expected,
            fix="pass a NumPy array on the host",
        ) from error
    given = f"the mask has shape {array.shape} and dtype {array.dtype}"
    if array.shape != image_size:
        raise MaskInputError(given, expected=expected, fix="bring it to the image's own size")
    if array.dtype.kind not in "bf":
        raise MaskInputError(given, expected=expected, fix="convert it: mask > 0")
    if (array.dtype.kind == "f" and not (array >= 0).all()) or not (array <= 1).all():
        raise MaskInputError(f"{given}, and values that are no probabilities", expected=expected, fix="apply a sigmoid")
    aligned = rule.mask_resize.align_corners
    shrink = rule.previous_resize or ResizeRule(align_corners=aligned, antialias=not aligned)
    previous = resize_image(array[:, :, None].astype(np.float32), network_size, shrink)[None]
    shown = np.array(array if array.dtype == np.bool_ else array > rule.threshold)
    shown.setflags(write=False)
    return MaskInput(mask=shown, previous=previous)

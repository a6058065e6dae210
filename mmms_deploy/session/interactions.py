"""The interactions of an annotator, clicks and masks put in by hand, and the click stage's state after each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ClickContract, ResizeRule
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import MaskInputError
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize_image
from mmms_deploy.session.mask_sources import MaskLike, mask_of
from mmms_deploy.session.result import Click


@dataclass(frozen=True, eq=False)
class MaskInput:
    """A mask that the caller put in the place of the network's answer.

    Attributes:
        packed: (H0, ceil(W0 / 8)) uint8: the session's mask until the next click, a bit each pixel, because a history
            can hold many.
        width: W0.
        previous: (1, 1, H, W) float32 probability: the previous mask that the network sees at the next click.
    """

    packed: npt.NDArray[np.uint8]
    width: int
    previous: FloatArray

    @property
    def mask(self) -> BoolArray:
        """(H0, W0) bool, a new array: the session's mask until the next click."""
        return np.unpackbits(self.packed, axis=1, count=self.width).view(np.bool_)


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
    mask: MaskLike, image_size: tuple[int, int], network_size: tuple[int, int], rule: ClickContract
) -> MaskInput:
    """Check a mask that the caller puts in, and bring it to the network's size.

    Args:
        mask: See ``Session.set_mask``.
        image_size: (H0, W0) of the image.
        network_size: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.

    Raises:
        MaskInputError: The mask is none, has another size, or values that do not say what belongs to the object.
    """
    array = mask_of(mask, image_size)
    if array.dtype != np.bool_ and not ((array >= 0).all() and (array <= 1).all()):
        raise MaskInputError(
            f"the mask has shape {array.shape} and dtype {array.dtype}, and values that are no probabilities",
            expected="probabilities from 0 to 1",
            fix="choose a threshold: mask > 127 for grey levels up to 255, mask > 0 for logits",
        )
    aligned = rule.mask_resize.align_corners
    shrink = rule.previous_resize or ResizeRule(align_corners=aligned, antialias=not aligned)
    previous = resize_image(array[:, :, None], network_size, shrink)[None]
    shown = array if array.dtype == np.bool_ else array > rule.threshold
    return MaskInput(np.packbits(shown, axis=1), image_size[1], previous)

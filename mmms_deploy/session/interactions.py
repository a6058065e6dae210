"""The interactions of an annotator: clicks, choices, masks put in by hand; and the click stage's state after each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ClickContract, ResizeRule
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import MaskInputError
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize_above, resize_image, through_image
from mmms_deploy.session.answers import Candidates, NetworkAnswer
from mmms_deploy.session.mask_sources import MaskLike, mask_of
from mmms_deploy.session.result import Click
from mmms_deploy.session.trail import WIDTH, Trail

if TYPE_CHECKING:
    from mmms_deploy.session.canvas import Viewed
    from mmms_deploy.session.pipeline import PipelineState


@dataclass(frozen=True, eq=False)
class MaskInput:
    """A mask that the caller put in the place of the network's answer.

    Attributes:
        packed: (H0, ceil(W0 / 8)) uint8: the session's mask until the next click, a bit each pixel, because a history
            can hold many.
        width: W0.
        previous: (1, 1, h, w) float32 probability: the previous mask that the network sees at the next click, or what
            the labels are made of that it sees in its place.
        binary: Whether it was given as a mask; else as a probability, of which ``previous`` says more than the mask.
    """

    packed: npt.NDArray[np.uint8]
    width: int
    previous: FloatArray
    binary: bool = False

    @property
    def mask(self) -> BoolArray:
        """(H0, W0) bool, a new array: the session's mask until the next click."""
        return np.unpackbits(self.packed, axis=1, count=self.width).view(np.bool_)


@dataclass(frozen=True)
class Choice:
    """The choice of one of several answers to the clicks so far, in the place of the one that was taken.

    Attributes:
        index: Which one, from 0, in the network's order.
    """

    index: int


@dataclass(frozen=True)
class BoxInput:
    """A box around the object, in image pixels as clicks are.

    Attributes:
        x0: Its left edge.
        y0: Its upper edge.
        x1: Its right edge.
        y1: Its lower edge.
    """

    x0: float
    y0: float
    x1: float
    y1: float


Interaction: TypeAlias = Click | MaskInput | Choice | BoxInput

_PACKED = struct.Struct("<" + "dd?" * WIDTH)


class Interactions(Trail[Interaction]):
    """Interactions, oldest first. What is not among the newest is packed: clicks as 17 bytes each, masks by zlib.

    Args:
        items: The interactions, oldest first.

    Attributes:
        boxed: How many of them are boxes.
        clicked: How many of them are clicks.
        click: The newest click; None without one.
        corners: Two clicks between which all positive ones lie, and on whose rows and columns some do; none without.
    """

    __slots__ = ("boxed", "click", "clicked", "corners")

    def __init__(self, items: Iterable[Interaction] = ()) -> None:
        every = tuple(items)
        super().__init__(every)
        self.boxed = self.clicked = 0
        self.click: Click | None = None
        self.corners: tuple[Click, ...] = ()
        for item in every:
            self._note(self, item)

    @property
    def prompted(self) -> int:
        """How many of them are clicks or boxes."""
        return self.clicked + self.boxed

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks among them, oldest first."""
        return tuple(item for item in self if isinstance(item, Click))

    def push(self, item: Interaction) -> Self:
        """Return them with one more; this costs the same for every length."""
        made = super().push(item)
        made._note(self, item)
        return made

    def pop(self) -> Self:
        """Return them without the newest one."""
        return type(self)(tuple(self)[:-1])

    def _note(self, before: Interactions, item: Interaction) -> None:
        """Note what is known of clicks without looking at all of them."""
        self.clicked, self.click, self.corners = before.clicked, before.click, before.corners
        self.boxed = before.boxed + isinstance(item, BoxInput)
        if not isinstance(item, Click):
            return
        self.clicked, self.click = before.clicked + 1, item
        if item.positive:
            around = (*before.corners, item)
            columns, rows = [one.x for one in around], [one.y for one in around]
            self.corners = (Click(min(columns), min(rows)), Click(max(columns), max(rows)))

    def _fold(self, items: tuple[Interaction, ...]) -> Any:
        if not all(map(_is_plain, items)):
            return tuple(_PackedMask.of(item) if isinstance(item, MaskInput) else item for item in items)
        return _PACKED.pack(*(number for one in items for number in (one.x, one.y, one.positive)))  # type: ignore[union-attr]

    def _unfold(self, block: Any) -> Iterable[Interaction]:
        if not isinstance(block, bytes):
            return (item.mask if isinstance(item, _PackedMask) else item for item in block)
        numbers = iter(_PACKED.unpack(block))
        return map(Click, numbers, numbers, numbers)


def _is_plain(item: Interaction) -> bool:
    return type(item) is Click and type(item.x) is float and type(item.y) is float and type(item.positive) is bool


@dataclass(frozen=True, eq=False, slots=True)
class _PackedMask:
    """A mask that was put in, in as few bytes as can be: there may be one for every time that a surface was selected.

    Attributes:
        packed: Its bits.
        size: (H0, ceil(W0 / 8)) of them.
        width: W0.
        previous: What the network saw.
        shape: (1, 1, h, w) of that.
        binary: As of the mask.
    """

    packed: bytes
    size: tuple[int, ...]
    width: int
    previous: bytes
    shape: tuple[int, ...]
    binary: bool

    @classmethod
    def of(cls, mask: MaskInput) -> _PackedMask:
        """Pack a mask."""
        packed, previous = (zlib.compress(one.tobytes(), 1) for one in (mask.packed, mask.previous))
        return cls(packed, mask.packed.shape, mask.width, previous, mask.previous.shape, mask.binary)

    @property
    def mask(self) -> MaskInput:
        """The mask, with the same numbers."""
        packed = np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8).reshape(self.size)
        previous = np.frombuffer(zlib.decompress(self.previous), dtype=np.float32).reshape(self.shape)
        return MaskInput(packed, self.width, previous, self.binary)


@dataclass(frozen=True, eq=False)
class FirstClick:
    """What a network with proposals made of the first click; all later clicks start from it.

    Attributes:
        pipeline: The image's features and those of the first click, on the device.
        proposals: The proposals, on the host. The one that is taken is named to the click stage at every later click.
    """

    pipeline: PipelineState
    proposals: Candidates


@dataclass(frozen=True)
class Snapshot:
    """An annotation at one moment.

    Attributes:
        interactions: The interactions so far, oldest first.
        state: The state that the click stage takes at the next click, on the device, by the name of its input.
        probability: (1, 1, h, w), the newest answer, in the form that the click contract says, or what the network sees
            of a mask that was put in, on the device; None before the first interaction, where there is ``viewed``, and
            where the candidate that is taken is the answer, such as after a choice.
        viewed: What takes the place of both in a session that crops or mirrors the picture; None in any other.
        candidates: All answers to the newest click and which of them is taken, on the host; None where the network
            gives one, and after a mask.
        first: What became of the first click, for a network with proposals; None before it, and for any other network.
        pending: Whether the answer is not computed yet: the network takes all clicks as a list, and more clicks came
            with the newest one. It is computed when undo or redo comes to it.
    """

    interactions: Interactions
    state: Mapping[str, Value]
    probability: Value | None
    viewed: Viewed | None = None
    candidates: Candidates | None = None
    first: FirstClick | None = None
    pending: bool = False

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks among the interactions, oldest first."""
        return self.interactions.clicks

    @property
    def prompts(self) -> tuple[Click | BoxInput, ...]:
        """The clicks and boxes among the interactions, oldest first."""
        return tuple(interaction for interaction in self.interactions if isinstance(interaction, Click | BoxInput))

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
    previous = resize_image(array[:, :, None], network_size, previous_rule(rule))[None]
    shown = array if array.dtype == np.bool_ else array > rule.threshold
    return _put_in(shown, previous, binary=array.dtype == np.bool_)


def mask_of_probability(
    probability: FloatArray, image_size: tuple[int, int], network_size: tuple[int, int], rule: ClickContract
) -> MaskInput:
    """Return a probability of any size as a mask that is put in.

    One of the network's size is taken as if the network had answered it: it is what the network sees, or, where the
    bundle has ``previous_resize``, what comes of it at the image's size and back. One of another size is brought to the
    network's size first, as a mask of the image's size is.

    Args:
        probability: (h, w) float32 in [0, 1]; it covers the whole image.
        image_size: (H0, W0) of the image.
        network_size: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.
    """
    if probability.shape != network_size:
        probability = resize_image(probability[:, :, None], network_size, previous_rule(rule))[0]
    shown = resize_above(probability, image_size, rule.mask_resize, rule.threshold)
    if rule.previous_resize is not None:
        probability = through_image(probability, image_size, rule.mask_resize, rule.previous_resize)
    return _put_in(shown, probability[None, None])


def mask_of_logits(
    logits: FloatArray, image_size: tuple[int, int], network_size: tuple[int, int], rule: ClickContract
) -> MaskInput:
    """Return logits of any size as a mask that is put in, for a network that answers with logits.

    Args:
        logits: (h, w) float32, finite; it covers the whole image.
        image_size: (H0, W0) of the image.
        network_size: (H, W) of the network's answer.
        rule: How the bundle resizes masks, and its threshold.
    """
    answer = NetworkAnswer(logits, rule)
    previous = answer.probability
    if previous.shape != network_size:
        previous = resize_image(previous[:, :, None], network_size, previous_rule(rule))[0]
    return _put_in(answer.above(image_size), previous[None, None])


def previous_of(probability: FloatArray, network_size: tuple[int, int], rule: ClickContract) -> FloatArray:
    """Bring a probability of a part of the picture to the network's size, as a mask that is put in.

    Args:
        probability: (h, w) float32.
        network_size: (H, W) of the network.
        rule: How the bundle resizes masks.

    Returns:
        (1, 1, H, W) float32.
    """
    return resize_image(probability[:, :, None], network_size, previous_rule(rule))[None]


def previous_rule(rule: ClickContract) -> ResizeRule:
    """Return how a mask or a probability at the image's size is brought to the network's."""
    aligned = rule.mask_resize.align_corners
    return rule.previous_resize or ResizeRule(align_corners=aligned, antialias=not aligned)


def _put_in(mask: BoolArray, previous: FloatArray, *, binary: bool = False) -> MaskInput:
    return MaskInput(np.packbits(mask, axis=1), mask.shape[1], previous, binary)

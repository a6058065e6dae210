"""What a checkpoint promises about its inputs and outputs: resizing, normalisation, modalities, clicks.

The same frozen types describe a checkpoint (in its metadata) and a bundle (in its manifest). So nothing has to be
translated between the two, and no library default decides how an image is resized.
"""

from __future__ import annotations

import math
import re
from enum import IntEnum, StrEnum
from typing import Any, Literal

import msgspec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESERVED_NAMES = frozenset(
    {
        *("self", "rgb", "image", "image_size", "channel_order", "features"),
        *("maps", "prev", "modulated", "click", "prob", "mask", "present"),
        *("click_labels", "click_labels_next"),
        *("click_list", "first_click", "choice", "row_logits"),
    }
)
MODALITY_DTYPES = ("uint8", "uint16", "int16", "int32", "float16", "float32", "float64")
"""NumPy dtypes that measurements may have."""
MOST_CHANNELS = 1024
"""The most channels of a modality; hyperspectral cameras have some hundreds."""
MOST_POINTS = 4096
"""The most points that a network takes at once."""
MOST_PIXELS = 16384
"""The longest side of an answer."""
MOST_CANDIDATES = 64
"""The most answers that a network gives at once."""
MOST_OBJECTS = 255
"""The most objects that a network answers for at once; a label is one byte, and 0 is the background."""
BOX_CORNERS = (2.0, 3.0)
"""What a list of points holds for the first and the second corner of a box, where a click has 1 or 0; SAM's labels."""
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the settings: immutable, and unknown fields are refused when they are read."""


class Interpolation(StrEnum):
    """How pixels are interpolated."""

    BILINEAR = "bilinear"


class Coordinates(StrEnum):
    """How a click's image pixel (W0 pixels wide) becomes a network pixel (W pixels wide); rows likewise.

    ``half_pixel``: x' = (x + 0.5) * W / W0 - 0.5, the counterpart of ``align_corners=False``.
    ``align_corners``: x' = x * (W - 1) / (W0 - 1).
    ``scale``: x' = x * W / W0, as RITM-family code does.
    """

    HALF_PIXEL = "half_pixel"
    ALIGN_CORNERS = "align_corners"
    SCALE = "scale"


class ClickChannel(StrEnum):
    """A channel of the interaction tensor."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    PREVIOUS = "previous"
    MODULATED = "modulated"


class PreviousMask(StrEnum):
    """The form in which the network wants its previous mask: a probability in [0, 1], or a binary {0, 1} mask."""

    PROBABILITY = "probability"
    MASK = "mask"


class ClickMemory(StrEnum):
    """What the click stage keeps of the interactions before.

    ``maps``: the disks of all positive and all negative clicks as two maps, and the previous mask as a third.
    ``labels``: one map that has one of the five values of :class:`ClickLabel` at every pixel.
    ``clicks``: nothing. The session keeps the list of all clicks, and the click stage takes it whole at every click
    (:class:`ClickList`).
    """

    MAPS = "maps"
    LABELS = "labels"
    CLICKS = "clicks"


class ClickLabel(IntEnum):
    """What a map of labels says about a pixel.

    A click sets the labels in its disk to ``BACKGROUND`` or ``OBJECT``, and only another click changes these. The
    network's answer moves the others, one at a time: in its mask ``UNKNOWN`` becomes ``LIKELY_OBJECT`` and
    ``LIKELY_BACKGROUND`` becomes ``UNKNOWN``; outside of it ``UNKNOWN`` becomes ``LIKELY_BACKGROUND`` and
    ``LIKELY_OBJECT`` becomes ``UNKNOWN``.
    """

    BACKGROUND = 0
    LIKELY_BACKGROUND = 1
    UNKNOWN = 2
    LIKELY_OBJECT = 3
    OBJECT = 4


class AnswerForm(StrEnum):
    """The form of a network's answer: a probability in [0, 1], or logits, whose sigmoid it is."""

    PROBABILITY = "probability"
    LOGITS = "logits"


class ResizeRule(Struct, frozen=True, kw_only=True):
    """How a map is stretched to another size (the aspect ratio is not kept).

    Attributes:
        interpolation: The interpolating kernel.
        align_corners: Whether corner pixels' centres, not their outer edges, are aligned (torch's meaning).
        antialias: Whether the kernel is widened when shrinking (torch's meaning); excludes ``align_corners``.
    """

    interpolation: Interpolation = Interpolation.BILINEAR
    align_corners: bool = False
    antialias: bool = False

    def __post_init__(self) -> None:
        if self.align_corners and self.antialias:
            raise ValueError("a resize rule has either align_corners or antialias, not both")


def _check_statistics(name: str, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"{name}: mean and std need {channels} values each, got {len(mean)} and {len(std)}")
    if any(not s > 0 for s in std):
        raise ValueError(f"{name}: every std must be positive, got {std}")


class ImageSpec(Struct, frozen=True, kw_only=True):
    """The RGB input: (H0, W0, 3) uint8 -> resized, times ``scale``, minus ``mean``, over ``std`` -> (1, 3, H, W).

    Attributes:
        resize: How the image is resized to the network's size.
        scale: Factor applied to the 0..255 values.
        mean: Mean per channel, after scaling.
        std: Standard deviation per channel, after scaling.
    """

    resize: ResizeRule = ResizeRule(antialias=True)
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        _check_statistics("image", 3, self.mean, self.std)


class ModalitySpec(Struct, frozen=True, kw_only=True):
    """One extra modality: (H0, W0) or (H0, W0, C) numbers as stored -> (1, C, H, W) float32.

    In this order: invalid values are found in the numbers as stored; the numbers are scaled and clipped; ``fill``
    replaces the invalid values; the map is resized; mean and std normalise it.

    Attributes:
        name: Lower-case identifier; the keyword of ``Session.set_image``.
        channels: C, the data set's choice (depth 1 or 3, lidar 3, event 3, thermal 1, ...).
        repeat: Whether a map of one channel is repeated to all C.
        resize: How it is resized to the network's size.
        scale: Factor from stored numbers to the network's unit; or one for each accepted dtype, by NumPy name,
            e.g. ``{"uint16": 0.001, "float32": 1.0}`` for depth in millimetres or metres; others are refused then.
        invalid: Stored values that mean "nothing was measured here": numbers, ``"nan"``, ``"inf"`` (of either sign).
            Values that are not finite are refused unless they are named here.
        fill: The value that replaces an invalid one, in the network's unit, before normalisation.
        clip: Least and greatest value in the network's unit; None for no bounds.
        mean: Mean per channel, in the network's unit.
        std: Standard deviation per channel, in the network's unit.
        optional: Whether the network also works without it.
    """

    name: str
    channels: int = 1
    repeat: bool = False
    resize: ResizeRule = ResizeRule(antialias=True)
    scale: float | dict[str, float] = 1.0
    invalid: tuple[float | Literal["nan", "inf"], ...] = ()
    fill: float = 0.0
    clip: tuple[float, float] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    optional: bool = False

    def __post_init__(self) -> None:
        if not _IDENTIFIER.fullmatch(self.name) or self.name in RESERVED_NAMES:
            raise ValueError(
                f"modality name {self.name!r}: expected a lower-case identifier not in {sorted(RESERVED_NAMES)}"
            )
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise ValueError(f"modality {self.name!r}: channels must be from 1 to {MOST_CHANNELS}, got {self.channels}")
        scales = self.scale if isinstance(self.scale, dict) else {"float32": self.scale}
        if not scales or not set(scales) <= set(MODALITY_DTYPES) or not all(map(_usable_factor, scales.values())):
            raise ValueError(
                f"modality {self.name!r}: scale must be a finite factor other than 0, or one for each dtype of"
                f" {', '.join(MODALITY_DTYPES)}, got {self.scale}"
            )
        if any(isinstance(value, float) and not math.isfinite(value) for value in (*self.invalid, self.fill)):
            raise ValueError(f"modality {self.name!r}: fill must be finite, and invalid values 'nan', 'inf' or finite")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"modality {self.name!r}: clip must be a rising pair, got {self.clip}")
        if not self.mean:
            msgspec.structs.force_setattr(self, "mean", (0.0,) * self.channels)
        if not self.std:
            msgspec.structs.force_setattr(self, "std", (1.0,) * self.channels)
        _check_statistics(f"modality {self.name!r}", self.channels, self.mean, self.std)

    def factor(self, dtype: str) -> float | None:
        """Return the scale for numbers of a dtype, by NumPy name; None when the dtype is refused."""
        return self.scale.get(dtype) if isinstance(self.scale, dict) else self.scale


def _usable_factor(value: float) -> bool:
    return math.isfinite(value) and value != 0


class PointList(Struct, frozen=True, kw_only=True):
    """Clicks as a list of points, for a network that draws no disks.

    The click stage keeps the list as its state: a row (x, y, 1 positive / 0 negative, 1 for a click / 0 for none) for
    every click so far, oldest first.

    Attributes:
        most: Rows of the list: the most clicks on one object.
        box: Whether the list may also hold the two corners of a box, before the clicks: rows whose third number is 2
            and 3 (:data:`BOX_CORNERS`). Left out where it may not.
    """

    most: int = 64
    box: bool | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST_POINTS:
            raise ValueError(f"a list of points has from 1 to {MOST_POINTS} rows, got {self.most}")


class ClickList(Struct, frozen=True, kw_only=True):
    """All clicks as a list that the click stage takes whole at every click; it has no state then.

    A row is (x, y, 1 positive / 0 negative, 1 for a click / 0 for none), x and y in network pixels. For a network that
    answers for several objects at once it is (x, y, t, object, 1 for a click / 0 for none): t is the running number of
    the click, from 0, over all objects of the image; object 0 is the background, and objects count from 1. Rows without
    a click come last, are zeros, and change nothing.

    Attributes:
        sizes: Numbers of rows that the click stage is exported for, rising. The smallest that holds all clicks runs.
        objects: The most objects that the network answers for at once; 1 for a network that answers for one.
        learned: How many rows the answer for several objects has after those of the list: learned queries of the
            background.
    """

    sizes: tuple[int, ...] = (16, 64, 256)
    objects: int = 1
    learned: int = 0

    def __post_init__(self) -> None:
        rising = all(one < other for one, other in zip(self.sizes, self.sizes[1:], strict=False))
        if not self.sizes or not rising or not 1 <= self.sizes[0] <= self.sizes[-1] <= MOST_POINTS:
            raise ValueError(f"sizes of a list of clicks must rise, from 1 to {MOST_POINTS} rows, got {self.sizes}")
        if not 1 <= self.objects <= MOST_OBJECTS:
            raise ValueError(f"a network answers for 1 to {MOST_OBJECTS} objects at once, got {self.objects}")
        if not 0 <= self.learned <= MOST_POINTS or (self.learned and self.objects == 1):
            raise ValueError(
                f"learned rows belong to an answer for several objects, 0 to {MOST_POINTS}, got {self.learned}"
            )

    @property
    def fields(self) -> int:
        """Numbers in a row."""
        return 4 if self.objects == 1 else 5

    def size_for(self, clicks: int) -> int | None:
        """Return the smallest size that holds so many clicks; None when there is none."""
        return next((size for size in self.sizes if size >= clicks), None)


class AnswerSpec(Struct, frozen=True, kw_only=True):
    """What a network answers with, where that is more than a probability of its own size.

    Attributes:
        form: Its form. Logits are resized as logits, and then compared with the threshold's.
        size: Height and width of an answer; None for the network's size.
        candidates: How many answers the network gives. With several, its graph takes one of them, and gives the others
            and their scores beside it.
        proposals: Whether the first click alone is answered with several, in a stage of its own. The session takes the
            one of the largest score, ties to the lower index, or the one that the user chooses, and names it to the
            click stage at every later click. One answer comes of that.
    """

    form: AnswerForm = AnswerForm.PROBABILITY
    size: tuple[int, int] | None = None
    candidates: int = 1
    proposals: bool = False

    def __post_init__(self) -> None:
        if self.proposals and self.candidates == 1:
            raise ValueError("proposals are several answers to the first click, got candidates = 1")
        if self.size is not None and not all(1 <= side <= MOST_PIXELS for side in self.size):
            raise ValueError(f"an answer has sides from 1 to {MOST_PIXELS} pixels, got {self.size}")
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise ValueError(f"a network gives from 1 to {MOST_CANDIDATES} answers, got {self.candidates}")


class Modulation(Struct, frozen=True, kw_only=True):
    """How the previous probability is changed around the newest click, to be a further channel (MFP, Lee et al. 2024).

    :mod:`mmms_deploy.imaging.modulation` computes it.

    Attributes:
        similar_clicks: N: for the first N clicks the change depends on how alike the probabilities of a pixel and of
            the click's pixel are, for later ones on the pixel's distance to the click.
        radius: R_max: radius of the window around the click, in network pixels, while there is no click of the other
            kind; otherwise it is half of the distance to the nearest one.
    """

    similar_clicks: int = 7
    radius: float = 100.0

    def __post_init__(self) -> None:
        if self.similar_clicks < 0 or not (self.radius > 0 and math.isfinite(self.radius)):
            raise ValueError(
                f"modulation needs similar_clicks of at least 0 and a positive radius, got {self.similar_clicks} and"
                f" {self.radius}"
            )


class ClickContract(Struct, frozen=True, kw_only=True):
    """How clicks and the previous mask are shown to the network, and its answer is read (paper section III).

    Attributes:
        radius: Radius of a click's disk in network pixels; a pixel belongs to the disk when its squared distance to
            the click is at most ``radius**2``.
        channels: Order of the channels of the interaction tensor: ``positive``, ``negative`` and ``previous``, and
            ``modulated`` where there is a modulation.
        previous: Form of the previous mask; zeros before the first click in either form.
        threshold: A pixel belongs to the mask when its probability is greater than this; in (0, 1).
        coordinates: How image pixels become network pixels.
        mask_resize: How the probability is resized to the image's size, before it is thresholded.
        previous_resize: How the probability at the image's size is reduced to the network's size again, to be the
            previous mask at the next click, as code of RITM's family does. None feeds back the probability at the
            network's size as it is (paper section III). With ``previous`` as a mask, the reduced map is thresholded.
        memory: What the click stage keeps of the interactions before. A map of labels takes the place of the three
            channels, so that ``channels`` and ``previous`` have no meaning then and ``previous_resize`` is refused: the
            answer changes the labels at the network's size, inside of the click stage.
        points: The list of points that the network takes in place of disks; None for disks. ``radius``, ``channels``
            and ``previous`` then mean nothing.
        listed: The list of clicks that the click stage takes whole, with ``memory`` as ``clicks``; None for any other.
            ``radius``, ``channels`` and ``previous`` then mean nothing.
        answers: What the network answers with; None for a probability of its own size.
        modulation: How the channel ``modulated`` is made of the previous probability at every click; None without one.
        first_pass: Whether a click whose previous mask is zero everywhere, such as the first one, runs the network
            twice: on the zeros as they are, unmodulated, and then on the first run's probability as the previous mask.
    """

    radius: float = 5.0
    channels: tuple[ClickChannel, ...] = (
        ClickChannel.POSITIVE,
        ClickChannel.NEGATIVE,
        ClickChannel.PREVIOUS,
    )
    previous: PreviousMask = PreviousMask.MASK
    threshold: float = 0.5
    coordinates: Coordinates = Coordinates.HALF_PIXEL
    mask_resize: ResizeRule = ResizeRule()
    previous_resize: ResizeRule | None = None
    memory: ClickMemory = ClickMemory.MAPS
    # A list of points, several answers.
    points: PointList | None = None
    listed: ClickList | None = None
    answers: AnswerSpec | None = None
    modulation: Modulation | None = None
    first_pass: bool = False

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"click radius must be positive, got {self.radius}")
        named = sorted(c for c in ClickChannel if c is not ClickChannel.MODULATED or self.modulation is not None)
        if sorted(self.channels) != named:
            raise ValueError(
                f"click channels must name {[str(c) for c in named]} once each, got {[str(c) for c in self.channels]}"
            )
        if self.modulation is not None and self.previous is not PreviousMask.PROBABILITY:
            raise ValueError("modulation changes a probability; previous must be 'probability'")
        if not 0 < self.threshold < 1:
            raise ValueError(f"click threshold must be in (0, 1), got {self.threshold}")
        if self.mask_resize.antialias:
            raise ValueError("mask_resize enlarges a mask; antialias has no meaning there")
        if self.memory is ClickMemory.LABELS and self.previous_resize is not None:
            raise ValueError("a map of labels stays at the network's size; previous_resize has no meaning there")
        if self.memory is ClickMemory.LABELS and (self.modulation is not None or self.first_pass):
            raise ValueError("a map of labels has no previous probability; leave out modulation and first_pass")
        if (self.memory is ClickMemory.CLICKS) != (self.listed is not None):
            raise ValueError("a list of clicks needs memory = 'clicks' and listed, which says what its rows are")
        if self.listed is not None:
            self._check_list()
        if self.answers is not None and self.answers.proposals and self.listed is None:
            raise ValueError("a network with proposals takes all clicks as a list; give memory = 'clicks' and listed")
        if self.answer_form is AnswerForm.LOGITS and self.previous_resize is not None:
            raise ValueError("previous_resize reduces a probability; with logits it has no meaning")

    def _check_list(self) -> None:
        others = {
            "previous_resize": self.previous_resize is not None,
            "modulation": self.modulation is not None,
            "first_pass": self.first_pass,
            "points": self.points is not None,
        }
        given = [name for name, found in others.items() if found]
        if given:
            raise ValueError(f"with a list of clicks there is no previous mask and no state; leave out {given[0]}")
        if self.answers is not None and self.answers.candidates > 1 and not self.answers.proposals:
            raise ValueError("with a list of clicks several answers come at the first click alone: proposals = true")
        if self.objects > 1 and self.candidates > 1:
            raise ValueError("a network answers for several objects at once, or with several candidates, not both")

    @property
    def objects(self) -> int:
        """The most objects that the network answers for at once."""
        return 1 if self.listed is None else self.listed.objects

    @property
    def answer_form(self) -> AnswerForm:
        """The form of the network's answer."""
        return AnswerForm.PROBABILITY if self.answers is None else self.answers.form

    def answer_size(self, network: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the network's answer.

        Args:
            network: Height and width of the network's image.
        """
        return network if self.answers is None or self.answers.size is None else self.answers.size

    @property
    def candidates(self) -> int:
        """How many answers the network gives."""
        return 1 if self.answers is None else self.answers.candidates


def to_builtins(value: Any) -> Any:
    """Turn settings into JSON-ready dicts, lists and scalars."""
    return msgspec.to_builtins(value)

"""The description of an encoder and a decoder in ONNX files: what goes in, what comes out, and what it means."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from mmms_deploy.bundle.contract import (
    BOX_CORNERS,
    MOST_PIXELS,
    AnswerForm,
    AnswerSpec,
    ClickContract,
    Coordinates,
    ImageSpec,
    PointList,
    ResizeRule,
    Struct,
)
from mmms_deploy.documents import document
from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.description import read_description

FAMILY = "onnx"
"""``family`` of such a description."""
_HASH = re.compile(r"[0-9a-f]{64}")


class Layout(StrEnum):
    """The order of an image's axes at the encoder's input; N is 1, C is red, green, blue."""

    NCHW = "nchw"
    NHWC = "nhwc"
    CHW = "chw"
    HWC = "hwc"


class Unit(StrEnum):
    """What coordinates of points are counted in: pixels of the encoder's image, or parts of its width and height."""

    PIXELS = "pixels"
    FRACTIONS = "fractions"


class Encoder(Struct, frozen=True, kw_only=True):
    """The encoder's file.

    Attributes:
        features: Name of the encoder's output for each of the decoder's inputs that takes one.
        input: Name of its image; None for its only input.
        layout: The order of the image's axes.
        sha256: Hash of the file, where the description is for this file alone.
    """

    features: dict[str, str]
    input: str | None = None
    layout: Layout = Layout.NCHW
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_hash(self.sha256)
        if not self.features:
            raise ValueError("encoder.features must name at least one input of the decoder")


class Decoder(Struct, frozen=True, kw_only=True):
    """The decoder's file.

    Attributes:
        points: Name of the input for the points' coordinates, (1, N, 2): x, y.
        labels: Name of the input for their labels, (1, N).
        masks: Name of the output with the answers, (1, K, h, w).
        scores: Name of the output with their scores, (1, K); None where K is 1.
        positive: Label of a click on the object.
        negative: Label of a click off it.
        padding: Label of a point (0, 0) that is added after the clicks and counts for none; None for no such point.
        most_points: The most clicks on one object.
        box: Whether it takes the corners of a box as two more points, with the labels 2 and 3, as SAM's decoders do.
            The padding is left out then, as in SAM's example. Left out where it does not.
        unit: What coordinates are counted in.
        mask_input: Name of the input for the previous answer, (1, 1, h, w); None where there is none.
        has_mask_input: Name of the input that says whether there is one: 1 or 0. None where there is none.
        feedback: Whether the answer that was taken is the previous one at the next click. Without it, the mask input
            gets zeros, and no mask can be put in.
        constants: Values of other inputs, by name: a number, or a list of numbers.
        first: Which answers may be taken after one click, from 0; empty for any.
        later: Which may be taken after more clicks; empty for any.
        sha256: Hash of the file, where the description is for this file alone.
    """

    points: str
    labels: str
    masks: str
    scores: str | None = None
    positive: float = 1.0
    negative: float = 0.0
    padding: float | None = None
    most_points: int = 64
    box: bool | msgspec.UnsetType = msgspec.UNSET
    unit: Unit = Unit.PIXELS
    mask_input: str | None = None
    has_mask_input: str | None = None
    feedback: bool = True
    constants: dict[str, float | list[float]] = msgspec.field(default_factory=dict)
    first: tuple[int, ...] = ()
    later: tuple[int, ...] = ()
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_hash(self.sha256)
        if self.has_mask_input is not None and self.mask_input is None:
            raise ValueError("decoder.has_mask_input needs decoder.mask_input")
        if self.positive == self.negative:
            raise ValueError(f"decoder.positive and decoder.negative must differ, got {self.positive} for both")
        if self.box and self.most_points < len(BOX_CORNERS):
            raise ValueError(f"decoder.box takes two points, and decoder.most_points is {self.most_points}")
        if (self.first or self.later) and self.scores is None:
            raise ValueError("decoder.first and decoder.later choose by decoder.scores, which is missing")

    @property
    def fed(self) -> bool:
        """Whether the previous answer is fed back."""
        return self.mask_input is not None and self.feedback


class PairDescription(Struct, frozen=True, kw_only=True):
    """An encoder and a decoder in ONNX files.

    Attributes:
        family: Always ``onnx``.
        size: Height and width of the encoder's image, in pixels. Images are stretched to it.
        image: How an image is prepared.
        encoder: The encoder's file.
        decoder: The decoder's file.
        answer: Whether the decoder answers with logits or with probabilities.
        threshold: A pixel belongs to the mask when its probability is greater; 0.5 for logits above 0.
        coordinates: How image pixels become pixels of the encoder's image.
        mask_resize: How an answer is resized to the image's size.
        license: Licence of the weights, as an identifier of the hub; None where it is not known.
    """

    family: Literal["onnx"] = "onnx"
    size: tuple[int, int]
    image: ImageSpec = ImageSpec()
    encoder: Encoder
    decoder: Decoder
    answer: AnswerForm = AnswerForm.LOGITS
    threshold: float = 0.5
    coordinates: Coordinates = Coordinates.SCALE
    mask_resize: ResizeRule = ResizeRule()
    license: str | None = None

    def __post_init__(self) -> None:
        if not all(1 <= side <= MOST_PIXELS for side in self.size):
            raise ValueError(f"size must be two sides from 1 to {MOST_PIXELS}, got {list(self.size)}")
        self.contract((1, 1), 1)

    def contract(self, size: tuple[int, int], candidates: int) -> ClickContract:
        """Return the click contract of the bundle.

        Args:
            size: Height and width of an answer.
            candidates: How many answers there are.
        """
        return ClickContract(
            threshold=self.threshold,
            coordinates=self.coordinates,
            mask_resize=self.mask_resize,
            points=PointList(most=self.decoder.most_points, box=True if self.decoder.box else msgspec.UNSET),
            answers=AnswerSpec(form=self.answer, size=size, candidates=candidates),
        )


def _check_hash(given: str | None) -> None:
    if given is not None and not _HASH.fullmatch(given):
        raise ValueError(f"sha256 must be 64 hexadecimal digits in lower case, got {given!r:.80}")


def is_pair(raw: object) -> bool:
    """Return whether a decoded description is one of an encoder and a decoder in ONNX files."""
    return isinstance(raw, dict) and raw.get("family") == FAMILY


def parse_pair(raw: object, source: str) -> PairDescription:
    """Turn a decoded JSON or TOML description into its type.

    Args:
        raw: The decoded object.
        source: Where it comes from, for messages.

    Raises:
        DescriptionError: A field is unknown, missing or has an impossible value.
    """
    try:
        return msgspec.convert(raw, PairDescription)
    # msgspec passes Python's own exceptions on for numbers that are too large and values nested too deeply.
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DescriptionError(
            f"{source}: {error}",
            expected=f'family = "{FAMILY}", fields {", ".join(PairDescription.__struct_fields__)} as in'
            f" {document('foreign')}",
            fix="correct the description",
        ) from error


def read_pair(path: Path) -> PairDescription:
    """Read the description of a pair from a ``.toml`` or ``.json`` file.

    Raises:
        DescriptionError: The file is missing, cannot be decoded, or is no such description.
    """
    raw: dict[str, Any] = read_description(path)
    return parse_pair(raw, str(path))

"""What an annotator would do to a mask by hand: fill small holes, drop specks, keep the largest parts, simplify.

Pixels that touch, also at a corner, are one part (8 neighbours). What is not the object is connected along edges alone
(4 neighbours), so that a hole is exactly what a part encloses; what reaches the border of the image is no hole.

Everything is done on the outlines that OpenCV finds. An outline runs through the centres of the pixels at the edge of a
part, and Pick's theorem gives how many pixels it encloses: no pixel is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mmms_deploy.arguments import items, real, shown, whole
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.errors import SessionError
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.installed import pip_install

_MOST = 1 << 30
"""The most pixels of an image, and more than any outline can move."""
_ATTEMPTS = 4
"""How often the tolerance of an outline is halved before it stays as it is."""
_CLICKS = "clicks, each x, y, and 1 or 0"
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Pixels = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
"""What settings may be: so many pixels or parts, and how many pixels an outline moves."""


class MaskCleaning(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is done to a mask after the network has answered, in this order; at 0, each is left out.

    A positive click keeps its part, and a negative click its hole, whatever their size.

    Attributes:
        fill_holes: Holes of at most so many pixels are filled. What lies within a hole does not count.
        drop_specks: Parts of at most so many pixels are dropped.
        keep_largest: Only so many parts stay: first those with a positive click, which all stay, then the largest.
        simplify: How far outlines may move, in pixels, to have fewer corners (Douglas and Peucker's algorithm). No part
            and no hole disappears, and clicked pixels that are on the right side of an outline stay there.

    Raises:
        SessionError: A value is no number of 0 or more, or is no whole number where one is wanted.
    """

    fill_holes: Count = 0
    drop_specks: Count = 0
    keep_largest: Count = 0
    simplify: Pixels = 0.0

    def __post_init__(self) -> None:
        for name in ("fill_holes", "drop_specks", "keep_largest"):
            number = whole(getattr(self, name))
            if number is None or not 0 <= number <= _MOST:
                what = "parts, 0 for all" if name == "keep_largest" else "pixels, 0 for none"
                raise _unfit(self, name, f"a whole number of {what}")
            msgspec.structs.force_setattr(self, name, number)
        moved = real(self.simplify)
        if moved is None or not 0 <= moved <= _MOST:  # NaN is refused, too
            raise _unfit(self, "simplify", "a number of pixels, 0 for outlines as they are")
        msgspec.structs.force_setattr(self, "simplify", moved)

    @property
    def active(self) -> bool:
        """Whether anything is done at all."""
        return self != MaskCleaning()

    def clean(self, mask: BoolArray, clicks: Iterable[Any] = ()) -> BoolArray:
        """Return a mask, cleaned.

        Args:
            mask: (H, W) bool.
            clicks: The clicks that it answers, such as ``result.clicks``: each a :class:`~mmms_deploy.Click`, or x, y
                in image pixels, and whether it is positive.

        Returns:
            (H, W) bool: another array, or the mask itself where nothing was to be done.

        Raises:
            SessionError: The mask or a click is none; or OpenCV is not installed.
        """
        if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim == 2):
            kind = f"shape {mask.shape} and dtype {mask.dtype}" if isinstance(mask, np.ndarray) else shown(mask, 80)
            raise SessionError(f"a mask: {kind}", expected="(H, W) bool", fix="pass mask > 0, as a plain array")
        given = items("the clicks are", clicks, SessionError, expected=_CLICKS, fix="pass result.clicks")
        pixels = [_pixel(one) for one in given]
        return _cleaned(opencv(), self, np.asarray(mask), pixels) if self.active and mask.size else mask


def _unfit(cleaning: MaskCleaning, name: str, expected: str) -> SessionError:
    value, option = shown(getattr(cleaning, name), 80), f"--{name.replace('_', '-')}"
    return SessionError(
        f"{name} is {value}",
        expected=expected,
        fix=f"pass such a number, or leave {name} out",
        command_fix=f"pass such a number, or leave {option} out",
    )


def clean_labels(
    cleaning: MaskCleaning, labels: npt.NDArray[np.int32], clicks: Iterable[tuple[float, float, int]]
) -> npt.NDArray[np.int32]:
    """Return a label map whose objects are cleaned, each by itself.

    A pixel stays that of its object where the object's cleaned mask has it; any other is that of the object of the
    lowest label whose cleaned mask has it. So filling a hole takes no pixel of another object that lies in it.

    Args:
        cleaning: What is done.
        labels: (H, W) int32; 0 is background.
        clicks: x, y in image pixels, and the label of the object that the click is on; 0 for the background. To all
            other objects it is a negative click.

    Returns:
        (H, W) int32, a new array.
    """
    owned = list(clicks)
    after = np.zeros_like(labels)
    grown: list[tuple[int, npt.NDArray[np.intp]]] = []
    for label in np.unique(labels).tolist():
        if label == 0:
            continue
        mask = labels == label
        cleaned = cleaning.clean(mask, [(x, y, owner == label) for x, y, owner in owned])
        after[mask & cleaned] = label
        if cleaned is not mask:
            grown.append((label, np.flatnonzero(cleaned & ~mask)))
    flat = after.reshape(-1)
    for label, places in grown:
        flat[places[flat[places] == 0]] = label
    return after


@dataclass(frozen=True)
class Cleaner:
    """A cleaning with the clicks that a mask answers.

    Attributes:
        cleaning: What is done.
        clicks: x, y in image pixels, and whether the click is positive.
    """

    cleaning: MaskCleaning
    clicks: tuple[tuple[float, float, bool], ...]

    def __call__(self, mask: BoolArray) -> BoolArray:
        """Return a mask (H, W) bool, cleaned."""
        return self.cleaning.clean(mask, self.clicks)


def checked_cleaning(cleaning: object) -> MaskCleaning | None:
    """Return what a caller asks to be done to masks, checked; None for nothing. What it needs is loaded.

    Args:
        cleaning: A :class:`MaskCleaning`, or None.

    Raises:
        SessionError: It is something else; or OpenCV is needed and not installed.
    """
    if cleaning is None:
        return None
    if not isinstance(cleaning, MaskCleaning):
        raise SessionError(
            f"cleaning is {shown(cleaning, 80)}",
            expected="a mmms_deploy.MaskCleaning, or None",
            fix="pass cleaning=MaskCleaning(fill_holes=100, drop_specks=100)",
        )
    if not cleaning.active:
        return None
    opencv()
    return cleaning


def opencv() -> Any:
    """Return OpenCV.

    Raises:
        SessionError: It is not installed, or cannot be loaded.
    """
    try:
        import cv2
    except ImportError as error:
        raise SessionError(
            "masks are to be cleaned, which needs OpenCV, and it cannot be imported"
            + ("" if isinstance(error, ModuleNotFoundError) else f": {error}"),
            expected="the package opencv-python-headless",
            fix=f"{pip_install('clean')}, or leave the cleaning out",
        ) from error
    return cv2


# --- outlines -------------------------------------------------------------------------------------------------------

Contour = npt.NDArray[np.int32]
"""(N, 1, 2): x and y of the pixels along an outline."""


class _Pixel(NamedTuple):
    """A clicked pixel."""

    x: int
    y: int
    positive: bool


def _pixel(click: Any) -> _Pixel:
    try:
        x, y, positive = click.to_list() if hasattr(click, "to_list") else click
        return _Pixel(math.floor(x + 0.5), math.floor(y + 0.5), bool(positive))
    except (TypeError, ValueError, OverflowError) as error:
        raise SessionError(f"the click {shown(click, 80)}", expected=_CLICKS, fix="pass result.clicks") from error


@dataclass(eq=False)
class _Outline:
    """The outline of a part, or of a hole in one.

    Attributes:
        contour: The pixels of the object along it.
        depth: How many outlines are around it; parts have even numbers, holes odd ones.
        parent: The outline around it; None for none.
        pixels: How many pixels the part or the hole itself has, without what lies within.
        stays: Whether it is drawn.
        tolerance: How far it may move, in pixels.
    """

    contour: Contour
    depth: int
    parent: _Outline | None
    pixels: int
    stays: bool = True
    tolerance: float = 0.0
    box: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))

    @property
    def is_part(self) -> bool:
        return self.depth % 2 == 0


def _cleaned(cv2: Any, cleaning: MaskCleaning, mask: BoolArray, clicks: Sequence[_Pixel]) -> BoolArray:
    # OpenCV's own box of a mask was wrong for narrow pictures, at least up to 4.9.
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return mask
    top, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
    columns = np.flatnonzero(mask[top : top + height].any(axis=0))
    left, width = int(columns[0]), int(columns[-1] - columns[0]) + 1
    cut = (slice(top, top + height), slice(left, left + width))
    before = np.ascontiguousarray(mask[cut]).view(np.uint8)
    inside = [
        _Pixel(x - left, y - top, positive)
        for x, y, positive in dict.fromkeys(clicks)
        if 0 <= x - left < width and 0 <= y - top < height
    ]
    outlines = _outlines(cv2, before)
    boxes = np.array([one.box for one in outlines])
    held = {id(found) for one in inside if (found := _around(cv2, outlines, boxes, before, one)) is not None}
    _fill(cleaning, outlines, held)
    _choose(cleaning, outlines, held)
    after = _drawn(cv2, cleaning, outlines, before, inside)
    if np.array_equal(after, before):
        return mask
    cleaned = mask.copy()
    cleaned[cut] = after.view(np.bool_)
    return cleaned


def _outlines(cv2: Any, mask: npt.NDArray[np.uint8]) -> list[_Outline]:
    """Return all outlines, those around others first."""
    contours, tree = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    parents = tree[0, :, 3].tolist()
    depths: dict[int, int] = {-1: -1}
    for place in range(len(contours)):
        line = [place]
        while line[-1] not in depths:
            line.append(parents[line[-1]])
        for one in reversed(line[:-1]):
            depths[one] = depths[parents[one]] + 1
    order = sorted(range(len(contours)), key=depths.__getitem__)
    found: dict[int, _Outline] = {}
    for place in order:
        contour = contours[place]
        steps = len(contour) if len(contour) > 1 else 0
        area = cv2.contourArea(contour)
        part = depths[place] % 2 == 0
        # Pick's theorem: the area is the pixels inside, and half of those along the outline, less one.
        enclosed = round(area + steps / 2 + 1) if part else round(area - steps / 2 + 1)
        around = found.get(parents[place])
        found[place] = _Outline(contour, depths[place], around, enclosed, box=cv2.boundingRect(contour))
        if around is not None:
            around.pixels -= enclosed
    return list(found.values())


def _around(
    cv2: Any,
    outlines: Sequence[_Outline],
    boxes: npt.NDArray[np.int_],
    mask: npt.NDArray[np.uint8],
    pixel: _Pixel,
) -> _Outline | None:
    """Return the part that a positive click is in, or the hole that a negative one is in; None where it is in none."""
    if bool(mask[pixel.y, pixel.x]) != pixel.positive:
        return None
    found = None
    x, y, width, height = boxes.T
    near = (x <= pixel.x) & (pixel.x < x + width) & (y <= pixel.y) & (pixel.y < y + height)
    for place in np.flatnonzero(near).tolist():
        one = outlines[place]
        if one.is_part != pixel.positive:
            continue
        side = cv2.pointPolygonTest(one.contour, (float(pixel.x), float(pixel.y)), False)
        if side > 0 or (one.is_part and side == 0):
            found = one  # the innermost one comes last
    return found


def _part_of(outline: _Outline) -> _Outline:
    """Return the part that an outline belongs to, after holes around it were filled."""
    part = outline if outline.is_part else outline.parent
    assert part is not None
    while part.parent is not None and not part.parent.stays:
        part = part.parent.parent
        assert part is not None
    return part


def _fill(cleaning: MaskCleaning, outlines: Sequence[_Outline], held: set[int]) -> None:
    """Fill small holes: what lies in one becomes a piece of the part around it."""
    for one in outlines:
        if not one.is_part and one.pixels <= cleaning.fill_holes and id(one) not in held:
            one.stays = False
    for one in outlines:  # parts around others first
        within = one.parent is not None and not one.parent.stays
        if (one.is_part and within) or not (one.is_part or one.stays):
            part = _part_of(one)
            part.pixels += one.pixels
            if one.is_part:
                one.stays = False
                if id(one) in held:
                    held.add(id(part))


def _choose(cleaning: MaskCleaning, outlines: Sequence[_Outline], held: set[int]) -> None:
    """Drop specks, and all parts but the largest."""
    parts = [one for one in outlines if one.is_part and one.stays]
    left = [one for one in parts if one.pixels > cleaning.drop_specks or id(one) in held]
    if cleaning.keep_largest:
        # The first pixel of an outline is its first one in raster order.
        left.sort(key=lambda one: (id(one) not in held, -one.pixels, *one.contour[0, 0, ::-1].tolist()))
        count = max(cleaning.keep_largest, sum(id(one) in held for one in left))
        left = left[:count]
    kept = {id(one) for one in left}
    owners = [id(_part_of(one)) for one in outlines]
    for one, owner in zip(outlines, owners, strict=True):
        one.stays = one.stays and owner in kept


def _drawn(
    cv2: Any,
    cleaning: MaskCleaning,
    outlines: Sequence[_Outline],
    before: npt.NDArray[np.uint8],
    clicks: Sequence[_Pixel],
) -> npt.NDArray[np.uint8]:
    """Draw what stays, simplified; an outline that would get a clicked pixel wrong moves less."""
    stay = [one for one in outlines if one.stays]
    for one in stay:
        one.tolerance = cleaning.simplify
    right = [one for one in clicks if bool(before[one.y, one.x]) == one.positive]
    for attempt in range(_ATTEMPTS + 1):
        drawn = np.zeros_like(before)
        for one in stay:
            contour = _simplified(cv2, one)
            cv2.fillPoly(drawn, [contour], int(one.is_part))
            if not one.is_part:
                cv2.polylines(drawn, [contour], isClosed=True, color=1)  # its pixels belong to the object
        wrong = [one for one in right if bool(drawn[one.y, one.x]) != one.positive]
        if not wrong:
            break
        for one in stay:
            x, y, width, height = one.box
            if any(x <= pixel.x < x + width and y <= pixel.y < y + height for pixel in wrong):
                one.tolerance = one.tolerance / 2 if attempt + 1 < _ATTEMPTS else 0.0
    return drawn


def _simplified(cv2: Any, outline: _Outline) -> Contour:
    if not outline.tolerance:
        return outline.contour
    simple: Contour = cv2.approxPolyDP(outline.contour, outline.tolerance, True)
    return simple if len(simple) > 2 else outline.contour

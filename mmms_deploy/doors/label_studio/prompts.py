"""Points and boxes as Label Studio sends them, in per cent of the picture, as clicks in its pixels.

A per cent is a place on the picture's plane, whose left edge is 0 and whose right edge is 100. Pixel i of W covers
from 100 i / W to 100 (i + 1) / W, and its centre is i as a click: so a place p has x = p W / 100 - 0.5. The far edge
itself, which ``snap="pixel"`` gives for a point on it, belongs to the last pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmms_deploy.arguments import real, shown
from mmms_deploy.doors.label_studio.markup import BOXES, POINTS
from mmms_deploy.doors.label_studio.shapes import Region
from mmms_deploy.errors import DoorError
from mmms_deploy.session import Click

DIGITS = 6
"""Decimals of a pixel that a place keeps: per cents of pixel centres come back as whole numbers."""
_LEAST = 10.0**-DIGITS
_BEYOND = 1e-6
"""How far, in per cent, arithmetic may have carried a place over an edge."""


@dataclass(frozen=True)
class Prompts:
    """What an annotator said about one object on one picture.

    Attributes:
        picture: Name of the picture.
        labels: The labels that were selected; empty for tags without.
        clicks: The points, oldest first, in pixels.
        box: The box, x0, y0, x1, y1 in pixels as clicks are; None without one.
        size: (H0, W0) of the picture as Label Studio shows it.
    """

    picture: str
    labels: tuple[str, ...]
    size: tuple[int, int]
    clicks: tuple[Click, ...] = ()
    box: tuple[float, float, float, float] | None = None


@dataclass
class _Gathered:
    """The same while it is put together."""

    size: tuple[int, int]
    clicks: list[Click] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None


def prompts_of(regions: Sequence[Region]) -> tuple[Prompts, ...]:
    """Return what was said about each object, in the order of the list.

    Regions on the same picture with the same labels are about one object, and their order is that of the clicks; a box
    comes before them, wherever it stands.

    Args:
        regions: The regions of a context.

    Raises:
        DoorError: A region is neither a point nor a box, beyond the picture, on a picture that is turned or of which
            several are shown at once; or there are two boxes on one object.
    """
    found: dict[tuple[str, tuple[str, ...]], _Gathered] = {}
    for number, region in enumerate(regions, start=1):
        what = f"region {number} ({shown(region.type, 40)})"
        size = _checked(region, what)
        one = found.setdefault((region.to_name, _labels(region)), _Gathered(size))
        if one.size != size:
            raise DoorError(
                f"{what} is of a picture of {size[1]} x {size[0]} pixels, those before it of one of"
                f" {one.size[1]} x {one.size[0]}",
                expected="regions of one picture",
                fix="send the regions of each picture by themselves",
            )
        if region.type in POINTS:
            one.clicks.append(_click(region, size, what))
            continue
        if one.box is not None:
            raise DoorError(
                f"{what} is a second box on the same object",
                expected="one box for each object, and points after it",
                fix="accept or delete the mask of the first box",
            )
        one.box = _box(region, size, what)
    return tuple(
        Prompts(picture, labels, one.size, tuple(one.clicks), one.box) for (picture, labels), one in found.items()
    )


def percent_of(click: Click, size: tuple[int, int]) -> tuple[float, float]:
    """Return where Label Studio has a click, in per cent of the picture's width and height.

    Args:
        click: In pixels.
        size: (H0, W0) of the picture.
    """
    height, width = size
    return 100 * (click.x + 0.5) / width, 100 * (click.y + 0.5) / height


def _checked(region: Region, what: str) -> tuple[int, int]:
    """Return (H0, W0) of the picture of a region that can be used."""
    if region.type not in POINTS and region.type not in BOXES:
        raise DoorError(
            f"{what} is neither a point nor a box",
            expected=f"regions of {', '.join((*POINTS, *BOXES))}",
            fix="make KeyPointLabels the smart tag of the labelling configuration, and write the labels into it",
        )
    if region.image_rotation % 360:
        raise DoorError(
            f"{what} is on a picture that is turned by {region.image_rotation:g} degrees",
            expected="a picture that stands as its file has it",
            fix="turn it back with the buttons beside the picture, click, and turn it afterwards",
        )
    if region.item_index:
        raise DoorError(
            f"{what} is on picture {region.item_index + 1} of several",
            expected="one picture for each Image",
            fix="import each picture as a task of its own; lists of pictures (valueList) are not taken",
        )
    height, width = region.original_height, region.original_width
    if height < 1 or width < 1:
        raise DoorError(
            f"{what} says that its picture has {width} x {height} pixels",
            expected="original_width and original_height of the picture",
            fix="wait until the picture is shown, then click",
        )
    return height, width


def _labels(region: Region) -> tuple[str, ...]:
    key = {**POINTS, **BOXES}[region.type]
    given = region.value.get(key) if key else []
    if given is None:
        given = region.value.get("labels", [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given) or (key and not given):
        raise DoorError(
            f"a region of {region.from_name!r} has the labels {shown(given, 80)}",
            expected="a label that is selected",
            fix="choose a label of the smart tag first, then click",
        )
    return tuple(given)


def _click(region: Region, size: tuple[int, int], what: str) -> Click:
    height, width = size
    x = _inside(_percent(region.value, "x", what), width, "x", what)
    y = _inside(_percent(region.value, "y", what), height, "y", what)
    return Click(x, y, region.is_positive)


def _box(region: Region, size: tuple[int, int], what: str) -> tuple[float, float, float, float]:
    if region.value.get("rotation"):
        raise DoorError(
            f"{what} is turned by {shown(region.value['rotation'], 20)} degrees",
            expected="a box with upright sides",
            fix="draw it without turning it",
        )
    height, width = size
    left, top = _percent(region.value, "x", what), _percent(region.value, "y", what)
    right = left + _percent(region.value, "width", what)
    bottom = top + _percent(region.value, "height", what)
    return (
        _edge(left, width, "x", what),
        _edge(top, height, "y", what),
        _edge(right, width, "x + width", what),
        _edge(bottom, height, "y + height", what),
    )


def _percent(value: Mapping[str, object], name: str, what: str) -> float:
    number = real(value.get(name))
    if number is None or not abs(number) < 1e9:
        raise DoorError(
            f"{what} has {shown(value.get(name), 40)} as {name}",
            expected="a number of per cent of the picture",
            fix="send x and y in per cent, from 0 to 100",
        )
    return number


def _edge(percent: float, side: int, name: str, what: str) -> float:
    """Return an edge as clicks are counted, from -0.5 to the side - 0.5."""
    if not -_BEYOND <= percent <= 100 + _BEYOND:
        raise DoorError(
            f"{what} has {percent:g} as {name}",
            expected="per cent of the picture, from 0 to 100",
            fix="click on the picture",
        )
    return round(min(max(percent, 0.0), 100.0) * side / 100 - 0.5, DIGITS)


def _inside(percent: float, side: int, name: str, what: str) -> float:
    """Return a coordinate of a click; the far edge is of the last pixel."""
    return min(_edge(percent, side, name, what), side - 0.5 - _LEAST)

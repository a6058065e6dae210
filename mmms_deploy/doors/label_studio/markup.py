"""What a labelling configuration offers: pictures, points and boxes to give, masks to answer with.

Names of tags and labels are the project's own; nothing here knows any. A configuration is XML from outside: it is read
by expat without a document type, so that no entity is expanded and no file opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat

from mmms_deploy.arguments import shown
from mmms_deploy.errors import DoorError

MOST_CHARACTERS = 1 << 20
"""The most characters of a configuration."""
MOST_DEPTH = 100
"""The most tags inside of each other."""

POINTS = {"keypointlabels": "keypointlabels", "keypoint": ""}
"""Tags that give points, in lower case: the key of the labels in a region's value, empty for tags without."""
BOXES = {"rectanglelabels": "rectanglelabels", "rectangle": ""}
"""Tags that give boxes."""
MASKS = {"bitmasklabels": "bitmasklabels", "brushlabels": "brushlabels", "bitmask": "", "brush": ""}
"""Tags that a mask is answered with; the first that has the label is taken, so that a bitmask comes before a brush."""
_LABELS = {**POINTS, **BOXES, **MASKS}
EXAMPLE = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image" smart="false"><Label value="object"/></BrushLabels>'
    '<KeyPointLabels name="points" toName="image" smartOnly="true"><Label value="object"/></KeyPointLabels></View>'
)
"""A configuration that can be used."""


@dataclass(frozen=True)
class Control:
    """A tag with which something is drawn on a picture.

    Attributes:
        kind: The tag in lower case, e.g. ``keypointlabels``; also the type of its regions.
        name: Its name.
        picture: Name of the picture that it belongs to.
        labels: Its labels, as regions have them; empty for a tag without.
        smart: Whether its regions are sent to a model; so it is with every tag that does not say otherwise.
        open: Whether it takes labels that are not listed here: a tag without labels, or with those of each task.
    """

    kind: str
    name: str
    picture: str
    labels: tuple[str, ...] = ()
    smart: bool = False
    open: bool = False

    @property
    def key(self) -> str:
        """The key of the labels in a region's value; empty for a tag without."""
        return _LABELS[self.kind]

    def takes(self, labels: Sequence[str]) -> bool:
        """Return whether it can have a region with these labels."""
        return self.open or set(labels) <= set(self.labels)


@dataclass(frozen=True)
class Markup:
    """A labelling configuration.

    Attributes:
        pictures: The key of the task's data that holds a picture, by the picture's name.
        controls: What is drawn with, in their order.
    """

    pictures: Mapping[str, str]
    controls: tuple[Control, ...]

    def prompts(self, *, boxes: bool) -> tuple[Control, ...]:
        """Return the tags that give points, and boxes where they count, on pictures."""
        kinds = {**POINTS, **(BOXES if boxes else {})}
        return tuple(one for one in self.controls if one.kind in kinds)

    def masks(self, picture: str) -> tuple[Control, ...]:
        """Return the tags that a mask of a picture can be answered with, the first choice first."""
        found = (one for one in self.controls if one.kind in MASKS and one.picture == picture)
        return tuple(sorted(found, key=lambda one: list(MASKS).index(one.kind)))

    def mask_for(self, picture: str, labels: Sequence[str]) -> Control:
        """Return the tag that a mask with these labels is answered with.

        Raises:
            DoorError: There is none.
        """
        masks = self.masks(picture)
        found = next((one for one in masks if one.takes(labels)), None)
        if found is None:
            listed = "; ".join(f"{one.name}: {', '.join(one.labels)}" for one in masks)
            raise DoorError(
                f"no tag for masks of {picture!r} has the label {', '.join(map(repr, labels)) or 'none'}"
                + (f" ({listed})" if listed else ""),
                expected="BrushLabels or BitmaskLabels with the labels of the points",
                fix="write a Label of that value into the BrushLabels or BitmaskLabels of the configuration",
            )
        return found

    def check(self, *, boxes: bool) -> None:
        """Check that clicks can come, and masks can go back.

        Args:
            boxes: Whether the network takes boxes.

        Raises:
            DoorError: There is no picture, no smart tag for points or boxes, or no tag for its masks.
        """
        prompts = [one for one in self.prompts(boxes=boxes) if one.picture in self.pictures]
        names = "KeyPointLabels or RectangleLabels" if boxes else "KeyPointLabels"
        if not prompts:
            raise _unfit(f"has no {names} for an Image", f"an Image, and {names} for it")
        smart = [one for one in prompts if one.smart]
        if not smart:
            raise _unfit(
                f"has no smart tag: points of {', '.join(one.name for one in prompts)} are not sent to a model",
                f'{names} without smart="false"',
            )
        if not any(self.masks(one.picture) for one in smart):
            raise _unfit("has no tag to answer with", "BrushLabels or BitmaskLabels for the same Image")


def _unfit(what: str, expected: str) -> DoorError:
    return DoorError(
        f"the labelling configuration {what}",
        expected=expected,
        fix=f"write it into the project's labelling interface, such as {EXAMPLE}",
    )


def parse_markup(text: str) -> Markup:
    """Read a labelling configuration.

    Args:
        text: The XML, as Label Studio sends it.

    Raises:
        DoorError: It is too long, no XML, nested too deeply, or declares entities.
    """
    if len(text) > MOST_CHARACTERS:
        raise DoorError(
            f"the labelling configuration has {len(text)} characters",
            expected=f"at most {MOST_CHARACTERS}",
            fix="make it shorter",
        )
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise DoorError(
            f"the labelling configuration is no XML: {error}",
            expected=f"a labelling configuration such as {EXAMPLE}",
            fix="save the project's labelling interface again",
        ) from error
    return Markup(reader.pictures, tuple(reader.controls))


class _Reader:
    """Collects the tags that matter."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}
        self.controls: list[Control] = []
        self._open: list[tuple[str, dict[str, str], list[dict[str, str]]]] = []

    def doctype(self, *declared: object) -> None:
        raise DoorError(
            "the labelling configuration declares a document type",
            expected="tags alone: entities are not expanded",
            fix="leave <!DOCTYPE ...> out of it",
        )

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= MOST_DEPTH:
            raise DoorError(
                "the labelling configuration is nested too deeply",
                expected=f"at most {MOST_DEPTH} tags inside of each other",
                fix="make it simpler",
            )
        if tag.lower() == "label":
            holder = next((one for one in reversed(self._open) if one[0] in _LABELS), None)
            if holder is not None:
                holder[2].append(attributes)
        self._open.append((tag.lower(), attributes, []))

    def end(self, tag: str) -> None:
        kind, attributes, labels = self._open.pop()
        name = attributes.get("name", "")
        if kind == "image" and name:
            self.pictures[name] = attributes.get("value", "").removeprefix("$")
        elif kind in _LABELS and name:
            self.controls.append(_control(kind, attributes, labels))


def _control(kind: str, attributes: Mapping[str, str], labels: Sequence[Mapping[str, str]]) -> Control:
    # A region has the alias of a label in the place of its value, where there is one.
    named = [one.get("alias") or one.get("value", "") for one in labels]
    only = attributes.get("smartOnly", attributes.get("smartonly", "false"))
    smart = _is_true(attributes.get("smart", "true")) or _is_true(only)
    return Control(
        kind=kind,
        name=attributes["name"],
        picture=attributes.get("toName", attributes.get("toname", "")),
        labels=tuple(name for name in named if name),
        smart=smart,
        open=not _LABELS[kind] or "value" in attributes,
    )


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes")


def picture_of(markup: Markup, name: str, data: Mapping[str, Any]) -> str:
    """Return the address of a task's picture.

    Args:
        markup: The configuration.
        name: Name of the picture.
        data: The task's data.

    Raises:
        DoorError: There is no such picture, or the task has no address for it.
    """
    if name not in markup.pictures:
        raise DoorError(
            f"a point is on {shown(name, 80)}",
            expected=f"an Image of the labelling configuration: {', '.join(markup.pictures) or 'it has none'}",
            fix="reload the page of the task: the configuration changed, or the point is not on an Image",
        )
    key = markup.pictures[name]
    address = data.get(key)
    if not key or not isinstance(address, str) or not address:
        what = f"holds {shown(address, 80)}" if key in data else "is not there"
        raise DoorError(
            f"the task's {key!r} {what}" if key else f"the Image {name!r} has no value",
            expected='one picture for each Image: <Image value="$key"/>, and its address under that key in the task',
            fix="import the task with one address under that key; lists of pictures (valueList) are not taken",
        )
    return address

"""An annotation as plain data, JSON-able, and back: all surfaces with their interactions, also the undone ones.

The image is not in it, and no answer of the network: restoring it repeats every interaction, so that on the same
bundle, engine and image all masks are the same again. Clicks are ``[x, y, 1]`` or ``[x, y, 0]``. The choice of one of
several answers is there as its number. A mask that was put in by hand, or that :meth:`Session.select` put in, is there
as COCO's run lengths; one of probabilities also as what the network sees of it, float32, packed with zlib in Base64.
"""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np

from mmms_deploy.annotations import mask_of_rle, rle_of
from mmms_deploy.bundle.contract import MOST_CANDIDATES, ClickContract, Struct
from mmms_deploy.errors import MMMSDeployError, SessionError
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.boxes import checked_box
from mmms_deploy.session.history import History
from mmms_deploy.session.interactions import (
    BoxInput,
    Choice,
    Interaction,
    MaskInput,
    Snapshot,
    checked_mask,
    mask_of_probability,
)
from mmms_deploy.session.result import Click, checked_click
from mmms_deploy.session.surfaces import Surface, Surfaces, checked_name

FORMAT, VERSION = "mmms-deploy-session", 1
_EXPECTED = "what Session.to_dict() returned, also as JSON reads it"
_NO_DATA = (
    msgspec.ValidationError,
    ValueError,  # characters
    OverflowError,
    RecursionError,
    TypeError,  # the value is no plain data, and behaves as none
    LookupError,
    AttributeError,
)
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Label = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
_Side = Annotated[int, msgspec.Meta(ge=1)]
_MAP = 1 << 24
"""The most numbers of a map; networks are far smaller."""


class SavedRle(Struct, frozen=True, kw_only=True):
    """COCO's run lengths."""

    size: tuple[_Side, _Side]
    counts: str


class SavedMap(Struct, frozen=True, kw_only=True):
    """A map of float32: its size (H, W), and its numbers, little-endian, packed with zlib, in Base64."""

    size: tuple[_Side, _Side]
    zlib: str


class SavedStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An interaction that is no click: a mask or a box that was put in, or the choice of one of several answers.

    Attributes:
        mask: The mask.
        previous: What the network sees of it, where it is no mask of bools.
        choice: The number of the answer, from 0.
        box: A box that was put in: x0, y0, x1, y1 in image pixels.
    """

    mask: SavedRle | None = None
    previous: SavedMap | None = None
    choice: Annotated[int, msgspec.Meta(ge=0, lt=MOST_CANDIDATES)] | None = None
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        kinds = sum(kind is not None for kind in (self.mask, self.choice, self.box))
        if kinds != 1 or (self.mask is None and self.previous is not None):
            raise ValueError("an interaction is a click, a mask, a choice or a box")


SavedInteraction: TypeAlias = tuple[float, float, Literal[0, 1]] | SavedStep
"""A click as x, y, and 1 or 0; or another interaction."""


class SavedSurface(Struct, frozen=True, kw_only=True):
    """A surface: its interactions, oldest first, and how many of the last ones are undone."""

    name: str
    label: _Label
    changed: _Count
    undone: _Count
    interactions: tuple[SavedInteraction, ...]


class SavedSession(Struct, frozen=True, kw_only=True):
    """An annotation of an image; ``order``, where all objects have one history, has the label of every click in it."""

    format: Literal["mmms-deploy-session"]
    version: Literal[1]
    image_size: tuple[_Side, _Side]
    surface: str
    labels_given: _Label
    surfaces: tuple[SavedSurface, ...]
    order: tuple[_Label, ...] | msgspec.UnsetType = msgspec.UNSET


def saved_click(click: Click) -> SavedInteraction:
    """Return a click as an annotation has it."""
    return click.x, click.y, 1 if click.positive else 0


def saved(surfaces: Surfaces, size: tuple[int, int], network: tuple[int, int], rule: ClickContract) -> dict[str, Any]:
    """Return an annotation as plain dicts, lists, numbers and texts.

    Args:
        surfaces: The surfaces.
        size: (H0, W0) of the image.
        network: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.
    """

    def interaction(given: Interaction) -> SavedInteraction:
        return saved_interaction(given, size, network, rule)

    return written(
        surfaces,
        size,
        lambda surface: (map(interaction, surface.history.newest.interactions), len(surface.history.future)),
    )


def saved_interaction(
    given: Interaction, size: tuple[int, int], network: tuple[int, int], rule: ClickContract
) -> SavedInteraction:
    """Return an interaction as an annotation has it.

    Args:
        given: The interaction.
        size: (H0, W0) of the image.
        network: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.
    """
    if isinstance(given, Click):
        return saved_click(given)
    if isinstance(given, Choice):
        return SavedStep(choice=given.index)
    if isinstance(given, BoxInput):
        return SavedStep(box=(given.x0, given.y0, given.x1, given.y1))
    rle = SavedRle(**rle_of(given.mask))  # type: ignore[arg-type]
    plain = np.array_equal(checked_mask(given.mask, size, network, rule).previous, given.previous)
    return SavedStep(mask=rle, previous=None if plain else _packed(given.previous[0, 0]))


def written(
    surfaces: Surfaces,
    size: tuple[int, int],
    made: Callable[[Surface], tuple[Iterable[SavedInteraction], int]],
    order: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET,
) -> dict[str, Any]:
    """Return an annotation as plain dicts, lists, numbers and texts.

    Args:
        surfaces: The surfaces.
        size: (H0, W0) of the image.
        made: Returns the interactions with a surface, undone ones last, and how many of these there are.
        order: The label of every click's surface, where all surfaces have one history.
    """

    def described(name: str, surface: Surface) -> SavedSurface:
        interactions, undone = made(surface)
        return SavedSurface(
            name=name,
            label=surface.label,
            changed=surface.changed,
            undone=undone,
            interactions=tuple(interactions),
        )

    found = SavedSession(
        format=FORMAT,  # type: ignore[arg-type]
        version=VERSION,  # type: ignore[arg-type]
        image_size=size,
        surface=surfaces.name,
        labels_given=surfaces.given,
        surfaces=tuple(described(name, surface) for name, surface in surfaces.all.items()),
        order=order,
    )
    return plain_session(found)


def plain_session(found: SavedSession) -> dict[str, Any]:
    """Return an annotation as plain dicts, lists, numbers and texts, as ``Session.to_dict`` does."""
    plain: dict[str, Any] = _as_lists(msgspec.to_builtins(found))
    return plain


def _as_lists(value: Any) -> Any:
    """Return tuples as lists, as JSON reads them back."""
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def checked(given: object, size: tuple[int, int]) -> SavedSession:
    """Return a saved annotation, checked.

    Args:
        given: What was saved.
        size: (H0, W0) of the image that is set.

    Raises:
        SessionError: It is something else, contradicts itself, or belongs to an image of another size.
    """
    fix = "check where it comes from"
    if isinstance(given, str | bytes | os.PathLike):
        what = "a path" if isinstance(given, os.PathLike) else "a text"
        read = "json.loads(path.read_text())" if isinstance(given, os.PathLike) else "json.loads(text)"
        raise SessionError(f"the saved session is {what}", expected=_EXPECTED, fix=f"read it first: {read}")
    try:
        found = msgspec.convert(given, SavedSession)
    except _NO_DATA as error:
        raise SessionError(f"this is no saved session: {error}", expected=_EXPECTED, fix=fix) from error
    names = [checked_name(surface.name) for surface in found.surfaces]
    labels = [surface.label for surface in found.surfaces]
    problem = None
    if found.surface not in names:
        problem = f"its current surface {found.surface!r} is none of its surfaces"
    elif len(set(names)) < len(names) or len(set(labels)) < len(labels):
        problem = "two of its surfaces have the same name or label"
    elif max(labels) > found.labels_given:
        problem = "a surface has a label that was never given"
    elif any(surface.undone > len(surface.interactions) for surface in found.surfaces):
        problem = "more interactions are undone than there are"
    elif not _is_order(found):
        problem = "its order is not that of its interactions"
    if problem is not None:
        raise SessionError(f"the saved session contradicts itself: {problem}", expected=_EXPECTED, fix=fix)
    if found.image_size != size:
        raise SessionError(
            f"the saved session is about an image of {found.image_size}, and the image that is set has {size}",
            expected="the same image: (height, width)",
            fix="call set_image(...) with the image that was annotated",
        )
    return found


def _is_order(found: SavedSession) -> bool:
    """Whether the order, where there is one, has every interaction once, and those that are undone last."""
    if isinstance(found.order, msgspec.UnsetType):
        return True
    undone = {surface.label: surface.undone for surface in found.surfaces}
    done = len(found.order) - sum(undone.values())
    counts = {surface.label: len(surface.interactions) for surface in found.surfaces}
    every, last = Counter(found.order), Counter(found.order[done:])
    return every == Counter(counts) and last == Counter(undone)


def interactions_of(
    surface: SavedSurface, size: tuple[int, int], network: tuple[int, int], rule: ClickContract
) -> tuple[Interaction, ...]:
    """Return a surface's interactions, checked.

    Args:
        surface: As it was saved.
        size: (H0, W0) of the image.
        network: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.

    Raises:
        SessionError: A click is outside of the image, or a mask cannot be read.
    """
    found: list[Interaction] = []
    for number, given in enumerate(surface.interactions, start=1):
        try:
            found.append(read_interaction(given, size, network, rule))
        except (MMMSDeployError, ValueError, zlib.error, binascii.Error) as error:
            reason = error.given if isinstance(error, MMMSDeployError) else error
            raise SessionError(
                f"interaction {number} of the surface {surface.name!r} cannot be restored: {reason}",
                expected=_EXPECTED,
                fix="check where it comes from",
            ) from error
    return tuple(found)


def read_interaction(
    given: SavedInteraction, size: tuple[int, int], network: tuple[int, int], rule: ClickContract
) -> Interaction:
    """Return an interaction of an annotation, checked.

    Args:
        given: As it was saved.
        size: (H0, W0) of the image.
        network: (H, W) of the network.
        rule: How the bundle resizes masks, and its threshold.

    Raises:
        MMMSDeployError, ValueError, zlib.error, binascii.Error: It cannot be read.
    """
    if not isinstance(given, SavedStep):
        return checked_click(*given, size)
    if given.choice is not None:
        return Choice(given.choice)
    if given.box is not None:
        return checked_box(given.box, size)
    assert given.mask is not None
    return _mask(given.mask, given.previous, size, network, rule)


def _mask(
    given: SavedRle, seen: SavedMap | None, size: tuple[int, int], network: tuple[int, int], rule: ClickContract
) -> MaskInput:
    if given.size != size:
        raise ValueError(f"its mask has the size {given.size}")
    mask = mask_of_rle({"size": list(given.size), "counts": given.counts})
    plain = checked_mask(mask, size, network, rule)
    if seen is None:
        return plain
    previous = _unpacked(seen)
    if previous.shape == network:
        return replace(plain, previous=previous[None, None], binary=False)
    return replace(plain, previous=mask_of_probability(previous, size, network, rule).previous, binary=False)


def _packed(array: FloatArray) -> SavedMap:
    content = zlib.compress(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return SavedMap(size=(array.shape[0], array.shape[1]), zlib=base64.b64encode(content).decode("ascii"))


def _unpacked(given: SavedMap) -> FloatArray:
    height, width = given.size
    if height * width > _MAP:
        raise ValueError(f"its map has the size {given.size}")
    content = zlib.decompressobj().decompress(base64.b64decode(given.zlib, validate=True), 4 * height * width + 1)
    if len(content) != 4 * height * width:
        raise ValueError("its map has another number of bytes than its size says")
    numbers = np.frombuffer(content, dtype="<f4").astype(np.float32).reshape(height, width)
    if not (numbers.min() >= 0 and numbers.max() <= 1):
        raise ValueError("its map holds numbers that are no probabilities")
    return numbers


def restored(
    found: SavedSession,
    lines: Mapping[str, History[Snapshot]],
    blank: Snapshot,
    limit: int | None,
) -> Surfaces:
    """Return the surfaces of a saved annotation.

    Args:
        found: The annotation.
        lines: The history of every surface without a limit and with nothing undone, by its name.
        blank: The snapshot that every surface begins with.
        limit: How many interactions with a surface can be undone here.
    """

    def history(surface: SavedSurface) -> History[Snapshot]:
        return lines[surface.name].at(len(surface.interactions) - surface.undone).limited(limit)

    surfaces = {one.name: Surface(one.label, history(one), one.changed) for one in found.surfaces}
    changes = max(surface.changed for surface in surfaces.values())
    return Surfaces(blank, limit, surfaces, found.surface, found.labels_given, changes)

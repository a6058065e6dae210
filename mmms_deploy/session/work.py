"""A file of work: an annotation, the masks that it had, and what it belongs to; one JSON text (docs/journal.md).

It is read without a bundle, without the image and without the network. Nothing in it is executed. ``sha256`` is over
all other fields, so that a file that was cut off or changed is no file of work.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from mmms_deploy.annotations import Annotation, CocoWriter, mask_of_rle
from mmms_deploy.annotations.clicks import Point
from mmms_deploy.annotations.coco import CocoObject
from mmms_deploy.annotations.detections import Detections, detections_of
from mmms_deploy.annotations.record import check_new
from mmms_deploy.annotations.rle import PIXELS, Rle
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.errors import AnnotationError, FileReadError, MMMSDeployError, WorkError
from mmms_deploy.files import MIB, PathLike, as_path, read_bytes, write_file
from mmms_deploy.files.leftovers import sweep
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session.facts import BundleFacts, EngineFacts, ImageFacts
from mmms_deploy.session.mask_mark import Hash
from mmms_deploy.session.plain_json import UNFIT, decoded, encoded
from mmms_deploy.session.saved import SavedSession, checked, plain_session
from mmms_deploy.session.surfaces import Labels

FORMAT, VERSION = "mmms-deploy-work", 1
_LIMIT = 512 * MIB
_EXPECTED = "a file that Session.save wrote, complete and unchanged"
NO_HASH = 64 * "0"
"""What stands in the place of the hash while it is computed."""
_Count = Annotated[int, msgspec.Meta(ge=0)]


class SavedObject(Struct, frozen=True, kw_only=True):
    """The mask of an object.

    Attributes:
        name: Name of its surface.
        label: Its label.
        area: How many pixels it has.
        counts: Its mask as COCO's compressed run lengths, of the image's size.
    """

    name: str
    label: Annotated[int, msgspec.Meta(ge=1)]
    area: _Count
    counts: str


class SavedWork(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The file.

    Attributes:
        format: The name of this format.
        version: Its version.
        package: Version of mmms-deploy that wrote it.
        time: When, UTC.
        bundle: The bundle that answered.
        engine: The engine that answered.
        zoom: The rule of the object's crop; null without one.
        flip: Whether answers are the mean with those to the mirror image.
        image: The image.
        annotation: All surfaces with their interactions, as ``Session.to_dict`` has them.
        objects: The mask of every surface, in the same order.
        sha256: Hash over this JSON without spaces, with zeros in this place.
        cleaning: What was done to masks after the network had answered; not there for nothing.
    """

    format: Literal["mmms-deploy-work"]
    version: Literal[1]
    package: str
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    bundle: BundleFacts
    engine: EngineFacts
    zoom: ZoomRule | None
    flip: bool
    image: ImageFacts
    annotation: SavedSession
    objects: tuple[SavedObject, ...]
    sha256: Hash
    cleaning: MaskCleaning | None = None


def write_work(path: PathLike, work: Callable[[], SavedWork], *, overwrite: bool) -> None:
    """Write a file of work, whole or not at all.

    Args:
        path: The file.
        work: Returns what is written, but for its hash; it is asked once the file may be written.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputExistsError: The file exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    place = as_path(path)
    check_new(place, overwrite=overwrite)
    # Read once, so that the hash is over what a reader finds: a whole number may be given for a fraction.
    found: SavedWork = decoded(encoded(work()), SavedWork)
    content = encoded(msgspec.structs.replace(found, sha256=_hash_of(found)))
    sweep(place.parent, place.name)
    write_file(place, content + b"\n", overwrite=overwrite, sync=True)


@dataclass(frozen=True, eq=False)
class WorkObject:
    """An object in a file of work.

    Attributes:
        name: Name of its surface.
        label: Its label.
        area: How many pixels it has.
        rle: Its mask as COCO's run lengths.
        clicks: (x, y, positive) of its clicks that are not undone, oldest first.
    """

    name: str
    label: int
    area: int
    rle: Rle
    clicks: tuple[Point, ...]

    @property
    def mask(self) -> BoolArray:
        """(H0, W0) bool: its mask, drawn anew each time.

        Raises:
            AnnotationError: The run lengths are none of this size.
        """
        return mask_of_rle(self.rle)


@dataclass(frozen=True, eq=False)
class Work:
    """What :func:`read_work` found in a file.

    Attributes:
        package: Version of mmms-deploy that wrote it.
        time: When, UTC.
        bundle: The bundle that answered: name, digest, and what named it.
        engine: The engine that answered.
        zoom: The rule of the object's crop; None without one.
        flip: Whether answers were the mean with those to the mirror image.
        image: The image: its size, its hash and those of its parts, and the name of its file.
        annotation: All surfaces with their interactions, for ``Session.restore``.
        objects: The objects with their masks, oldest first.
        cleaning: What was done to masks after the network had answered; None for nothing.
    """

    package: str
    time: datetime
    bundle: BundleFacts
    engine: EngineFacts
    zoom: ZoomRule | None
    flip: bool
    image: ImageFacts
    annotation: Mapping[str, Any]
    objects: tuple[WorkObject, ...]
    cleaning: MaskCleaning | None = None

    @property
    def annotations(self) -> Mapping[str, Annotation]:
        """The mask and the clicks of every object, by its name.

        Raises:
            AnnotationError: Run lengths are none of the image's size.
        """
        return {one.name: Annotation(one.mask, one.clicks) for one in self.objects}

    def labels(self) -> Labels:
        """Return the label of each pixel's object, (H0, W0) int32; 0 is background.

        Where objects overlap, the pixel belongs to the one that changed last, as in ``Session.labels``.

        Raises:
            AnnotationError: Run lengths are none of the image's size.
        """
        changed = {surface["label"]: surface["changed"] for surface in self.annotation["surfaces"]}
        labels = np.zeros(self.image.size, dtype=np.int32)
        for one in sorted(self.objects, key=lambda one: int(changed[one.label])):
            labels[one.mask] = one.label
        return labels

    def detections(self) -> Detections:
        """Return all objects that have pixels as arrays, as ``Session.detections``.

        Raises:
            AnnotationError: Run lengths are none of the image's size.
        """
        kept = [one for one in self.objects if one.area]
        return detections_of(
            [one.mask for one in kept], [one.label for one in kept], [one.name for one in kept], self.image.size
        )

    def to_coco(self, file_name: PathLike | None = None) -> dict[str, Any]:
        """Return all objects that have pixels as a COCO data set, as ``Session.to_coco``.

        Args:
            file_name: Name or path of the image; None takes the name that its file had.

        Raises:
            AnnotationError: Run lengths are none of the image's size.
        """
        writer = CocoWriter()
        name = self.image.file_name if file_name is None else file_name
        kept = (one for one in self.objects if one.area)
        writer.add_image(
            name, self.image.size, (CocoObject(one.mask, one.name, one.clicks, surface=one.name) for one in kept)
        )
        return writer.dataset()


def read_work(path: PathLike) -> Work:
    """Read a file that ``Session.save`` wrote: objects and masks as data, without a bundle and without the image.

    Args:
        path: The file.

    Raises:
        WorkError: It cannot be read, was changed, or is something else.
    """
    found = _read(path)
    clicks = {
        surface.label: tuple(_clicks(surface.interactions, surface.undone)) for surface in found.annotation.surfaces
    }
    size = list(found.image.size)
    return Work(
        package=found.package,
        time=found.time,
        bundle=found.bundle,
        engine=found.engine,
        zoom=found.zoom,
        flip=found.flip,
        image=found.image,
        annotation=plain_session(found.annotation),
        objects=tuple(
            WorkObject(one.name, one.label, one.area, {"size": size, "counts": one.counts}, clicks[one.label])
            for one in found.objects
        ),
        cleaning=found.cleaning,
    )


def is_work(head: bytes) -> bool:
    """Whether a file of work begins so, with or without spaces in it."""
    return b"".join(head.split()).startswith(b'{"format":"' + FORMAT.encode() + b'"')


def _read(path: PathLike) -> SavedWork:
    try:
        content = read_bytes(path, _LIMIT)
    except FileReadError as error:
        raise WorkError(error.given, expected=_EXPECTED, fix=error.fix or "check the file") from error
    try:
        found: SavedWork = decoded(content, SavedWork)
        if found.sha256 != _hash_of(found):
            raise ValueError("it was changed after it was written, or is damaged: its hash does not fit")
        if math.prod(found.image.size) > PIXELS:
            raise ValueError(f"its image has more than {PIXELS} pixels")
        checked(plain_session(found.annotation), found.image.size)
        named = [(surface.name, surface.label) for surface in found.annotation.surfaces]
        if [(one.name, one.label) for one in found.objects] != named:
            raise ValueError("its objects are not those of its annotation")
    except (*UNFIT, AnnotationError) as error:
        raise _no_work(path, error) from error
    except MMMSDeployError as error:
        raise _no_work(path, error.given) from error
    return found


def _no_work(path: PathLike, reason: object) -> WorkError:
    return WorkError(f"{path} is no file of work: {reason}", expected=_EXPECTED, fix="check where it comes from")


def _hash_of(work: SavedWork) -> str:
    return hashlib.sha256(encoded(msgspec.structs.replace(work, sha256=NO_HASH))).hexdigest()


def _clicks(interactions: Iterable[object], undone: int) -> Iterable[Point]:
    every = list(interactions)
    for one in every[: len(every) - undone]:
        if isinstance(one, tuple):
            yield one[0], one[1], bool(one[2])

"""The calls of a session that keep its work in a file, and take it up again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from mmms_deploy.annotations import rle_of
from mmms_deploy.bundle.names import RGB
from mmms_deploy.errors import NoImageError, OtherImageError, SessionError
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike
from mmms_deploy.session.annotation_calls import AnnotationCalls
from mmms_deploy.session.facts import BundleFacts, EngineFacts, ImageFacts, bundle_facts, engine_facts, image_facts
from mmms_deploy.session.features import Features
from mmms_deploy.session.image_calls import ImageCalls
from mmms_deploy.session.inputs import ModalityLike
from mmms_deploy.session.mask_mark import agreement
from mmms_deploy.session.recorder import recorded
from mmms_deploy.session.result import ClickResult
from mmms_deploy.session.saved import SavedSession
from mmms_deploy.session.work import FORMAT, NO_HASH, VERSION, SavedObject, SavedWork, Work, read_work, write_work
from mmms_deploy.version import __version__


@dataclass(frozen=True)
class ObjectAgreement:
    """How far an object's mask is the one that a file has.

    Attributes:
        name: Name of its surface.
        iou: Their intersection over union, from 0 to 1; 1 where both are empty.
        pixels: How many pixels are in one of them alone.
        area: Pixels of the mask in the file.
        area_now: Pixels of the mask now.
    """

    name: str
    iou: float
    pixels: int
    area: int
    area_now: int


@dataclass(frozen=True, eq=False)
class LoadedWork:
    """What became of a file of work.

    Attributes:
        result: The answer to the clicks on the current surface.
        objects: Of every object how far its mask is the one in the file, oldest first.
        bundle: The bundle that the file was made with.
        engine: The engine that the file was made with.
        same_bundle: Whether this session has the same bundle.
        same_engine: Whether it runs the same version of the same library, on the same kind of device, in the same
            precision.
        same_views: Whether it zooms and flips as the session did.
        same_cleaning: Whether it cleans masks as the session did.
        same_image: Whether the image is the one that was annotated.
    """

    result: ClickResult
    objects: tuple[ObjectAgreement, ...]
    bundle: BundleFacts
    engine: EngineFacts
    same_bundle: bool
    same_engine: bool
    same_views: bool
    same_cleaning: bool
    same_image: bool

    @property
    def differing(self) -> tuple[ObjectAgreement, ...]:
        """The objects whose masks are other ones than in the file."""
        return tuple(one for one in self.objects if one.pixels)


class WorkCalls(ImageCalls, AnnotationCalls):
    """What a session does with files of work."""

    def save(self, path: PathLike, overwrite: bool = False) -> None:
        """Write the work to a file, whole or not at all: all objects, their interactions and masks.

        The image is not in it, only its size, its hash and the name of its file. :meth:`load` takes the work up again,
        here or elsewhere; :func:`mmms_deploy.session.read_work` reads objects and masks without a network.

        Args:
            path: The file: one JSON text (docs/journal.md).
            overwrite: Whether an existing file may be replaced.

        Raises:
            NoImageError: No image was set.
            OutputExistsError: The file exists, and may not be replaced.
            OutputWriteError: It cannot be written.
            EngineError: A mask that was not asked for yet cannot be fetched.
        """
        with self._lock:
            self._size()
            write_work(path, self._work, overwrite=overwrite)

    @recorded
    def load(
        self,
        path: PathLike,
        image: ImageLike | None = None,
        *,
        features: Features | None = None,
        other_image: bool = False,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> LoadedWork:
        """Take up the work that :meth:`save` kept, in the place of all surfaces.

        The network answers all clicks again: on the same bundle and engine the masks are the same, and any other gives
        its own, which are compared with those in the file. On any error everything stays as it is.

        Args:
            path: The file.
            image: The image that was annotated, as for :meth:`set_image`; None takes the one that is set.
            features: The same, encoded, as for :meth:`use`.
            other_image: Whether another image of the same size may take its place.
            channel_order: As for :meth:`set_image`.
            **modalities: As for :meth:`set_image`, where ``image`` is given.

        Returns:
            The answer to the clicks on the current surface, and how far all masks are those in the file.

        Raises:
            WorkError: The file cannot be read, was changed, or is something else.
            OtherImageError: The image is another one than the one that was annotated.
            NoImageError: No image was set, and none was given.
            SessionError: As for :meth:`restore`; or both an image and features were given, or modalities without an
                image.
            ImageError, ModalityError, FeatureError: As for :meth:`set_image` and :meth:`use`.
            EngineError: A stage failed.
        """
        with self._lock:
            self._check_open()
            if (image is not None and features is not None) or (image is None and modalities):
                raise SessionError(
                    "load got " + ("both an image and features" if features is not None else "modalities alone"),
                    expected="the image with its modalities, or its features, or neither where the image is set",
                    fix="pass image=..., or set the image first",
                )
            work = read_work(path)
            before = self._state
            try:
                if image is not None:
                    self.set_image(image, image=None, channel_order=channel_order, **modalities)
                elif features is not None:
                    self.use(features)
                same = self._check_image(work, before_load=image is None and features is None, other=other_image)
                result = self.restore(work.annotation)
                return self._loaded(work, result, same_image=same)
            except BaseException:
                self._state = before
                raise

    def _work(self) -> SavedWork:
        return SavedWork(
            format=FORMAT,  # type: ignore[arg-type]
            version=VERSION,  # type: ignore[arg-type]
            package=__version__,
            time=datetime.now(UTC),
            bundle=bundle_facts(self._bundle),
            engine=engine_facts(self._engine.info),
            zoom=None if self._views is None else self._views.zoom,
            flip=self._views is not None and self._views.flip,
            cleaning=self._cleaning,
            image=image_facts(self._state.image),
            annotation=msgspec.convert(self._steps.save(self), SavedSession),
            objects=tuple(self._saved_objects()),
            sha256=NO_HASH,
        )

    def _saved_objects(self) -> Iterator[SavedObject]:
        for one in self._objects():
            counts = rle_of(one.result.mask)["counts"]
            assert isinstance(counts, str)
            yield SavedObject(name=one.name, label=one.label, area=one.result.area, counts=counts)

    def _check_image(self, work: Work, *, before_load: bool, other: bool) -> bool:
        """Check that the image is the one that was annotated, and return whether it is.

        Raises:
            NoImageError: There is none.
            OtherImageError: It is another one, and may not be.
        """
        if self._state.image.content is None:
            raise NoImageError(
                "work was to be taken up, and no image is set",
                expected=f"the image that was annotated: {_called(work.image)}",
                fix="pass it: session.load(path, image=...)",
            )
        now = image_facts(self._state.image)
        different = self._other_parts(work, now)
        if different and not other:
            given = "that is set" if before_load else "that was given"
            raise OtherImageError(
                f"the image {given} is another one than the one that was annotated: {', '.join(different)} differ"
                + ("s" if len(different) == 1 else ""),
                expected=f"{_called(work.image)}, whose hash begins with {work.image.content[:12]}",
                fix="pass that image; or other_image=True to put the clicks on this one",
            )
        return not different

    def _other_parts(self, work: Work, now: ImageFacts) -> list[str]:
        """Return what differs of the image. Another bundle may measure modalities in other units, or take none."""
        names = sorted({*work.image.parts, *now.parts})
        if work.bundle.digest != self._manifest.digest and RGB in work.image.parts and RGB in now.parts:
            names = [RGB]
        different = [name for name in names if work.image.parts.get(name) != now.parts.get(name)]
        size = [] if work.image.size == now.size else ["the size"]
        return [*size, *(f"the part {name!r}" for name in different)]

    def _loaded(self, work: Work, result: ClickResult, *, same_image: bool) -> LoadedWork:
        stored = {one.name: one for one in work.objects}
        compared = []
        for one in self._objects():
            kept = stored[one.name]
            found = agreement(kept.mask, one.result.mask)
            compared.append(ObjectAgreement(one.name, found.iou, found.pixels, kept.area, one.result.area))
        engine, views = engine_facts(self._engine.info), self._views
        return LoadedWork(
            result=result,
            objects=tuple(compared),
            bundle=work.bundle,
            engine=work.engine,
            same_bundle=work.bundle.digest == self._manifest.digest,
            same_engine=_without_threads(engine) == _without_threads(work.engine),
            same_cleaning=work.cleaning == self._cleaning,
            same_views=(work.zoom, work.flip) == ((None, False) if views is None else (views.zoom, views.flip)),
            same_image=same_image,
        )


def _without_threads(engine: EngineFacts) -> EngineFacts:
    return msgspec.structs.replace(engine, threads=None)


def _called(image: ImageFacts) -> str:
    height, width = image.size
    named = f"{image.file_name!r}, " if image.file_name else "an image of "
    return f"{named}{width} x {height} pixels"

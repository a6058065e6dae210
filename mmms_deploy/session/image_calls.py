"""The calls of a session about its image: the image or its features, and the modalities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from time import perf_counter
from typing import Any, overload

import numpy.typing as npt

from mmms_deploy.arguments import items
from mmms_deploy.bundle import Precision, Rate
from mmms_deploy.bundle.names import RGB
from mmms_deploy.engines.protocol import Engine, EngineInfo, Value
from mmms_deploy.errors import EngineError, FeatureError, SessionError
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike, UInt8Array, load_rgb
from mmms_deploy.session.click_only import not_in_store
from mmms_deploy.session.content import Content, Part
from mmms_deploy.session.core import SessionCore, SessionState
from mmms_deploy.session.crops import Crops
from mmms_deploy.session.features import (
    FeatureKey,
    Features,
    FeatureSource,
    Resident,
    check_shape,
    origin_of,
    other_bundle,
    read_after_image,
)
from mmms_deploy.session.fitting import check_fitting, ran_up_to
from mmms_deploy.session.image_argument import the_image
from mmms_deploy.session.inputs import ImageState, Measured, ModalityLike, parts_of
from mmms_deploy.session.outputs import file_name_of, kept_picture
from mmms_deploy.session.pipeline import PipelineState
from mmms_deploy.session.recorder import recorded
from mmms_deploy.session.result import ImageTimings
from mmms_deploy.session.zoom import Box, whole


class ImageCalls(SessionCore):
    """What a session does with its image and its modalities."""

    # A mapping of modalities can be unpacked into the call: to a type checker it may then hold any of the keywords.
    @overload
    def set_image(self, rgb: ImageLike, **modalities: ModalityLike) -> ImageTimings: ...

    @overload
    def set_image(
        self,
        rgb: ImageLike | None = None,
        *,
        image: ImageLike | None = None,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> ImageTimings: ...

    @recorded  # type: ignore[misc]
    def set_image(
        self,
        rgb: ImageLike | None = None,
        *,
        image: ImageLike | None = None,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> ImageTimings:
        """Set a new image and forget the clicks on the previous one.

        On any error the previous image and its clicks stay as they are.

        Args:
            rgb: Array, PIL image, or file: its path, its bytes, or a file object. Arrays are (H0, W0, 3) uint8 in
                RGB order (those of OpenCV are BGR and need ``channel_order="bgr"``, or masks get worse unseen); or
                grey (H0, W0), with alpha, which is dropped, of uint16, where 65535 is white, or bool, as files are.
                Files and PIL images are turned upright as their EXIF orientation says.
            image: The same by its other name.
            channel_order: ``rgb``, or ``bgr`` for an array of OpenCV, such as ``cv2.imread`` gives. Files and PIL
                images say their own order.
            **modalities: For every modality of the bundle, by name: (H0, W0) or (H0, W0, C) array of numbers as
                stored, PIL image, or image or ``.npy`` file, registered to the image pixel by pixel. The bundle says
                how they are scaled, and which values mean that nothing was measured. Optional ones may be left out.
                With a bundle exported with ``--cut late``, any may be ``mmms_deploy.LATER``.

        Returns:
            Where the time went.

        Raises:
            ImageError: The image has a wrong type or shape, or cannot be read; there is none, or two.
            ModalityError: A modality is missing, surplus, of another size, channel count or dtype, or not finite.
            SessionError: The bundle was exported without its backbone, see :meth:`set_features`; or it is a click
                bundle, see :meth:`use`, and no store has the image's features.
            EngineError: A stage failed.
        """
        with self._lock:
            self._check_open()
            start = perf_counter()
            given = the_image(rgb, image, modalities, [spec.name for spec in self._manifest.modalities])
            pixels = load_rgb(given, channel_order)
            if self._store is None or not self._inputs.click_only:
                self._inputs.check_takes_image()
            kept = kept_picture(pixels, given) if self._keep_image or self._views is not None else None
            size = (pixels.shape[0], pixels.shape[1])
            measured = self._inputs.measured(size, modalities)
            part = Part(pixels, now=True) if kept is None else Part(kept)
            content = Content({RGB: part, **parts_of(measured.arrays)}, size)

            def begin() -> ImageState:
                if self._inputs.click_only:
                    raise not_in_store(self._manifest)
                return self._inputs.begin(self._inputs.prepare_image(pixels), content, measured)

            return self._begin(begin, content, measured, start, kept, file_name_of(given))

    @recorded
    def set_features(
        self,
        features: Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str],
        image_size: tuple[int, int] | None = None,
        **modalities: ModalityLike,
    ) -> ImageTimings:
        """Set a new image as the backbone's features, which a provider computed (paper appendix B).

        For bundles exported with ``--cut black-box``. On any error everything stays as it is.

        Args:
            features: ``backbone_1`` .. ``backbone_4``, each (1, d, H/P, W/P) or (d, H/P, W/P) float32 or float16: the
                raw patch tokens after the backbone's four blocks as maps, for the image prepared as the bundle's
                ``image`` says; or the path of an ``.npz`` file with these arrays
                (:mod:`mmms_deploy.session.backbone_features`).
            image_size: (H0, W0) of the image; clicks and masks are in its pixels. None takes the size in the file.
            **modalities: As for :meth:`set_image`.

        Returns:
            Where the time went.

        Raises:
            FeatureError: The features do not fit the bundle.
            ModalityError: As for :meth:`set_image`.
            SessionError: The bundle computes the features itself.
            EngineError: A stage failed.
        """
        with self._lock:
            self._check_open()
            start = perf_counter()
            arrays, size = self._inputs.prepare_features(features, image_size)
            measured = self._inputs.measured(size, modalities)
            content = Content({**parts_of(arrays), **parts_of(measured.arrays)}, size)

            def begin() -> ImageState:
                return self._inputs.begin(self._inputs.uploaded(arrays), content, measured)

            return self._begin(begin, content, measured, start)

    @recorded
    def use(self, features: Features) -> ImageTimings:
        """Start on an image that was encoded before, and forget the clicks on the previous one; no backbone runs.

        They may come from :meth:`mmms_deploy.Model.encode`, from another session or a file, and from another engine or
        precision of the same bundle; the masks are those of :meth:`set_image` with the engine that made them. On any
        error everything stays as it is.

        Args:
            features: The encoded image.

        Returns:
            Where the time went; ``found`` is True.

        Raises:
            FeatureError: They belong to another bundle, or were on the device of a model that is closed.
            SessionError: The session zooms or flips, and the features are without the image's pixels, or have
                modalities, of which it needs the maps.
        """
        with self._lock:
            self._check_open()
            start = perf_counter()
            if not isinstance(features, Features):
                raise FeatureError(
                    f"the features are of type {type(features).__qualname__}",
                    expected="what Model.encode, Session.features or Features.load returned",
                    fix="call set_image(image) for an image, or set_features(...) for a backbone's features",
                )
            self._check_for_views(features)
            parts = {name: Part.known(found) for name, found in features.parts.items()}
            content = Content(parts, features.size)
            measured = Measured({}, features.present, features.awaited)
            image = self._complete(self._found(features, content), measured, features.picture, features.file_name)
            return self._set(image, start, perf_counter(), found=True)

    @property
    def features(self) -> Features:
        """The current image, encoded, as a copy on the host: keep it, save it, and call :meth:`use` with it later.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            return self._encoded(self._state.image, resident=False)

    @recorded
    def set_modalities(self, **modalities: ModalityLike) -> ImageTimings:
        """Set modalities of the current image that arrive later or have changed; the image and the clicks stay.

        The stages that depend on them run again; with a bundle exported with ``--cut late`` that is never the backbone.
        The clicks are answered again, so that all masks, also those to undo and redo, are the same as with these
        modalities from the start. On any error everything stays as it is.

        Args:
            **modalities: By name, as for :meth:`set_image`; None takes an optional one away.

        Returns:
            Where the time went.

        Raises:
            NoImageError: No image was set.
            ModalityError: As for :meth:`set_image`, or none was given.
            EngineError: A stage failed.
        """
        with self._lock:
            self._size()
            start = perf_counter()
            image = replace(self._inputs.change(self._with_inputs(self._state.image), modalities), rounded=False)
            self._check_can_run(image)
            prepared = perf_counter()
            assert image.content is not None
            with self._kept(image.content, image.awaited) as known:
                found = None if known is None else self._fitting(known, image.content)
                if found is None:
                    image = self._run_and_keep(image)
                else:
                    values = {**image.pipeline.values, **found.pipeline.values}
                    image = replace(image, pipeline=replace(found.pipeline, values=values), rounded=found.rounded)
            if self._views is not None and not image.awaited:
                image = replace(image, crops=self._crops(image, flip=self._views.flip))
            self._runner.synchronize()
            self._state = SessionState(image, self._steps.rebuilt(self, image, self._blank()))
            return _image_timings(start, prepared, found=found is not None)

    def download_features(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Return what the stages before the clicks made of the image, for a click stage that runs elsewhere.

        Args:
            names: Names of inputs of the click stage that no click changes.

        Returns:
            Arrays of the engine's own dtype by name, as the manifest says their shapes.

        Raises:
            NoImageError: No image was set.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            SessionError: The session zooms or flips, and so has other features for every object; or there is no such
                tensor.
        """
        with self._lock:
            self._size()
            if self._views is not None:
                raise SessionError(
                    "features were asked of a session with zoom or flip, which has others for every crop",
                    expected="a session that shows the network the whole image",
                    fix="open it without zoom and flip",
                )
            image = self._state.image
            self._inputs.check_complete(image)
            expected = "a list of names of the click stage's inputs"
            wanted = items("the names of the features are", names, SessionError, expected=expected)
            return {name: self._runner.download(image.pipeline.value(name)) for name in wanted}

    @property
    def image_size(self) -> tuple[int, int]:
        """(H0, W0) of the image.

        Raises:
            NoImageError: There is none yet.
        """
        with self._lock:
            return self._size()

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities that are present for the current image."""
        with self._lock:
            self._size()
            return self._state.image.present

    @property
    def keep_image(self) -> bool:
        """Whether the session keeps the pixels of its image for overlays."""
        return self._keep_image

    def _begin(
        self,
        begin: Callable[[], ImageState],
        content: Content,
        measured: Measured,
        start: float,
        pixels: UInt8Array | None = None,
        file_name: str = "",
    ) -> ImageTimings:
        """Set an image, whose features the store has, or which is encoded here.

        Args:
            begin: Returns the image's state before any stage ran.
            content: What the image and its modalities are.
            measured: The modalities.
            start: When the call began.
            pixels: (H0, W0, 3) uint8, RGB: the image's pixels, where they are kept.
            file_name: Name of its file.
        """
        with self._kept(content, measured.awaited) as known:
            found = None if known is None else self._fitting(known, content)
            if found is None:
                image = begin()
                prepared = perf_counter()
                image = self._run_and_keep(replace(image, file_name=file_name))
            else:
                prepared = perf_counter()
                # A modality that changes later needs the inputs.
                image = replace(found, begin=begin if self._manifest.modalities else None)
        image = self._complete(image, measured, pixels, file_name)
        return self._set(image, start, prepared, found=found is not None)

    def _kept(self, content: Content, awaited: frozenset[str]) -> AbstractContextManager[Features | None]:
        """Enter before an image is encoded, and give its features where the store has them.

        What waits for a modality is not complete, and is in no store.
        """
        if self._store is None or awaited:
            return nullcontext()
        key = FeatureKey(content.hash, origin_of(self._manifest), self._engine.info.precision)
        if self._inputs.click_only:
            return nullcontext(self._of_any_precision(self._store, key, self._engine))
        return self._store.encoding(key, self._engine)

    @staticmethod
    def _of_any_precision(store: FeatureSource, key: FeatureKey, engine: Engine) -> Features | None:
        """Return features for a click bundle, which encodes no image itself."""
        for precision in (key.precision, *(other for other in Precision if other is not key.precision)):
            found = store.find(key._replace(precision=precision), engine)
            if found is not None:
                return found
        return None

    def _fitting(self, known: Features, content: Content) -> ImageState | None:
        """Return the state of an image whose features a store gave; None where they do not fit, and are forgotten.

        Raises:
            FeatureError: They do not fit a click bundle, which cannot make them again.
        """
        assert self._store is not None
        try:
            image = self._found(known, content)
        except FeatureError:
            if self._inputs.click_only:
                raise
            self._store.forget(known.key)
            return None
        if known.resident is None:
            self._hold(image)
        return image

    def _run_and_keep(self, image: ImageState) -> ImageState:
        """Run the stages that need no click, and return the image as the store will give it."""
        image = self._run_image(image)
        if self._store is None or image.awaited:
            return image
        assert image.content is not None
        made = self._encoded(image, resident=False)
        kept = self._store.keep(made)
        if kept is not made:
            found = self._fitting(kept, image.content)
            if found is not None:
                values = {**image.pipeline.values, **found.pipeline.values}
                image = replace(image, pipeline=replace(image.pipeline, values=values), rounded=found.rounded)
        else:
            self._hold(image)
        return image

    def _hold(self, image: ImageState) -> None:
        """Have the store keep an image's features on the device, where that is not the host."""
        if self._store is None or self._engine.info.device == "cpu":
            return
        with suppress(EngineError):  # there is no memory for them
            self._store.hold(self._encoded(image, resident=True).without_picture())

    def _with_inputs(self, image: ImageState) -> ImageState:
        """Return an image with the inputs of all stages, also where a store had its features."""
        if image.begin is None:
            return image
        values = {**image.begin().pipeline.values, **image.pipeline.values}
        return replace(image, pipeline=replace(image.pipeline, values=values), begin=None)

    def _set(self, image: ImageState, start: float, prepared: float, *, found: bool) -> ImageTimings:
        """Make an image the session's, with the objects that it had before where they are remembered."""
        before = self._state
        self._remember(before)
        self._state = SessionState(image, self._steps.first(self._blank(), self._limit))
        try:
            self._recall(image)
        except BaseException:
            self._state = before
            raise
        return _image_timings(start, prepared, found=found)

    def _complete(self, image: ImageState, measured: Measured, pixels: UInt8Array | None, file_name: str) -> ImageState:
        """Return an image's state with all that a session keeps of it, once its features are there."""
        image = replace(
            image,
            picture=pixels if self._keep_image else None,
            pixels=None if self._views is None else pixels,
            measured=self._inputs.kept(measured.arrays),
            file_name=file_name,
        )
        if self._views is not None and not image.awaited:
            image = replace(image, crops=self._crops(image, flip=self._views.flip))
        self._steps.expect(self, self._size_of(image))
        self._runner.synchronize()
        return image

    def _found(self, features: Features, content: Content) -> ImageState:
        """Return the state of an image that was encoded before.

        Raises:
            FeatureError: The features do not fit the bundle.
        """
        if features.bundle != origin_of(self._manifest):
            raise other_bundle(features, self._manifest)
        if self._inputs.click_only:
            features = features.for_clicks(self._manifest)
        check_fitting(features, self._manifest, self._pipeline)
        resident = features.resident
        if resident is not None and resident.engine is self._engine and resident.is_open():
            values = dict(resident.values)
            rounded = features.in_half
        else:
            values, rounded = {}, features.in_half
            for name, array in features.arrays.items():
                spec = self._pipeline.spec(name)
                check_shape(name, array, None if spec is None else spec.shape)
                assert spec is not None
                rounded = rounded or (spec.dtype == "float32" and array.dtype == "float16")
                values[name] = self._runner.upload(spec, array)
        values.update({name: values[source] for name, source in features.aliases.items()})
        return ImageState(
            self._pipeline.given(values, features.bypassed, ran_up_to(features)),
            features.size,
            features.present,
            features.awaited,
            content=content,
            rounded=rounded,
        )

    def _check_for_views(self, features: Features) -> None:
        """Check that features come with all that crops and mirror images are made of."""
        if self._views is None or (features.picture is not None and not features.present and not features.awaited):
            return
        lacking = "the image's pixels" if features.picture is None else "the maps of its modalities"
        raise SessionError(
            f"these features are without {lacking}, and the session zooms or flips",
            expected="the image, of which the session shows parts to the network",
            fix="call set_image(...), which runs no backbone where a store has the features of the whole image; or"
            " encode with keep_image=True",
        )

    def _encoded(self, image: ImageState, *, resident: bool) -> Features:
        """Return an image as features.

        Args:
            image: The image.
            resident: Whether they stay on the device until they are asked for.
        """
        assert image.content is not None
        names: dict[int, str] = {}
        values, aliases = {}, {}
        wanted = read_after_image(self._manifest)
        for name, value in image.pipeline.values.items():
            if name not in wanted:
                continue
            source = names.setdefault(id(value), name)
            if source == name:
                values[name] = self._runner.detach(value) if resident else value
            else:
                aliases[name] = source
        features = Features(
            size=image.content.size,
            parts={name: part.hash for name, part in image.content.parts.items()},
            bundle=origin_of(self._manifest),
            precision=self._engine.info.precision,
            engine=_words(self._engine.info),
            present=image.present,
            awaited=image.awaited,
            bypassed=image.pipeline.bypassed,
            aliases=aliases,
            file_name=image.file_name,
            picture=image.picture,
            in_half=image.rounded,
            resident=Resident(self._engine, values, self._downloaded, lambda: not self._closed),
        )
        return features if resident else features.on_host()

    def _downloaded(self, value: Value) -> npt.NDArray[Any]:
        with self._lock:
            self._check_open()
            return self._runner.download(value)

    def _check_can_run(self, image: ImageState) -> None:
        """Check that a modality that changed does not need the image, where only its features are there.

        Raises:
            SessionError: It does.
        """
        missing = self._pipeline.missing(image.pipeline, Rate.MODALITY)
        if missing:
            raise SessionError(
                f"a modality changes what the image's stage computes, and {', '.join(missing)} is not there: the"
                " session started on features",
                expected="the image, or a bundle that was exported with --cut late",
                fix="call set_image(...) with the image and all modalities",
            )

    def _run_image(self, image: ImageState) -> ImageState:
        """Run the stages that need no click."""
        pipeline = self._pipeline.run(image.pipeline, Rate.IMAGE if image.awaited else Rate.MODALITY)
        if not self._manifest.modalities:  # none will change, so that these stages do not run again
            pipeline = self._pipeline.without_spent(pipeline, Rate.MODALITY)
        return replace(image, pipeline=pipeline)

    def _crops(self, image: ImageState, *, flip: bool) -> Crops:
        """Return the features of an image's crops, of which the whole picture's are there."""

        def compute(box: Box, mirrored: bool) -> PipelineState:
            features = self._pipeline.run(self._inputs.cropped(image, box, mirrored=mirrored), Rate.MODALITY)
            return self._pipeline.without_spent(features, Rate.MODALITY)

        picture = whole(self._size_of(image))
        crops = Crops(compute, picture, image.pipeline)
        if flip:
            crops.at(picture, mirrored=True)
        return crops


def _words(info: EngineInfo) -> str:
    """Return what ran the stages; how many threads it had does not count."""
    return f"{info.library} {info.version} on {info.device}"


def _image_timings(start: float, prepared: float, *, found: bool = False) -> ImageTimings:
    end = perf_counter()
    return ImageTimings(
        prepare=1e3 * (prepared - start), engine=1e3 * (end - prepared), total=1e3 * (end - start), found=found
    )

"""The calls of a session about its image: the image or its features, and the modalities."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, overload

import numpy.typing as npt

from mmms_deploy.bundle import Rate
from mmms_deploy.errors import SessionError
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike, UInt8Array, load_rgb
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.core import SessionCore, SessionState
from mmms_deploy.session.crops import Crops
from mmms_deploy.session.image_argument import the_image
from mmms_deploy.session.inputs import ImageState, ModalityLike
from mmms_deploy.session.outputs import file_name_of, kept_picture
from mmms_deploy.session.pipeline import PipelineState
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

    def set_image(  # type: ignore[misc]
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
            SessionError: The bundle was exported without its backbone; see :meth:`set_features`.
            EngineError: A stage failed.
        """
        with self._lock:
            self._check_open()
            start = perf_counter()
            given = the_image(rgb, image, modalities, [spec.name for spec in self._manifest.modalities])
            pixels = load_rgb(given, channel_order)
            arrays = self._inputs.prepare_image(pixels)
            kept = kept_picture(pixels, given) if self._keep_image or self._views is not None else None
            source = file_name_of(given)
            return self._begin(arrays, (pixels.shape[0], pixels.shape[1]), modalities, start, kept, source)

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
                ``image`` says; or the path of an ``.npz`` file with these arrays (:mod:`mmms_deploy.session.features`).
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
            return self._begin(arrays, size, modalities, start)

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
            image = self._inputs.change(self._state.image, modalities)
            prepared = perf_counter()
            image = self._run_image(image)
            self._state = SessionState(image, self._steps.rebuilt(self, image, self._blank()))
            return _image_timings(start, prepared)

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
            return {name: self._runner.download(image.pipeline.value(name)) for name in names}

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
        arrays: Mapping[str, FloatArray],
        size: tuple[int, int],
        modalities: Mapping[str, ModalityLike],
        start: float,
        pixels: UInt8Array | None = None,
        file_name: str = "",
    ) -> ImageTimings:
        image = replace(
            self._inputs.begin(arrays, size, modalities),
            picture=pixels if self._keep_image else None,
            pixels=None if self._views is None else pixels,
            file_name=file_name,
        )
        prepared = perf_counter()
        image = self._run_image(image)
        self._state = SessionState(image, self._steps.first(self._blank(), self._limit))
        return _image_timings(start, prepared)

    def _run_image(self, image: ImageState) -> ImageState:
        """Run the stages that need no click."""
        pipeline = self._pipeline.run(image.pipeline, Rate.IMAGE if image.awaited else Rate.MODALITY)
        image = replace(image, pipeline=pipeline)
        if self._views is not None and not image.awaited:
            image = replace(image, crops=self._crops(image, flip=self._views.flip))
        self._runner.synchronize()
        return image

    def _crops(self, image: ImageState, *, flip: bool) -> Crops:
        """Return the features of an image's crops, of which the whole picture's are there."""

        def compute(box: Box, mirrored: bool) -> PipelineState:
            return self._pipeline.run(self._inputs.cropped(image, box, mirrored=mirrored), Rate.MODALITY)

        picture = whole(self._size_of(image))
        crops = Crops(compute, picture, image.pipeline)
        if flip:
            crops.at(picture, mirrored=True)
        return crops


def _image_timings(start: float, prepared: float) -> ImageTimings:
    end = perf_counter()
    return ImageTimings(prepare=1e3 * (prepared - start), engine=1e3 * (end - prepared), total=1e3 * (end - start))

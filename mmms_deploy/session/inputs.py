"""The inputs that a session sets before the clicks: an image or its backbone features, and modalities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.arguments import shown, whole
from mmms_deploy.bundle import Manifest, Rate, Role
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.bundle.names import PRESENT, RGB
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import FeatureError, ModalityError, SessionError
from mmms_deploy.imaging.io import ImageLike, UInt8Array
from mmms_deploy.imaging.preprocess import load_modalities, prepare, within_reach
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.backbone_features import checked_features, load_features
from mmms_deploy.session.click_only import takes_no_backbone, takes_no_image, takes_no_modalities
from mmms_deploy.session.content import MOST_PIXELS, Content, Part
from mmms_deploy.session.crops import Crops
from mmms_deploy.session.pipeline import PipelineState, StagePipeline
from mmms_deploy.session.zoom import Box

LONGEST = 1 << 20
"""The longest side of an image, in pixels."""


class Later(Enum):
    """The type of :data:`LATER`."""

    LATER = "later"


LATER: Final = Later.LATER
"""Passed to ``Session.set_image`` for a modality that arrives later, with ``Session.set_modalities``."""

ModalityLike: TypeAlias = "ImageLike | Literal[Later.LATER] | None"
"""What a session takes for a modality; None for one that is not present."""


@dataclass(frozen=True, eq=False)
class ImageState:
    """An image at one moment: what was set, and what the stages made of it. It never changes.

    Attributes:
        pipeline: The values on the device.
        size: (H0, W0) of the image; None before the first one.
        present: Names of the modalities that are there.
        awaited: Names of required modalities that were announced with ``LATER``.
        picture: (H0, W0, 3) uint8, RGB: its pixels, where they are kept for overlays.
        file_name: Name of its file; empty where it is none.
        pixels: (H0, W0, 3) uint8, RGB: the same, where a session crops or mirrors them; None in any other.
        measured: (H0, W0, C) float32 by name: the modalities in the network's units, in such a session.
        crops: The features of its crops, in such a session, once every modality is there.
        content: What the image and its modalities are; None before the first image.
        begin: Returns the state before any stage ran, where a store had the features, so that no input was set; None
            in any other.
        rounded: Whether its features were rounded to float16, though the stages compute them in float32.
    """

    pipeline: PipelineState
    size: tuple[int, int] | None = None
    present: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    picture: UInt8Array | None = None
    file_name: str = ""
    pixels: UInt8Array | None = None
    measured: Mapping[str, FloatArray] = field(default_factory=dict)
    crops: Crops | None = None
    content: Content | None = None
    begin: Callable[[], ImageState] | None = None
    rounded: bool = False


@dataclass(frozen=True, eq=False)
class Measured:
    """The modalities of a new image.

    Attributes:
        arrays: (H0, W0, C) float32 by name, in the network's units.
        present: Names of those that are there.
        awaited: Names of required ones that come later.
    """

    arrays: Mapping[str, FloatArray]
    present: frozenset[str]
    awaited: frozenset[str]


def parts_of(measured: Mapping[str, FloatArray]) -> dict[str, Part]:
    """Return the hashes of modalities, which are not kept for them."""
    return {name: Part(array, now=True) for name, array in measured.items()}


class ImageInputs:
    """Sets the inputs of a pipeline that do not come from clicks.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.
        for_crops: Whether crops of an image are wanted later, so that what they are made of is kept.
    """

    def __init__(self, manifest: Manifest, pipeline: StagePipeline, *, for_crops: bool = False) -> None:
        self._manifest = manifest
        self._pipeline = pipeline
        self._for_crops = for_crops
        self._names = tuple(spec.name for spec in manifest.modalities)
        self._optional = frozenset(spec.name for spec in manifest.modalities if spec.optional)
        self._late = any(stage.rate is Rate.MODALITY for stage in manifest.stages)
        self.click_only = manifest.click_only
        features = tuple(spec for spec in pipeline.inputs.values() if spec.role is Role.FEATURE)
        self.backbone = () if self.click_only else features

    def check_takes_image(self) -> None:
        """Check that the bundle takes an image.

        Raises:
            SessionError: The bundle starts at the backbone's features, or at the clicks.
        """
        if self.click_only:
            raise takes_no_image(self._manifest)
        if self.backbone:
            raise SessionError(
                f"{self._manifest.name} was exported without its backbone, so that it takes no image",
                expected=f"the backbone's features {', '.join(spec.name for spec in self.backbone)}",
                fix="call set_features(...) with what the provider computed, or export again without the cut"
                " 'black-box'",
                command_fix="pass --features FILE to mmms-segment, with what the provider computed, or export without"
                " --cut black-box",
            )

    def prepare_image(self, image: npt.NDArray[np.uint8], *, mirrored: bool = False) -> dict[str, Value]:
        """Return the pipeline's inputs for an RGB image (H0, W0, 3) uint8, on the device.

        Args:
            image: The image.
            mirrored: Whether its mirror image is wanted.

        Raises:
            SessionError: The bundle starts at the backbone's features.
            EngineError: The engine failed.
        """
        self.check_takes_image()
        return {RGB: self._prepared_on_device(RGB, image, self._manifest.image, mirrored)}

    def _prepared_on_device(
        self, name: str, array: npt.NDArray[Any], rule: ImageSpec | ModalitySpec, mirrored: bool
    ) -> Value:
        """Return an image or a modality as the network takes it: prepared by the engine, or else here."""
        if self._pipeline.prepares_images and (isinstance(rule, ImageSpec) or within_reach(array, rule)):
            value = self._pipeline.upload_prepared(name, array, rule, mirrored=mirrored)
            if value is not None:
                return value
        prepared = prepare(array, rule, self._manifest.size)
        return self._pipeline.upload(name, np.ascontiguousarray(prepared[..., ::-1]) if mirrored else prepared)

    def prepare_features(
        self, features: Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str], image_size: tuple[int, int] | None
    ) -> tuple[dict[str, FloatArray], tuple[int, int]]:
        """Return the pipeline's inputs for a backbone's features, and the size (H0, W0) of their image.

        Raises:
            FeatureError: They do not fit the bundle, or there is no image size.
            SessionError: The bundle starts at the image, or at the clicks.
        """
        if self.click_only:
            raise takes_no_backbone(self._manifest)
        if not self.backbone:
            raise SessionError(
                f"{self._manifest.name} computes its backbone's features itself",
                expected="an image",
                fix="call set_image(...), or export with the cut 'black-box'",
                command_fix="leave out --features, or export with --cut black-box",
            )
        if not isinstance(features, Mapping):
            features, stored_size = load_features(features)
            image_size = image_size or stored_size
        return checked_features(features, self.backbone), _checked_size(image_size)

    def measured(self, image_size: tuple[int, int], modalities: Mapping[str, ModalityLike]) -> Measured:
        """Return the modalities of a new image in the network's units, checked.

        Args:
            image_size: (H0, W0) of the image.
            modalities: Modalities by name; ``LATER`` for one that comes later, None or no entry for one that does not.

        Raises:
            ModalityError: One is missing or surplus, or does not fit.
        """
        self._check_names(modalities)
        given = {name: value for name, value in modalities.items() if value is not None and value is not LATER}
        awaited = frozenset(name for name, value in modalities.items() if value is LATER)
        missing = [name for name in self._names if name not in {*given, *awaited, *self._optional}]
        if missing:
            raise self._wrong_names(modalities, missing=missing)
        measured = load_modalities(given, self._manifest.modalities, image_size)
        return Measured(measured, frozenset(given), awaited - self._optional)

    def uploaded(self, arrays: Mapping[str, FloatArray]) -> dict[str, Value]:
        """Return the pipeline's inputs for a backbone's features, on the device."""
        return {name: self._pipeline.upload(name, array) for name, array in arrays.items()}

    def begin(self, values: Mapping[str, Value], content: Content, measured: Measured) -> ImageState:
        """Return the state of a new image and its modalities; no stage has run.

        Args:
            values: The inputs for the image or its backbone features, by name, on the device.
            content: What they are.
            measured: The modalities.

        Raises:
            ModalityError: A normalised number of a modality is too large.
        """
        pipeline = self._pipeline.set(self._pipeline.start(), values)
        image = ImageState(
            pipeline,
            content.size,
            frozenset(),
            measured.awaited,
            measured=self.kept(measured.arrays),
            content=content,
        )
        return self._feed(image, self._prepared(measured.arrays), measured.present)

    def change(self, image: ImageState, modalities: Mapping[str, ModalityLike]) -> ImageState:
        """Return the state of an image with modalities that are new, have changed, or are gone (None).

        Args:
            image: The image before.
            modalities: Modalities by name.

        Raises:
            ModalityError: One is unknown, does not fit, or is gone though it is required.
        """
        self._check_names(modalities)
        if image.size is None or not modalities or any(value is LATER for value in modalities.values()):
            raise ModalityError(
                f"modalities given: {', '.join(modalities) or 'none'}",
                expected="at least one, now that the image is set, with its map",
                fix="call set_modalities(NAME=map); LATER is for set_image alone",
            )
        gone = frozenset(name for name, value in modalities.items() if value is None)
        if gone - self._optional:
            raise self._wrong_names(modalities, missing=sorted(gone - self._optional))
        given = {name: value for name, value in modalities.items() if value is not None and value is not LATER}
        measured = load_modalities(given, self._manifest.modalities, image.size)
        left = {name: array for name, array in image.measured.items() if name not in gone}
        kept = {**left, **self.kept(measured)}
        assert image.content is not None
        content = image.content.changed(parts_of(measured), gone)
        image = replace(image, awaited=image.awaited - frozenset(given), measured=kept, crops=None, content=content)
        return self._feed(image, self._prepared(measured), (image.present | frozenset(given)) - gone)

    def cropped(self, image: ImageState, box: Box, *, mirrored: bool) -> PipelineState:
        """Return the inputs of a part of an image and its modalities, or of its mirror image; no stage has run.

        Args:
            image: The image, with its pixels.
            box: The part.
            mirrored: Whether its mirror image is wanted.
        """
        assert image.pixels is not None
        values = self.prepare_image(image.pixels[box.slices], mirrored=mirrored)
        parts = {name: array[box.slices] for name, array in image.measured.items()}
        prepared = self._prepared(parts, mirrored=mirrored)
        start = replace(image, pipeline=self._pipeline.set(self._pipeline.start(), values))
        return self._feed(start, prepared, image.present).pipeline

    @staticmethod
    def check_complete(image: ImageState) -> None:
        """Check that no required modality of an image is still to come.

        Raises:
            ModalityError: One is.
        """
        if image.awaited:
            raise ModalityError(
                f"modalities announced with LATER that are not there yet: {', '.join(sorted(image.awaited))}",
                expected="every modality before the first click",
                fix=f"call set_modalities({', '.join(f'{name}=...' for name in sorted(image.awaited))}) first",
            )

    def kept(self, measured: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        """Return what is kept of the modalities."""
        return measured if self._for_crops else {}

    def _prepared(self, measured: Mapping[str, FloatArray], *, mirrored: bool = False) -> dict[str, Value]:
        specs = {spec.name: spec for spec in self._manifest.modalities}
        return {name: self._prepared_on_device(name, array, specs[name], mirrored) for name, array in measured.items()}

    def _feed(self, image: ImageState, prepared: Mapping[str, Value], present: frozenset[str]) -> ImageState:
        state = self._pipeline.bypass(image.pipeline, not present)
        values: dict[str, Value] = {}
        unread = set()
        for name in self._names:
            if name in prepared:
                values[name] = prepared[name]
            elif name not in present and self._pipeline.reads(state, name) and name not in image.awaited:
                values[name] = self._pipeline.zeros(name)
            elif name not in present:
                unread.add(name)  # no stage reads it now; an older value must not come back
        if self._pipeline.reads(state, PRESENT):
            flags = np.array([[float(name in present) for name in self._names]], dtype=np.float32)
            values[PRESENT] = self._pipeline.upload(PRESENT, flags)
        state = self._pipeline.set(self._pipeline.clear(state, unread), values)
        return replace(image, pipeline=state, present=present)

    def _check_names(self, given: Mapping[str, object]) -> None:
        if self.click_only and given:
            raise takes_no_modalities(self._manifest, ", ".join(given))
        surplus = [name for name in given if name not in self._names]
        early = [name for name, value in given.items() if value is LATER and not self._late]
        if surplus:
            raise self._wrong_names(given, surplus=surplus)
        if early:
            raise ModalityError(
                f"{', '.join(early)} announced with LATER",
                expected="every modality with the image: this bundle computes both in one stage",
                fix="export it again with mmms-export --cut late, or pass the modality to set_image",
            )

    def _wrong_names(
        self, given: Mapping[str, object], missing: list[str] | None = None, surplus: list[str] | None = None
    ) -> ModalityError:
        wrong = [f"{kind}: {', '.join(names)}" for kind, names in (("missing", missing), ("surplus", surplus)) if names]
        takes = ", ".join(f"{name} (optional)" if name in self._optional else name for name in self._names)
        call = ", ".join([RGB, *(f"{name}=..." for name in self._names)])
        later = f", or {missing[0]}=LATER when it comes later" if missing and self._late else ""
        options = " ".join(f"--modality {name}=FILE" for name in self._names)
        return ModalityError(
            f"modalities given: {', '.join(given) or 'none'} ({'; '.join(wrong)})",
            expected=f"modalities of this bundle: {takes or 'none, it takes RGB alone'}",
            fix=f"call set_image({call}){later}",
            command_fix=f"pass {options}" if options else "leave out --modality",
        )


def _checked_size(size: object) -> tuple[int, int]:
    """Return the size of an image that a caller gives, checked.

    Raises:
        FeatureError: It is no pair of whole numbers, or they are no sides of an image.
    """
    listed = isinstance(size, Sequence) or (isinstance(size, np.ndarray) and size.ndim == 1)
    sides = [whole(side) for side in iter(size)] if listed and not isinstance(size, str | bytes) else []  # type: ignore[call-overload]
    height, width = sides if len(sides) == 2 else (None, None)
    fits = height is not None and width is not None and 1 <= height <= LONGEST and 1 <= width <= LONGEST
    if height is None or width is None or not fits or height * width > MOST_PIXELS:
        raise FeatureError(
            f"image_size is {shown(size, 80)}",
            expected=f"(H0, W0), the size of the image that the features belong to: two whole numbers of pixels from 1"
            f" to {LONGEST}, and at most {MOST_PIXELS} pixels",
            fix="pass image_size=(height, width)",
        )
    return height, width

"""The inputs that a session sets before the clicks: an image or its backbone features, and modalities."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Manifest, Rate, Role
from mmms_deploy.bundle.names import PRESENT, RGB
from mmms_deploy.errors import FeatureError, ModalityError, SessionError
from mmms_deploy.imaging.io import ImageLike
from mmms_deploy.imaging.preprocess import load_modalities, prepare
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.features import checked_features, load_features
from mmms_deploy.session.pipeline import StagePipeline


class Later(Enum):
    """The type of :data:`LATER`."""

    LATER = "later"


LATER: Final = Later.LATER
"""Passed to ``Session.set_image`` for a modality that arrives later, with ``Session.set_modalities``."""

ModalityLike: TypeAlias = "ImageLike | Literal[Later.LATER] | None"
"""What a session takes for a modality; None for one that is not present."""


class ImageInputs:
    """Sets the inputs of a pipeline that do not come from clicks, and knows which modalities are present.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.
    """

    def __init__(self, manifest: Manifest, pipeline: StagePipeline) -> None:
        self._manifest = manifest
        self._pipeline = pipeline
        self._names = tuple(spec.name for spec in manifest.modalities)
        self._optional = frozenset(spec.name for spec in manifest.modalities if spec.optional)
        self._late = any(stage.rate is Rate.MODALITY for stage in manifest.stages)
        self.backbone = tuple(spec for spec in pipeline.inputs.values() if spec.role is Role.FEATURE)
        self.image_size: tuple[int, int] | None = None
        self.present: frozenset[str] = frozenset()
        self.awaited: frozenset[str] = frozenset()

    def save(self) -> tuple[Any, ...]:
        """Return everything held now, the pipeline's values included, for :meth:`restore`."""
        return self.image_size, self.present, self.awaited, self._pipeline.save()

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Go back to what :meth:`save` returned."""
        self.image_size, self.present, self.awaited, state = saved
        self._pipeline.restore(state)

    def prepare_image(self, image: npt.NDArray[np.uint8]) -> dict[str, FloatArray]:
        """Return the pipeline's inputs for an RGB image (H0, W0, 3) uint8.

        Raises:
            SessionError: The bundle starts at the backbone's features.
        """
        if self.backbone:
            raise SessionError(
                f"{self._manifest.name} was exported without its backbone, so that it takes no image",
                expected=f"the backbone's features {', '.join(spec.name for spec in self.backbone)}",
                fix="call set_features(...) with what the provider computed, or export again without the cut"
                " 'black-box'",
                command_fix="pass --features FILE to mmms-segment, with what the provider computed, or export without"
                " --cut black-box",
            )
        return {RGB: prepare(image, self._manifest.image, self._manifest.size)}

    def prepare_features(
        self, features: Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str], image_size: tuple[int, int] | None
    ) -> tuple[dict[str, FloatArray], tuple[int, int]]:
        """Return the pipeline's inputs for a backbone's features, and the size (H0, W0) of their image.

        Raises:
            FeatureError: They do not fit the bundle, or there is no image size.
            SessionError: The bundle starts at the image.
        """
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
        if image_size is None or len(image_size) != 2 or min(image_size) < 1:
            raise FeatureError(
                f"image_size is {image_size}",
                expected="(H0, W0), the size of the image that the features belong to, in pixels",
                fix="pass image_size=(height, width)",
            )
        return checked_features(features, self.backbone), (int(image_size[0]), int(image_size[1]))

    def begin(
        self, arrays: Mapping[str, FloatArray], image_size: tuple[int, int], modalities: Mapping[str, ModalityLike]
    ) -> None:
        """Set a new image and its modalities.

        Args:
            arrays: The inputs for the image or its backbone features, by name.
            image_size: (H0, W0) of the image.
            modalities: Modalities by name; ``LATER`` for one that comes later, None or no entry for one that does not.

        Raises:
            ModalityError: One is missing or surplus, or does not fit; the pipeline is as it was.
        """
        self._check_names(modalities)
        given = {name: value for name, value in modalities.items() if value is not None and value is not LATER}
        awaited = frozenset(name for name, value in modalities.items() if value is LATER)
        missing = [name for name in self._names if name not in {*given, *awaited, *self._optional}]
        if missing:
            raise self._wrong_names(modalities, missing=missing)
        prepared = self._prepare(given, image_size)
        for name, array in arrays.items():
            self._pipeline.set(name, array)
        self.image_size, self.present, self.awaited = image_size, frozenset(), awaited - self._optional
        self._feed(prepared, frozenset(given))

    def change(self, modalities: Mapping[str, ModalityLike]) -> None:
        """Set modalities of the current image that are new, have changed, or are gone (None).

        Raises:
            ModalityError: One is unknown, does not fit, or is gone though it is required; the pipeline is as it was.
        """
        self._check_names(modalities)
        size = self.image_size
        if size is None or not modalities or any(value is LATER for value in modalities.values()):
            raise ModalityError(
                f"modalities given: {', '.join(modalities) or 'none'}",
                expected="at least one, now that the image is set, with its map",
                fix="call set_modalities(NAME=map); LATER is for set_image alone",
            )
        gone = frozenset(name for name, value in modalities.items() if value is None)
        if gone - self._optional:
            raise self._wrong_names(modalities, missing=sorted(gone - self._optional))
        given = {name: value for name, value in modalities.items() if value is not None and value is not LATER}
        prepared = self._prepare(given, size)
        self.awaited -= frozenset(given)
        self._feed(prepared, (self.present | frozenset(given)) - gone)

    def check_complete(self) -> None:
        """Check that no required modality is still to come.

        Raises:
            ModalityError: One is.
        """
        if self.awaited:
            raise ModalityError(
                f"modalities announced with LATER that are not there yet: {', '.join(sorted(self.awaited))}",
                expected="every modality before the first click",
                fix=f"call set_modalities({', '.join(f'{name}=...' for name in sorted(self.awaited))}) first",
            )

    def _prepare(self, given: Mapping[str, ImageLike], image_size: tuple[int, int]) -> dict[str, FloatArray]:
        loaded = load_modalities(given, self._manifest.modalities, image_size)
        specs = {spec.name: spec for spec in self._manifest.modalities}
        return {name: prepare(array, specs[name], self._manifest.size) for name, array in loaded.items()}

    def _feed(self, prepared: Mapping[str, FloatArray], present: frozenset[str]) -> None:
        self.present = present
        self._pipeline.bypass(not present)
        for name in self._names:
            if name in prepared:
                self._pipeline.set(name, prepared[name])
            elif name not in present and self._pipeline.reads(name) and name not in self.awaited:
                self._pipeline.set_zeros(name)
            elif name not in present:
                self._pipeline.clear(name)  # no stage reads it now; the value of an older image must not come back
        if self._pipeline.reads(PRESENT):
            flags = np.array([[float(name in present) for name in self._names]], dtype=np.float32)
            self._pipeline.set(PRESENT, flags)

    def _check_names(self, given: Mapping[str, object]) -> None:
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

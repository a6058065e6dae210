"""Finds images by the hashes of their content; names say only what is tried first."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.names import RGB
from mmms_deploy.errors import ImageMissingError, JournalError, MMMSDeployError, MMMSDeployWarning
from mmms_deploy.files import PathLike, as_path
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.imaging.preprocess import load_modalities
from mmms_deploy.session import LATER, Features, Session
from mmms_deploy.session.content import Part
from mmms_deploy.session.facts import ImageFacts
from mmms_deploy.session.features import FeatureKey, origin_of
from mmms_deploy.session.features_file import SUFFIX

PICTURES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pbm"}
    | {".pnm", ".pfm"}
)
_NUMBERS = PICTURES | {".npy"}
_MOST_FILES = 1_000_000


class FeatureFinder(Protocol):
    """Gives features by what they are kept by, as every store does."""

    def find(self, key: FeatureKey) -> Features | None:
        """Return features that are kept; None where they are not."""
        ...


class Images:
    """Where images, modalities and features lie.

    Files are read when they are looked for, and each is hashed once.

    Args:
        places: Folders, which are searched with all folders below, and files.
        features: Features by what they are kept by, such as a store.

    Raises:
        JournalError: There is nothing at a place.
    """

    def __init__(self, places: Iterable[PathLike] = (), features: FeatureFinder | None = None) -> None:
        self._places = [as_path(place, "a place of images") for place in places]
        for place in self._places:
            if not place.exists():
                raise JournalError(
                    f"there is nothing at {place}", expected="a folder of images, or a file", fix="check the path"
                )
        self._features = features
        self._files: list[Path] | None = None
        self._parts: dict[tuple[str, Path], str | None] = {}

    def give(self, session: Session, image: ImageFacts) -> None:
        """Set an image in a session: as features where a store has them, else as pixels with its modalities.

        Files of features take the place of pixels that are not there: they may come from another engine, or be rounded.
        Features that the session before had in half precision are rounded here, too.

        Args:
            session: The session.
            image: What is known of the image.

        Raises:
            ImageMissingError: It is not here.
            MMMSDeployError: The session refuses it.
        """
        features = self._kept(session, image)
        if features is not None:
            session.use(features)
            return
        try:
            self._give_pixels(session, image)
        except ImageMissingError:
            features = self._from_file(session, image)
            if features is None:
                raise
            session.use(features)
        if image.rounded is True and not image.awaited:
            halves = session.features.rounded()
            if halves is not None and _usable(halves, session):
                session.use(halves)

    def _give_pixels(self, session: Session, image: ImageFacts) -> None:
        if RGB in image.parts:
            parts = self.parts(session, image, [name for name in image.parts if name != RGB])
            picture = self._found(RGB, image, image.parts[RGB], session)
            later: dict[str, Any] = dict.fromkeys(image.awaited, LATER)
            session.set_image(picture, image=None, **parts, **later)
        else:
            names = {spec.name for spec in session.bundle.manifest.modalities}
            parts = self.parts(session, image, [name for name in image.parts if name in names])
            path = self._backbone(session, image, names)
            session.set_features(path, image.size, **parts)

    def parts(self, session: Session, image: ImageFacts, names: Iterable[str]) -> dict[str, Any]:
        """Return the files of modalities.

        Args:
            session: A session with the bundle that takes them.
            image: What is known of the image.
            names: Their names.

        Raises:
            ImageMissingError: One is not here.
        """
        return {name: self._found(name, image, image.parts[name], session) for name in names}

    # --- features ---------------------------------------------------------------------------------------------------

    def _kept(self, session: Session, image: ImageFacts) -> Features | None:
        if self._features is None:
            return None
        origin, own = origin_of(session.bundle.manifest), session.engine.precision
        for precision in (own, *(other for other in Precision if other != own)):
            found = self._features.find(FeatureKey(image.content, origin, precision))
            if found is not None and _usable(found, session):
                return found
        return None

    def _from_file(self, session: Session, image: ImageFacts) -> Features | None:
        origin = origin_of(session.bundle.manifest)
        for file in self._all(image.file_name):
            if file.suffix.lower() != SUFFIX or self._parts.get((SUFFIX, file), image.content) != image.content:
                continue
            try:
                found = Features.load(file)
            except MMMSDeployError:
                self._parts[SUFFIX, file] = None
                continue
            self._parts[SUFFIX, file] = found.content
            if found.content == image.content and found.bundle == origin and _usable(found, session):
                return found
        return None

    # --- pixels and numbers -----------------------------------------------------------------------------------------

    def _found(self, name: str, image: ImageFacts, wanted: str, session: Session) -> Path:
        for file in self._all(image.file_name):
            if file.suffix.lower() in (PICTURES if name == RGB else _NUMBERS) and (
                self._hash(name, file, image.size, session) == wanted
            ):
                return file
        what = "the image" if name == RGB else f"the modality {name!r}"
        raise self._missing(what, image, wanted)

    def _hash(self, name: str, file: Path, size: tuple[int, int], session: Session) -> str | None:
        key = (name, file)
        if key not in self._parts:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MMMSDeployWarning)
                    if name == RGB:
                        self._parts[key] = Part(load_rgb(file)).hash
                    else:
                        specs = [spec for spec in session.bundle.manifest.modalities if spec.name == name]
                        arrays = load_modalities({name: file}, specs, size)
                        self._parts[key] = Part(arrays[name]).hash if arrays else None
            except MMMSDeployError:  # no picture, or one of another size
                self._parts[key] = None
        return self._parts[key]

    def _backbone(self, session: Session, image: ImageFacts, modalities: set[str]) -> Path:
        wanted = {name: hashed for name, hashed in image.parts.items() if name not in modalities}
        for file in self._all(image.file_name):
            if file.suffix.lower() != ".npz":
                continue
            try:
                arrays, _ = session._inputs.prepare_features(file, image.size)
            except MMMSDeployError:
                continue
            if {name: Part(array).hash for name, array in arrays.items()} == wanted:
                return file
        raise self._missing("the backbone's features", image, image.content)

    def _missing(self, what: str, image: ImageFacts, wanted: str) -> ImageMissingError:
        height, width = image.size
        named = f" of {image.file_name!r}" if image.file_name else ""
        where = ", ".join(str(place) for place in self._places) or "no folder was given"
        return ImageMissingError(
            f"{what}{named} ({width} x {height} pixels, hash {wanted[:12]}...) is not there: {where}",
            expected="a folder that holds it; its name does not matter",
            fix="pass the folder where it lies",
            command_fix="name its folder with --images",
        )

    def _all(self, hint: str) -> Sequence[Path]:
        if self._files is None:
            self._files = sorted(set(self._listed()))
        if not hint:
            return self._files
        stem = hint.rpartition(".")[0] or hint
        ranked = {file: 0 if file.name == hint else 1 if file.name.startswith(stem) else 2 for file in self._files}
        return sorted(self._files, key=ranked.__getitem__)

    def _listed(self) -> Iterator[Path]:
        count = 0
        for place in self._places:
            for file in (place,) if place.is_file() else place.rglob("*"):
                if file.suffix.lower() in {*_NUMBERS, ".npz", SUFFIX} and file.is_file():
                    count += 1
                    if count > _MOST_FILES:
                        return
                    yield file


def _usable(features: Features, session: Session) -> bool:
    """Whether a session can start on features: one that zooms or flips needs the pixels, too."""
    viewed = session._views is not None
    return not viewed or (features.picture is not None and not features.present and not features.awaited)

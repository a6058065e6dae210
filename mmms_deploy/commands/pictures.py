"""The pictures of a command line, of ``mmms-segment`` and ``mmms-demo``: files and folders, and what belongs to each.

The results of many pictures mirror the folders that the pictures lie in, below the folder that they all have in common:
so two pictures of one name in two folders stay apart.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from mmms_deploy.commands.places import check_image, no_images
from mmms_deploy.errors import FeatureError, ImageError, MMMSDeployError, ModalityError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pbm"}
    | {".pnm", ".pfm", ".heic", ".heif", ".avif"}
)
"""Names of pictures in a folder; those that cannot be read are reported, and not passed over."""
NUMBERS = SUFFIXES | {".npy"}
ENCODED = ".features"
"""How the name of a file ends that ``mmms-package --image`` or ``Features.save`` wrote: an image that was encoded."""
FEATURES = frozenset({".npz", ENCODED})
"""Names of files of features; an ``.npz`` has those of a backbone."""


@dataclass(frozen=True)
class Picture:
    """A picture to segment.

    Attributes:
        path: Its file.
        name: Its path below the folder that all pictures have in common, with ``/``, e.g. ``a/photo.jpg``.
        key: The name without its suffix, unless two pictures differ in that alone: what its results are called after.
        modalities: Files of its extra modalities, by name.
        features: The file of its features, or of its backbone's; None for none.
    """

    path: Path
    name: str
    key: str
    modalities: Mapping[str, Path] = field(default_factory=dict)
    features: Path | None = None

    @property
    def encoded(self) -> bool:
        """Whether the features are those of the image that was encoded, and not those of a backbone."""
        return self.features is not None and self.features.suffix.lower() == ENCODED


def parse_named_file(text: str) -> tuple[str, Path]:
    """Parse ``NAME=PATH``."""
    name, equals, file = text.partition("=")
    if not (name and equals and file) or "\0" in text:
        raise click.BadParameter(f"{text!r} is not NAME=PATH, such as depth=depth.png")
    return name, Path(file)


def find_pictures(given: Sequence[Path], *, recursive: bool = False, without: Path | None = None) -> list[Picture]:
    """Return the pictures that files and folders name, in order, those of a folder in natural order; each once.

    Args:
        given: Files and folders.
        recursive: Whether the folders below count too; hidden ones never do.
        without: A folder that is passed over: where the results of this run go.

    Raises:
        ImageError: A file is no picture, as far as its kind shows it; or a folder holds none.
    """
    files: dict[Path, Path] = {}
    for path in given:
        if path.is_dir():
            inside = list(_in_folder(path, recursive, without))
            if not inside:
                raise no_images(path, recursive=recursive)
            for file in inside:
                files.setdefault(_absolute(file), file)
        else:
            check_image(path)
            files.setdefault(_absolute(path), path)
    return named(list(files.values()), [path if path.is_dir() else path.parent for path in given])


def named(files: Sequence[Path], folders: Sequence[Path]) -> list[Picture]:
    """Return pictures with their names below the folder that all folders lie in."""
    root = _common(folders)
    names = [_below(file, root) for file in files]
    stems = [_stem(name) for name in names]
    often = Counter(stem.casefold() for stem in stems)
    return [
        Picture(file, name, stem if often[stem.casefold()] == 1 else name)
        for file, name, stem in zip(files, names, stems, strict=True)
    ]


def _common(folders: Sequence[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath([_absolute(folder) for folder in folders]))
    except ValueError:  # several drives
        return None


def _below(file: Path, root: Path | None) -> str:
    absolute = _absolute(file)
    try:
        relative = absolute.relative_to(root) if root is not None else absolute
    except ValueError:
        relative = absolute
    return relative.relative_to(relative.anchor).as_posix() if relative.is_absolute() else relative.as_posix()


def _absolute(path: Path) -> Path:
    """Return an absolute path without ``..``; links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{Path(last).stem}"


def _in_folder(folder: Path, recursive: bool, without: Path | None, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Return the files of some suffixes in a folder, in natural order; links to folders lead on, but not in circles."""
    found: list[Path] = []
    passed = None if without is None else without.resolve()
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        above = {here.resolve(), *here.resolve().parents}
        below = [name for name in folders if recursive and not name.startswith(".")]
        folders[:] = [name for name in below if (here / name).resolve() not in {*above, passed}]
        found += [here / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
    return sorted(found, key=lambda file: [_natural(part) for part in file.relative_to(folder).parts])


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key by which ``img2`` comes before ``img10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), part) if part[0].isdigit() and len(part) < 1000 else (1, 0, part) for part in parts]


# --- what belongs to a picture ----------------------------------------------------------------------------------------


def with_inputs(
    pictures: Sequence[Picture], modalities: Sequence[tuple[str, Path]], features: Path | None
) -> list[Picture]:
    """Return pictures with their modalities and features: a file for one picture, a folder for any number.

    A file in a folder belongs to the picture of the same name, without suffix.

    Raises:
        ModalityError: A file or folder is not there, or a picture has none in a folder.
        FeatureError: The same for features.
    """
    of_modality = {
        name: _inputs(pictures, path, f"modality {name!r}", NUMBERS, ModalityError) for name, path in modalities
    }
    of_features = None if features is None else _inputs(pictures, features, "features", FEATURES, FeatureError)
    return [
        Picture(
            picture.path,
            picture.name,
            picture.key,
            {name: files[number] for name, files in of_modality.items()},
            None if of_features is None else of_features[number],
        )
        for number, picture in enumerate(pictures)
    ]


def _inputs(
    pictures: Sequence[Picture], path: Path, what: str, suffixes: Collection[str], error: type[MMMSDeployError]
) -> list[Path]:
    """Return the file that belongs to each picture."""
    expected = (
        "an image or .npy file, or a folder of them"
        if error is ModalityError
        else "an .npz or .features file, or a folder"
    )
    if not path.is_dir():
        if not path.exists():
            raise error(f"{what}: there is no file {path}", expected=expected, fix="check the path")
        if len(pictures) > 1:
            raise error(
                f"{what}: {path} is one file, and there are {len(pictures)} images",
                expected="a folder with a file for every image, of the same name",
                fix="name that folder, or one image",
            )
        return [path]
    by_name: dict[str, Path] = {}
    for file in _in_folder(path, recursive=True, without=None, suffixes=suffixes):
        key = plain(_stem(file.relative_to(path).as_posix()))
        if key in by_name:
            raise error(
                f"{what}: {by_name[key]} and {file} differ in their suffix alone",
                expected="one file for every image",
                fix="remove one of them",
            )
        by_name[key] = file
    found = [by_name.get(plain(_stem(picture.name)), by_name.get(plain(picture.path.stem))) for picture in pictures]
    missing = [picture for picture, file in zip(pictures, found, strict=True) if file is None]
    if missing:
        more = f" (nor for {len(missing) - 1} others of {len(pictures)})" if len(missing) > 1 else ""
        raise error(
            f"{what}: there is no file for {missing[0].path} in {path}{more}",
            expected=f"a file for every image, of the same name, such as {path / missing[0].path.stem}"
            f"{'.png' if error is ModalityError else '.npz'}",
            fix="complete the folder, or name other images",
        )
    return [file for file in found if file is not None]


def plain(name: str) -> str:
    """Return a name in the form in which names are compared and written.

    macOS stores accented letters as two characters. Bytes that are no UTF-8 become text with a backslash.
    """
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def size_of(picture: Picture) -> tuple[int, int]:
    """Return the size (H, W) of a picture, upright, from its header.

    Raises:
        ImageError: It is no picture.
    """
    from mmms_deploy.imaging.formats import READ
    from mmms_deploy.imaging.picture import upright_size
    from mmms_deploy.imaging.refusal import Refusal

    return upright_size(picture.path, Refusal(ImageError, "the image", f"an image file ({READ})"))

"""A plain folder: images, masks, and a folder for every modality, matched by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmms_deploy.evaluation.datasets.files import NUMBERS, forms_of, nonempty, partner, plain_name, stems
from mmms_deploy.evaluation.datasets.kind import ANY_INTEGER, Kind, Layout, Option, OptionType, min_area_option
from mmms_deploy.evaluation.datasets.labels import read_fitted_labels
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.photo import read_modality, read_photo
from mmms_deploy.evaluation.datasets.surfaces import COMPONENTS, VALUES, ObjectRule, Rule, SurfaceRule
from mmms_deploy.evaluation.errors import DatasetOptionError
from mmms_deploy.evaluation.scene import Scene, Surface

MODALITIES = ("depth", "lidar", "event", "thermal", "aolp", "dolp", "nir")
"""Folders that are read as modalities by default: the field's names."""

TREE = """\
PATH/
  images/NAME.jpg           or any other image file; NAME may lie in folders, e.g. SEQUENCE/00000
  masks/NAME.png            label map: 0 background, every other value a surface; PNG, TIFF, BMP, GIF, JPEG, .npy
  masks/NAME/OBJECT.png     or a folder for each image, in it one mask for each object
  depth/NAME.png            optional: depth, lidar, event, thermal, aolp, dolp, nir; image files or .npy"""

LAYOUT = Layout("folder", TREE)

Masks = Path | Mapping[str, Path]
"""A label map, or one mask for each object by name."""


@dataclass(frozen=True, slots=True)
class Item:
    """Where the files of a scene are.

    Attributes:
        image: The RGB image.
        masks: Its masks.
        modalities: By name.
    """

    image: Path
    masks: Masks
    modalities: Mapping[str, Path]


def open_folder(
    path: Path,
    *,
    name: str,
    images: str,
    masks: str,
    modalities: tuple[str, ...] | None,
    threshold: int | None,
    void: int | None,
    surfaces: str,
    min_area: int,
) -> ListedDataset[Item]:
    """Open a plain folder; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: There is no folder of images or masks, or no image.
        DatasetFileError: A mask or modality is missing.
        DatasetOptionError: Options contradict each other.
    """
    if threshold is not None and surfaces == COMPONENTS:
        raise DatasetOptionError(
            f"threshold={threshold} and surfaces={surfaces} of {path}",
            expected="one object a mask (threshold), or the components of its values",
            fix="leave one of them out",
        )
    root = LAYOUT.root(path)
    found = nonempty(LAYOUT, root, stems(LAYOUT.folder(root, images)), f"images in {images!r}")
    mask_folder = LAYOUT.folder(root, masks)
    mask_of: dict[str, Masks] = partner(found, _masks(mask_folder, stems(mask_folder, NUMBERS)), "mask", mask_folder)
    folders = _modality_folders(root, modalities)
    modality_of = {name: _modality_files(folder, found) for name, folder in folders.items()}
    items = {
        key: Item(image, mask_of[key], {name: files[key] for name, files in modality_of.items()})
        for key, image in found.items()
    }
    ignored = frozenset() if void is None else frozenset({void})
    rule: Rule = ObjectRule(threshold or 0, ignored, min_area)
    if threshold is None:
        # Here every value is a surface, by definition and whatever it is.
        rule = SurfaceRule(void=ignored, components=surfaces == COMPONENTS, min_area=min_area, trimaps=True)
    return ListedDataset(name, items, partial(_read, rule=rule), tuple(folders))


def _masks(folder: Path, by_name: Mapping[str, Path]) -> Callable[[str], Masks | None]:
    """Return the function that finds an image's label map, or else its objects' masks, or else None."""
    objects: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for name, file in by_name.items():
        image, _, own = name.rpartition("/")
        objects[image][own] = file

    def find(key: str) -> Masks | None:
        if key in by_name:
            return by_name[key]
        # An image without objects has an empty folder.
        return objects[key] if key in objects or any((folder / form).is_dir() for form in forms_of(key)) else None

    return find


def _modality_folders(root: Path, wanted: tuple[str, ...] | None) -> dict[str, Path]:
    if wanted is None:
        return {name: root / name for name in MODALITIES if (root / name).is_dir()}
    folders = {}
    for text in wanted:
        name, at, folder = text.partition("@")
        if name in folders:
            raise DatasetOptionError(
                f"option modalities has {name!r} twice", expected="every modality once", fix="give each its own name"
            )
        folders[name] = LAYOUT.folder(root, folder if at else name)
    return folders


def _modality_files(folder: Path, names: Mapping[str, Path]) -> dict[str, Path]:
    by_name = stems(folder, NUMBERS)
    suffix = f"_{plain_name(folder.name)}"

    def find(key: str) -> Path | None:
        # Some sets repeat the folder's name in the file's: Depth/8_08-40-06_Depth.png.
        return by_name.get(key) or by_name.get(key + suffix)

    return partner(names, find, folder.name, folder)


def _read(name: str, item: Item, *, rule: Rule) -> Scene:
    photo = read_photo(item.image, name)
    surfaces: list[Surface] = []
    void = None
    for owner, file in {"": item.masks}.items() if isinstance(item.masks, Path) else item.masks.items():
        labels = read_fitted_labels(file, photo)
        parts, ignored = rule.split(labels, file)
        surfaces += [_of(owner, part, alone=len(parts) == 1) for part in parts]
        if ignored is not None:
            void = ignored if void is None else void | ignored
    modalities = {modality: read_modality(file, modality, photo) for modality, file in item.modalities.items()}
    return Scene(name, photo.pixels, tuple(surfaces), modalities, void)


def _of(owner: str, part: Surface, *, alone: bool) -> Surface:
    """Name a surface after its file if every object has a file."""
    if not owner:
        return part
    return Surface(owner if alone else f"{owner}-{part.name}", part.mask)


KIND = Kind(
    name="folder",
    description="any folder of images and masks, and of modalities, matched by name",
    tree=TREE,
    options=(
        Option("images", "folder of the images", "images"),
        Option("masks", "folder of the masks", "masks"),
        Option(
            "modalities",
            "folders of the modalities; NAME@FOLDER where they differ; those of known names unless given",
            type=OptionType.NAMES,
        ),
        Option(
            "threshold", "one object a mask: values above this; instead of one surface a value", type=OptionType.INTEGER
        ),
        Option(
            "void",
            "value that is neither surface nor background, e.g. 255 or 128",
            type=OptionType.INTEGER,
            least=ANY_INTEGER,
        ),
        Option(
            "surfaces",
            "a surface is all of a value, or a connected component of it",
            VALUES,
            choices=(VALUES, COMPONENTS),
        ),
        min_area_option(1),
    ),
    open=open_folder,
)

"""Whether a path fits the place where it was given; one that does not is named as what it is, with what to do.

These checks take milliseconds and load no library, so that they come before everything that takes longer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mmms_deploy.bundle.mistaken import bundle_instead, file_itself, named
from mmms_deploy.bundle.recognise import Found, Thing, checkpoints_in, recognise
from mmms_deploy.bundle.reference import A_BUNDLE, how_to_find, is_packed
from mmms_deploy.commands.common import wrong_usage
from mmms_deploy.errors import (
    BundleNotFoundError,
    CheckpointError,
    CheckpointNotFoundError,
    ClickListError,
    DescriptionError,
    ImageError,
    MMMSDeployError,
)
from mmms_deploy.hub import is_reference, parse_reference
from mmms_deploy.spelling import closest

PAIRS = ("sam2-tiny",)
"""Names that ``--ckpt`` takes for pairs of encoder and decoder, which are fetched."""
DEMOS = ("demo", "demo-small", "demo-thermal")
"""Names that ``--ckpt`` takes for the checkpoints that ship with the package."""
_MOST_NAMES = 1000
_ADDRESS = re.compile(r"[a-z]{2,}:/", re.IGNORECASE)
"""An address such as ``https://...``, of which pathlib keeps one slash."""


# --- bundles ----------------------------------------------------------------------------------------------------------


def check_bundle(path: Path) -> None:
    """Check that a bundle was given.

    Raises:
        BundleNotFoundError: It is something else, or nothing.
    """
    found = _recognise_bundle(path)
    if found.thing is Thing.BUNDLE:
        return
    if found.thing is Thing.NOTHING:
        raise BundleNotFoundError(f"no bundle at {path}", expected=A_BUNDLE, fix=_missing_bundle(path))
    raise BundleNotFoundError(
        f"{path} is {named(found)}, not a bundle", expected=A_BUNDLE, fix=_instead_of_bundle(found)
    )


def check_bundle_and_images(bundle: Path, images: Sequence[Path], command: str) -> None:
    """Check that a bundle was given, and that no image in its place is one.

    Args:
        bundle: What stands in the bundle's place.
        images: What stands in the images'.
        command: The command, for the error.

    Raises:
        BundleNotFoundError: The bundle is something else, or nothing.
    """
    first = _recognise_bundle(bundle)
    for image in images if first.thing is not Thing.BUNDLE else ():
        second = recognise(image)
        if second.thing is Thing.NOTHING:
            second = _recognise_bundle(image)
        if second.thing is Thing.BUNDLE:
            raise BundleNotFoundError(
                f"BUNDLE and IMAGE are in the wrong order: {bundle} is {named(first)}, and {image} is a bundle"
                if first.thing is not Thing.NOTHING
                else f"BUNDLE and IMAGE are in the wrong order: {image} is a bundle",
                expected="the bundle first, then the image",
                fix=f"{command} {image} {bundle} ..., with the same options",
            )
    check_bundle(bundle)


def names_bundle(path: Path) -> bool:
    """Return whether a path names a bundle, as a folder or by its name in the package or on the hub."""
    return _recognise_bundle(path).thing is Thing.BUNDLE


def _recognise_bundle(path: Path) -> Found:
    """Look at what a reference to a bundle names; the hub is not asked here."""
    return Found(path, Thing.BUNDLE) if is_packed(path) or _is_on_hub(path) else recognise(path)


def _is_on_hub(path: Path) -> bool:
    """Return whether a path is a reference to the hub; a wrong one is wrong usage."""
    if not is_reference(path):
        return False
    with wrong_usage():
        parse_reference(path)
    return True


def _missing_bundle(path: Path) -> str:
    if _ADDRESS.match(str(path)):
        return "download it, and name its folder; of addresses, those of the hub are understood: hf:owner/name"
    here = [entry for folder in (path.parent, Path("bundles")) for entry in _bundles_in(folder)]
    name = closest(path.name, [entry.name for entry in here])
    if name is not None:
        return f"did you mean {next(entry for entry in here if entry.name == name)}?"
    return how_to_find(path)


def _bundles_in(folder: Path) -> tuple[Path, ...]:
    found = recognise(folder)
    return found.inside if found.thing is Thing.BUNDLES else ()


def _instead_of_bundle(found: Found) -> str:
    path, thing = found.path, found.thing
    if thing is Thing.EVALUATION:
        return "name the bundle; mmms-eval --replay shows cases of these results"
    if thing is Thing.BENCHMARK:
        return f"name the bundle; mmms-bench --load {path} shows these results"
    if thing in (Thing.DATASET, Thing.PICTURES):
        return f"name the bundle; pictures with masks are for mmms-eval BUNDLE --dataset KIND={path}"
    if thing is Thing.PICTURE:
        return f"name the bundle first, then the picture: mmms-segment demo {path}"
    return bundle_instead(found) or "name the folder that mmms-export wrote"


# --- images -----------------------------------------------------------------------------------------------------------

_NO_IMAGES = frozenset(
    {
        Thing.SPECIAL,
        Thing.EMPTY,
        Thing.BUNDLE,
        Thing.BUNDLES,
        Thing.BUNDLE_PART,
        Thing.GRAPH,
        Thing.CHECKPOINT,
        Thing.POINTER,
        Thing.ARCHIVED_BUNDLE,
        Thing.ARCHIVE,
        Thing.VIDEO,
        Thing.PDF,
        Thing.WEB_PAGE,
        Thing.ARRAY,
        Thing.ARRAYS,
        Thing.TABLE,
        Thing.EVALUATION,
        Thing.PICTURES,
        Thing.CHECKPOINTS,
        Thing.DATASET,
        Thing.EMPTY_FOLDER,
        Thing.FOLDER,
    }
)


def check_image(path: Path) -> None:
    """Check that an image was given, as far as its kind of file shows it.

    Raises:
        ImageError: It is something else than a file of an image, or nothing.
    """
    found = recognise(path)
    expected = "an image file, such as PNG or JPEG, or a folder of them"
    if found.thing is Thing.NOTHING:
        near = _near(path)
        fix = "check the path" if near is None else f"did you mean {near}?"
        raise ImageError(f"the image: there is no file {path}", expected=expected, fix=fix)
    if found.thing in _NO_IMAGES:
        fix = file_itself(found) or "name an image file"
        if found.thing is Thing.VIDEO:
            fix = "save a frame of it as PNG"
        elif found.thing in (Thing.ARRAY, Thing.ARRAYS):
            fix = "save it as PNG; arrays are for --modality, and --features takes a backbone's"
        elif found.thing is Thing.TABLE:
            fix = f"name the image; a list of clicks is given with --clicks {path}"
        raise ImageError(f"the image: {path} is {named(found)}", expected=expected, fix=fix)
    if found.thing is Thing.FILE and path.suffix.lower() in (".csv", ".tsv"):
        fix = f"name the image; a list of clicks is given with --clicks {path}"
        raise ImageError(f"the image: {path} is a table, by its name", expected=expected, fix=fix)


def no_images(folder: Path, *, recursive: bool) -> ImageError:
    """Return the error for a folder that holds no image.

    Args:
        folder: The folder.
        recursive: Whether the folders below were searched too.
    """
    found = recognise(folder)
    below = found.thing is Thing.DATASET and not recursive
    what = "a folder without images in it, but with other folders" if below else named(found)
    fix = "name a folder of images, or pass --recursive for those in the folders below" if below else "name an image"
    return ImageError(f"the image: {folder} is {what}", expected="an image file, or a folder of them", fix=fix)


# --- lists of clicks --------------------------------------------------------------------------------------------------

_LISTS = frozenset({Thing.NOTHING, Thing.TABLE, Thing.DESCRIPTION, Thing.FILE, Thing.UNREADABLE, Thing.EMPTY})


def check_clicks(path: Path) -> None:
    """Check that a list of clicks was given, as far as its kind of file shows it.

    Raises:
        ClickListError: It is something else.
    """
    found = recognise(path)
    if found.thing in _LISTS:
        return  # reading it says more
    raise ClickListError(
        f"{path} is {named(found)}, not a list of clicks",
        expected="a CSV or JSON file",
        fix=f"name an image before the options: mmms-segment BUNDLE {path} --clicks FILE"
        if found.thing in (Thing.PICTURE, Thing.PICTURES)
        else "name a file with columns image,object,x,y,positive; mmms-segment -h shows one",
    )


# --- checkpoints and descriptions -------------------------------------------------------------------------------------


def check_checkpoint(path: Path, option: str = "--ckpt") -> None:
    """Check that a checkpoint was given, as far as its kind of file shows it.

    Args:
        path: What was given.
        option: The option it was given with.

    Raises:
        CheckpointError: It is something else, or nothing.
    """
    if _is_on_hub(path):
        return
    found = recognise(path)
    expected = "a .safetensors file or a PyTorch state dict (.pt, .pth), or hf:owner/name"
    if found.thing is Thing.NOTHING:
        fix = _missing_checkpoint(path, option)
        raise CheckpointNotFoundError(f"no checkpoint at {path}", expected=expected, fix=fix)
    if found.thing in (Thing.CHECKPOINT, Thing.ARCHIVE, Thing.FILE, Thing.UNREADABLE):
        return  # reading it says more
    raise CheckpointError(
        f"{path} is {named(found)}, not a checkpoint", expected=expected, fix=_instead_of_checkpoint(found, option)
    )


def _missing_checkpoint(path: Path, option: str) -> str:
    if _ADDRESS.match(str(path)):
        return "download it, and name the file; of addresses, those of the hub are understood: hf:owner/name/FILE"
    demos = () if option == "--backbone-ckpt" else DEMOS
    name = closest(str(path), demos)
    if name is not None:
        given = f"{option}{name}" if option.endswith(":") else f"{option} {name}"
        return f"did you mean {given}, which ships with mmms-deploy?"
    near = _near(path)
    if near is not None:
        return f"did you mean {near}?"
    return "check the path; the name 'demo' is a checkpoint that ships with mmms-deploy" if demos else "check the path"


def _instead_of_checkpoint(found: Found, option: str) -> str:
    path, thing = found.path, found.thing
    if thing is Thing.BUNDLE:
        return f"it is exported already: mmms-segment {path} IMAGE, mmms-verify {path}"
    if thing is Thing.BUNDLE_PART and found.inside:
        return f"{found.inside[0]} is exported already: mmms-segment {found.inside[0]} IMAGE"
    if thing is Thing.GRAPH:
        return "name the PyTorch checkpoint that it comes from"
    inside = checkpoints_in(path)
    if inside:
        return f"name one file in it, such as {inside[0]}"
    if thing is Thing.DESCRIPTION:
        return f"name the weights with {option}, and this file with --description {path}"
    return file_itself(found) or "name the file with the weights"


def check_description(path: Path) -> None:
    """Check that a description was given, as far as its kind of file shows it.

    Raises:
        DescriptionError: It is something else.
    """
    found = recognise(path)
    if found.thing in (Thing.NOTHING, Thing.DESCRIPTION, Thing.TABLE, Thing.FILE, Thing.UNREADABLE, Thing.EMPTY):
        return  # reading it says more
    fix = f"name the weights with --ckpt {path}" if found.thing is Thing.CHECKPOINT else "name a TOML or JSON file"
    raise DescriptionError(
        f"{path} is {named(found)}, not a description of a network", expected="a TOML or JSON file", fix=fix
    )


# --- data sets --------------------------------------------------------------------------------------------------------

_NO_DATA = {
    Thing.BUNDLE: "name the folder of a data set; the bundle comes first, mmms-eval {path} --dataset KIND=PATH",
    Thing.BUNDLES: "name the folder of a data set",
    Thing.BUNDLE_PART: "name the folder of a data set",
    Thing.CHECKPOINT: "name the folder of a data set",
    Thing.CHECKPOINTS: "name the folder of a data set",
    Thing.GRAPH: "name the folder of a data set",
    Thing.EVALUATION: "name the folder of a data set; results are given with --out or --replay",
    Thing.PICTURE: "name the folder of a data set; for a folder of images and masks: folder=PATH",
    Thing.ARCHIVE: "unpack it, and name the folder",
    Thing.ARCHIVED_BUNDLE: "name the folder of a data set",
    Thing.POINTER: "name the folder of a data set",
}


def check_dataset(kind: str, path: Path, error: type[MMMSDeployError]) -> None:
    """Check that what was given as a data set is not something else.

    Args:
        kind: The kind it was given as.
        path: What was given.
        error: The class of the error.
    """
    found = recognise(path)
    fix = _NO_DATA.get(found.thing)
    if fix is not None:
        raise error(
            f"{path} is {named(found)}, not a data set of kind {kind!r}",
            expected="what mmms-doctor --docs datasets shows for this kind",
            fix=fix.format(path=path),
        )


def check_results(path: Path, error: type[MMMSDeployError]) -> None:
    """Check that a folder of results of mmms-eval was given.

    Args:
        path: What was given.
        error: The class of the error.
    """
    found = recognise(path)
    if found.thing is not Thing.EVALUATION:
        there = "there is nothing" if found.thing is Thing.NOTHING else f"there is {named(found)}"
        raise error(
            f"{there} at {path}",
            expected="a folder of results of mmms-eval",
            fix="name the folder that mmms-eval printed; unless --out named it, it is in evaluations/",
        )


def check_benchmark(path: Path, error: type[MMMSDeployError]) -> None:
    """Check that results of mmms-bench were given, as far as their kind of file shows it.

    Args:
        path: What was given.
        error: The class of the error.
    """
    found = recognise(path)
    if found.thing in (Thing.BENCHMARK, Thing.NOTHING, Thing.TABLE, Thing.FILE, Thing.UNREADABLE, Thing.EMPTY):
        return  # reading it says more
    raise error(
        f"{path} is {named(found)}, not results of mmms-bench",
        expected="a file that mmms-bench --json wrote",
        fix=f"measure it first: mmms-bench {path} --json FILE" if found.thing is Thing.BUNDLE else "name that file",
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _near(path: Path) -> Path | None:
    """Return the file beside a missing one whose name, without its suffix, is close to it."""
    try:
        files = sorted(entry.name for entry in os.scandir(path.parent) if entry.is_file())[:_MOST_NAMES]
    except OSError:
        return None
    by_stem = {Path(name).stem: name for name in reversed(files)}
    stem = closest(path.stem, by_stem)
    return None if stem is None else path.with_name(by_stem[stem])

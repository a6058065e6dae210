"""Where ``mmms-segment`` writes: named files for one picture, and files in a folder that mirror many."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import click

from mmms_deploy.commands.output import check_folder, check_output
from mmms_deploy.commands.pictures import Picture, plain
from mmms_deploy.commands.segment_clicks import UNNAMED
from mmms_deploy.commands.segment_jobs import Job, Work
from mmms_deploy.errors import OutputExistsError, OutputWriteError
from mmms_deploy.files.leftovers import sweep
from mmms_deploy.files.output import check_replaceable
from mmms_deploy.spelling import did_you_mean

KINDS = ("masks", "overlays", "labels", "json")
"""What ``--write`` knows: the folders in ``--out-dir``."""
FOLDER = Path("segmented")
"""The folder of the results of many pictures, unless one is named."""

LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
PICTURES = (*LOSSLESS, ".jpg", ".jpeg", ".webp")
MASKS = (*LOSSLESS, ".json")
_LONGEST = 100


@dataclass(frozen=True)
class Wanted:
    """What the command line says about outputs.

    Attributes:
        out: The mask of one picture.
        overlay: The picture of mask and clicks of one picture.
        labels: The label map of one picture.
        candidates: The picture of all answers of a network that gives several, of one picture.
        folder: The folder for the results of any number.
        kinds: Which of :data:`KINDS` go into it; empty where nothing was said.
        coco: The COCO file of all pictures.
        overwrite: Whether existing files may be replaced.
        skip: Whether pictures whose files exist are passed over.
    """

    out: Path | None = None
    overlay: Path | None = None
    labels: Path | None = None
    candidates: Path | None = None
    folder: Path | None = None
    kinds: tuple[str, ...] = ()
    coco: Path | None = None
    overwrite: bool = False
    skip: bool = False

    @property
    def single(self) -> dict[str, Path]:
        """The files that belong to one picture alone, by option."""
        given = {
            "--out": self.out,
            "--overlay": self.overlay,
            "--labels": self.labels,
            "--candidates": self.candidates,
        }
        return {option: path for option, path in given.items() if path is not None}

    @property
    def passed_over(self) -> Path:
        """The folder of results, in which no pictures are looked for."""
        return self.folder or FOLDER


@dataclass(frozen=True)
class Files:
    """The files of one picture.

    Attributes:
        masks: The mask of every object, by name; several files where it is written in several forms.
        labels: The label map; None for none.
        overlay: The picture of masks and clicks; None for none.
        candidates: The picture of all answers of a network that gives several; None for none.
    """

    masks: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    labels: Path | None = None
    overlay: Path | None = None
    candidates: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file."""
        masks = (path for paths in self.masks.values() for path in paths)
        others = (self.labels, self.overlay, self.candidates)
        return (*masks, *(path for path in others if path is not None))


@dataclass(frozen=True)
class Plan:
    """Which files are written.

    Attributes:
        jobs: Every picture that has to be segmented, and its files.
        folder: The folder of the files of many; None for none.
        kinds: What is written into it.
        coco: The COCO file; None for none.
        done: How many pictures are passed over, because their files exist.
    """

    jobs: tuple[tuple[Job, Files], ...]
    folder: Path | None
    kinds: tuple[str, ...]
    coco: Path | None
    done: int = 0


def parse_kinds(text: str) -> tuple[str, ...]:
    """Parse ``masks,overlays,labels``."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in KINDS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(KINDS)}{did_you_mean(name, KINDS)}")
    return tuple(kind for kind in KINDS if kind in names)


def check_wanted(wanted: Wanted, *, images: int, names: Sequence[str]) -> None:
    """Check what the command line alone shows about outputs.

    Args:
        wanted: What it says.
        images: How many images it names.
        names: Names of the objects that it names.

    Raises:
        click.UsageError: They contradict each other.
    """
    for option, path in wanted.single.items():
        drawn = option in ("--overlay", "--candidates")
        suffixes = PICTURES if drawn else (".png",) if option == "--labels" else MASKS
        if path.suffix.lower() not in suffixes:
            why = "its name must end in" if drawn else "a mask must be lossless; its name must end in"
            raise click.UsageError(f"{option} {path}: {why} {', '.join(suffixes)}.")
    if wanted.coco is not None and wanted.coco.suffix.lower() != ".json":
        raise click.UsageError(f"--coco {wanted.coco}: its name must end in .json.")
    if wanted.single and images > 1:
        raise click.UsageError(
            f"{', '.join(wanted.single)} is for one image, and {images} are named: pass --out-dir DIR, --coco FILE, or"
            " both."
        )
    if wanted.out is not None and len(names) > 1:
        raise click.UsageError(f"--out is the mask of one object; {_FOR_SEVERAL}.")
    if wanted.skip and wanted.overwrite:
        raise click.UsageError("--skip-existing keeps the files that exist, and --overwrite replaces them: pass one.")
    if wanted.skip and (wanted.coco is not None or wanted.single):
        raise click.UsageError("--skip-existing is for files in --out-dir; a COCO file is written for all images.")


_FOR_SEVERAL = "several objects need --labels FILE, --coco FILE, or --out-dir DIR, which has a mask for each"


def plan(wanted: Wanted, work: Work) -> Plan:
    """Return which files are written, and check that they can be.

    Args:
        wanted: What the command line says.
        work: The pictures and their clicks.

    Raises:
        OutputExistsError: A file exists, and may not be replaced.
        OutputWriteError: A file cannot be written, two would have one name, or a file for one picture was named for
            several.
    """
    alone = len(work.jobs) + len(work.failures) == 1
    single = _single(wanted, work) if wanted.single or _by_default(wanted, alone) else Files()
    folder, kinds = wanted.folder, wanted.kinds or ("masks", "overlays")
    if folder is None and (wanted.kinds or (_nothing(wanted) and not alone)):
        folder = FOLDER
    jobs = [(job, single) for job in work.jobs]
    if folder is not None:
        check_folder(folder)
        named = work.objects != (UNNAMED,)
        jobs = [(job, _joined(files, _in_folder(folder, kinds, job, named))) for job, files in jobs]
    _check_different(files for _, files in jobs)
    left = tuple(jobs)
    if wanted.skip:
        left = tuple(pair for pair in ((job, _missing(files)) for job, files in jobs) if pair[1].all)
    outputs = [path for _, files in left for path in files.all] + ([wanted.coco] if wanted.coco is not None else [])
    inside = [path for path in outputs if folder is not None and path.is_relative_to(folder)]
    for path in inside:
        _check_inside(path, overwrite=wanted.overwrite)
    for path in outputs if folder is None else (path for path in outputs if not path.is_relative_to(folder)):
        check_output(path, overwrite=wanted.overwrite)
    for place in {path.parent for path in inside}:
        sweep(place)
    return Plan(left, folder, kinds, wanted.coco, len(jobs) - len(left))


def _nothing(wanted: Wanted) -> bool:
    return not wanted.single and wanted.folder is None and wanted.coco is None


def _by_default(wanted: Wanted, alone: bool) -> bool:
    return _nothing(wanted) and alone and not wanted.kinds


def _single(wanted: Wanted, work: Work) -> Files:
    """Return the files of the only picture: the named ones, or mask and overlay beside where the command runs."""
    if len(work.jobs) != 1 or work.failures:
        option, path = next(iter(wanted.single.items()))
        raise OutputWriteError(
            f"{option} {path} is for one image, and there are {len(work.jobs) + len(work.failures)}",
            expected="one image, or a folder for the results",
            fix="pass --out-dir DIR, --coco FILE, or both",
        )
    job = work.jobs[0]
    several = len(job.objects) > 1
    if wanted.single:
        if wanted.out is not None and several:
            raise OutputWriteError(
                f"--out {wanted.out} is the mask of one object, and there are {len(job.objects)}",
                expected="a place for every object",
                fix=_FOR_SEVERAL,
            )
        if wanted.candidates is not None and several:
            raise OutputWriteError(
                f"--candidates {wanted.candidates} is about one object, and there are {len(job.objects)}",
                expected="the clicks on one object",
                fix="leave out --candidates, or click on one object",
            )
        masks = {} if wanted.out is None else {job.objects[0]: (wanted.out,)}
        return Files(masks, wanted.labels, wanted.overlay, wanted.candidates)
    stem = job.picture.path.stem
    masks = {} if several else {job.objects[0]: (Path(f"{stem}-mask.png"),)}
    return Files(masks, Path(f"{stem}-labels.png") if several else None, Path(f"{stem}-overlay.png"))


def _in_folder(folder: Path, kinds: Sequence[str], job: Job, named: bool) -> Files:
    """Return the files of a picture in the folder; masks lie in a folder a picture where objects have names."""
    key = _safe_path(job.picture)
    forms = [(kind, suffix) for kind, suffix in (("masks", ".png"), ("json", ".json")) if kind in kinds]
    masks = {
        name: tuple(
            folder / kind / key / f"{safe(name)}{suffix}" if named else _with(folder / kind / key, suffix)
            for kind, suffix in forms
        )
        for name in job.objects
    }
    if forms:
        _check_apart(job, named)
    return Files(
        masks,
        _with(folder / "labels" / key, ".png") if "labels" in kinds else None,
        _with(folder / "overlays" / key, ".jpg") if "overlays" in kinds else None,
    )


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _safe_path(picture: Picture) -> Path:
    # No name of a picture can lead out of the folder.
    return Path(*(part if part != ".." else "_" for part in PurePosixPath(picture.key).parts if part != "/"))


def safe(name: str) -> str:
    """Return the name of an object as the name of a file, on every system."""
    text = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", name).strip(" ")
    text = re.sub(r"^\.+|\.+$", "_", text)
    # Windows opens a device for these names, whatever suffix follows.
    text = re.sub(
        r"^(con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?=\.|$)", r"\1_", text, flags=re.IGNORECASE
    )
    while len(os.fsencode(text)) > _LONGEST:
        text = text[:-1]
    return text or "_"


def _missing(files: Files) -> Files:
    """Return the files that are not there yet."""
    masks = {name: tuple(path for path in paths if not os.path.lexists(path)) for name, paths in files.masks.items()}
    labels, overlay = (
        None if path is None or os.path.lexists(path) else path for path in (files.labels, files.overlay)
    )
    return Files(masks, labels, overlay)


def _joined(first: Files, second: Files) -> Files:
    """Return the files of both; a label map and an overlay are written once, where they are named."""
    masks = {name: (*first.masks.get(name, ()), *paths) for name, paths in second.masks.items()}
    return Files(masks, first.labels or second.labels, first.overlay or second.overlay, first.candidates)


def _check_apart(job: Job, named: bool) -> None:
    names: dict[str, str] = {}
    for name in job.objects if named else ():
        other = names.setdefault(plain(safe(name)).casefold(), name)
        if other != name:
            raise OutputWriteError(
                f"the masks of the objects {other!r} and {name!r} of {job.picture.path} would have one file",
                expected="names that differ in more than case and signs",
                fix="give one of them another name",
            )


def _check_different(files: Iterable[Files]) -> None:
    seen: set[Path] = set()
    for one in files:
        for path in one.all:
            if path in seen:
                raise OutputWriteError(
                    f"two results would have one file, {path}",
                    expected="images whose names differ",
                    fix="segment them one after the other, into two folders",
                )
            seen.add(path)


def _check_inside(path: Path, *, overwrite: bool) -> None:
    """Check a file whose folders need not exist yet."""
    if not check_replaceable(path) and not overwrite and os.path.lexists(path):
        raise OutputExistsError(
            f"{path} exists",
            expected="new files",
            fix="name another folder with --out-dir, pass --overwrite, or keep what is there with --skip-existing",
        )


def check_inputs_kept(inputs: Iterable[Path], planned: Plan) -> None:
    """Check that no file that is read would be replaced.

    Raises:
        OutputWriteError: One would.
    """
    read = {os.path.realpath(path) for path in inputs}
    written = [path for _, files in planned.jobs for path in files.all]
    for path in [*written, *([planned.coco] if planned.coco else [])]:
        if os.path.realpath(path) in read:
            raise OutputWriteError(
                f"{path} is read and would be written",
                expected="results in other files than the images, clicks and modalities",
                fix="name another file or folder",
            )

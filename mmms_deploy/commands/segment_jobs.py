"""What ``mmms-segment`` has to do: pictures, each with its clicks, all checked before an engine is opened."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mmms_deploy.commands.pictures import Picture, find_pictures, named, plain, size_of
from mmms_deploy.commands.segment_clicks import UNNAMED, ClickList, ListedClick
from mmms_deploy.errors import ClickError, ClickListError, ImageError, MMMSDeployError, SurfaceError
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.bundle.contract import ClickList as BundleClickList

_LISTED = 3


@dataclass(frozen=True)
class Job:
    """One picture and its clicks.

    Attributes:
        picture: The picture.
        size: Its size (H, W), upright.
        clicks: Its clicks, in order; they are inside of it.
    """

    picture: Picture
    size: tuple[int, int]
    clicks: tuple[ListedClick, ...]

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of its objects, in the order of their first clicks."""
        return tuple(dict.fromkeys(click.object for click in self.clicks))


@dataclass(frozen=True)
class Failure:
    """A picture that could not be segmented.

    Attributes:
        path: Its file.
        error: Why.
    """

    path: Path
    error: MMMSDeployError


@dataclass(frozen=True)
class Work:
    """Everything that has to be done.

    Attributes:
        jobs: The pictures, in order.
        failures: Pictures that cannot be read, as their headers show; the others are segmented.
        skipped: Pictures without a click in the list of clicks.
        unnamed: Pictures of the list of clicks that the command line does not name.
    """

    jobs: tuple[Job, ...]
    failures: tuple[Failure, ...] = ()
    skipped: tuple[Path, ...] = ()
    unnamed: tuple[str, ...] = ()

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of all objects, in the order of their first clicks; their labels are 1, 2, ... in every picture."""
        return tuple(dict.fromkeys(name for job in self.jobs for name in job.objects))

    def with_pictures(self, pictures: Sequence[Picture]) -> Work:
        """Return the same work on pictures that know their modalities and features."""
        pairs = zip(self.jobs, pictures, strict=True)
        return replace(self, jobs=tuple(replace(job, picture=picture) for job, picture in pairs))


def jobs_of_line(pictures: Sequence[Picture], clicks: Sequence[ListedClick], choice: int | None = None) -> Work:
    """Return the work where the command line has the clicks: the same for every picture.

    Args:
        pictures: The pictures.
        clicks: The clicks; without any, every picture is clicked at its centre.
        choice: Which of several answers to that click is taken; None for the network's own choice.

    Raises:
        ClickError: A click is outside of a picture.
        ImageError: There is one picture, and it cannot be read.
    """
    sizes, failures = _measured(pictures)
    jobs = []
    for picture in pictures:
        if picture.path in sizes:
            size = sizes[picture.path]
            own = tuple(clicks) or (replace(centre(size), choice=choice),)
            _check_line(picture, size, own, alone=len(pictures) == 1)
            jobs.append(Job(picture, size, own))
    return Work(tuple(jobs), failures)


def centre(size: tuple[int, int]) -> ListedClick:
    """Return a click at the centre of a picture (H, W)."""
    return ListedClick(UNNAMED, float((size[1] - 1) // 2), float((size[0] - 1) // 2), True)


def jobs_of_list(listed: ClickList, given: Sequence[Path], *, recursive: bool, without: Path | None) -> Work:
    """Return the work where a list has the clicks.

    Args:
        listed: The list.
        given: The files and folders of the command line; without any, the list names the pictures.
        recursive: Whether the folders below count too.
        without: A folder that is passed over.

    Raises:
        ClickListError: A picture that the list names is not there or not clear, a click is outside of its picture, or
            nothing is left to do.
        ImageError: What the command line names is no picture; or there is one picture, and it cannot be read.
    """
    if given:
        pictures = find_pictures(given, recursive=recursive, without=without)
        clicks, unnamed = _among(listed, pictures)
    else:
        pictures, clicks = _as_listed(listed)
        unnamed = ()
    clicked = [picture for picture in pictures if picture.path in clicks]
    if not clicked:
        raise ClickListError(
            f"{listed.path}: it has no click for any of the {len(pictures)} images",
            expected="clicks for one of them at least",
            fix="name other images, or another list",
        )
    sizes, failures = _measured(clicked)
    jobs = []
    for picture in clicked:
        if picture.path in sizes:
            own = tuple(clicks[picture.path])
            _check_listed(listed, picture, sizes[picture.path], own)
            jobs.append(Job(picture, sizes[picture.path], own))
    skipped = tuple(picture.path for picture in pictures if picture.path not in clicks)
    return Work(tuple(jobs), failures, skipped, unnamed)


def _measured(pictures: Sequence[Picture]) -> tuple[dict[Path, tuple[int, int]], tuple[Failure, ...]]:
    sizes, failures = {}, []
    for picture in pictures:
        try:
            sizes[picture.path] = size_of(picture)
        except ImageError as error:
            if len(pictures) == 1:
                raise
            failures.append(Failure(picture.path, error))
    return sizes, tuple(failures)


def _check_line(picture: Picture, size: tuple[int, int], clicks: Sequence[ListedClick], *, alone: bool) -> None:
    from mmms_deploy.session.result import checked_click

    for click in clicks:
        try:
            checked_click(click.x, click.y, click.positive, size)
        except ClickError as error:
            if alone:
                raise
            given = f"{picture.path}: {error.given}"
            fix = "click inside of every image, or list the clicks of each with --clicks FILE"
            raise ClickError(given, expected=error.expected, fix=fix) from error


def _check_listed(listed: ClickList, picture: Picture, size: tuple[int, int], clicks: Sequence[ListedClick]) -> None:
    from mmms_deploy.session.result import checked_click

    for click in clicks:
        try:
            checked_click(click.x, click.y, click.positive, size)
        except ClickError as error:
            raise ClickListError(
                f"{listed.path}, {click.where}: {error.given} {picture.path}",
                expected=error.expected,
                fix=error.command_fix,
            ) from error


def check_room(work: Work, listed: BundleClickList | None, bundle: str) -> None:
    """Check that a bundle's list of clicks holds those of every picture, and that it answers for so many objects.

    Args:
        work: The work.
        listed: The list that the bundle takes; None where it takes none.
        bundle: What names the bundle.

    Raises:
        ClickError: There are more clicks.
        SurfaceError: There are more objects.
    """
    if listed is None:
        return
    together = listed.objects > 1
    for job in work.jobs:
        counts = Counter("" if together else click.object for click in job.clicks)
        most = max(counts.values())
        if most > listed.sizes[-1]:
            raise ClickError(
                f"{job.picture.path}: {most} clicks on {'the image' if together else 'an object'}",
                expected=f"at most {listed.sizes[-1]}: {bundle} was exported with a list of so many clicks",
                fix="leave some out, or export again with a longer list: 'clicks.listed.sizes' in the description",
            )
        objects = {click.object for click in job.clicks if click.positive}
        if together and len(objects) > listed.objects:
            raise SurfaceError(
                f"{job.picture.path}: clicks on {len(objects)} objects",
                expected=f"at most {listed.objects} at once: {bundle} answers for so many",
                fix="name fewer objects, and segment the others in another run",
            )


# --- the pictures of a list -------------------------------------------------------------------------------------------

_Clicks = dict[Path, list[ListedClick]]


def _as_listed(listed: ClickList) -> tuple[list[Picture], _Clicks]:
    """Return the pictures that a list names, and the clicks of each."""
    clicks: _Clicks = {}
    known: dict[str, Path] = {}
    for name, own in listed.clicks.items():
        if name is None:
            raise ClickListError(
                f"{listed.path}, {own[0].where}: the list names no image, and the command line neither",
                expected="an image for the clicks",
                fix="name it: mmms-segment BUNDLE IMAGE --clicks FILE; or add a column 'image'",
            )
        file = _file_of(listed, name)
        if file is None:
            raise _missing(listed, name, own, [])
        clicks.setdefault(known.setdefault(os.path.realpath(file), file), []).extend(own)
    return named(list(clicks), _roots(listed, list(clicks))), clicks


def _roots(listed: ClickList, files: Sequence[Path]) -> list[Path]:
    """Return the folder from which the list names its pictures: its own, or the current one, where all lie below."""
    for folder in (listed.path.parent, Path()):
        if all(file.absolute().is_relative_to(folder.absolute()) for file in files):
            return [folder]
    return [file.parent for file in files]


def _among(listed: ClickList, pictures: Sequence[Picture]) -> tuple[_Clicks, tuple[str, ...]]:
    """Return the clicks of each picture, and the names that belong to files which are not among the pictures."""
    clicks: _Clicks = {}
    unnamed: list[str] = []
    index = _Index(pictures)
    for name, own in listed.clicks.items():
        if name is None:
            if len(pictures) > 1:
                raise ClickListError(
                    f"{listed.path}, {own[0].where}: the list names no images, and there are {len(pictures)}",
                    expected="the name of an image for every click",
                    fix="add a column 'image', or name one image",
                )
            clicks.setdefault(pictures[0].path, []).extend(own)
            continue
        picture = index.find(listed, name, own)
        if picture is not None:
            clicks.setdefault(picture.path, []).extend(own)
        elif _file_of(listed, name) is not None:
            unnamed.append(name)
        else:
            raise _missing(listed, name, own, pictures)
    return clicks, tuple(unnamed)


class _Index:
    """Pictures by their files, and by the ends of their paths.

    Args:
        pictures: The pictures.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._by_file = {os.path.realpath(picture.path): picture for picture in pictures}
        self._by_name = {plain(picture.name): picture for picture in pictures}
        self._by_last: Mapping[str, list[Picture]] = defaultdict(list)
        for picture in pictures:
            last = plain(picture.path.name)
            for key in {last, PurePosixPath(last).stem}:
                self._by_last[key].append(picture)

    def find(self, listed: ClickList, name: str, clicks: Sequence[ListedClick]) -> Picture | None:
        """Return the picture of a name; None when there is none.

        The name may be the path of its file, from the list's folder or the current one; its path below the folder that
        all pictures have in common; or the end of its path, with or without the suffix.

        Raises:
            ClickListError: It is the end of several paths.
        """
        for form in dict.fromkeys((name, name.replace("\\", "/"))):
            for file in _places(listed, form):
                picture = self._by_file.get(os.path.realpath(file))
                if picture is not None:
                    return picture
            path = PurePosixPath(plain(form))
            if str(path) in self._by_name:
                return self._by_name[str(path)]
            fitting = [picture for picture in self._by_last.get(path.name, ()) if _lies_in(picture, path)]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                some = ", ".join(str(picture.path) for picture in fitting[:_LISTED])
                raise ClickListError(
                    f"{listed.path}, {clicks[0].where}: {name!r} may be any of {len(fitting)} images: {some}",
                    expected="a name that only one image has",
                    fix="write more of its path into the list",
                )
        return None


def _lies_in(picture: Picture, path: PurePosixPath) -> bool:
    """Whether the folders of a path are the last ones of a picture's."""
    return PurePosixPath(plain(picture.path.absolute().as_posix())).parts[-len(path.parts) : -1] == path.parts[:-1]


def _places(listed: ClickList, name: str) -> tuple[Path, ...]:
    if "\0" in name:
        return ()
    return listed.path.parent / name, Path(name)


def _file_of(listed: ClickList, name: str) -> Path | None:
    """Return the file of a name, from the list's folder or from the current one; None when there is none."""
    for form in dict.fromkeys((name, name.replace("\\", "/"))):
        for file in _places(listed, form):
            try:
                if file.is_file():
                    return file
            except (OSError, ValueError):
                continue
    for file in _places(listed, name.replace("\\", "/")):
        found = _spelt_otherwise(file)
        if found is not None:
            return found
    return None


def _spelt_otherwise(file: Path) -> Path | None:
    """Return the file whose path has the same letters, which macOS and archives store as one character or as two."""
    here = Path(file.anchor)
    try:
        for part in file.parts[1:] if file.anchor else file.parts:
            below = here / part
            if not below.exists():
                same = [entry for entry in here.iterdir() if plain(entry.name) == plain(part)]
                if len(same) != 1:
                    return None
                below = same[0]
            here = below
        return here if here.is_file() else None
    except (OSError, ValueError):
        return None


def _missing(
    listed: ClickList, name: str, clicks: Sequence[ListedClick], pictures: Sequence[Picture]
) -> ClickListError:
    meant = did_you_mean(name, [picture.name for picture in pictures])
    if pictures:
        given = f"none of the {len(pictures)} images is called {name!r}{meant}"
        fix = "correct the name in the list, or name the image on the command line too"
    else:
        given = f"there is no file {name!r}, neither beside the list nor in the current folder"
        fix = "correct the name in the list, or name the folder of the images: mmms-segment BUNDLE FOLDER --clicks FILE"
    return ClickListError(f"{listed.path}, {clicks[0].where}: {given}", expected="the name of an image", fix=fix)

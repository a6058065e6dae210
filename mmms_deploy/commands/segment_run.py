"""Segments pictures one after the other with one session, writes what is wanted of each, and says what happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from rich.markup import escape

from mmms_deploy.commands.common import console, print_facts, say
from mmms_deploy.commands.display import print_result, progress_bar, waiting
from mmms_deploy.commands.output import check_folder, write_atomically
from mmms_deploy.commands.pictures import Picture, plain
from mmms_deploy.commands.segment_jobs import Failure, Job
from mmms_deploy.commands.segment_outputs import Files, Plan
from mmms_deploy.errors import AnswerError, Door, FeatureError, ImageError, ModalityError
from mmms_deploy.files import writing
from mmms_deploy.progress import Progress

if TYPE_CHECKING:
    from mmms_deploy.annotations.coco import CocoWriter
    from mmms_deploy.commands.segment_clicks import ListedClick
    from mmms_deploy.imaging.io import UInt8Array
    from mmms_deploy.imaging.resize import BoolArray
    from mmms_deploy.session import Click, Features, Session
    from mmms_deploy.session.click_list import ClickLike
    from mmms_deploy.session.result import ClickResult, ImageTimings
    from mmms_deploy.session.surfaces import Labels

OF_A_PICTURE = (ImageError, ModalityError, FeatureError, AnswerError)
"""What is wrong with one picture; the others go on."""


@dataclass
class Segmented:
    """What the clicks on a picture gave.

    Attributes:
        pixels: (H, W, 3) uint8, the picture.
        masks: (H, W) bool of every object, by name, in the order of their first clicks.
        clicks: The clicks of every object, likewise.
        timings: Where the time of the picture went.
        several: The newest answer that has others beside it; None for a network that gives one.
    """

    pixels: UInt8Array
    masks: dict[str, BoolArray] = field(default_factory=dict)
    clicks: dict[str, tuple[Click, ...]] = field(default_factory=dict)
    timings: ImageTimings | None = None
    several: ClickResult | None = None


def segment_one(
    session: Session, job: Job, files: Files, coco: CocoWriter | None, *, labels: dict[str, int], overwrite: bool
) -> None:
    """Segment a picture, say what every click does, and write its files."""
    with waiting("running the image stages"):
        found = _set(session, job)
    _print_image(session, job, found)
    before, area = "", 0
    for click in job.clicks:
        if click.object != before:
            if len(job.objects) > 1 or job.objects != (session.surface,):
                console.print(f"object   {escape(click.object)}", soft_wrap=True)
            session.select(click.object)
            before, area = click.object, int(session.mask.sum())
        result = session.click(click.x, click.y, click.positive)
        area = _print_click(result, area)
        if click.choice is not None:
            result = session.choose(click.choice)
            area = _print_choice(result, area)
        _keep(found, click.object, result)
    if _keep_all(session, job, found):
        total = session.image_size[0] * session.image_size[1]
        for name, mask in found.masks.items():
            area = int(mask.sum())
            share = f"mask {area} px, {100 * area / total:.1f} % of the image, after all clicks"
            console.print(f"object   {escape(name)}: {share}", soft_wrap=True)
    for what, path in _write(session, job, files, found, coco, labels=labels, overwrite=overwrite):
        console.print(f"{what:<8} {escape(str(path))}", soft_wrap=True)


def segment_many(
    session: Session, plan: Plan, coco: CocoWriter | None, *, labels: dict[str, int], overwrite: bool
) -> list[Failure]:
    """Segment pictures, with a line for each and a bar for all of them.

    Returns:
        The pictures that could not be segmented.
    """
    failures: list[Failure] = []
    total = len(plan.jobs)
    width = len(str(total))
    finished = 0
    try:
        with progress_bar("segmenting", remaining=True) as show:
            for number, (job, files) in enumerate(plan.jobs, start=1):
                show(Progress("segmenting", number - 1, total, detail=str(job.picture.path)))
                try:
                    line = _segment(session, job, files, coco, labels=labels, overwrite=overwrite)
                except OF_A_PICTURE as error:
                    failures.append(Failure(job.picture.path, error))
                    say_failure(failures[-1])
                else:
                    finished += 1
                    print_result(f"{number:>{width}}/{total}  {escape(line)}")
    except KeyboardInterrupt:
        kept = f"; their files are in {plan.folder}, --skip-existing goes on" if plan.folder is not None else ""
        say("note", f"{finished} of {total} images are finished{kept}{'; no COCO file is written' if coco else ''}")
        raise
    return failures


def _segment(
    session: Session, job: Job, files: Files, coco: CocoWriter | None, *, labels: dict[str, int], overwrite: bool
) -> str:
    """Segment one of many pictures, and return the line that says so."""
    start = perf_counter()
    found = _set(session, job)
    for name, clicks in groupby(job.clicks, key=lambda click: click.object):
        session.select(name)
        _keep(found, name, session.add_clicks([step for click in clicks for step in _steps(click)]))
    _keep_all(session, job, found)
    areas = {name: int(mask.sum()) for name, mask in found.masks.items()}
    for _ in _write(session, job, files, found, coco, labels=labels, overwrite=overwrite):
        pass
    return _line(job, areas, 1e3 * (perf_counter() - start))


def _steps(click: ListedClick) -> list[ClickLike]:
    """Return a click, and the choice after it where there is one, as a session takes them."""
    choice: list[ClickLike] = [] if click.choice is None else [{"choice": click.choice}]
    return [(click.x, click.y, click.positive), *choice]


def _keep(found: Segmented, name: str, result: ClickResult) -> None:
    """Keep what is written of the answer to an object's newest click."""
    found.masks[name], found.clicks[name] = result.mask, result.clicks
    if result.candidates:
        found.several = result


def _keep_all(session: Session, job: Job, found: Segmented) -> bool:
    """Keep the masks of all objects after the last click, where a click changes them all; returns whether it does."""
    if session.bundle.manifest.clicks.objects == 1 or len(job.objects) == 1:
        return False
    for name in job.objects:
        _keep(found, name, session.select(name))
    return True


def say_failure(failure: Failure) -> None:
    """Say on stderr why a picture could not be segmented."""
    message = failure.error.message(Door.COMMAND_LINE)
    say("error", message if str(failure.path) in message else f"{failure.path}: {message}")


def _line(job: Job, areas: dict[str, int], milliseconds: float) -> str:
    height, width = job.size
    named = len(areas) > 1
    each = ", ".join(
        f"{name} {100 * area / (height * width):.1f} %" if named else f"{100 * area / (height * width):.1f} %"
        for name, area in list(areas.items())[:4]
    )
    more = f" and {len(areas) - 4} more" if len(areas) > 4 else ""
    clicks = f"{len(job.clicks)} click{'s' if len(job.clicks) > 1 else ''}"
    return f"{job.picture.path} ({width} x {height})  {clicks}  {each}{more} of the image  {milliseconds:.0f} ms"


def _set(session: Session, job: Job) -> Segmented:
    from mmms_deploy.imaging.io import load_rgb

    pixels = load_rgb(job.picture.path)
    modalities = dict(job.picture.modalities)
    if job.picture.encoded:
        timings = session.use(_features_of(job.picture, pixels))
    elif job.picture.features is None:
        timings = session.set_image(pixels, **modalities)
    else:
        timings = session.set_features(job.picture.features, (pixels.shape[0], pixels.shape[1]), **modalities)
    return Segmented(pixels, timings=timings)


def _features_of(picture: Picture, pixels: UInt8Array) -> Features:
    """Read what a picture was encoded to, and check that it is this picture.

    Raises:
        FeatureError: The file has something else, or the features of another picture.
    """
    from mmms_deploy.session import Features

    assert picture.features is not None
    features = Features.load(picture.features)
    features.check_image(pixels, str(picture.path))
    return features


def _write(
    session: Session,
    job: Job,
    files: Files,
    found: Segmented,
    coco: CocoWriter | None,
    *,
    labels: dict[str, int],
    overwrite: bool,
) -> Iterable[tuple[str, Path]]:
    """Write the files of a picture; yields what was written."""
    from mmms_deploy.annotations import CocoObject, write_labels, write_mask

    points = {name: tuple((one.x, one.y, one.positive) for one in clicks) for name, clicks in found.clicks.items()}
    for name, paths in files.masks.items():
        for path in paths:
            make_folder(path)
            write_mask(path, found.masks[name], points[name], overwrite=overwrite)
            yield "mask", path
    if files.labels is not None:
        make_folder(files.labels)
        names = {name: labels[name] for name in found.masks}
        write_labels(files.labels, _labelled(session, names), names, overwrite=overwrite)
        yield "labels", files.labels
    if coco is not None:
        objects = [CocoObject(mask, name, points[name], name) for name, mask in found.masks.items() if mask.any()]
        for name in found.masks.keys() - {one.category for one in objects}:
            # Many tools refuse annotations without a pixel.
            say("note", f"{job.picture.path}: the mask of {name!r} is empty, so that the COCO file does not hold it")
        coco.add_image(plain(job.picture.name), job.size, objects)
    if files.candidates is not None and found.several is not None:
        make_folder(files.candidates)
        write_atomically(files.candidates, found.several.candidate_sheet(found.pixels), overwrite=overwrite)
        yield "answers", files.candidates
    if files.overlay is not None:
        from mmms_deploy.session.overlay import draw_objects

        make_folder(files.overlay)
        drawn = [(mask, found.clicks[name]) for name, mask in found.masks.items()]
        write_atomically(files.overlay, draw_objects(found.pixels, drawn, consume=True), overwrite=overwrite)
        yield "overlay", files.overlay


def _labelled(session: Session, names: dict[str, int]) -> Labels:
    """Return the session's label map with the labels that the objects have in every picture."""
    import numpy as np

    of_session = session.surfaces
    table = np.zeros(max(of_session.values()) + 1, dtype=np.int32)
    for name, label in names.items():
        table[of_session[name]] = label
    return table[session.labels]


def make_folder(path: Path) -> None:
    """Make the folder of a file that is about to be written."""
    if not path.parent.is_dir():
        check_folder(path.parent)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)


def _print_image(session: Session, job: Job, found: Segmented) -> None:
    height, width = session.image_size
    assert found.timings is not None
    encoded = "encoded before" if found.timings.found else f"encoded in {found.timings.engine:.1f} ms"
    print_facts(
        f"image    {escape(str(job.picture.path))} ({width} x {height}), prepared in {found.timings.prepare:.1f} ms,"
        f" {encoded}"
    )


def _crop_of(result: ClickResult) -> str:
    """Return what is said of the crop in which a click was answered; nothing where it was the whole image."""
    height, width = result.mask.shape
    if result.crop is None or result.crop == (0, 0, width, height):
        return ""
    x0, y0, x1, y1 = result.crop
    return f", in the crop {x0},{y0} to {x1},{y1}"


def _print_click(result: ClickResult, before: int) -> int:
    """Print what a click did to the mask, which had ``before`` pixels; returns how many it has now."""
    area = result.area
    made = result.click
    if made is None:
        return area
    colour, sign = ("green", "+") if made.positive else ("red", "-")
    print_facts(
        f"click {result.index:<2} [{colour}]{sign}[/] ({made.x:g}, {made.y:g})  {result.timings.total:.1f} ms"
        f" (engine {result.timings.engine:.1f}, mask {result.timings.mask:.1f}),"
        f" {_mask_of(result, before)}{_crop_of(result)}{_answer_of(result)}"
    )
    return area


def _print_choice(result: ClickResult, before: int) -> int:
    """Print what a choice did to the mask, which had ``before`` pixels; returns how many it has now."""
    print_facts(f"choice   {_mask_of(result, before)}{_answer_of(result)}")
    return result.area


def _mask_of(result: ClickResult, before: int) -> str:
    """Return what is said of a mask that had ``before`` pixels."""
    return (
        f"mask {result.area} px ({result.area - before:+d}), {100 * result.area / result.mask.size:.1f} % of the image"
    )


def _answer_of(result: ClickResult) -> str:
    """Return what is said of the answer that was taken; nothing where the network gives one."""
    taken = [place for place, one in enumerate(result.candidates) if one.taken]
    if not taken:
        return ""
    return f", answer {taken[0]} of 0 to {len(result.candidates) - 1}, score {result.score:.3f}"

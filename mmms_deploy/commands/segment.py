"""``mmms-segment``: clicks on one image or many, from the command line."""

from __future__ import annotations

from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.cleaning import cleaning_options
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, print_engine, say, warn
from mmms_deploy.commands.display import progress_bars, waiting
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Number, Text, Whole
from mmms_deploy.commands.pictures import find_pictures, parse_named_file, with_inputs
from mmms_deploy.commands.places import check_bundle_and_images, check_clicks
from mmms_deploy.commands.sections import CLEANING, ENGINE, Sections
from mmms_deploy.commands.segment_clicks import ListedClick, read_click_list
from mmms_deploy.commands.segment_jobs import Failure, Work, check_room, jobs_of_line, jobs_of_list
from mmms_deploy.commands.segment_line import OrderedCommand, Point, clicks_in_order, parse_point
from mmms_deploy.commands.segment_outputs import Plan, Wanted, check_inputs_kept, check_wanted, parse_kinds, plan
from mmms_deploy.commands.segment_run import make_folder, say_failure, segment_many, segment_one
from mmms_deploy.errors import ChoiceError, ImageError, ModalityError
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmms_deploy.bundle import Bundle
    from mmms_deploy.commands.pictures import Picture
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.imaging.cleaning import MaskCleaning

_LISTED = 5


_SECTIONS: Sections = {
    "Clicks": "--pos --neg --choose --object --clicks --zoom",
    "Images": "--recursive --modality --features --store",
    "Results": "--out --overlay --labels --candidates --out-dir --write --coco --polygons --overwrite --skip-existing",
    **CLEANING,
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    cls=OrderedCommand,
    epilog="""\b
Examples:
  mmms-segment demo photo.jpg
  mmms-segment demo photo.jpg --pos 320,240 --neg 50,60 --out mask.png --overlay picture.png
  mmms-segment demo photo.jpg --object cat --pos 80,90 --object dog --pos 300,95 --labels labels.png
  mmms-segment demo photos/ --clicks clicks.csv --out-dir results --write masks,labels --coco results.json

\b
A list of clicks, clicks.csv or clicks.json; mmms-doctor --docs segment shows every form:
  image,object,x,y,positive
  a.jpg,cat,320,240,1
  a.jpg,cat,40,50,0

\b
  {"a.jpg": {"cat": [[320, 240, 1], [40, 50, 0]]}}""",
)
@click.argument("bundle", type=FilePath())
@click.argument("images", type=FilePath(), nargs=-1, metavar="[IMAGE]...")
@click.option("--pos", multiple=True, type=parse_point, metavar="X,Y", help="Click on the object; repeat for more.")
@click.option(
    "--neg",
    multiple=True,
    type=parse_point,
    metavar="X,Y",
    help="Click on what does not belong to it; repeat for more.",
)
@click.option(
    "--choose",
    "choices",
    multiple=True,
    type=Whole(min=0),
    metavar="N",
    help="Take answer N to the click before it, counted from 0, where the network gives several (SAM 2, DISNet).",
)
@click.option(
    "--object",
    "objects",
    multiple=True,
    type=Text(),
    metavar="NAME",
    help="The clicks after it are on this object; repeat for more objects.",
)
@click.option(
    "--clicks",
    "click_file",
    type=FilePath(),
    metavar="FILE",
    help="A list of clicks instead, CSV or JSON; without IMAGE it also says which images.",
)
@click.option("--recursive", is_flag=True, help="Take the images in the folders below a folder, too.")
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    type=parse_named_file,
    metavar="NAME=PATH",
    help="An extra modality: image or .npy file; or a folder that has one for every image, of the same name.",
)
@click.option(
    "--features",
    type=FilePath(),
    metavar="PATH",
    help="What IMAGE was encoded to (.features), as mmms-package --image writes it, for a click bundle or the whole"
    " one; or the backbone's features (.npz), for a bundle exported with --cut black-box; or a folder of such files.",
)
@click.option(
    "--store",
    type=FilePath(),
    metavar="DIR",
    help="Keep what images are encoded to in this folder, and encode none that is there already; a click bundle takes"
    " its images' features from it.",
)
@click.option(
    "--out",
    type=FilePath(),
    metavar="FILE",
    help="Write the mask of one object here: 0 and 255 (PNG, BMP or TIFF), or with its outline, run lengths and"
    " clicks (.json).",
)
@click.option("--overlay", type=FilePath(), metavar="FILE", help="Write a picture of masks and clicks here.")
@click.option(
    "--labels",
    type=FilePath(),
    metavar="FILE",
    help="Write the label map of all objects here (PNG): 0 is background, 1, 2, ... the objects; it holds their names.",
)
@click.option(
    "--candidates",
    type=FilePath(),
    metavar="FILE",
    help="Write a picture of all answers to the newest click that has several here, side by side with their scores.",
)
@click.option(
    "--out-dir",
    type=FilePath(),
    metavar="DIR",
    help="Write files for every image into folders in DIR.  [default for several images: segmented]",
)
@click.option(
    "--write",
    "kinds",
    type=parse_kinds,
    metavar="KINDS",
    help="What goes into --out-dir: masks, overlays, labels, json; several with commas.  [default: masks,overlays]",
)
@click.option(
    "--coco",
    type=FilePath(),
    metavar="FILE",
    help="Write one COCO file (.json) of all images and objects, with their clicks; --clicks reads it again.",
)
@click.option(
    "--polygons",
    "tolerance",
    type=Number(min=0),
    metavar="PIXELS",
    help="In --coco write outlines instead of run lengths, simplified by at most PIXELS (0: exact); objects with holes"
    " keep run lengths.",
)
@click.option(
    "--zoom",
    is_flag=True,
    help="Answer every click after an object's first one in its crop, at the network's full resolution: finer masks of"
    " small objects in large images, and the image's part again when the crop changes.",
)
@cleaning_options
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--skip-existing", is_flag=True, help="Pass over images whose files in --out-dir exist, to go on later.")
@engine_options
@click.pass_context
def main(
    ctx: click.Context,
    bundle: Path,
    images: tuple[Path, ...],
    pos: tuple[Point, ...],
    neg: tuple[Point, ...],
    choices: tuple[int, ...],
    objects: tuple[str, ...],
    click_file: Path | None,
    recursive: bool,
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    store: Path | None,
    out: Path | None,
    overlay: Path | None,
    labels: Path | None,
    candidates: Path | None,
    out_dir: Path | None,
    kinds: tuple[str, ...] | None,
    coco: Path | None,
    tolerance: float | None,
    zoom: bool,
    overwrite: bool,
    skip_existing: bool,
    cleaning: MaskCleaning | None,
    request: EngineRequest,
) -> None:
    """Segment objects in images by clicks, with the network in BUNDLE (demo: the one that ships with mmms-deploy).

    An IMAGE is a file, or a folder of them. Clicks are X,Y in the image's own pixels, x to the right and y downwards,
    pixel centres at integers, after the image's EXIF orientation was applied. They are taken in the order in which they
    are given. Without a click, the centre of the image is clicked.

    Unless an option names outputs, one image gives NAME-mask.png and NAME-overlay.png in the current folder, and
    several give files in the folder segmented.
    """
    clicks = clicks_in_order(ctx, pos, neg, choices, objects)
    wanted = Wanted(out, overlay, labels, candidates, out_dir, kinds or (), coco, overwrite, skip_existing)
    _check_usage(wanted, images, clicks, choices, objects, click_file, modalities, features)
    if tolerance is not None and coco is None:
        raise click.UsageError("--polygons is about the file of --coco, which is missing.")
    check_bundle_and_images(bundle, images, "mmms-segment")
    many = click_file is not None or any(image.is_dir() for image in images)
    with waiting("looking at the images") if many else nullcontext():
        work = _work(wanted, images, clicks, choices, click_file, recursive)
        pictures = with_inputs([job.picture for job in work.jobs], modalities, features)
        work = work.with_pictures(pictures)
        planned = plan(wanted, work)
        read = [path for picture in pictures for path in (picture.path, *picture.modalities.values())]
        check_inputs_kept([*read, *(path for path in (click_file, features) if path is not None)], planned)
    _say_what_was_found(work, planned, clicks, click_file)
    if not planned.jobs:
        _print_end(planned, list(work.failures))
        return
    bundle = fetched_bundle(bundle)

    with ExitStack() as resources:
        with progress_bars("opening the bundle") as on_progress:
            from mmms_deploy.bundle import Bundle
            from mmms_deploy.engines.select import open_request
            from mmms_deploy.session import Session
            from mmms_deploy.store import FeatureStore

            opened = Bundle(bundle)
            _check_inputs(opened, [job.picture for job, _ in planned.jobs], [name for name, _ in modalities], store)
            if choices or candidates is not None:
                _check_several(opened)
            check_room(work, opened.manifest.clicks.listed, opened.reference)
            engine = resources.enter_context(closing(open_request(opened, request, on_progress)))
            session = resources.enter_context(
                Session(
                    opened,
                    engine=engine,
                    history_limit=0,
                    keep_image=False,
                    zoom=zoom,
                    cleaning=cleaning,
                    store=None if store is None else FeatureStore(store),
                )
            )
        if not session.bundle.manifest.trained:
            warn(f"the weights of {bundle} are random, so its masks mean nothing")
        print_engine(session.engine)
        numbers = {name: number for number, name in enumerate(work.objects, start=1)}
        writer = None
        if coco is not None:
            from mmms_deploy.annotations import CocoWriter

            writer = CocoWriter(work.objects, polygons=tolerance is not None, tolerance=tolerance or 0.0)
        failures = list(work.failures)
        if len(planned.jobs) == 1 and not failures and not planned.done:
            segment_one(session, *planned.jobs[0], writer, labels=numbers, overwrite=overwrite)
        else:
            failures += segment_many(session, planned, writer, labels=numbers, overwrite=overwrite)
    if coco is not None and writer is not None:
        make_folder(coco)
        writer.write(coco, overwrite=overwrite)
    _print_end(planned, failures)


def _check_usage(
    wanted: Wanted,
    images: tuple[Path, ...],
    clicks: list[ListedClick],
    choices: tuple[int, ...],
    objects: tuple[str, ...],
    click_file: Path | None,
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
) -> None:
    if not images and click_file is None:
        raise click.UsageError(
            "Missing argument 'IMAGE': name a bundle and an image, such as mmms-segment demo photo.jpg."
        )
    if (clicks or choices) and click_file is not None:
        raise click.UsageError("--clicks has the clicks: leave out --pos, --neg, --choose and --object, or --clicks.")
    check_wanted(wanted, images=len(images), names=list(dict.fromkeys(objects)))
    names = [name for name, _ in modalities]
    if len(set(names)) < len(names):
        raise click.UsageError(f"--modality names one modality twice: {', '.join(names)}.")
    inputs = [*images, *(file for _, file in modalities), *(path for path in (features, click_file) if path)]
    outputs = [path for path in (*wanted.single.values(), wanted.coco) if path is not None]
    read, written = {path.resolve() for path in inputs}, [path.resolve() for path in outputs]
    if read.intersection(written) or len(set(written)) < len(written):
        raise click.UsageError(
            "The files to read, --out, --overlay, --labels, --candidates and --coco must all be different files."
        )


def _work(
    wanted: Wanted,
    images: tuple[Path, ...],
    clicks: list[ListedClick],
    choices: tuple[int, ...],
    click_file: Path | None,
    recursive: bool,
) -> Work:
    if click_file is not None:
        check_clicks(click_file)
        return jobs_of_list(read_click_list(click_file), images, recursive=recursive, without=wanted.passed_over)
    pictures = find_pictures(images, recursive=recursive, without=wanted.passed_over)
    return jobs_of_line(pictures, clicks, choices[0] if choices and not clicks else None)


def _say_what_was_found(work: Work, planned: Plan, clicks: list[ListedClick], click_file: Path | None) -> None:
    """Say on stderr what is not obvious: where no click was given, and what is left out."""
    if not clicks and click_file is None and work.jobs:
        first = work.jobs[0].clicks[0]
        where = f"at the centre, {first.x:g},{first.y:g}; choose with --pos X,Y"
        if len(work.jobs) > 1:
            where = "at the centre of every image; choose with --pos X,Y or --clicks FILE"
        say("note", f"no click was given: clicked {where}")
    if work.skipped:
        say("note", f"{_counted(len(work.skipped), 'image')} without a click in {click_file}: {_some(work.skipped)}")
    if work.unnamed:
        given = _counted(len(work.unnamed), "image")
        say("note", f"{given} of {click_file} not named on the command line: {_some(work.unnamed)}")
    if planned.done:
        say("note", f"{_counted(planned.done, 'image')} passed over: the files exist")
    for failure in work.failures:
        say_failure(failure)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(names: Sequence[object]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(str, names[:_LISTED])) + more


def _print_end(planned: Plan, failures: list[Failure]) -> None:
    """Say how much was done and where everything is; raise when a picture was not segmented."""
    failed = {failure.path for failure in failures}
    finished = [job for job, _ in planned.jobs if job.picture.path not in failed]
    if finished and (len(planned.jobs) > 1 or failures or planned.done):
        objects = sum(len(job.objects) for job in finished)
        console.print(f"finished {_counted(len(finished), 'image')}, {_counted(objects, 'object')}")
    if planned.folder is not None and planned.jobs:
        console.print(f"results  {escape(str(planned.folder))} ({', '.join(planned.kinds)})", soft_wrap=True)
    if planned.coco is not None and planned.jobs:
        console.print(f"coco     {escape(str(planned.coco))}", soft_wrap=True)
    if failures:
        total = len(planned.jobs) + planned.done + len(failed - _paths(planned))
        raise ImageError(
            f"{len(failures)} of {total} images could not be segmented: {_some([one.path for one in failures])}",
            expected="images that can be read",
            fix="the lines above say what is wrong with each; the others are segmented",
        )


def _paths(planned: Plan) -> set[Path]:
    return {job.picture.path for job, _ in planned.jobs}


def _check_several(bundle: Bundle) -> None:
    """Check before an engine is opened that there is something to choose from."""
    if bundle.manifest.clicks.candidates == 1:
        raise ChoiceError(
            f"{bundle.reference} gives one answer to a click",
            expected="a network that gives several, such as SAM 2",
            fix="leave out --choose and --candidates",
        )


def _check_inputs(bundle: Bundle, pictures: Sequence[Picture], modalities: Sequence[str], store: Path | None) -> None:
    """Check before an engine is opened that every picture has what the bundle needs beside clicks.

    Raises:
        SessionError: A click bundle is to encode a picture.
        ModalityError: A name is not known, or missing; or modalities are given for images that were encoded with them.
    """
    from mmms_deploy.session.click_only import takes_no_backbone, takes_no_image

    encoded = [picture for picture in pictures if picture.encoded]
    backbone = any(picture.features is not None for picture in pictures if not picture.encoded)
    if bundle.manifest.click_only and len(encoded) < len(pictures) and (backbone or store is None):
        raise (takes_no_backbone if backbone else takes_no_image)(bundle.manifest)
    if encoded and modalities:
        raise ModalityError(
            f"{encoded[0].features} has an image that was encoded with its modalities, and {', '.join(modalities)} is"
            " given too",
            expected="one of them",
            fix="leave out --modality, or --features",
        )
    if not encoded:
        _check_modalities(bundle, modalities)


def _check_modalities(bundle: Bundle, names: Sequence[str]) -> None:
    """Check the names before an engine is opened; a session would check them after."""
    specs = {spec.name: spec for spec in bundle.manifest.modalities}
    takes = ", ".join(f"{spec.name} (optional)" if spec.optional else spec.name for spec in specs.values()) or "none"
    unknown = [name for name in names if name not in specs]
    missing = [name for name, spec in specs.items() if name not in names and not spec.optional]
    if not unknown and not missing:
        return
    surplus = [f"not known: {name}{did_you_mean(name, specs)}" for name in unknown]
    raise ModalityError(
        "; ".join([*surplus, *([f"missing: {', '.join(missing)}"] if missing else [])]),
        expected=f"the modalities of {bundle.reference}: {takes}",
        fix="pass each with --modality NAME=PATH" if specs else "leave --modality out",
    )


if __name__ == "__main__":
    main()

"""``mmms-segment``: clicks on one image, from the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.command import Command, command
from mmms_deploy.commands.common import console, engine_options, print_engine, warn
from mmms_deploy.commands.display import progress_bars, waiting
from mmms_deploy.commands.output import check_output, write_atomically
from mmms_deploy.commands.parameters import FilePath
from mmms_deploy.commands.places import check_bundle_and_image
from mmms_deploy.errors import ModalityError
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.session import Session
    from mmms_deploy.session.result import ClickResult, ImageTimings

Point = tuple[float, float]

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
_PICTURES = (*_LOSSLESS, ".jpg", ".jpeg", ".webp")


def parse_point(text: str) -> Point:
    """Parse ``X,Y``."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not X,Y, such as 320,240") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise click.BadParameter(f"{text!r} is no place; X and Y are finite numbers")
    return x, y


def parse_named_file(text: str) -> tuple[str, Path]:
    """Parse ``NAME=FILE``."""
    name, equals, file = text.partition("=")
    if not (name and equals and file) or "\0" in text:
        raise click.BadParameter(f"{text!r} is not NAME=FILE, such as depth=depth.png")
    return name, Path(file)


class OrderedCommand(Command):
    """A command that keeps the order in which --pos and --neg were given; the options alone lose it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep the order in the context."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            ctx.meta[__name__] = [parameter.name for parameter in order if parameter.name in ("pos", "neg")]
        return super().parse_args(ctx, args)


@command(
    cls=OrderedCommand,
    epilog="""\b
Example:
  mmms-segment bundles/demo photo.jpg --pos 320,240 --neg 50,60 --out mask.png --overlay picture.png""",
)
@click.argument("bundle", type=FilePath())
@click.argument("image", type=FilePath())
@click.option("--pos", multiple=True, type=parse_point, metavar="X,Y", help="Click on the object; repeat for more.")
@click.option(
    "--neg",
    multiple=True,
    type=parse_point,
    metavar="X,Y",
    help="Click on what does not belong to it; repeat for more.",
)
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    type=parse_named_file,
    metavar="NAME=FILE",
    help="An extra modality: image or .npy file.",
)
@click.option(
    "--features",
    type=FilePath(),
    metavar="FILE",
    help="The backbone's features of IMAGE (.npz), for a bundle exported with --cut black-box.",
)
@click.option("--out", type=FilePath(), help="Write the mask here, 0 and 255 (PNG, BMP or TIFF).")
@click.option("--overlay", type=FilePath(), help="Write a picture of mask and clicks here.")
@click.option("--overwrite", is_flag=True, help="Replace --out and --overlay when they exist.")
@engine_options
@click.pass_context
def main(
    ctx: click.Context,
    bundle: Path,
    image: Path,
    pos: tuple[Point, ...],
    neg: tuple[Point, ...],
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    out: Path | None,
    overlay: Path | None,
    overwrite: bool,
    request: EngineRequest,
) -> None:
    """Segment one object in IMAGE by clicks, with the network in BUNDLE.

    Clicks are X,Y in the image's own pixels, x to the right and y downwards, pixel centres at integers, after the
    image's EXIF orientation was applied. They are taken in the order in which they are given.
    """
    clicks = _in_order(ctx.meta[__name__], pos, neg)
    _check_usage(clicks, modalities, features, image, out, overlay)
    check_bundle_and_image(bundle, image)
    _check_files(modalities)
    for path in (out, overlay):
        if path is not None:
            check_output(path, overwrite=overwrite)

    with ExitStack() as resources:
        with progress_bars("opening the bundle") as on_progress:
            from mmms_deploy.bundle import Bundle
            from mmms_deploy.engines.select import open_request
            from mmms_deploy.imaging.io import load_rgb
            from mmms_deploy.session import Session
            from mmms_deploy.session.result import checked_click

            pixels = load_rgb(image)
            for (x, y), positive in clicks:
                checked_click(x, y, positive, (pixels.shape[0], pixels.shape[1]))
            opened = Bundle(bundle)
            _check_modalities(opened, [name for name, _ in modalities])
            engine = resources.enter_context(closing(open_request(opened, request, on_progress)))
            session = resources.enter_context(Session(opened, engine=engine, history_limit=0, keep_image=False))
        if not session.bundle.manifest.trained:
            warn(f"the weights of {bundle} are random, so its masks mean nothing")
        with waiting("running the image stages"):
            if features is None:
                timings = session.set_image(pixels, **dict(modalities))
            else:
                timings = session.set_features(features, (pixels.shape[0], pixels.shape[1]), **dict(modalities))
        _print_image(session, image, timings)
        area = 0
        for (x, y), positive in clicks:
            area = _print_click(session.click(x, y, positive), area)
        mask, taken = session.mask, session.clicks

    if out is not None:
        import numpy as np
        from PIL import Image

        write_atomically(out, Image.fromarray(mask.view("uint8") * np.uint8(255)), overwrite=overwrite)
        console.print(f"mask     {escape(str(out))}", soft_wrap=True)
    if overlay is not None:
        from mmms_deploy.session.overlay import draw_overlay

        write_atomically(overlay, draw_overlay(pixels, mask, taken, consume=True), overwrite=overwrite)
        console.print(f"overlay  {escape(str(overlay))}", soft_wrap=True)


def _in_order(order: list[str], pos: tuple[Point, ...], neg: tuple[Point, ...]) -> list[tuple[Point, bool]]:
    points = {"pos": iter(pos), "neg": iter(neg)}
    return [(next(points[name]), name == "pos") for name in order]


def _check_usage(
    clicks: list[tuple[Point, bool]],
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    image: Path,
    out: Path | None,
    overlay: Path | None,
) -> None:
    if not clicks:
        raise click.UsageError("No click given: pass --pos X,Y at least once.")
    if out is None and overlay is None:
        raise click.UsageError("Nothing to write: pass --out, --overlay, or both.")
    if out is not None and out.suffix.lower() not in _LOSSLESS:
        raise click.UsageError(f"--out {out}: a mask must be lossless; its name must end in {', '.join(_LOSSLESS)}.")
    if overlay is not None and overlay.suffix.lower() not in _PICTURES:
        raise click.UsageError(f"--overlay {overlay}: its name must end in {', '.join(_PICTURES)}.")
    names = [name for name, _ in modalities]
    if len(set(names)) < len(names):
        raise click.UsageError(f"--modality names one modality twice: {', '.join(names)}.")
    inputs = [image, *(file for _, file in modalities), *([features] if features else [])]
    read = {path.resolve() for path in inputs}
    written = [path.resolve() for path in (out, overlay) if path is not None]
    if read.intersection(written) or len(set(written)) < len(written):
        raise click.UsageError("The files to read, --out and --overlay must all be different files.")


def _check_files(modalities: Sequence[tuple[str, Path]]) -> None:
    for name, file in modalities:
        if not file.exists():
            raise ModalityError(
                f"modality {name!r}: there is no file {file}",
                expected="an image or .npy file",
                fix="check the path",
            )


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
        expected=f"the modalities of {bundle.path}: {takes}",
        fix="pass each with --modality NAME=FILE" if specs else "leave --modality out",
    )


def _print_image(session: Session, image: Path, timings: ImageTimings) -> None:
    height, width = session.image_size
    print_engine(session.engine)
    console.print(
        f"image    {escape(str(image))} ({width} x {height}), prepared in {timings.prepare:.1f} ms,"
        f" encoded in {timings.engine:.1f} ms",
        soft_wrap=True,
    )


def _print_click(result: ClickResult, before: int) -> int:
    """Print what a click did to the mask, which had ``before`` pixels; returns how many it has now."""
    area = int(result.mask.sum())
    made = result.click
    if made is None:
        return area
    colour, sign = ("green", "+") if made.positive else ("red", "-")
    console.print(
        f"click {result.index:<2} [{colour}]{sign}[/] ({made.x:g}, {made.y:g})  {result.timings.total:.1f} ms"
        f" (engine {result.timings.engine:.1f}, mask {result.timings.mask:.1f}),"
        f" mask {area} px ({area - before:+d}), {100 * area / result.mask.size:.1f} % of the image",
        soft_wrap=True,
    )
    return area


if __name__ == "__main__":
    main()

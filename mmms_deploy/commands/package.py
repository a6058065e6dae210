"""``mmms-package``: what an annotation service gets: the click stage alone, and images with their features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from mmms_deploy.commands.click_bundles import check_encodes
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, print_engine, say, warn
from mmms_deploy.commands.display import progress_bars, waiting
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.output import check_output
from mmms_deploy.commands.parameters import FilePath, PrecisionsType
from mmms_deploy.commands.pictures import ENCODED, Picture, find_pictures, parse_named_file, with_inputs
from mmms_deploy.commands.places import check_bundle_and_images
from mmms_deploy.errors import ImageError

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle, Precision
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.session import Features, Model


@command(
    epilog="""\b
Examples:
  mmms-package demo --out bundles/demo-clicks
  mmms-package demo --image photo.jpg --out photo.features
  mmms-package bundles/demo-thermal --image photo.jpg --modality thermal=thermal.png --out photo.features

\b
The annotation service then runs:
  mmms-segment bundles/demo-clicks photo.jpg --features photo.features --pos 320,240

\b
Who holds what, and what features tell of an image: mmms-doctor --docs package"""
)
@click.argument("bundle", type=FilePath())
@click.option(
    "--out",
    type=FilePath(),
    required=True,
    metavar="PATH",
    help=f"The folder of the click bundle; with --image the file of features, NAME{ENCODED}.",
)
@click.option("--image", type=FilePath(), metavar="FILE", help="Encode this image, and write no bundle.")
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    type=parse_named_file,
    metavar="NAME=FILE",
    help="An extra modality of --image: an image or .npy file. It is read here, and not written.",
)
@click.option(
    "--features",
    type=FilePath(),
    metavar="FILE",
    help="The backbone's features of --image (.npz), for a bundle exported with --cut black-box.",
)
@click.option(
    "--precision",
    "precisions",
    type=PrecisionsType(),
    metavar="NAMES",
    help="Precisions of the click bundle's graphs, such as fp32,fp16; with --image the one to encode in."
    "  [default: all that the bundle has; with --image that of the chosen engine]",
)
@click.option("--overwrite", is_flag=True, help="Replace an older bundle, or file of features.")
@engine_options(precision=False)
def main(
    bundle: Path,
    out: Path,
    image: Path | None,
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    precisions: tuple[Precision, ...] | None,
    overwrite: bool,
    request: EngineRequest,
) -> None:
    """Write what an annotation service gets, and nothing of what BUNDLE's owner keeps.

    Without --image: a click bundle, a folder with the click stage alone. It has no backbone, no stage for modalities,
    and opens as every bundle does. With --image: a file with the features of the image for that click bundle, and its
    RGB pixels. It has no modality. Whoever has both clicks on the image, and gets the masks of the whole bundle.
    """
    _check_usage(out, image, modalities, features, precisions)
    check_bundle_and_images(bundle, () if image is None else (image,), "mmms-package")
    if image is None:
        _write_bundle(fetched_bundle(bundle), out, precisions, overwrite, request)
        return
    if image.is_dir():
        raise ImageError(
            f"{image} is a folder",
            expected="one picture",
            fix=f"mmms-precompute {image} --bundle {bundle} --out DIR --for-clicks writes a file for every image in it",
        )
    picture = with_inputs(find_pictures([image]), modalities, features)[0]
    check_output(out, overwrite=overwrite)
    _write_features(fetched_bundle(bundle), picture, out, precisions, overwrite, request)


def _check_usage(
    out: Path,
    image: Path | None,
    modalities: tuple[tuple[str, Path], ...],
    features: Path | None,
    precisions: tuple[Precision, ...] | None,
) -> None:
    if image is None:
        for option, given in (("--modality", modalities), ("--features", features)):
            if given:
                raise click.UsageError(f"{option} belongs to an image, and there is none: pass --image FILE.")
        return
    names = [name for name, _ in modalities]
    if len(set(names)) < len(names):
        raise click.UsageError(f"--modality names one modality twice: {', '.join(names)}.")
    if precisions is not None and len(precisions) > 1:
        raise click.UsageError("--image is encoded in one precision: pass one name with --precision.")
    if out.suffix != ENCODED:
        raise click.UsageError(
            f"--out names a file of features, and it ends in {ENCODED}: --out {image.stem}{ENCODED}."
        )


def _write_bundle(
    bundle: Path, out: Path, precisions: tuple[Precision, ...] | None, overwrite: bool, request: EngineRequest
) -> None:
    with progress_bars("comparing hashes, opening the engine") as on_progress:
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.replay import load_golden, write_click_bundle

        whole = Bundle(bundle)
        made = write_click_bundle(
            whole, out, precisions=precisions, overwrite=overwrite, request=request, on_progress=on_progress
        )
        pictures = len(load_golden(made.file("golden.npz")))
    if not made.manifest.trained:
        warn(f"the weights of {bundle} are random, so its masks mean nothing")
    kept = ", ".join(stage.name for stage in made.manifest.stages)
    left = ", ".join(stage.name for stage in whole.manifest.stages if stage.name not in kept.split(", "))
    console.print(f"clicks   {escape(str(out))}: {_size(made)} of {_size(whole)}", soft_wrap=True)
    console.print(f"holds    {escape(kept)} in {', '.join(made.manifest.precisions)}", soft_wrap=True)
    console.print(f"without  {escape(left)}", soft_wrap=True)
    console.print(
        f"golden   {pictures} pictures as features, without pixels; the clicks on them were replayed", soft_wrap=True
    )
    if made.manifest.provenance.license is None:
        say("note", "the licence of the weights is not stated; the model card says so")
    click.echo(f"Encode an image for it: mmms-package {bundle} --image PHOTO --out NAME{ENCODED}")


def _size(bundle: Bundle) -> str:
    return f"{sum(entry.size for entry in bundle.manifest.files.values()) / 1e6:.1f} MB"


def _write_features(
    bundle: Path,
    picture: Picture,
    out: Path,
    precisions: tuple[Precision, ...] | None,
    overwrite: bool,
    request: EngineRequest,
) -> None:
    with progress_bars("opening the bundle") as on_progress:
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.engines.select import open_request
        from mmms_deploy.session import Model

        opened = Bundle(bundle)
        check_encodes(opened, "name the bundle that it was made of: features are made with that")
        request = replace(request, precision=None if precisions is None else str(precisions[0]))
        engine = open_request(opened, request, on_progress)
    try:
        with Model(opened, engine=engine) as model:
            print_engine(model.engine)
            with waiting("encoding the image"):
                features = _encoded(model, picture).for_clicks(opened.manifest)
                features.save(out, picture=True, overwrite=overwrite)
    finally:
        engine.close()
    if not opened.manifest.trained:
        warn(f"the weights of {bundle} are random, so masks mean nothing")
    height, width = features.size
    console.print(f"image    {escape(str(picture.path))} ({width} x {height})", soft_wrap=True)
    console.print(
        f"features {escape(str(out))}: {out.stat().st_size / 1e6:.1f} MB, of which {features.nbytes / 1e6:.1f} MB are"
        f" {len(features.arrays)} tensors; the rest is the RGB image",
        soft_wrap=True,
    )
    fused = ", ".join(sorted(features.present))
    if fused:
        console.print(f"without  {escape(fused)}: in the features, and not in the file", soft_wrap=True)


def _encoded(model: Model, picture: Picture) -> Features:
    """Encode a picture; its pixels come with it."""
    from mmms_deploy.imaging.io import load_rgb

    modalities: dict[str, Any] = dict(picture.modalities)
    if picture.features is None:
        return model.encode(picture.path, **modalities)
    pixels = load_rgb(picture.path)
    size = (pixels.shape[0], pixels.shape[1])
    features = model.encode_backbone(picture.features, size, **modalities)
    return replace(features, picture=pixels, file_name=picture.path.name)


if __name__ == "__main__":
    main()

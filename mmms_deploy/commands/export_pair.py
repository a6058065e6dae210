"""``mmms-export`` for an encoder and a decoder in ONNX files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmms_deploy.bundle import Precision
from mmms_deploy.commands.display import progress_bar
from mmms_deploy.commands.export_summary import summarise
from mmms_deploy.commands.places import PAIRS
from mmms_deploy.documents import document
from mmms_deploy.errors import ExportError

if TYPE_CHECKING:
    from mmms_deploy.export.exporter import ExportReport
    from mmms_deploy.export.pair.exporter import PairSource
    from mmms_deploy.progress import Progress


def is_pair(ckpt: str | None, encoder: Path | None, decoder: Path | None) -> bool:
    """Return whether an encoder and a decoder are asked for: by their files, or by the name of a pair."""
    return encoder is not None or decoder is not None or ckpt in PAIRS


_FOR_NETWORKS = {
    "random_weights": "--random-weights",
    "weights": "--weights",
    "backbone_ckpt": "--backbone-ckpt",
    "backbone": "--backbone",
    "backbone_onnx": "--backbone-onnx",
    "size": "--size",
    "modalities": "--modality",
    "cuts": "--cut",
    "batches": "--batch",
    "no_rewrite": "--no-rewrite",
    "gates": "--gate",
    "gate_data": "--gate-data",
}
"""Options that are for networks in PyTorch, by parameter."""


def check_pair(ckpt: str | None, encoder: Path | None, decoder: Path | None, params: Mapping[str, Any]) -> None:
    """Check the options for a pair.

    Args:
        ckpt: The checkpoint, or the name of a pair.
        encoder: The encoder's file.
        decoder: The decoder's file.
        params: All parameters of the command.

    Raises:
        click.UsageError: They do not go together.
    """
    if (encoder is None) != (decoder is None):
        raise click.UsageError("--encoder FILE and --decoder FILE go together")
    if ckpt is not None and encoder is not None:
        raise click.UsageError("give --encoder and --decoder, or --ckpt")
    wrong = [option for name, option in _FOR_NETWORKS.items() if params[name] not in (None, ())]
    wrong += ["--precision"] if set(params["precisions"]) != {Precision.FP32} else []
    if wrong:
        raise click.UsageError(
            f"{wrong[0]} is for a network in PyTorch; an encoder and a decoder in ONNX files are exported as they are,"
            " in fp32"
        )
    for option, path in (("--encoder", encoder), ("--decoder", decoder)):
        if path is not None and not path.is_file():
            raise ExportError(
                f"{option}: there is no file {path!s:.200}", expected="an .onnx or .ort file", fix="check the path"
            )


def export_pair_files(
    ckpt: str | None,
    encoder: Path | None,
    decoder: Path | None,
    description: Path | None,
    license_name: str | None,
    out: Path,
    *,
    overwrite: bool,
) -> ExportReport:
    """Export a pair and print what was done.

    Args:
        ckpt: The name of a pair that is known; None for files.
        encoder: The encoder's file.
        decoder: The decoder's file.
        description: A file with the description; None takes the one of a pair that is known.
        license_name: Licence of the weights; None takes the description's.
        out: The bundle's folder.
        overwrite: Whether to replace an existing bundle.
    """
    from mmms_deploy.export.pair.exporter import STEPS, export_pair

    start = time.perf_counter()
    source = _source(ckpt, encoder, decoder, description, license_name)
    with progress_bar("starting") as show:
        done = 0

        def on_progress(step: Progress) -> None:
            nonlocal done
            show(type(step)(step.task, done, STEPS))
            done += 1

        report = export_pair(source, out, overwrite=overwrite, on_progress=on_progress)
    summarise(report, time.perf_counter() - start)
    return report


def _source(
    ckpt: str | None, encoder: Path | None, decoder: Path | None, description: Path | None, license_name: str | None
) -> PairSource:
    from mmms_deploy.export.pair import known
    from mmms_deploy.export.pair.description import read_pair
    from mmms_deploy.export.pair.exporter import PairSource

    given = None if description is None else read_pair(description)
    if ckpt is not None:
        with progress_bar("fetching") as show:
            source = known.PAIRS[ckpt].fetched(show, license=license_name)
        return (
            source if given is None else PairSource(source.encoder, source.decoder, given, source.origin, license_name)
        )
    assert encoder is not None
    assert decoder is not None
    if given is None:
        given = known.known_description(encoder, decoder)
    if given is None:
        raise ExportError(
            "nothing says what goes into the encoder and the decoder",
            expected=f"--description FILE, as {document('foreign')} shows it; the files of {', '.join(known.PAIRS)}"
            " need none",
            fix="write a description, or check that the files are the whole ones",
        )
    return PairSource(encoder, decoder, given, None, license_name)

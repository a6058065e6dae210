"""The stages of a bundle that see clicks, apart from the others: what a click bundle holds (paper, appendix B).

A company that keeps the backbone and the data of the sensors gives these stages to an annotation service, and for every
image the RGB picture with what its own stages made of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from mmms_deploy.bundle.click_inputs import click_inputs, click_stages
from mmms_deploy.bundle.external_data import external_parts
from mmms_deploy.bundle.manifest import Manifest, Precision, Rate, Role, StageGraph
from mmms_deploy.bundle.reader import Bundle
from mmms_deploy.bundle.split import EARLY, split_of
from mmms_deploy.bundle.writer import BundleWriter
from mmms_deploy.errors import BundleError
from mmms_deploy.files import open_regular, writing

_CHUNK = 1 << 20


def check_separable(manifest: Manifest) -> None:
    """Check that a bundle's stages at clicks can work without its backbone and its modalities.

    Raises:
        BundleError: It is a click bundle already; or nothing runs before the clicks, or next to nothing; or a stage at
            clicks reads a modality itself.
    """
    name, split = manifest.name, split_of(manifest)
    expected = "a bundle whose image stages hold what is to be kept"
    if manifest.click_only:
        raise BundleError(
            f"{name} is a click bundle already", expected="the bundle that it was made of", fix="copy its folder"
        )
    if all(stage.rate >= Rate.FIRST_CLICK for stage in manifest.stages):
        raise BundleError(
            f"all of {name} runs at every click",
            expected=expected,
            fix="give the bundle itself away, or export the network with its backbone",
        )
    if split is not None and split.gain < EARLY:
        raise BundleError(
            f"{name} is fused early: a click computes {split.click / split.whole:.1%} of the network, its backbone too",
            expected=expected,
            fix="take a network that is fused late, such as MMMS or SkipClick",
        )
    read = sorted(spec.name for spec in click_inputs(manifest).values() if spec.role is Role.MODALITY)
    if read:
        raise BundleError(
            f"the click stage of {name} reads {', '.join(read)} itself",
            expected="a network whose modalities are fused before the clicks",
            fix="export the checkpoint again without the cut 'black-box'",
            command_fix="export the checkpoint again without --cut black-box",
        )


def checked_precisions(manifest: Manifest, wanted: Iterable[Precision | str] | None) -> tuple[Precision, ...]:
    """Return the precisions of a click bundle: the wanted ones, or all in which the bundle has its stages at clicks.

    Raises:
        BundleError: The bundle lacks one of them, or none is wanted.
    """
    there = tuple(p for p in Precision if all(p in stage.graphs for stage in click_stages(manifest)))
    if wanted is None:
        return there
    given = tuple(dict.fromkeys(map(str, wanted)))
    missing = [name for name in given if name not in there]
    if missing or not given:
        raise BundleError(
            f"{manifest.name} has no graphs in {', '.join(missing) or 'no precision'}",
            expected=f"one or more of {', '.join(there)}",
            fix="leave precisions out, or export the checkpoint again with that precision",
            command_fix="leave --precision out, or export again with mmms-export --precision",
        )
    return tuple(p for p in there if p in given)


def click_manifest(manifest: Manifest, name: str, precisions: Collection[Precision], created: str) -> Manifest:
    """Return the manifest of a click bundle; its files, card and digest are filled in when it is written.

    Nothing is in it of how modalities are prepared, nor what the backbone's activations are.

    Args:
        manifest: That of the bundle it is made of.
        name: Its name.
        precisions: Its precisions.
        created: UTC time in ISO 8601.
    """
    origin = manifest.provenance
    description = {key: value for key, value in origin.description.items() if key != "modalities"}
    stages = tuple(
        msgspec.structs.replace(stage, graphs={p: graph for p, graph in stage.graphs.items() if p in precisions})
        for stage in click_stages(manifest)
    )
    return msgspec.structs.replace(
        manifest,
        name=name,
        modalities=(),
        stages=stages,
        provenance=msgspec.structs.replace(origin, description=description, created=created),
        activations=(),
        files={},
        card=None,
        features_of=manifest.digest,
        digest="",
    )


def copy_click_graphs(bundle: Bundle, manifest: Manifest, writer: BundleWriter) -> None:
    """Copy the graphs of a click bundle, and of their files of weights the bytes that they name, and no others.

    A file that graphs share keeps its offsets: what none of these graphs names is zeros, or beyond its end.

    Args:
        bundle: The bundle that it is made of.
        manifest: The click bundle's.
        writer: Where it is written.

    Raises:
        BundleCorruptError: A file was changed after the bundle was opened.
        BundleError: A graph takes the rest of a file that stages before the clicks use too.
        OutputWriteError: A file cannot be written.
    """
    graphs = [graph for stage in manifest.stages for graph in stage.graphs.values()]
    others = _named_by(bundle, manifest)
    parts: dict[str, set[tuple[int, int]]] = {}
    with writing(writer.out):
        for graph in graphs:
            source = bundle.file(graph.file)
            shutil.copyfile(source, writer.path(graph.file))
            if graph.data is not None:
                parts.setdefault(graph.data, set())  # there even where all weights are small and lie in the graph
            for name, places in external_parts(source).items():
                size = bundle.manifest.files[name].size
                for offset, length in places:
                    if length == 0 and name in others:
                        raise _shares_rest(graph, name)
                    parts.setdefault(name, set()).add((offset, offset + length if length else size))
        for name, spans in parts.items():
            _copy_spans(bundle.file(name), writer.path(name), sorted(spans))


def _named_by(bundle: Bundle, manifest: Manifest) -> frozenset[str]:
    """Return the names of the files of weights that graphs outside of a click bundle use."""
    kept = {graph.file for stage in manifest.stages for graph in stage.graphs.values()}
    graphs = (graph for stage in bundle.manifest.stages for graph in stage.graphs.values())
    return frozenset(name for graph in graphs if graph.file not in kept for name in bundle.files_of(graph))


def _shares_rest(graph: StageGraph, name: str) -> BundleError:
    return BundleError(
        f"{graph.file} takes the rest of {name}, which holds weights of other stages too",
        expected="weights with their lengths, as mmms-export writes them",
        fix="export the checkpoint again",
    )


def _copy_spans(source: Path, target: Path, spans: list[tuple[int, int]]) -> None:
    with open_regular(source) as reading, target.open("wb") as stream:
        for start, end in spans:
            reading.seek(start)
            stream.seek(start)
            _copy(reading, stream, end - start)


def _copy(reading: BinaryIO, stream: BinaryIO, length: int) -> None:
    while length > 0:
        content = reading.read(min(length, _CHUNK))
        if not content:
            return
        stream.write(content)
        length -= len(content)

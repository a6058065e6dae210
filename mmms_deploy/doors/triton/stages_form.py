"""The form for Triton's ONNX Runtime and TensorRT backends: a model for each stage, and no code.

The click stage is a recurrent function, ``(features, maps, prev, click) -> (maps', prob, mask)``. Triton keeps
``maps`` and ``prev`` between the requests of a sequence (its implicit state), fills them as the manifest says when a
sequence starts, and feeds each output back. What is left for the client is what surrounds the graphs: preparing the
picture, a click in network pixels, and the mask at the picture's size. ``mmms-deploy.json`` says how.

The features of a picture are inputs of the click stage's model, at every click: these backends want every input with
every request. A client on the server's machine keeps them in a shared memory region, which the image stage's model
writes and the click stage's model reads, so that they travel nowhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmms_deploy.bundle import Bundle, Manifest, Precision, Rate, Role, Stage, StageGraph, StateLink, TensorSpec
from mmms_deploy.doors.triton.norms import copy_with_wide_norms
from mmms_deploy.doors.triton.pbtxt import Value, Word, pbtxt
from mmms_deploy.doors.triton.settings import Form, RepositorySettings, input_of
from mmms_deploy.errors import DoorError

_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "uint8": "TYPE_UINT8"}
_GRAPH = "model.onnx"
_PLAN = "model.plan"
SCRIPT = "compile.sh"
"""Compiles the graphs of the TensorRT form, where the server runs."""
_START = "start"


def write_stages_form(folder: Path, bundle: Bundle, settings: RepositorySettings) -> tuple[str, ...]:
    """Write a model for every stage.

    Args:
        folder: The model repository.
        bundle: The bundle.
        settings: What was chosen.

    Returns:
        The models' names, in the order in which the stages run.

    Raises:
        DoorError: The click stage needs more between two clicks than its own state; or a stage is not there in the
            precision; or it takes the package onnx to write half graphs for TensorRT, and that is not there.
    """
    check_stages(bundle.manifest, settings)
    names = []
    for stage in _stages(bundle.manifest):
        graph, name = stage.graphs[settings.precision], _name_of(stage, bundle.manifest, settings)
        version = folder / name / "1"
        version.mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(stage_config(stage, bundle.manifest, settings), encoding="ascii")
        _write_start(folder / name, stage, bundle.manifest, settings)
        first, *others = bundle.files_of(graph)
        if settings.form is Form.TENSORRT and settings.precision is not Precision.FP32:
            copy_with_wide_norms(bundle.file(first), version / _GRAPH)
        else:
            shutil.copyfile(bundle.file(first), version / _GRAPH)
        for file in others:  # weights, which the graph names
            shutil.copyfile(bundle.file(file), version / file)
        names.append(name)
    if settings.form is Form.TENSORRT:
        _write_script(folder / SCRIPT, names)
    return tuple(names)


def check_stages(manifest: Manifest, settings: RepositorySettings) -> None:
    """Check that a bundle's stages fit.

    Raises:
        DoorError: The click stage needs more between two clicks than its own state; or a stage is not there in the
            precision.
    """
    why = next(_obstacles(manifest), None)
    if why is not None:
        raise DoorError(
            f"{manifest.name} {why}",
            expected="a click stage that needs nothing between two clicks but its own state, which Triton keeps",
            fix="take the form 'python', in which a Session answers",
            command_fix="take --form python, in which a Session answers",
        )
    missing = [stage.name for stage in _stages(manifest) if settings.precision not in stage.graphs]
    if missing:
        there = ", ".join(manifest.precisions)
        raise DoorError(
            f"{manifest.name} has no graph of stage {missing[0]} in {settings.precision}",
            expected=f"one of {there}",
            fix=f"choose one of {there}, or export the checkpoint again with {settings.precision}",
        )


def stage_config(stage: Stage, manifest: Manifest, settings: RepositorySettings) -> str:
    """Return the ``config.pbtxt`` of a stage's model."""
    graph = stage.graphs[settings.precision]
    links = _links(stage, manifest)
    states = {link.input for link in links}
    onnx = settings.form is Form.ONNX
    message: dict[str, Value] = {
        "name": _name_of(stage, manifest, settings),
        "backend": "onnxruntime" if onnx else "tensorrt",
        "default_model_filename": _GRAPH if onnx else _PLAN,
        "max_batch_size": 0,
        "input": [_entry(spec) for spec in graph.inputs if spec.name not in states],
        "output": [_entry(spec) for spec in graph.outputs if spec.role is not Role.STATE],
    }
    if links:
        message["sequence_batching"] = {**settings.batching(), "state": [_state(link, graph) for link in links]}
    message["instance_group"] = [{"kind": Word("KIND_AUTO" if onnx else "KIND_GPU"), "count": settings.instances}]
    return pbtxt(message)


def _obstacles(manifest: Manifest) -> Iterator[str]:
    """Yield why Triton cannot keep what the click stage needs, most telling first."""
    rule = manifest.clicks
    if rule.listed is not None:
        yield "takes all clicks as a list at every click, and Triton keeps no list that grows"
        return
    if rule.modulation is not None:
        yield "changes its previous mask around every click, outside of its graph"
    if rule.first_pass:
        yield "answers a first click twice, the second time on its own answer"
    if rule.previous_resize is not None:
        yield "resizes its answer to the picture's size and back before the next click, outside of its graph"
    clicks = [stage for stage in _stages(manifest) if stage.rate >= Rate.FIRST_CLICK]
    if len(clicks) != 1:
        yield f"has {len(clicks)} stages at clicks"
        return
    for graph in clicks[0].graphs.values():
        taken = {spec.name for spec in graph.inputs} - {link.input for link in manifest.state}
        made = {spec.name for spec in graph.outputs}
        if any(link.output not in made for link in manifest.state):
            yield "keeps a state that its click stage does not compute"
        foreign = [spec.name for spec in graph.inputs if spec.name in taken and spec.role not in _GIVEN]
        if foreign:
            yield f"wants {foreign[0]} at a click, which is no feature, no click and no state"


_GIVEN = (Role.FEATURE, Role.IMAGE, Role.MODALITY, Role.CLICK)


def _stages(manifest: Manifest) -> list[Stage]:
    """Return the stages that have a model; those for several objects answer what Triton has no sequence for."""
    return [stage for stage in manifest.stages if not stage.batch]


def _links(stage: Stage, manifest: Manifest) -> tuple[StateLink, ...]:
    return manifest.state if stage.rate >= Rate.FIRST_CLICK else ()


def _name_of(stage: Stage, manifest: Manifest, settings: RepositorySettings) -> str:
    return f"{settings.named(manifest)}_{stage.name}"


def _entry(spec: TensorSpec) -> dict[str, Value]:
    return input_of(spec.name, _TYPES[spec.dtype], spec.shape)


def _state(link: StateLink, graph: StageGraph) -> dict[str, Value]:
    spec = next(spec for spec in graph.inputs if spec.name == link.input)
    kind: dict[str, Value] = {"data_type": Word(_TYPES[spec.dtype]), "dims": list(spec.shape)}
    filled: dict[str, Value] = {"zero_data": True} if link.start == 0 else {"data_file": link.input}
    initial: dict[str, Value] = {"name": f"{link.input}_{_START}", **kind, **filled}
    return {"input_name": link.input, "output_name": link.output, **kind, "initial_state": [initial]}


def _write_start(folder: Path, stage: Stage, manifest: Manifest, settings: RepositorySettings) -> None:
    """Write what states begin with that do not begin with zeros."""
    specs = {spec.name: spec for spec in stage.graphs[settings.precision].inputs}
    for link in _links(stage, manifest):
        if link.start != 0:
            (folder / "initial_state").mkdir(exist_ok=True)
            spec = specs[link.input]
            content = np.full(spec.shape, link.start, dtype=np.dtype(spec.dtype)).tobytes()
            (folder / "initial_state" / link.input).write_bytes(content)


def _write_script(file: Path, names: list[str]) -> None:
    lines = "\n".join(
        f'trtexec --onnx="$here/{name}/1/{_GRAPH}" --saveEngine="$here/{name}/1/{_PLAN}" --stronglyTyped --noTF32 "$@"'
        for name in names
    )
    file.write_text(_COMPILE.format(lines=lines), encoding="ascii")
    file.chmod(0o755)


_COMPILE = """\
#!/bin/sh
# Compiles the graphs into plans for the GPU and the TensorRT of this machine. Run it where the server runs, in the same
# container: a plan belongs to one GPU, one version and one precision. The graphs' own types hold, and float32 is not
# rounded to TF32. Options of trtexec may follow.
set -eu
here=$(dirname "$0")
{lines}
"""

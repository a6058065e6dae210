"""Bundles with click stages for several objects, made of a bundle that a test wrote by hand."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import onnx

from mmms_deploy.bundle import Bundle, BundleWriter, Precision, Rate, Role, Stage, StageGraph, TensorSpec
from mmms_deploy.bundle.names import of_object


def write_batched(bundle: Bundle, out: Path, sizes: Sequence[int]) -> Bundle:
    """Write a copy of a bundle with further click stages: the nodes of its click stage, once for every object.

    Args:
        bundle: The bundle, whose click stage keeps state.
        out: The copy's folder.
        sizes: How many objects the stages take.
    """
    manifest = bundle.manifest
    click = next(stage for stage in reversed(manifest.stages) if stage.rate is Rate.CLICK)
    with BundleWriter(out) as writer:
        for name in manifest.files:
            shutil.copyfile(bundle.path / name, writer.path(name))
        further = []
        for count in sizes:
            graphs = {}
            for precision, graph in click.graphs.items():
                file = f"click_batch_{count}.{precision}.onnx"
                onnx.save(_repeated(onnx.load(bundle.path / graph.file), graph, count), writer.path(file))
                graphs[Precision(precision)] = _described(graph, file, count)
            further.append(Stage(name=f"click_batch_{count}", rate=Rate.CLICK, graphs=graphs, batch=count))
        stages = (*manifest.stages, *further)
        return writer.commit(msgspec.structs.replace(manifest, name=out.name, stages=stages, card=None))


def _shared(spec: TensorSpec) -> bool:
    return spec.role in (Role.FEATURE, Role.IMAGE)


def _described(graph: StageGraph, file: str, count: int) -> StageGraph:
    numbers = range(1, count + 1)

    def own(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
        return [
            msgspec.structs.replace(one, name=of_object(one.name, n))
            for n in numbers
            for one in specs
            if not _shared(one)
        ]

    shared = [one for one in graph.inputs if _shared(one)]
    return StageGraph(file=file, inputs=(*shared, *own(graph.inputs)), outputs=tuple(own(graph.outputs)))


def _repeated(model: onnx.ModelProto, graph: StageGraph, count: int) -> onnx.ModelProto:
    shared = {spec.name for spec in graph.inputs if _shared(spec)} | {""}
    given = model.graph

    def called(name: str, number: int) -> str:
        return name if name in shared else of_object(name, number)

    made = onnx.GraphProto(name=f"click_batch_{count}")
    made.input.extend(value for value in given.input if value.name in shared)
    for number in range(1, count + 1):
        for source, target in ((given.input, made.input), (given.output, made.output)):
            for value in source:
                if value.name not in shared:
                    copied = target.add()
                    copied.CopyFrom(value)
                    copied.name = called(value.name, number)
        for weight in given.initializer:
            copied = made.initializer.add()
            copied.CopyFrom(weight)
            copied.name = called(weight.name, number)
        for node in given.node:
            again = made.node.add()
            again.CopyFrom(node)
            again.name = called(node.name, number) if node.name else ""
            again.input[:] = [called(name, number) for name in node.input]
            again.output[:] = [called(name, number) for name in node.output]
    found = onnx.ModelProto()
    found.CopyFrom(model)
    found.graph.CopyFrom(made)
    return found

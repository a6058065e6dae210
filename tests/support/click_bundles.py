"""Sessions with a whole bundle and with a click bundle of it, on the same image; and what files must not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from mmms_deploy import Bundle, Features, Session
from mmms_deploy.bundle import GOLDEN_NAME, BundleWriter, Rate, StageGraph
from mmms_deploy.files.arrays import load_arrays
from tests.support.toy import click_graph, image_graph, write_toy

CLICKS = ((10.0, 10.0, True), (40.0, 30.0, True), (12.0, 14.0, False))
PIECE = 64
"""Bytes of a tensor that are looked for."""


def kept_for_clicks(session: Session, path: Path) -> Features:
    """Return a session's image as the owner of the whole bundle hands it over: through a file."""
    session.features.for_clicks(session.bundle.manifest).save(path, picture=session.keep_image)
    return Features.load(path)


def answers(session: Session, clicks: Sequence[tuple[float, float, bool]] = CLICKS) -> list[bytes]:
    """Click, undo, redo, click on a second object; every mask and network answer, as bytes."""
    found = []
    for x, y, positive in clicks:
        result = session.click(x, y, positive)
        found += [result.mask.tobytes(), result.network_probability.tobytes()]
    session.undo()
    found.append(session.redo().mask.tobytes())
    session.select("other")
    found.append(session.click(30, 20).mask.tobytes())
    return [*found, session.labels.tobytes()]


# --- what files must not hold -----------------------------------------------------------------------------------------


def weights_before_clicks(bundle: Bundle) -> dict[str, npt.NDArray[Any]]:
    """Return the weights of the stages before the clicks that are not one number throughout, by file and name."""
    found = {}
    for stage in bundle.manifest.stages:
        for graph in stage.graphs.values() if stage.rate < Rate.FIRST_CLICK else ():
            for tensor in onnx.load(bundle.path / graph.file).graph.initializer:
                array = numpy_helper.to_array(tensor)
                if array.nbytes >= PIECE and array.dtype.kind == "f" and array.min() < array.max():
                    found[f"{graph.file}: {tensor.name}"] = array
    return found


def contents(folder: Path) -> Iterator[bytes]:
    """Yield what a bundle's files hold, unpacked."""
    for file in sorted(folder.iterdir()):
        yield file.read_bytes()
        if file.name == GOLDEN_NAME:
            yield from (array.tobytes() for array in load_arrays(file).values())


def found_in(arrays: Mapping[str, npt.NDArray[Any]], held: Sequence[bytes]) -> list[str]:
    """Return the names of the arrays of which a piece from the middle, in any float type, is in some bytes."""
    found = []
    for name, array in arrays.items():
        for kind in (np.float16, np.float32):
            content = np.ascontiguousarray(array.astype(kind)).tobytes()
            middle = max(0, len(content) // 2 - PIECE // 2)
            piece = content[middle : middle + PIECE]
            if any(piece in one for one in held):
                found.append(name)
                break
    return found


# --- a bundle whose stages share a file of weights --------------------------------------------------------------------


def write_sharing(out: Path, *, lengths: bool = True) -> Bundle:
    """Write a toy whose image stage has its weights in one file with those of the click stage, before and after them.

    Args:
        out: Its folder.
        lengths: Whether the graphs say how long each weight is.
    """
    plain = write_toy(out.parent / f"{out.name}-plain")
    size = plain.manifest.size
    image = image_graph(size)
    secret = image.constant(np.random.default_rng(1).random((2, 4096)))
    told = image.node("ReduceMean", secret, image.constant([0, 1], "int64"), keepdims=1)
    image.nodes[1].output[0] = "mean"
    image.node("Add", "mean", image.node("Sub", told, told), out="f1")
    click = click_graph(size, "f1", radius=5.0, threshold=0.5, echo=False)
    with BundleWriter(out) as writer:
        graphs = {}
        for name, graph in (("image", image), ("click", click)):
            described = graph.save(writer.path(f"{name}.fp32.onnx"), name)
            graphs[name] = StageGraph(
                file=described.file, data="weights.data", inputs=described.inputs, outputs=described.outputs
            )
        _move_weights([writer.path(graphs[name].file) for name in ("image", "click")], "weights.data", lengths)
        writer.path(GOLDEN_NAME).write_bytes(plain.file(GOLDEN_NAME).read_bytes())
        stages = tuple(
            type(stage)(
                name=stage.name,
                rate=stage.rate,
                graphs=dict.fromkeys(stage.graphs, graphs[stage.name]),
            )
            for stage in plain.manifest.stages
        )
        changed = {name: getattr(plain.manifest, name) for name in plain.manifest.__struct_fields__}
        return writer.commit(type(plain.manifest)(**{**changed, "name": out.name, "stages": stages}))


def _move_weights(files: Sequence[Path], name: str, lengths: bool) -> None:
    """Move the larger weights of graphs into one file, one of each graph in turn."""
    models = [onnx.load(file) for file in files]
    large = [[t for t in model.graph.initializer if len(t.raw_data) >= PIECE] for model in models]
    data = bytearray()
    for turn in range(max(map(len, large))):
        for tensors in large:
            for tensor in tensors[turn : turn + 1]:
                data += b"\0" * (-len(data) % 256)
                content = tensor.raw_data
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                places = {"location": name, "offset": str(len(data)), "length": str(len(content))}
                for key, value in places.items():
                    if lengths or key != "length":
                        tensor.external_data.add(key=key, value=value)
                data += content
    (files[0].parent / name).write_bytes(data)
    for model, file in zip(models, files, strict=True):
        file.write_bytes(model.SerializeToString())

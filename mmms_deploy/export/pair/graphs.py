"""The graphs of the two stages: the encoder with the image before it, the decoder between list of points and choice.

The nodes of the files stay as they are. Before the decoder, a few nodes append the newest click to the list of points
and cut off its empty rows, because a decoder answers another mask when points are added that count for none. Behind it,
a few take the answer with the highest score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, InlinePass

from mmms_deploy.bundle import AnswerForm, Rate, Role, StateLink
from mmms_deploy.bundle.names import (
    CANDIDATES,
    CLICK,
    LOGITS,
    POINTS,
    POINTS_NEXT,
    PREV,
    PROB,
    RGB,
    SCORES,
    TAKEN,
)
from mmms_deploy.errors import ExportError
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.encoder_file import rename
from mmms_deploy.export.pair.description import Unit
from mmms_deploy.export.pair.files import AXES, PairFiles
from mmms_deploy.export.pair.ort_graph import begins_as_ort, read_ort_graph

OLDEST_OPSET = 13
"""The oldest opset whose Slice, Squeeze and ReduceSum take what is used here."""
_ROLES = {
    RGB: Role.IMAGE,
    CLICK: Role.CLICK,
    POINTS: Role.STATE,
    POINTS_NEXT: Role.STATE,
    PREV: Role.STATE,
    PROB: Role.PROBABILITY,
    LOGITS: Role.LOGITS,
    CANDIDATES: Role.CANDIDATES,
    SCORES: Role.SCORES,
    TAKEN: Role.TAKEN,
}
_CORNER = np.float32(1.5)
"""The third number of a point above which it is a corner of a box."""
_REFUSED = 1e6
"""Taken off the score of an answer that may not be taken."""


class PairRoles:
    """Knows the roles of the stages' tensors."""

    def role(self, name: str) -> Role:
        """Return the role of an input or output of a stage."""
        return _ROLES.get(name, Role.FEATURE)


def feature_name(decoder_input: str) -> str:
    """Return the name of a feature between the stages, by the decoder's input that takes it."""
    return f"features.{decoder_input}"


def state_links(files: PairFiles) -> tuple[StateLink, ...]:
    """Return which outputs of the click stage are its inputs at the next click."""
    links = [StateLink(input=POINTS, output=POINTS_NEXT)]
    if files.description.decoder.fed:
        links.append(StateLink(input=PREV, output=_answer_name(files)))
    return tuple(links)


def stage_models(files: PairFiles) -> tuple[StageModel, StageModel]:
    """Return the image stage and the click stage.

    Args:
        files: The two files.

    Raises:
        ExportError: A graph's opset is too old, or its file cannot be read.
    """
    image, click = _image_stage(files), _click_stage(files)
    features = tuple(feature_name(name) for name in files.features)
    return _stage(Rate.IMAGE, image, features), _stage(Rate.CLICK, click, ())


def _stage(rate: Rate, model: ir.Model, features: tuple[str, ...]) -> StageModel:
    ClearMetadataAndDocStringPass()(model)
    model.graph.name = rate.name.lower()
    model.producer_name = "mmms-deploy"
    names = [tuple(str(value.name) for value in side) for side in (model.graph.inputs, model.graph.outputs)]
    return StageModel(rate, model, names[0], names[1], features)


def _load(files: PairFiles, part: str) -> ir.Model:
    path: Path = files.paths[part]
    if begins_as_ort(path):
        model = read_ort_graph(path)
    else:
        model = ir.load(path)
        ir.external_data.load_to_model(model)
    InlinePass()(model)
    opset = model.graph.opset_imports.get("", OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise ExportError(
            f"the {part} {path!s:.200} has the ONNX opset {opset}",
            expected=f"opset {OLDEST_OPSET} or newer",
            fix="export it again, or convert it with onnx.version_converter",
        )
    return model


# --- the image stage --------------------------------------------------------------------------------------------------


def _image_stage(files: PairFiles) -> ir.Model:
    model = _load(files, "encoder")
    graph = model.graph
    rename(graph, "encoder.")
    given = graph.inputs[0]
    build = _Builder(graph, "image.")
    image = ir.val(RGB, dtype=ir.DataType.FLOAT, shape=ir.Shape((1, 3, *files.description.size)))
    axes = AXES[files.description.encoder.layout]
    laid = image
    if len(axes) == 3:
        laid = build("Squeeze", [laid, build.integers([0])])
        axes = tuple(axis - 1 for axis in axes)
    if axes != tuple(range(len(axes))):
        laid = build("Transpose", [laid], {"perm": list(axes)})
    ir.convenience.replace_all_uses_with(given, laid)
    graph.inputs.clear()
    graph.inputs.append(image)
    outputs = {str(value.name): value for value in graph.outputs}
    build.place_first()
    tail = _Builder(graph, "features.")
    named: dict[ir.Value, str] = {}
    wanted = []
    for name, output in files.description.encoder.features.items():
        value = outputs[f"encoder.{output}"]
        # An output that two of the decoder's inputs take, or that is the image itself, needs a node of its own.
        if value in named or value.producer() is None:
            value = tail("Identity", [value])
        named[value] = value.name = feature_name(name)
        value.shape = ir.Shape(files.features[name])
        wanted.append(value)
    tail.place_last()
    graph.outputs.clear()
    graph.outputs.extend(wanted)
    return model


# --- the click stage --------------------------------------------------------------------------------------------------


def _click_stage(files: PairFiles) -> ir.Model:
    model = _load(files, "decoder")
    graph, given = model.graph, files.description.decoder
    rename(graph, "decoder.")
    inputs = {str(value.name).removeprefix("decoder."): value for value in graph.inputs}
    outputs = {str(value.name).removeprefix("decoder."): value for value in graph.outputs}
    head = _Builder(graph, "points.")
    points = _input(POINTS, (1, given.most_points, 4))
    click = _input(CLICK, (1, 4))
    _, rows, columns = files.answers
    previous = _input(PREV, (1, 1, rows, columns)) if given.fed else None
    appended = _append(head, points, click, given.most_points)
    count = head("ReduceSum", [_column(head, appended, 3)], {"keepdims": 0})
    place, label = _prompts(head, files, appended, count)
    fed: dict[str, ir.Value] = {given.points: place, given.labels: label}
    fed |= {name: head.constant(array.astype(np.float32)) for name, array in files.constants.items()}
    if given.mask_input is not None:
        empty = np.zeros(files.mask_shape, dtype=np.float32)
        fed[given.mask_input] = head.constant(empty) if previous is None else previous
    if given.has_mask_input is not None:
        fed[given.has_mask_input] = _flag(head, previous, files.has_mask_shape)
    features = {name: _input(feature_name(name), shape) for name, shape in files.features.items()}
    for name, value in inputs.items():
        feature = features.get(name)
        if feature is not None:
            feature.dtype = value.dtype or ir.DataType.FLOAT
        source = head.cast(fed[name], value.dtype) if feature is None else feature
        ir.convenience.replace_all_uses_with(value, source)
    graph.inputs.clear()
    graph.inputs.extend([*features.values(), points, *([] if previous is None else [previous]), click])
    head.place_first()
    tail = _Builder(graph, "choice.")
    answers = _choose(tail, files, outputs, count)
    tail.place_last()
    graph.outputs.clear()
    graph.outputs.extend([appended, *answers])
    return model


def _append(build: _Builder, points: ir.Value, click: ir.Value, most: int) -> ir.Value:
    """Write the click into the first empty row of the list."""
    used = build("ReduceSum", [_column(build, points, 3), build.integers([1])], {"keepdims": 1})
    numbers = build.constant(np.arange(most, dtype=np.float32).reshape(1, most, 1))
    row = build("Reshape", [click, build.integers([1, 1, 4])])
    there = build("Greater", [_column(build, row, 3), build.constant(np.float32(0.5))])
    here = build("And", [build("Equal", [numbers, used]), there])
    appended = build("Where", [here, row, points])
    appended.name, appended.dtype, appended.shape = POINTS_NEXT, ir.DataType.FLOAT, ir.Shape((1, most, 4))
    return appended


def _prompts(build: _Builder, files: PairFiles, points: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return coordinates (1, n, 2) and labels (1, n) of the list's rows that are used."""
    given = files.description.decoder
    end = build("Reshape", [build("Cast", [count], {"to": int(ir.DataType.INT64)}), build.integers([1])])
    used = build("Slice", [points, build.integers([0]), end, build.integers([1])])
    place = build("Slice", [used, build.integers([0]), build.integers([2]), build.integers([2])])
    if given.unit is Unit.FRACTIONS:
        height, width = files.description.size
        place = build("Div", [place, build.constant(np.array([width, height], dtype=np.float32))])
    positive = build("Squeeze", [_column(build, used, 2), build.integers([2])])
    if (given.positive, given.negative) == (1, 0):
        label = positive  # and 2 and 3 for the corners of a box
    else:
        kinds = [build.constant(np.float32(kind)) for kind in (given.positive, given.negative)]
        label = build("Where", [build("Greater", [positive, build.constant(np.float32(0.5))]), *kinds])
        if given.box:
            label = build("Where", [build("Greater", [positive, build.constant(_CORNER)]), positive, label])
    if given.padding is not None:
        place = build("Concat", [place, build.constant(np.zeros((1, 1, 2), dtype=np.float32))], {"axis": 1})
        label = build("Concat", [label, build.constant(np.full((1, 1), given.padding, dtype=np.float32))], {"axis": 1})
    if given.padding is not None and given.box:
        corners = build("Cast", [build("Greater", [positive, build.constant(_CORNER)])], {"to": int(ir.DataType.FLOAT)})
        boxes = build("ReduceMax", [corners], {"keepdims": 0})
        rows = build("Sub", [build("Add", [count, build.constant(np.float32(1))]), boxes])
        end = build("Reshape", [build("Cast", [rows], {"to": int(ir.DataType.INT64)}), build.integers([1])])
        place, label = (build("Slice", [one, build.integers([0]), end, build.integers([1])]) for one in (place, label))
    return place, label


def _flag(build: _Builder, previous: ir.Value | None, shape: tuple[int, ...]) -> ir.Value:
    """Return whether there is a previous answer: before the first click, it is all zeros."""
    if previous is None:
        return build.constant(np.zeros(shape, dtype=np.float32))
    total = build("ReduceSum", [build("Abs", [previous])], {"keepdims": 0})
    there = build("Greater", [total, build.constant(np.float32(0))])
    return build("Reshape", [build("Cast", [there], {"to": int(ir.DataType.FLOAT)}), build.integers(list(shape))])


def _choose(build: _Builder, files: PairFiles, outputs: dict[str, ir.Value], count: ir.Value) -> list[ir.Value]:
    given = files.description.decoder
    number, rows, columns = files.answers

    def named(name: str, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Give a value its name and its shape, which nothing before it may have said."""
        value = build("Reshape", [build.cast(value, ir.DataType.FLOAT), build.integers(list(shape))])
        value.name, value.dtype, value.shape = name, ir.DataType.FLOAT, ir.Shape(shape)
        return value

    if number == 1:
        return [named(_answer_name(files), outputs[given.masks], (1, 1, rows, columns))]
    masks = named(CANDIDATES, outputs[given.masks], (1, number, rows, columns))
    scores = named(SCORES, outputs[str(given.scores)], (1, number))
    allowed = scores
    if given.first or given.later:
        first, later = (build.constant(_penalties(places, number)) for places in (given.first, given.later))
        alone = build("Less", [count, build.constant(np.float32(1.5))])
        allowed = build("Sub", [scores, build("Where", [alone, first, later])])
    best = build("ArgMax", [allowed], {"axis": 1, "keepdims": 1})
    best.dtype = ir.DataType.INT64
    answer = build("Gather", [masks, build("Reshape", [best, build.integers([1])])], {"axis": 1})
    taken = named(TAKEN, best, (1, 1))
    return [named(_answer_name(files), answer, (1, 1, rows, columns)), masks, scores, taken]


def _penalties(places: Sequence[int], number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    penalties = np.full((1, number), _REFUSED if places else 0.0, dtype=np.float32)
    penalties[0, list(places)] = 0.0
    return penalties


def _answer_name(files: PairFiles) -> str:
    return LOGITS if files.description.answer is AnswerForm.LOGITS else PROB


def _input(name: str, shape: tuple[int, ...]) -> ir.Value:
    return ir.val(name, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape))


def _column(build: _Builder, rows: ir.Value, column: int) -> ir.Value:
    """Return one of the four columns of rows (1, n, 4), as (1, n, 1)."""
    return build("Slice", [rows, build.integers([column]), build.integers([column + 1]), build.integers([2])])


class _Builder:
    """Makes nodes for a graph, and puts them into it.

    Args:
        graph: The graph.
        prefix: Before the names of nodes and tensors.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph, self._prefix = graph, prefix
        self._nodes: list[ir.Node] = []
        self._constants = 0

    def __call__(self, op: str, inputs: Sequence[ir.Value], attributes: dict[str, Any] | None = None) -> ir.Value:
        """Return the output of a new node."""
        name = f"{self._prefix}{op.lower()}_{len(self._nodes)}"
        node = ir.node(op, inputs, attributes or {}, outputs=[ir.val(name)], name=name)
        self._nodes.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray[Any, Any] | np.generic) -> ir.Value:
        """Return a constant."""
        self._constants += 1
        name = f"{self._prefix}constant_{self._constants}"
        tensor = ir.tensor(np.asarray(array), name=name)
        value = ir.val(name, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
        self._graph.initializers.add(value)
        return value

    def integers(self, numbers: list[int]) -> ir.Value:
        """Return a constant of whole numbers."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def cast(self, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        """Return a value in another type; itself where it is float32 and float32 is wanted."""
        if dtype is None or (dtype is ir.DataType.FLOAT and value.dtype in (None, dtype)):
            return value
        return self("Cast", [value], {"to": int(dtype)})

    def place_first(self) -> None:
        """Put the nodes before all others."""
        if len(self._graph):
            self._graph.insert_before(self._graph[0], self._nodes)
        else:
            self._graph.extend(self._nodes)

    def place_last(self) -> None:
        """Put the nodes behind all others."""
        self._graph.extend(self._nodes)

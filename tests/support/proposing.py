"""A toy bundle with proposals: three disks of rising radius around the first click, of which one is refined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto

from mmms_deploy.bundle import Bundle, Rate, Role
from mmms_deploy.bundle.contract import AnswerForm, AnswerSpec, ClickContract, ClickList, ClickMemory
from mmms_deploy.replay.golden import GoldenCase
from tests.support.listed import Part, click_parts, write_listed
from tests.support.toy import Graph, image_graph, spec

STRIDE = 4
ANSWER = (16, 24)
"""(h, w) of an answer; the network's size is four times as large."""
RADII = (6.0, 24.0, 12.0)
"""Of the proposals, in network pixels."""
SCORES = (0.5, 0.75, 0.75)
SIZES = (3, 6)
"""Rows of the lists of clicks."""


def _squared(graph: Graph, x: str, y: str) -> str:
    """Squared distances of the answer's cells to points, in network pixels."""
    columns, rows = (
        graph.constant((np.arange(side, dtype=np.float32) * STRIDE + (STRIDE - 1) / 2).reshape(shape))
        for side, shape in ((ANSWER[1], (1, 1, 1, -1)), (ANSWER[0], (1, 1, -1, 1)))
    )
    dx, dy = graph.node("Sub", columns, x), graph.node("Sub", rows, y)
    return graph.node("Add", graph.node("Mul", dx, dx), graph.node("Mul", dy, dy))


def _disks(graph: Graph, radii: str, squared: str, out: str | None = None) -> str:
    """(r^2 - d^2) / 16, and the image's brightness."""
    inside = graph.node("Sub", graph.node("Mul", radii, radii), squared)
    return graph.node("Add", graph.node("Div", inside, graph.constant(16.0)), "f1", out=out)


def first_click_graph() -> Graph:
    """(f1, first_click) -> candidates (1, 3, h, w), scores (1, 3), squared (1, 1, h, w)."""
    graph = Graph(
        [spec("f1", Role.FEATURE, (1, 1, 1, 1)), spec("first_click", Role.CLICK, (1, 4))],
        [
            spec("candidates", Role.CANDIDATES, (1, 3, *ANSWER)),
            spec("scores", Role.SCORES, (1, 3)),
            spec("squared", Role.FEATURE, (1, 1, *ANSWER)),
        ],
    )
    x, y = (graph.node("Gather", "first_click", graph.constant([i], "int64"), axis=1) for i in (0, 1))
    graph.node("Identity", _squared(graph, x, y), out="squared")
    _disks(graph, graph.constant(np.reshape(RADII, (1, 3, 1, 1))), "squared", out="candidates")
    told = graph.node("Mul", graph.node("Reshape", "f1", graph.constant([1, 1], "int64")), graph.constant(0.0))
    graph.node("Add", told, graph.constant([SCORES]), out="scores")
    return graph


def click_graph(rows: int) -> Graph:
    """(f1, squared, choice, click_list (1, Q, 4)) -> logits: the proposal, with a bump or a dent at a later click."""
    graph = Graph(
        [
            spec("f1", Role.FEATURE, (1, 1, 1, 1)),
            spec("squared", Role.FEATURE, (1, 1, *ANSWER)),
            spec("choice", Role.CLICK, (1, 1)),
            spec("click_list", Role.CLICK, (1, rows, 4)),
        ],
        [spec("logits", Role.LOGITS, (1, 1, *ANSWER))],
    )
    chosen = graph.node("Cast", graph.node("Reshape", "choice", graph.constant([1], "int64")), to=TensorProto.INT64)
    radius = graph.node("Gather", graph.constant(RADII), chosen, axis=0)
    proposal = _disks(graph, radius, "squared")
    shape = graph.constant([1, rows, 1, 1], "int64")
    x, y, positive, present = (
        graph.node("Reshape", graph.node("Gather", "click_list", graph.constant(i, "int64"), axis=2), shape)
        for i in range(4)
    )
    near = graph.node("Exp", graph.node("Div", _squared(graph, x, y), graph.constant(-60.0)))
    sign = graph.node("Sub", graph.node("Mul", positive, graph.constant(16.0)), graph.constant(8.0))
    later = np.arange(rows, dtype=np.float32).clip(0, 1).reshape(1, rows, 1, 1)
    weight = graph.node("Mul", graph.node("Mul", sign, present), graph.constant(later))
    bumps = graph.node("ReduceSum", graph.node("Mul", near, weight), graph.constant([1], "int64"), keepdims=1)
    graph.node("Add", proposal, bumps, out="logits")
    return graph


def write_proposing(out: Path, sizes: tuple[int, ...] = SIZES, golden: Sequence[GoldenCase] | None = None) -> Bundle:
    """Write the bundle; its network has the size (64, 96)."""
    size = (STRIDE * ANSWER[0], STRIDE * ANSWER[1])
    parts: list[Part] = [
        ("image", Rate.IMAGE, None, image_graph(size)),
        ("first_click", Rate.FIRST_CLICK, None, first_click_graph()),
        *click_parts(sizes, click_graph),
    ]
    clicks = ClickContract(
        memory=ClickMemory.CLICKS,
        listed=ClickList(sizes=sizes),
        answers=AnswerSpec(form=AnswerForm.LOGITS, size=ANSWER, candidates=len(RADII), proposals=True),
    )
    return write_listed(out, size, parts, clicks, golden=golden)


def expected_logits(choice: int, clicks: Sequence[tuple[float, float, int]], image: tuple[int, int]) -> np.ndarray:
    """Return the network's answer to clicks on a grey image of the level 51, in NumPy.

    Args:
        choice: Which proposal is refined.
        clicks: x, y in image pixels, 1 or 0.
        image: (H0, W0).
    """
    centres = np.arange(max(ANSWER)) * STRIDE + (STRIDE - 1) / 2
    height, width = (STRIDE * side for side in ANSWER)
    apart = [
        (centres[None, : ANSWER[1]] - ((x + 0.5) * width / image[1] - 0.5)) ** 2
        + (centres[: ANSWER[0], None] - ((y + 0.5) * height / image[0] - 0.5)) ** 2
        for x, y, _ in clicks
    ]
    total = (RADII[choice] ** 2 - apart[0]) / 16 + 0.2
    for squared, (_, _, positive) in zip(apart[1:], clicks[1:], strict=True):
        total = total + (8.0 if positive else -8.0) * np.exp(-squared / 60)
    return total

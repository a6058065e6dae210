"""A toy bundle whose click stage takes all clicks as a list and comes in several sizes, with shared weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmms_deploy.bundle import Bundle, Rate, Role
from mmms_deploy.bundle.contract import AnswerForm, AnswerSpec, ClickContract, ClickList, ClickMemory
from tests.support.listed import Part, click_parts, write_listed
from tests.support.toy import Graph, image_graph, spec

SIZES = (2, 4)
LEARNED = 1
"""Rows of the answer after those of the clicks."""
ANSWER = (4, 6)
"""(h, w) of a row's answer; the network's size is eight times as large."""


def list_graph(rows: int) -> Graph:
    """(f1, click_list (1, Q, 5)) -> row_logits (1, Q + 1, 4, 6): x of every click times its presence, plus f1."""
    answer = (1, rows + LEARNED, *ANSWER)
    graph = Graph(
        [spec("f1", Role.FEATURE, (1, 1, 1, 1)), spec("click_list", Role.CLICK, (1, rows, 5))],
        [spec("row_logits", Role.ROWS, answer)],
    )
    x, present = (graph.node("Gather", "click_list", graph.constant([i], "int64"), axis=2) for i in (0, 4))
    told = graph.node("Unsqueeze", graph.node("Mul", x, present), graph.constant([3], "int64"))
    learned = graph.constant(np.full((1, LEARNED, 1, 1), 0.5))
    every = graph.node("Add", graph.node("Concat", told, learned, axis=1), "f1")
    graph.node("Expand", every, graph.constant(answer, "int64"), out="row_logits")
    return graph


def write_sized(out: Path) -> Bundle:
    """Write the bundle; its network has the size (32, 48)."""
    size = (8 * ANSWER[0], 8 * ANSWER[1])
    parts: list[Part] = [("image", Rate.IMAGE, None, image_graph(size)), *click_parts(SIZES, list_graph)]
    clicks = ClickContract(
        memory=ClickMemory.CLICKS,
        listed=ClickList(sizes=SIZES, objects=3, learned=LEARNED),
        answers=AnswerSpec(form=AnswerForm.LOGITS, size=ANSWER),
    )
    return write_listed(out, size, parts, clicks)

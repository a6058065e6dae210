"""A toy bundle that answers for all objects at once, and what NumPy finds for its clicks.

A click's row is 6, less a sixteenth of the squared distance in network pixels, less a quarter for every other click,
and a hundredth for every click before it; the learned row of the background is the image's mean brightness. Rows
without a click are 100, so that nothing that reads them goes unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto

from mmms_deploy.bundle import (
    Bundle,
    Rate,
    Role,
)
from mmms_deploy.bundle.contract import (
    AnswerForm,
    AnswerSpec,
    ClickContract,
    ClickList,
    ClickMemory,
    Coordinates,
    ModalitySpec,
)
from mmms_deploy.session.rows import Rows
from tests.support.listed import Part, click_parts, write_listed
from tests.support.toy import Graph, image_graph, modality_graph, spec

SIZES = (4, 8)
NETWORK = (24, 40)
"""It is filled up to (32, 64)."""
GRID = (8, 16)
STRIDE = 4
OBJECTS = 3
FEATURE = 0.2
"""The mean brightness of ``GREY``."""


def joint_graph(rows: int, feature: str = "f1") -> Graph:
    """(f1, click_list (1, Q, 5)) -> row_logits (1, Q + 1, 8, 16)."""
    graph = Graph(
        [spec(feature, Role.FEATURE, (1, 1, 1, 1)), spec("click_list", Role.CLICK, (1, rows, 5))],
        [spec("row_logits", Role.ROWS, (1, rows + 1, *GRID))],
    )

    def field(place: int) -> str:
        told = graph.node("Gather", "click_list", graph.constant([place], "int64"), axis=2)
        return graph.node("Unsqueeze", told, graph.constant([3], "int64"))

    x, y, t, _, present = map(field, range(5))
    columns = graph.constant(((np.arange(GRID[1]) + 0.5) * STRIDE - 0.5).reshape(1, 1, 1, -1))
    lines = graph.constant(((np.arange(GRID[0]) + 0.5) * STRIDE - 0.5).reshape(1, 1, -1, 1))
    dx, dy = graph.node("Sub", columns, x), graph.node("Sub", lines, y)
    far = graph.node("Add", graph.node("Mul", dx, dx), graph.node("Mul", dy, dy))
    others = graph.node("Sub", graph.node("ReduceSum", present, graph.constant([1], "int64")), graph.constant(1.0))
    near = graph.constant(6.0)
    for less, factor in ((far, 0.0625), (others, 0.25), (t, 0.01)):
        near = graph.node("Sub", near, graph.node("Mul", less, graph.constant(factor)))
    there = graph.node("Cast", present, to=TensorProto.BOOL)
    clicked = graph.node("Where", there, near, graph.constant(100.0))
    learned = graph.node("Expand", feature, graph.constant([1, 1, *GRID], "int64"))
    graph.node("Concat", clicked, learned, axis=1, out="row_logits")
    return graph


def write_joint(
    out: Path,
    sizes: tuple[int, ...] = SIZES,
    objects: int = OBJECTS,
    modalities: tuple[ModalitySpec, ...] = (),
) -> Bundle:
    """Write the bundle; with modalities, the sum of their means is added to the image's brightness."""
    parts: list[Part] = [("image", Rate.IMAGE, None, image_graph(NETWORK))]
    if modalities:
        parts.append(("modality", Rate.MODALITY, None, modality_graph(NETWORK, modalities)))
    feature = "fused" if modalities else "f1"
    parts += click_parts(sizes, lambda rows: joint_graph(rows, feature))
    clicks = ClickContract(
        coordinates=Coordinates.SCALE,
        memory=ClickMemory.CLICKS,
        listed=ClickList(sizes=sizes, objects=objects, learned=1),
        answers=AnswerSpec(form=AnswerForm.LOGITS, size=GRID),
    )
    return write_listed(out, NETWORK, parts, clicks, modalities=modalities)


def joint_rows(
    bundle: Bundle, clicks: Sequence[tuple[int, float, float, bool]], size: tuple[int, int], feature: float = FEATURE
) -> Rows:
    """The rows that NumPy finds.

    Args:
        bundle: The toy.
        clicks: Label, x and y in image pixels, and whether positive, oldest first.
        size: (H0, W0) of the image.
        feature: The image's.
    """
    columns = (np.arange(GRID[1]) + 0.5) * STRIDE - 0.5
    lines = ((np.arange(GRID[0]) + 0.5) * STRIDE - 0.5)[:, None]
    found = []
    for t, (_, x, y, _) in enumerate(clicks):
        dx, dy = columns - x * NETWORK[1] / size[1], lines - y * NETWORK[0] / size[0]
        found.append(6 - 0.0625 * (dx**2 + dy**2) - 0.25 * (len(clicks) - 1) - 0.01 * t)
    found.append(np.full(GRID, feature))
    owners = [label if positive else 0 for label, _, _, positive in clicks]
    logits = np.stack(found).astype(np.float32)
    return Rows(logits, np.array([*owners, 0], dtype=np.int32), NETWORK, bundle.manifest.clicks)

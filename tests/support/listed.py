"""Bundles of small graphs that a test writes by hand, whose click stage takes a list of clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from mmms_deploy.bundle import (
    GOLDEN_NAME,
    SCHEMA,
    Bundle,
    BundleWriter,
    ClickContract,
    ImageSpec,
    Manifest,
    ModalitySpec,
    Precision,
    Rate,
    Stage,
)
from mmms_deploy.replay.golden import GoldenCase, save_golden
from tests.support.toy import Graph, blank_case, random_provenance

Part: TypeAlias = tuple[str, Rate, int | None, Graph]
"""A stage: its name, its rate, the rows of its list of clicks, its graph."""


def click_parts(sizes: Sequence[int], graph: Callable[[int], Graph]) -> list[Part]:
    """Return the click stage in every size.

    Args:
        sizes: Rows of the lists, rising.
        graph: Makes the graph for so many rows.
    """
    return [("click" if rows == sizes[0] else f"click_{rows}", Rate.CLICK, rows, graph(rows)) for rows in sizes]


def write_listed(
    out: Path,
    size: tuple[int, int],
    parts: Sequence[Part],
    clicks: ClickContract,
    *,
    modalities: tuple[ModalitySpec, ...] = (),
    golden: Sequence[GoldenCase] | None = None,
) -> Bundle:
    """Write a bundle.

    Args:
        out: Its folder.
        size: (H, W) of the network.
        parts: Its stages, in order.
        clicks: Its click contract.
        modalities: Its modalities.
        golden: Its golden clicks; None for an image without any.
    """
    with BundleWriter(out) as writer:
        stages = tuple(
            Stage(
                name=name,
                rate=rate,
                graphs={Precision.FP32: graph.save(writer.path(f"{name}.fp32.onnx"), name)},
                rows=rows,
            )
            for name, rate, rows, graph in parts
        )
        save_golden(writer.path(GOLDEN_NAME), golden or [blank_case(modalities)])
        return writer.commit(
            Manifest(
                schema=SCHEMA,
                name=out.name,
                size=size,
                image=ImageSpec(mean=(0.0,) * 3, std=(1.0,) * 3),
                modalities=modalities,
                clicks=clicks,
                stages=stages,
                state=(),
                provenance=random_provenance(),
                gate=(),
            )
        )

"""What TensorRT's compiler makes of a network of full size: fusions, kernels, scratch memory, and no float32 in FP16.

Compiled without a GPU, by TensorRT-RTX, and with random weights: what the kernels are does not depend on the weights.
The graphs come from the real rewrites, export and cut; the gate, which takes most of an export's time, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir
import pytest

from mmms_deploy.bundle import Precision, Rate
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.export.cut import cut
from mmms_deploy.export.half.network import OPSETS, half_network
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.listed import with_sizes
from mmms_deploy.export.network import OPSET, export_whole
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.source import Source, open_source
from tests.support.rtx import PINNED

trt = pytest.importorskip("tensorrt_rtx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(trt.__version__ != PINNED, reason=f"the kernel list is that of {PINNED}"),
]


@dataclass(frozen=True)
class Budget:
    """Limits of a plan: its attentions, and at most so many kernels and megabytes of scratch memory."""

    attentions: int
    kernels: int
    megabytes: float


def compiled(folder: Path, precision: Precision, **overrides: object) -> dict[str, PlanReport]:
    """Compile a network at 448 x 448, and return the reports of its plans by stage.

    Args:
        folder: Where the graphs go.
        precision: What the plans compute in.
        overrides: Fields of the network's description; without them it is MMMS with DINOv2 ViT-B.
    """
    sourced = open_source(Source(random_seed=0, overrides={"size": (448, 448), **overrides}))
    deployed, _ = deploy_form(sourced.network)
    if precision is Precision.FP32:
        network, opset = recurrent_network(deployed), OPSET
    else:
        network, opset = half_network(deployed, sourced.network, precision, ()), OPSETS[precision]
    export = partial(export_whole, opset=opset)
    stages = cut(export(network), network.rates())
    if sourced.network.config.clicks.listed is not None:
        stages = with_sizes(network, stages, export)
    reports = {}
    for stage in stages:
        name = stage.name
        file = folder / f"{name}.{precision}.onnx"
        ir.save(stage.model, file)
        every_click = stage.rate is Rate.CLICK
        built = build_plan(
            trt,
            file,
            stage=name,
            precision=precision,
            every_click=every_click,
            options=BuildOptions(),
            activate=None,
        )
        report = reports[name] = built.report
        print(
            f"{name} {precision} {overrides}: {report.kernels} kernels, {report.fused} of {report.attentions}"
            f" attentions fused, {report.activation_bytes} bytes, {report.matrices}, {report.wide}"
        )
    return reports


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_half_precision(tmp_path: Path, precision: Precision) -> None:
    reports = compiled(tmp_path, precision)
    held(reports["click"], precision, Budget(attentions=8, kernels=145, megabytes=30))
    held(reports["image"], precision, Budget(attentions=12, kernels=182, megabytes=34))


def test_half_precision_with_a_modality(tmp_path: Path) -> None:
    reports = compiled(tmp_path, Precision.FP16, modalities=[{"name": "depth", "channels": 1}])
    held(reports["click"], Precision.FP16, Budget(attentions=8, kernels=145, megabytes=30))
    # 33 where the graph has the casts around norms. Those that the build adds come last in TensorRT's network, and the
    # backbone and the depth's encoder are then computed in turns.
    held(reports["image"], Precision.FP16, Budget(attentions=24, kernels=350, megabytes=48))


def held(report: PlanReport, precision: Precision, budget: Budget, fused: int | None = None) -> None:
    """Check a plan against its budget; all attentions are fused where nothing else is said."""
    assert (report.fused, report.attentions) == (budget.attentions if fused is None else fused, budget.attentions)
    assert report.matrices == {precision: sum(report.matrices.values())}
    assert report.wide == ()
    assert 0 < report.kernels <= budget.kernels
    assert report.activation_bytes is not None
    assert report.activation_bytes <= budget.megabytes * 1e6


def test_float32_is_float32(tmp_path: Path) -> None:
    """No 16 bits and no TF32; its attentions are never fused, which is one reason for FP16."""
    reports = compiled(tmp_path, Precision.FP32)
    for report, attentions in ((reports["image"], 12), (reports["click"], 8)):
        assert set(report.types) <= {"fp32", "int32", "int64", "bool"}
        assert report.matrices == {Precision.FP32: sum(report.matrices.values())}
        assert (report.fused, report.attentions) == (0, attentions)
    click = reports["click"]
    assert click.kernels <= 165
    assert click.activation_bytes is not None
    assert click.activation_bytes <= 45e6


def test_dynamite(tmp_path: Path) -> None:
    """The smallest list has five folded attentions of pixels, which are not fused; see docs/families.md."""
    reports = compiled(tmp_path, Precision.FP16, family="dynamite")
    assert list(reports) == ["image", "click", "click_64", "click_256"]
    held(reports["image"], Precision.FP16, Budget(attentions=12, kernels=290, megabytes=43))
    held(reports["click"], Precision.FP16, Budget(attentions=23, kernels=315, megabytes=40), fused=18)
    for name in ("click_64", "click_256"):
        held(reports[name], Precision.FP16, Budget(attentions=23, kernels=290, megabytes=44))


def test_disnet(tmp_path: Path) -> None:
    """The four attentions of a later click, between places and a few clicks, are not fused."""
    reports = compiled(tmp_path, Precision.FP16, family="disnet")
    assert list(reports) == ["image", "first_click", "click", "click_64", "click_256"]
    held(reports["image"], Precision.FP16, Budget(attentions=0, kernels=3, megabytes=12))
    held(reports["first_click"], Precision.FP16, Budget(attentions=18, kernels=360, megabytes=45))
    for name in ("click", "click_64", "click_256"):
        held(reports[name], Precision.FP16, Budget(attentions=4, kernels=108, megabytes=84), fused=0)

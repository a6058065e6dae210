"""What TensorRT's compiler makes of a network of full size: fusions, kernels, scratch memory, and no float32 in FP16.

Compiled without a GPU, by TensorRT-RTX, and with random weights: what the kernels are does not depend on the weights.
The graphs come from the real rewrites, export and cut; the gate, which takes most of an export's time, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.export.cut import cut
from mmms_deploy.export.half.network import OPSETS, half_network
from mmms_deploy.export.network import OPSET, RecurrentNetwork, export_whole
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


def compiled(folder: Path, precision: Precision, modalities: tuple[str, ...] = ()) -> dict[str, PlanReport]:
    """Compile MMMS with DINOv2 ViT-B at 448 x 448, and return the reports of its plans by stage."""
    described = [{"name": name, "channels": 1} for name in modalities]
    sourced = open_source(Source(random_seed=0, overrides={"size": (448, 448), "modalities": described}))
    deployed, _ = deploy_form(sourced.network)
    if precision is Precision.FP32:
        network, opset = RecurrentNetwork(deployed), OPSET
    else:
        network, opset = half_network(deployed, sourced.network, precision, ()), OPSETS[precision]
    reports = {}
    for stage in cut(export_whole(network, opset), network.rates()):
        name = stage.rate.name.lower()
        file = folder / f"{name}.{precision}.onnx"
        ir.save(stage.model, file)
        every_click = name == "click"
        built = build_plan(
            trt,
            file,
            stage=name,
            precision=precision,
            every_click=every_click,
            options=BuildOptions(),
            activate=None,
        )
        reports[name] = built.report
        print(f"{name} {precision} {modalities}: {built.report.kernels} kernels, {built.report.activation_bytes} bytes")
    return reports


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_half_precision(tmp_path: Path, precision: Precision) -> None:
    reports = compiled(tmp_path, precision)
    held(reports["click"], precision, Budget(attentions=8, kernels=145, megabytes=30))
    held(reports["image"], precision, Budget(attentions=12, kernels=182, megabytes=34))


def test_half_precision_with_a_modality(tmp_path: Path) -> None:
    reports = compiled(tmp_path, Precision.FP16, ("depth",))
    held(reports["click"], Precision.FP16, Budget(attentions=8, kernels=145, megabytes=30))
    held(reports["image"], Precision.FP16, Budget(attentions=24, kernels=350, megabytes=34))


def held(report: PlanReport, precision: Precision, budget: Budget) -> None:
    assert (report.fused, report.attentions) == (budget.attentions, budget.attentions)
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

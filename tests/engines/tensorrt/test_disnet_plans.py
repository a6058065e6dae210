"""What TensorRT's compiler makes of a narrow DISNet: all three stages, every matrix product in the plan's precision."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from mmms_deploy.bundle import Precision, Rate
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.export.cut import cut
from mmms_deploy.export.half.network import OPSETS, half_network
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.network import OPSET, export_whole
from mmms_deploy.export.rewrites.deploy import deploy_form
from tests.support.disnet import random_disnet, tiny_disnet
from tests.support.rtx import PINNED

trt = pytest.importorskip("tensorrt_rtx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(trt.__version__ != PINNED, reason=f"the kernel list is that of {PINNED}"),
]
KERNELS = {"image": 3, "first_click": 240, "click": 100}
"""At most so many; measured with 1.7.1: 3, 235 and 95 in BF16, which has the most."""


@pytest.mark.parametrize("precision", [Precision.FP32, *OPSETS])
def test_its_stages_compile(tmp_path: Path, precision: Precision) -> None:
    network = random_disnet(tiny_disnet())
    deployed, _ = deploy_form(network)
    if precision is Precision.FP32:
        form, opset = recurrent_network(deployed), OPSET
    else:
        form, opset = half_network(deployed, network, precision, ()), OPSETS[precision]
    stages = cut(export_whole(form, opset), form.rates())
    assert [stage.name for stage in stages] == list(KERNELS)
    for stage in stages:
        file = tmp_path / f"{stage.name}.onnx"
        ir.save(stage.model, file)
        report = build_plan(
            trt,
            file,
            stage=stage.name,
            precision=precision,
            every_click=stage.rate is Rate.CLICK,
            options=BuildOptions(),
            activate=None,
        ).report
        print(f"{stage.name} {precision}: {report.kernels} kernels, {report.activation_bytes} bytes")
        assert report.matrices == {precision: sum(report.matrices.values())}
        assert precision is Precision.FP32 or report.wide == ()
        assert 0 < report.kernels <= KERNELS[stage.name]

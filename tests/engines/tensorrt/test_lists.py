"""What TensorRT's compiler makes of a click stage that takes a list, in both sizes; by TensorRT-RTX, without a GPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx_ir as ir
import pytest

from mmms_deploy.bundle import Precision, Rate
from mmms_deploy.bundle.contract import ClickContract, ClickList, ClickMemory, Coordinates
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.export.cut import cut
from mmms_deploy.export.half.network import OPSETS, half_network
from mmms_deploy.export.listed import with_sizes
from mmms_deploy.export.network import export_whole
from mmms_deploy.export.rewrites.deploy import deploy_form
from tests.support.dynamite import random_dynamite
from tests.support.rtx import PINNED

trt = pytest.importorskip("tensorrt_rtx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(trt.__version__ != PINNED, reason=f"the kernel list is that of {PINNED}"),
]


def reports(folder: Path) -> dict[str, PlanReport]:
    """Compile a narrow DynaMITe on a MiT in FP16, without an export's gate."""
    clicks = ClickContract(
        memory=ClickMemory.CLICKS, listed=ClickList(sizes=(12, 40), objects=5), coordinates=Coordinates.SCALE
    )
    paper = random_dynamite("mit", clicks=clicks, heads=2)
    network = half_network(deploy_form(paper)[0], paper, Precision.FP16, ())
    export = partial(export_whole, opset=OPSETS[Precision.FP16])
    found = {}
    for stage in with_sizes(network, cut(export(network), network.rates()), export):
        file = folder / f"{stage.name}.onnx"
        ir.save(stage.model, file)
        built = build_plan(
            trt,
            file,
            stage=stage.name,
            precision=Precision.FP16,
            every_click=stage.rate is Rate.CLICK,
            options=BuildOptions(),
            activate=None,
        )
        found[stage.name] = built.report
    return found


def test_every_size_is_in_fp16(tmp_path: Path) -> None:
    """No matrix product in float32. The small list's two folded attentions of pixels are not fused, all others are."""
    found = reports(tmp_path)
    assert list(found) == ["image", "click", "click_40"]
    for name, (fused, attentions, kernels) in {"click": (6, 8, 120), "click_40": (8, 8, 115)}.items():
        report = found[name]
        assert report.matrices == {"fp16": 70}
        assert report.wide == ()
        assert (report.fused, report.attentions) == (fused, attentions)
        assert report.kernels <= kernels
        assert (report.activation_bytes or 0) <= 9e6
    assert found["image"].matrices == {"fp16": 60}
    assert found["image"].kernels <= 140

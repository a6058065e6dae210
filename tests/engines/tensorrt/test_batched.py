"""What TensorRT's compiler makes of a click stage for several objects; by TensorRT-RTX, without a GPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx_ir as ir
import pytest

from mmms_deploy.bundle import Precision, Rate
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.export.batched import with_batches
from mmms_deploy.export.cut import cut
from mmms_deploy.export.half.network import OPSETS, half_network
from mmms_deploy.export.network import export_whole
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.source import Source, open_source
from tests.support.rtx import PINNED

trt = pytest.importorskip("tensorrt_rtx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(trt.__version__ != PINNED, reason=f"the kernel list is that of {PINNED}"),
]


def reports(folder: Path, batches: tuple[int, ...]) -> dict[str, PlanReport]:
    """Compile the click stages of MMMS with DINOv2 ViT-B at 448 x 448 in FP16, without an export's gate."""
    sourced = open_source(Source(random_seed=0, overrides={"size": (448, 448)}))
    deployed, _ = deploy_form(sourced.network)
    network = half_network(deployed, sourced.network, Precision.FP16, ())
    export = partial(export_whole, opset=OPSETS[Precision.FP16])
    found = {}
    for stage in with_batches(network, cut(export(network), network.rates()), export, batches):
        if stage.rate is not Rate.CLICK:
            continue
        file = folder / f"{stage.name}.onnx"
        ir.save(stage.model, file)
        built = build_plan(
            trt,
            file,
            stage=stage.name,
            precision=Precision.FP16,
            every_click=True,
            options=BuildOptions(),
            activate=None,
        )
        found[stage.name] = built.report
    return found


@pytest.mark.slow
def test_several_objects_compile_like_one(tmp_path: Path) -> None:
    """As many matrix products and fused attentions as for one object, all in FP16, and not a network for each."""
    found = reports(tmp_path, (4, 16))
    one, *several = found.values()
    for report in several:
        assert set(report.matrices) == {"fp16"}
        assert report.wide == ()
        assert (report.fused, report.attentions) == (one.fused, one.attentions)
        assert report.matrices == one.matrices
        assert report.kernels <= 1.35 * one.kernels
    for count, report in zip((4, 16), several, strict=True):
        assert (report.activation_bytes or 0) <= count * 21e6

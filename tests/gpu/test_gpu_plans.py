"""Plans that TensorRT compiles for the GPU of this machine: inspected, kept, measured once, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.cuda.devices import probe
from mmms_deploy.engines.tensorrt.api import listening, load_tensorrt, logger
from mmms_deploy.engines.tensorrt.plans import plans
from mmms_deploy.errors import EngineUnavailableError, PlanPrecisionError
from tests.support.attention import MATRICES, write_attention


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine with a GPU and TensorRT."""
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    found = probe()
    if found.problem is not None:
        pytest.skip(found.given)
    try:
        load_tensorrt()
    except EngineUnavailableError as error:
        pytest.skip(error.given)
    return tmp_path / "cache" / "tensorrt"


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_the_compiled_plan_has_the_precision(tmp_path: Path, cache: Path, precision: Precision) -> None:
    bundle = write_attention(tmp_path / "attention", precision)
    (plan,) = plans(bundle, precision).values()
    report = plan.report
    assert report.listed in ("inspector", "build")
    assert report.matrices == {precision: MATRICES}
    assert report.attentions == 1
    assert report.fused or report.regions or precision is Precision.FP32
    assert report.activation_bytes is not None
    (again,) = plans(bundle, precision).values()
    assert (again.plan, again.built) == (plan.plan, "")
    (rebuilt,) = plans(bundle, precision, rebuild=True).values()
    assert rebuilt.report.matrices == report.matrices
    assert len(list(cache.glob("*.plan"))) == 1
    assert len(list(cache.glob("*.timing"))) == 1


def test_a_float32_product_in_a_half_graph_is_found(tmp_path: Path) -> None:
    with pytest.raises(PlanPrecisionError, match="1 in fp32 of 6 matrix operations"):
        plans(write_attention(tmp_path / "mixed", wide=True), Precision.FP16)


@pytest.mark.parametrize("length", [0, 100, -1])
def test_bytes_that_are_no_plan_do_not_crash_the_library(tmp_path: Path, length: int) -> None:
    """The cache refuses them earlier; if they get this far, the library refuses them."""
    (plan,) = plans(write_attention(tmp_path / "attention"), Precision.FP16).values()
    trt = load_tensorrt()
    with listening(trt) as said:
        assert trt.Runtime(logger(trt)).deserialize_cuda_engine(plan.plan[:length]) is None
    assert said.errors

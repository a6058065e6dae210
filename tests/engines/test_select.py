from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.select import BACKENDS, open_engine
from mmms_deploy.errors import EngineError, EngineUnavailableError, MMMSDeployWarning
from tests.toy import write_toy


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles")
    return write_toy(folder / "both", precisions=(Precision.FP32, Precision.FP16))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("bundles") / "half", precisions=(Precision.FP16,))


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("bundles") / "brain", precisions=(Precision.BF16,))


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("engine", [None, "onnxruntime"])
def test_the_cpu(paint: Bundle, device: str, engine: str | None) -> None:
    opened = open_engine(paint, device=device, engine=engine)
    assert (opened.info.device, opened.info.precision) == ("cpu", Precision.FP32)
    assert opened.info.threads == available_cores()
    opened.close()


def test_threads(paint: Bundle) -> None:
    assert open_engine(paint, threads=3).info.threads == 3
    with pytest.raises(EngineError, match="0 threads"):
        open_engine(paint, threads=0)


def test_cuda_is_refused_and_not_replaced(paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="no engine for it") as caught:
        open_engine(paint, device="cuda")
    assert "onnxruntime (cpu)" in str(caught.value.expected)


def test_unknown_names(paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="device 'tpu'"):
        open_engine(paint, device="tpu")
    with pytest.raises(EngineUnavailableError, match="engine 'tensorrt'") as caught:
        open_engine(paint, engine="tensorrt")
    assert "onnxruntime (cpu)" in str(caught.value.expected)
    with pytest.raises(EngineUnavailableError, match="precision 'int4'"):
        open_engine(paint, precision="int4")


def test_the_best_precision_and_the_one_asked_for(both: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_engine(both).info.precision is Precision.FP32
        assert open_engine(both, precision="fp16").info.precision is Precision.FP16
        assert open_engine(both, precision=Precision.FP32, strict=True).info.precision is Precision.FP32


def test_a_fallback_is_said_aloud(half: Bundle, paint: Bundle) -> None:
    with pytest.warns(MMMSDeployWarning, match="in fp16 instead of fp32: the bundle does not hold it"):
        assert open_engine(half).info.precision is Precision.FP16
    with pytest.warns(MMMSDeployWarning, match="in fp32 instead of fp16: the bundle does not hold it"):
        assert open_engine(paint, precision="fp16").info.precision is Precision.FP32


def test_a_fallback_is_refused_when_strict(half: Bundle, paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="fp32 is not possible") as caught:
        open_engine(half, strict=True)
    assert "precision='fp16'" in str(caught.value.fix)
    with pytest.raises(EngineUnavailableError, match="fp16 is not possible"):
        open_engine(paint, precision="fp16", strict=True)


def test_a_precision_the_engine_does_not_run(brain: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match=r"has precisions bf16, of which onnxruntime on cpu runs none"):
        open_engine(brain)


def test_backends_are_where_they_say(paint: Bundle) -> None:
    assert len({(backend.name, backend.device) for backend in BACKENDS}) == len(BACKENDS)
    for backend in BACKENDS:
        assert (Path(__file__).parents[2] / (backend.module.replace(".", "/") + ".py")).is_file()

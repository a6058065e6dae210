from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.onnxruntime import cpu as onnxruntime_cpu
from mmms_deploy.engines.onnxruntime.cpu import OnnxRuntimeCpu
from mmms_deploy.errors import EngineError


@pytest.fixture
def engine(paint: Bundle) -> Iterator[OnnxRuntimeCpu]:
    engine = OnnxRuntimeCpu(paint, Precision.FP32, threads=1)
    yield engine
    engine.close()


def test_the_provider_is_the_cpus(engine: OnnxRuntimeCpu) -> None:
    assert (engine.info.name, engine.info.providers) == ("onnxruntime", ("CPUExecutionProvider",))


def test_sessions_do_not_spin(engine: OnnxRuntimeCpu) -> None:
    for session in engine._stages:
        options = session.get_session_options()
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"
        assert options.intra_op_num_threads == 1


def test_another_provider_is_refused(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime_cpu.import_onnxruntime()

    class Elsewhere:
        def __init__(self, *args: object, **kwargs: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    standin = SimpleNamespace(
        OrtValue=real.OrtValue,
        SessionOptions=real.SessionOptions,
        InferenceSession=Elsewhere,
        __version__=real.__version__,
    )
    monkeypatch.setattr(onnxruntime_cpu, "import_onnxruntime", lambda: standin)
    with pytest.raises(EngineError, match="runs stage 'image' on CUDAExecutionProvider, CPUExecutionProvider"):
        OnnxRuntimeCpu(paint, Precision.FP32)

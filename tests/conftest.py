from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines import registry, select
from mmms_deploy.engines.cache import VARIABLE
from mmms_deploy.engines.verdicts import Verdict
from tests.support import fake_engine
from tests.support.toy import write_toy

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and every process that a test interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

CPU_ENGINES = [
    pytest.param((backend.name, precision), id=f"{backend.name}-{precision}")
    for backend in registry.BACKENDS
    if backend.device == "cpu"
    for precision, source in backend.computes.items()
    if source is Precision.FP32
]
"""Every engine on the CPU in every precision that it computes from float32 graphs."""

CUDA_ENGINES = [pytest.param((backend.name, Precision.FP32), id=backend.name) for backend in fake_engine.BACKENDS]
"""What runs on CUDA, as TensorRT and as ONNX Runtime use it, on a fake CUDA runtime."""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: what this machine's user keeps neither helps nor hurts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


def skip_without(name: str, precision: Precision) -> None:
    if name == "openvino" and precision is Precision.BF16:
        from mmms_deploy.engines.openvino.engine import bf16_capable

        if not bf16_capable():
            pytest.skip("this CPU has no instructions for bf16 (AVX512_BF16 or AMX)")


@pytest.fixture(params=CPU_ENGINES)
def cpu_engine(request: pytest.FixtureRequest) -> tuple[str, Precision]:
    """Name and precision of every engine on the CPU, in turn."""
    name, precision = request.param
    skip_without(name, precision)
    return name, precision


@pytest.fixture(params=[*CPU_ENGINES, *CUDA_ENGINES])
def every_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Precision]:
    """Makes every engine, in turn, the one that auto takes: as if it were the fastest that passed here.

    The engines on the CPU, and what runs on CUDA, on a fake CUDA runtime.
    """
    skip_without(*request.param)
    fakes = [backend for backend in fake_engine.BACKENDS if backend.name == request.param[0]]
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, *fakes))

    def read_verdict(bundle: Bundle, engine: str, version: str, precision: Precision) -> Verdict | None:
        if (engine, precision) != request.param:
            return None
        return Verdict(
            engine=engine,
            version=version,
            precision=precision,
            passed=True,
            iou=1.0,
            limit=0.99,
            milliseconds=1.0,
            threads=1,
        )

    monkeypatch.setattr(select, "read_verdict", read_verdict)
    name, precision = request.param
    return name, precision


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, two stages; the probability is the disk of the newest click."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "echo", echo=True)


@pytest.fixture(scope="session")
def paint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, two stages; depends on the image and on all clicks so far."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "paint")


@pytest.fixture(scope="session")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Depth (1 channel) and event (3 channels), three stages."""
    return write_toy(
        tmp_path_factory.mktemp("bundles") / "modal",
        modalities=(ModalitySpec(name="depth", scale=0.01), ModalitySpec(name="event", channels=3)),
    )


@pytest.fixture
def copy(tmp_path: Path, paint: Bundle) -> Path:
    """A copy of ``paint`` to be spoiled."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in paint.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder

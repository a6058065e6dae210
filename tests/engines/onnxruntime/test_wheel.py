"""The real CUDA provider of ONNX Runtime with our graphs and settings, on stand-ins of CUDA's libraries; needs no GPU.

It showed that every release puts arithmetic of shapes on the CPU when it expands GroupNormalization, and that releases
before 1.25 put nodes of opset 19 and 21 there.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle, Precision
from tests.standins import cuda_libraries
from tests.support.norms import norms_graph
from tests.support.paths import ROOT
from tests.support.toy import write_one_stage
from tools import slim_cuda_provider

pytestmark = [
    pytest.mark.wheel,
    pytest.mark.skipif(not cuda_libraries.can_build(), reason=f"needs {', '.join(cuda_libraries.TOOLS)}"),
]

OLD, NEW = "1.25.1", "1.31.1"
SCRIPT = """
import sys
from mmms_deploy import telemetry
with telemetry.off("onnxruntime"):
    import onnxruntime
onnxruntime.set_default_logger_severity(4)
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.onnxruntime.binding import CUDA
from mmms_deploy.engines.onnxruntime.cuda import OnnxRuntimeOnStream
from mmms_deploy.session import Session
from tests.standins.cuda import CudaStandIn
import numpy as np

def mark(name):
    import os
    open(os.environ["STANDIN_TRACE"], "a").write(f"# {name}\\n")

bundle, standin = Bundle(sys.argv[1]), CudaStandIn()
cuda = Cuda(standin, driver=standin.driver_calls)
(precision,) = bundle.manifest.precisions
engine = OnnxRuntimeOnStream(onnxruntime, CUDA, cuda, bundle, precision, "", CudaOptions())
print(engine.info.evidence)
if len(sys.argv) > 2:
    mark("open")
    with Session(bundle, engine=engine) as session:
        for name in ("image", "click", "click", "image", "end"):
            mark(name)
            if name == "image":
                session.set_image(np.zeros((50, 70, 3), dtype=np.uint8))
            elif name == "click":
                session.click(1, 1)
engine.close()
assert not standin.leaked, standin.leaked
"""


@pytest.fixture(scope="module", params=(OLD, NEW))
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A release, and the folder that it is installed in, with the stand-ins of CUDA's libraries beside it."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--no-cache-dir", "--target"]
    subprocess.run([*pip, str(folder / "site"), f"onnxruntime-gpu=={request.param}"], check=True)
    cuda_libraries.build(
        folder / "site" / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so", folder / "libraries"
    )
    return request.param, folder


def run(release: tuple[str, Path], *arguments: str | Path, **environment: str) -> tuple[str, list[str]]:
    """Return its output and its calls of CUDA."""
    _, folder = release
    trace = folder / "trace"
    trace.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT))),
            "LD_LIBRARY_PATH": str(folder / "libraries"),
            "STANDIN_TRACE": str(trace),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, trace.read_text().splitlines()


def between_marks(calls: list[str]) -> list[list[str]]:
    """The calls of opening a session, of an image, of two clicks, and of another image."""
    marks = [number for number, call in enumerate(calls) if call.startswith("# ")]
    return [calls[start + 1 : end] for start, end in itertools.pairwise(marks)]


def test_every_node_of_a_network_is_on_the_gpu(release: tuple[str, Path], cell448: Bundle) -> None:
    said, _ = run(release, cell448.path)
    assert "nodes on CUDAExecutionProvider (the other" in said, "GroupNormalization's shapes"


def test_norms_between_half_tensors_are_on_the_gpu(release: tuple[str, Path], tmp_path: Path) -> None:
    said, _ = run(release, write_one_stage(tmp_path / "norms", norms_graph("float16"), Precision.FP16).path)
    assert "graphs in fp16, 5 of 5 nodes on CUDAExecutionProvider" in said


def test_a_click_is_one_launch(release: tuple[str, Path], paint: Bundle) -> None:
    said, calls = run(release, paint.path, "click")
    assert "29 of 29 nodes on CUDAExecutionProvider" in said
    opening, *rest = between_marks(calls)
    assert opening.count("cudaStreamBeginCapture") == 2
    for part in rest:
        # Up to 1.26 it waits for the launch, whatever the run options say.
        assert part == ["cudaGraphLaunch"] + (["cudaStreamSynchronize"] if release[0] == OLD else [])
    assert not [call for call in calls if call.startswith(("cudaMalloc", "cudaFree")) and "capturing" in call]


def test_a_stage_that_cannot_be_captured_runs_anyway(release: tuple[str, Path], paint: Bundle) -> None:
    said, calls = run(release, paint.path, "click", STANDIN_NO_CAPTURE="1")
    assert "stage 'click' runs as a sequence of operations" in said
    assert "stage 'image' runs as a sequence of operations" in said
    assert "cudaGraphLaunch" not in calls


def test_the_provider_that_was_blanked_packed_and_joined(tmp_path: Path, cell448: Bundle, paint: Bundle) -> None:
    """It loads, and places the nodes as the whole one does; whether its kernels run shows on a GPU alone."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(tmp_path)]
    subprocess.run([*pip, f"onnxruntime-gpu=={NEW}"], check=True)
    (wheel,) = tmp_path.glob("onnxruntime_gpu-*.whl")
    parts = slim_cuda_provider.pack(wheel, tmp_path / "parts", 90, 26_000_000)
    assert sum(part.stat().st_size for part in parts) < 65_000_000
    assert len(parts) <= 3
    for part in parts:
        assert part.stat().st_size <= 26_000_000
    slim_cuda_provider.unpack(tmp_path / "parts", tmp_path / "site")
    provider = tmp_path / "site" / slim_cuda_provider.PROVIDER
    cuda_libraries.build(provider, tmp_path / "libraries")
    said, _ = run((NEW, tmp_path), cell448.path)
    assert "nodes on CUDAExecutionProvider (the other" in said
    said, calls = run((NEW, tmp_path), paint.path, "click")
    assert "29 of 29 nodes on CUDAExecutionProvider" in said
    _, *rest = between_marks(calls)
    assert rest == [["cudaGraphLaunch"]] * 4

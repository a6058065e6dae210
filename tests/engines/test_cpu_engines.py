"""What holds for every engine on the CPU, in every precision."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision, StageGraph, TensorSpec
from mmms_deploy.engines.openvino.library import bf16_capable
from mmms_deploy.engines.protocol import Engine, Runner, Value
from mmms_deploy.engines.registry import BACKENDS
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import BundleCorruptError, EngineError
from mmms_deploy.replay.verification import LIMITS, verify
from mmms_deploy.session import Session
from tests.support.engines import CPU_ENGINES
from tests.support.paths import ROOT
from tests.support.toy import misdescribed, taken_as_it_is, write_toy


def opened(bundle: Bundle, cpu_engine: tuple[str, Precision]) -> Engine:
    (backend,) = (backend for backend in BACKENDS if backend.name == cpu_engine[0])
    return backend.open(bundle, cpu_engine[1], EngineRequest(threads=1), reason="tested")


@pytest.fixture
def engine(paint: Bundle, cpu_engine: tuple[str, Precision]) -> Iterator[Engine]:
    engine = opened(paint, cpu_engine)
    yield engine
    engine.close()


@pytest.fixture
def runner(engine: Engine) -> Runner:
    return engine.open()


def specs(engine: Engine, stage: str) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in engine.graphs[stage].inputs}


def click_inputs(engine: Engine, runner: Runner, x: float = 20.0) -> dict[str, Value]:
    given = specs(engine, "click")
    values = {name: runner.zeros(given[name]) for name in ("f1", "maps", "prev")}
    return {**values, "click": runner.upload(given["click"], np.array([[x, 10, 1, 1]]))}


def test_info_is_what_the_library_says(engine: Engine, cpu_engine: tuple[str, Precision]) -> None:
    info = engine.info
    assert isinstance(engine, Engine)
    assert (info.name, info.precision) == cpu_engine
    assert (info.device, info.threads, info.reason) == ("cpu", 1, "tested")
    assert info.evidence
    assert str(info) == f"{info.library} {info.version} on cpu, {info.precision}, 1 thread"


def test_upload_and_download(engine: Engine, runner: Runner) -> None:
    spec = specs(engine, "image")["rgb"]
    array = np.random.default_rng(0).random(spec.shape)
    value = runner.upload(spec, array)
    expected = array.astype(np.float32)
    array[:] = 0
    np.testing.assert_array_equal(runner.download(value), expected)
    first = runner.download(value)
    first[:] = 7
    np.testing.assert_array_equal(runner.download(value), expected)
    assert not runner.download(runner.zeros(spec)).any()
    with pytest.raises(ValueError, match=r"rgb: expected shape \(1, 3, 64, 96\)"):
        runner.upload(spec, array[0])


def test_strided_arrays_are_uploaded_as_they_look(engine: Engine, runner: Runner) -> None:
    spec = specs(engine, "image")["rgb"]
    array = np.random.default_rng(0).random((1, 64, 96, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(runner.download(runner.upload(spec, array)), array)


def test_values_never_change(engine: Engine, runner: Runner) -> None:
    """Undo keeps old handles, so later runs must not write into earlier outputs."""
    kept = []
    for x in range(0, 90, 9):
        outputs = runner.run("click", click_inputs(engine, runner, x))
        kept.append((outputs, {name: runner.download(value) for name, value in outputs.items()}))
    gc.collect()
    for outputs, copies in kept:
        for name, value in outputs.items():
            np.testing.assert_array_equal(runner.download(value), copies[name])


def test_outputs_have_the_manifests_types(engine: Engine, runner: Runner) -> None:
    outputs = runner.run("click", click_inputs(engine, runner))
    for spec in engine.graphs["click"].outputs:
        array = runner.download(outputs[spec.name])
        assert (array.shape, array.dtype) == (spec.shape, np.dtype(spec.dtype))


def test_the_librarys_errors_are_named(engine: Engine, runner: Runner) -> None:
    inputs = click_inputs(engine, runner)
    wrong = runner.zeros(specs(engine, "image")["rgb"])
    with pytest.raises(EngineError, match=f"{engine.info.library} failed in stage 'click'"):
        runner.run("click", {**inputs, "prev": wrong})
    runner.run("click", inputs)
    with pytest.raises(EngineError, match="stage 'nothing' cannot run"):
        runner.run("nothing", inputs)


def test_closing(engine: Engine, runner: Runner) -> None:
    inputs = click_inputs(engine, runner)
    second = engine.open()
    runner.close()
    runner.close()
    with pytest.raises(EngineError, match="runner is closed"):
        runner.run("click", inputs)
    second.run("click", inputs)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="engine is closed"):
        second.run("click", inputs)
    with pytest.raises(EngineError, match="engine is closed"):
        engine.open()


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("change", [{"name": "other"}, {"shape": (1, 9)}, {"dtype": "float16"}, {"dtype": "bfloat16"}])
def test_graphs_must_be_what_the_manifest_says(
    paint: Bundle, cpu_engine: tuple[str, Precision], side: str, change: dict[str, object]
) -> None:
    with pytest.raises(BundleCorruptError, match=f"stage 'click' .* has the {side}"):
        opened(misdescribed(paint, side, **change), cpu_engine)


def test_a_graph_that_is_none(copy: Path, cpu_engine: tuple[str, Precision], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")  # nobody looks at a graph that is kept compiled
    bundle = Bundle(copy)
    bundle.file("click.fp32.onnx").write_bytes(b"nonsense")
    taken_as_it_is(bundle)
    with pytest.raises(BundleCorruptError, match=r"stage 'click' .* cannot be loaded"):
        opened(bundle, cpu_engine)


def test_graphs_by_stage(engine: Engine, paint: Bundle) -> None:
    assert list(engine.graphs) == ["image", "click"]
    assert all(isinstance(graph, StageGraph) for graph in engine.graphs.values())
    assert engine.bundle is paint


def test_inputs_are_left_alone(engine: Engine, runner: Runner) -> None:
    inputs = click_inputs(engine, runner)
    before = {name: runner.download(value) for name, value in inputs.items()}
    state = runner.run("click", inputs)
    runner.run("click", {**inputs, "maps": state["maps_next"], "prev": state["prob"]})
    for name, value in inputs.items():
        np.testing.assert_array_equal(runner.download(value), before[name])


def test_a_value_outlives_its_runner(engine: Engine) -> None:
    first = engine.open()
    value = first.run("click", click_inputs(engine, first))["prob"]
    second = engine.open()
    expected = second.download(value)
    first.close()
    for x in range(5):
        second.run("click", click_inputs(engine, second, x))
    np.testing.assert_array_equal(second.download(value), expected)


GROWTH = """
import gc, sys
from pathlib import Path
import numpy as np
from mmms_deploy import Session
from mmms_deploy.engines import open_engine

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

path, name, precision, limit = sys.argv[1:]
engine = open_engine(path, engine=name, precision=precision, threads=1)
with Session(engine.bundle, engine=engine, history_limit=int(limit)) as session:
    session.set_image(np.zeros((32, 32, 3), dtype=np.uint8))

    def click(count):
        for number in range(count):
            session.click(number % 32, number // 32 % 32, number % 3 > 0)
        gc.collect()
        return resident(), len(gc.get_objects())

    click(250)
    memory, objects = click(250)
    after, more = click(2_000)
engine.close()
print(after - memory, more - objects)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
@pytest.mark.parametrize("limit", [0, 3])
def test_two_thousand_clicks_do_not_grow(tmp_path: Path, cpu_engine: tuple[str, Precision], limit: int) -> None:
    """In a process of its own: what other tests leave in this one moves its memory, too."""
    bundle = write_toy(tmp_path / "small", size=(32, 32), echo=True)
    command = [sys.executable, "-c", GROWTH, str(bundle.path), *map(str, cpu_engine), str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    memory, objects = map(int, done.stdout.split())
    # The clicks themselves are remembered, 17 bytes each and no object. A state alone has 12 KB.
    assert objects < 200
    assert memory < 4 << 20


# --- a real network ---------------------------------------------------------------------------------------------------


def test_the_golden_replay_passes(cell448: Bundle, cpu_engine: tuple[str, Precision]) -> None:
    engine = opened(cell448, cpu_engine)
    report = verify(cell448, engine=engine)
    engine.close()
    assert report.limit == LIMITS[cpu_engine[1]]
    assert report.telling


def test_sessions_in_threads_answer_as_alone(cell448: Bundle, cpu_engine: tuple[str, Precision]) -> None:
    engine = opened(cell448, cpu_engine)

    def annotate(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        answers = []
        with Session(cell448, engine=engine) as session:
            session.set_image(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
            for x, y in rng.uniform(0, 59, (5, 2)):
                answers.append(session.click(x, y).network_probability)
            answers.append(session.undo().network_probability)
        return answers

    alone = [annotate(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(annotate, range(2)))
    engine.close()
    np.testing.assert_array_equal(alone, together)


def test_the_engines_agree(cell448: Bundle) -> None:
    """In float32, and in bf16 within what eight bits of mantissa give."""
    answers = {}
    for parameter in CPU_ENGINES:
        name, precision = parameter.values[0]
        if precision is Precision.BF16 and not bf16_capable():
            continue
        with Session(cell448, engine=opened(cell448, (name, precision))) as session:
            session.set_image(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
            answers[name, precision] = session.click(30, 20).network_probability
    reference = answers["onnxruntime", Precision.FP32]
    for (_, precision), answer in answers.items():
        np.testing.assert_allclose(answer, reference, atol=1e-4 if precision is Precision.FP32 else 0.05)

"""A click stage in several sizes, on every engine: which one runs, and when it is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision, Rate
from mmms_deploy.engines.loaded import LoadedStages
from mmms_deploy.engines.protocol import Engine, Runner
from mmms_deploy.engines.registry import BACKENDS
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import EngineError
from mmms_deploy.session.pipeline import PipelineState, StagePipeline
from tests.support.sized import ANSWER, LEARNED, SIZES, write_sized
from tests.support.standin_engine import StandInEngine

GREY = 0.5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_sized(tmp_path_factory.mktemp("bundles") / "sized")


@pytest.fixture
def engine(bundle: Bundle, cpu_engine: tuple[str, Precision]) -> Iterator[Engine]:
    (backend,) = (backend for backend in BACKENDS if backend.name == cpu_engine[0])
    engine = backend.open(bundle, cpu_engine[1], EngineRequest(threads=1), reason="tested")
    yield engine
    engine.close()


def driven(engine: Engine) -> tuple[Runner, StagePipeline, PipelineState]:
    """Runner, pipeline, and the state with an image."""
    runner = engine.open()
    pipeline = StagePipeline(engine.bundle.manifest, engine.graphs, runner)
    rgb = pipeline.upload("rgb", np.full(pipeline.inputs["rgb"].shape, GREY))
    return runner, pipeline, pipeline.run(pipeline.set(pipeline.start(), {"rgb": rgb}), Rate.IMAGE)


def answered(runner: Runner, pipeline: StagePipeline, image: PipelineState, rows: int, x: float) -> np.ndarray:
    """The rows' answers to one click."""
    clicks = np.zeros((1, rows, 5))
    clicks[0, 0] = (x, 0, 0, 1, 1)
    values = {"click_list": pipeline.upload("click_list", clicks, rows)}
    done = pipeline.run(pipeline.set(image, values), rows=rows)
    return np.asarray(runner.download(done.value("row_logits")))


def expected(rows: int, x: float) -> np.ndarray:
    answer = np.full((1, rows + LEARNED, *ANSWER), GREY)
    answer[0, 0] += x
    answer[0, rows:] += 0.5
    return answer


def check_sizes(engine: Engine) -> None:
    runner, pipeline, image = driven(engine)
    for rows, x in ((SIZES[0], 3.0), (SIZES[1], 4.0), (SIZES[0], 5.0), (SIZES[1], 6.0)):
        np.testing.assert_array_equal(answered(runner, pipeline, image, rows, x), expected(rows, x))
    assert pipeline.runs == {"image": 1, "click": 2, f"click_{SIZES[1]}": 2}
    runner.close()


def test_every_size_answers(engine: Engine) -> None:
    check_sizes(engine)


@pytest.mark.parametrize("shared", [False, True])
def test_every_size_answers_on_a_gpu(bundle: Bundle, shared: bool) -> None:
    engine = StandInEngine(bundle, shared=shared)
    check_sizes(engine)
    runner, pipeline, image = driven(engine)
    assert pipeline.prepare(SIZES[1]) == 0.0, "all sizes are there when a session is opened"
    clicks = np.zeros((1, SIZES[1], 5))
    values = {"click_list": pipeline.upload("click_list", clicks, SIZES[1])}
    larger = pipeline.run(pipeline.set(image, values), rows=SIZES[1]).value("row_logits")
    answered(runner, pipeline, image, SIZES[0], 1.0)
    answered(runner, pipeline, image, SIZES[1], 2.0)
    np.testing.assert_array_equal(runner.download(larger), expected(SIZES[1], 0.0), "a value never changes")
    runner.close()
    engine.close()


def test_a_larger_size_is_compiled_when_it_is_needed(engine: Engine) -> None:
    runner, pipeline, image = driven(engine)
    assert pipeline.prepare(SIZES[0]) == 0.0
    assert pipeline.prepare(SIZES[1]) > 0.0
    assert pipeline.prepare(SIZES[1]) == 0.0
    np.testing.assert_array_equal(answered(runner, pipeline, image, SIZES[1], 1.0), expected(SIZES[1], 1.0))
    runner.close()


def test_threads_load_a_stage_once(bundle: Bundle) -> None:
    loads: list[str] = []

    def load(name: str) -> int:
        loads.append(name)
        return len(loads)

    stages = LoadedStages(bundle.manifest, load)
    assert loads == ["image", "click"]
    larger = f"click_{SIZES[1]}"
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: stages[larger], range(8))) == {3}
    assert loads == ["image", "click", larger]
    with pytest.raises(EngineError, match="stage 'other' cannot run"):
        stages["other"]
    stages.close()
    with pytest.raises(EngineError, match="this engine is closed"):
        stages[larger]


def test_a_failed_load_can_be_tried_again(bundle: Bundle) -> None:
    failures = [EngineError("no memory", expected="memory", fix="wait")]

    def load(name: str) -> str:
        if name not in ("image", "click") and failures:
            raise failures.pop()
        return name

    stages = LoadedStages(bundle.manifest, load)
    larger = f"click_{SIZES[1]}"
    with pytest.raises(EngineError, match="no memory"):
        stages[larger]
    assert stages[larger] == larger

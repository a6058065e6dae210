from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Manifest, Rate, Role, Stage, StageGraph, TensorSpec
from mmms_deploy.bundle.contract import ClickContract, ImageSpec
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.session.pipeline import StagePipeline


class SumRunner:
    """Every output is the sum of the inputs; values are arrays."""

    def __init__(self, graphs: Mapping[str, StageGraph]) -> None:
        self.graphs = graphs

    def upload(self, spec: TensorSpec, array: np.ndarray) -> Value:
        return np.array(array, dtype=spec.dtype)

    def zeros(self, spec: TensorSpec) -> Value:
        return np.zeros(spec.shape, dtype=spec.dtype)

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        total = sum(inputs.values())
        return {spec.name: total for spec in self.graphs[stage].outputs}

    def download(self, value: Value) -> np.ndarray:
        return np.array(value)

    def prepare(self, stage: str) -> float:
        return 0.25 if stage != "click" else 0.0

    def detach(self, value: Value) -> Value:
        return value

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def tensor(name: str, role: Role, shape: tuple[int, ...] = (1,)) -> TensorSpec:
    return TensorSpec(name=name, role=role, dtype="float32", shape=shape)


RGB = tensor("rgb", Role.IMAGE)
DEPTH = tensor("depth", Role.MODALITY)
F, FUSED, EXTRA = (tensor(name, Role.FEATURE) for name in ("f", "fused", "extra"))
CLICK = tensor("click", Role.CLICK)
PREV = tensor("prev", Role.STATE)
PROB = tensor("prob", Role.PROBABILITY)

THREE = {
    "image": StageGraph(file="a", inputs=(RGB,), outputs=(F, EXTRA)),
    "modality": StageGraph(file="b", inputs=(F, DEPTH), outputs=(FUSED,)),
    "click": StageGraph(file="c", inputs=(FUSED, EXTRA, PREV, CLICK), outputs=(PROB,)),
}
BLACK_BOX = {
    "modality": StageGraph(file="b", inputs=(F, DEPTH), outputs=(FUSED,)),
    "click": StageGraph(file="c", inputs=(FUSED, PREV, CLICK), outputs=(PROB,)),
}
RATES = {"image": Rate.IMAGE, "modality": Rate.MODALITY, "click": Rate.CLICK}


def pipeline_of(graphs: Mapping[str, StageGraph], manifest: Manifest) -> StagePipeline:
    stages = tuple(Stage(name=name, rate=RATES[name], graphs={}) for name in graphs)
    return StagePipeline(msgspec.structs.replace(manifest, stages=stages), graphs, SumRunner(graphs))


@pytest.fixture
def manifest(paint: object) -> Manifest:
    base: Manifest = paint.manifest  # type: ignore[attr-defined]
    return msgspec.structs.replace(base, image=ImageSpec(), clicks=ClickContract())


class Driven:
    """A pipeline and its newest state."""

    def __init__(self, pipeline: StagePipeline) -> None:
        self.pipeline = pipeline
        self.state = pipeline.start()

    def feed(self, **numbers: float) -> None:
        values = {
            name: self.pipeline.upload(name, np.array([number], dtype=np.float32)) for name, number in numbers.items()
        }
        self.state = self.pipeline.set(self.state, values)

    def run(self, up_to: Rate = Rate.CLICK) -> None:
        self.state = self.pipeline.run(self.state, up_to)

    def number(self, name: str) -> float:
        return float(self.state.value(name)[0])  # type: ignore[index]


def test_runs_what_is_stale_and_nothing_else(manifest: Manifest) -> None:
    driven = Driven(pipeline_of(THREE, manifest))
    assert set(driven.pipeline.inputs) == {"rgb", "depth", "prev", "click"}
    driven.feed(rgb=1, depth=10, prev=0, click=100)
    driven.run()
    assert driven.pipeline.runs == {"image": 1, "modality": 1, "click": 1}
    assert driven.number("prob") == 1 + 10 + 1 + 100
    driven.run()
    assert driven.pipeline.runs == {"image": 1, "modality": 1, "click": 1}
    driven.feed(click=200)
    assert driven.state.stale == {"click"}
    driven.run()
    assert driven.number("prob") == 212
    driven.feed(depth=20)
    assert driven.state.stale == {"modality", "click"}
    driven.run()
    assert driven.pipeline.runs == {"image": 1, "modality": 2, "click": 3}
    assert driven.number("prob") == 222
    driven.feed(rgb=2)
    assert driven.state.stale == {"image", "modality", "click"}


def test_a_feature_that_skips_a_stage_reaches_the_click(manifest: Manifest) -> None:
    graphs = {**THREE, "modality": StageGraph(file="b", inputs=(DEPTH,), outputs=(FUSED,))}
    driven = Driven(pipeline_of(graphs, manifest))
    driven.feed(rgb=1, depth=10, prev=0, click=100)
    driven.run()
    driven.feed(rgb=2)
    assert driven.state.stale == {"image", "click"}
    driven.run()
    assert driven.pipeline.runs == {"image": 2, "modality": 1, "click": 2}


def test_up_to_a_rate(manifest: Manifest) -> None:
    driven = Driven(pipeline_of(THREE, manifest))
    driven.feed(rgb=1, depth=10)
    driven.run(Rate.IMAGE)
    assert driven.pipeline.runs == {"image": 1, "modality": 0, "click": 0}
    driven.run(Rate.MODALITY)
    assert driven.pipeline.runs == {"image": 1, "modality": 1, "click": 0}
    with pytest.raises(SessionError, match="'click' cannot run without prev, click"):
        driven.run()


def test_features_from_outside(manifest: Manifest) -> None:
    driven = Driven(pipeline_of(BLACK_BOX, manifest))
    assert set(driven.pipeline.inputs) == {"f", "depth", "prev", "click"}
    driven.feed(f=5, depth=1, prev=0, click=0)
    driven.run()
    assert driven.number("prob") == 6


def test_a_state_never_changes(manifest: Manifest) -> None:
    driven = Driven(pipeline_of(THREE, manifest))
    driven.feed(rgb=1, depth=10, prev=0, click=100)
    driven.run()
    before = driven.state
    driven.feed(rgb=7)
    driven.run(Rate.IMAGE)
    assert driven.number("f") == 7
    driven.state = before
    assert driven.state.stale == frozenset()
    assert driven.number("f") == 1
    assert driven.number("prob") == 112


def test_unknown_inputs(manifest: Manifest) -> None:
    driven = Driven(pipeline_of(THREE, manifest))
    with pytest.raises(SessionError, match="'thermal' is no input"):
        driven.feed(thermal=1)
    with pytest.raises(SessionError, match="'fused' is no input"):
        driven.feed(fused=1)
    with pytest.raises(SessionError, match="'fused' is no input"):
        driven.pipeline.set(driven.state, {"fused": 1})
    with pytest.raises(SessionError, match="not computed yet"):
        driven.state.value("prob")


def test_stages_must_fit_each_other(manifest: Manifest) -> None:
    wide = StageGraph(file="c", inputs=(tensor("fused", Role.FEATURE, (2,)), PREV, CLICK), outputs=(PROB,))
    with pytest.raises(BundleCorruptError, match=r"wants fused as float32 \(2,\)"):
        pipeline_of({**THREE, "click": wide}, manifest)
    twice = StageGraph(file="c", inputs=(FUSED, PREV, CLICK), outputs=(PROB, F))
    with pytest.raises(BundleCorruptError, match="computes f, which exists"):
        pipeline_of({**THREE, "click": twice}, manifest)


def test_a_cleared_input_is_missed(manifest: Manifest) -> None:
    driven = Driven(pipeline_of(THREE, manifest))
    driven.feed(rgb=1, depth=10, prev=0, click=0)
    driven.run()
    driven.state = driven.pipeline.clear(driven.state, {"depth"})
    assert driven.state.stale == {"modality", "click"}
    with pytest.raises(SessionError, match="stage 'modality' cannot run without depth"):
        driven.run()
    driven.state = driven.pipeline.clear(driven.state, {"depth"})
    driven.feed(depth=20)
    driven.run()
    assert driven.number("fused") == 21


# --- bypass -----------------------------------------------------------------------------------------------------------


def bypassable(manifest: Manifest, **sources: str) -> StagePipeline:
    stages = tuple(
        Stage(name=name, rate=RATES[name], graphs={}, bypass=sources if name == "modality" else {}) for name in THREE
    )
    return StagePipeline(msgspec.structs.replace(manifest, stages=stages), THREE, SumRunner(THREE))


def test_a_bypassed_stage_does_not_run(manifest: Manifest) -> None:
    driven = Driven(bypassable(manifest, fused="f"))
    pipeline = driven.pipeline
    driven.feed(rgb=1, prev=0, click=0)
    assert pipeline.reads(driven.state, "depth")
    driven.state = pipeline.bypass(driven.state, True)
    assert not pipeline.reads(driven.state, "depth")
    assert pipeline.reads(driven.state, "extra")
    driven.run()
    assert driven.number("fused") == driven.number("f") == 1
    assert pipeline.runs == {"image": 1, "modality": 0, "click": 1}
    driven.state = pipeline.bypass(driven.state, True)
    assert driven.state.stale == frozenset()
    driven.feed(depth=10)
    driven.state = pipeline.bypass(driven.state, False)
    assert driven.state.stale == {"modality", "click"}
    driven.run()
    assert (driven.number("fused"), driven.number("prob")) == (11, 12)
    before = driven.state
    driven.state = pipeline.bypass(driven.state, True)
    driven.run()
    assert driven.number("fused") == 1
    driven.state = before
    assert driven.number("fused") == 11
    driven.feed(depth=20)
    driven.run()
    assert driven.number("fused") == 21


def test_a_bypass_waits_for_what_it_takes(manifest: Manifest) -> None:
    driven = Driven(bypassable(manifest, fused="f"))
    driven.state = driven.pipeline.bypass(driven.state, True)
    driven.state = replace(driven.state, stale=frozenset({"modality"}))
    with pytest.raises(SessionError, match="stage 'modality' cannot run without f"):
        driven.run()


@pytest.mark.parametrize("sources", [{"fused": "prob"}, {"fused": "nothing"}, {"fused": "f", "other": "f"}])
def test_a_bypass_that_does_not_fit(manifest: Manifest, sources: dict[str, str]) -> None:
    with pytest.raises(BundleCorruptError, match="cannot be bypassed"):
        bypassable(manifest, **sources)


# --- several sizes of a stage -----------------------------------------------------------------------------------------


def listed(rows: int, *, dtype: str = "float32", more: tuple[TensorSpec, ...] = ()) -> StageGraph:
    """A click stage for a list of so many rows; it answers for one more."""
    clicks, answer = (
        TensorSpec(name=name, role=role, dtype=dtype, shape=(1, count, 1))
        for name, role, count in (("click_list", Role.CLICK, rows), ("row_logits", Role.ROWS, rows + 1))
    )
    return StageGraph(file="c", inputs=(F, clicks), outputs=(answer, *more))


def sizes_of(manifest: Manifest, *graphs: tuple[int, StageGraph]) -> StagePipeline:
    image = StageGraph(file="a", inputs=(RGB,), outputs=(F,))
    named = {"click" if not number else f"click_{rows}": (rows, graph) for number, (rows, graph) in enumerate(graphs)}
    stages = (
        Stage(name="image", rate=Rate.IMAGE, graphs={}),
        *(Stage(name=name, rate=Rate.CLICK, graphs={}, rows=rows) for name, (rows, _) in named.items()),
    )
    every = {"image": image} | {name: graph for name, (_, graph) in named.items()}
    return StagePipeline(msgspec.structs.replace(manifest, stages=stages), every, SumRunner(every))


def test_the_size_that_is_named_runs(manifest: Manifest) -> None:
    pipeline = sizes_of(manifest, (2, listed(2)), (4, listed(4)))
    assert pipeline.inputs["click_list"].shape == (1, 2, 1)
    state = pipeline.set(pipeline.start(), {"rgb": pipeline.upload("rgb", np.array([1.0]))})
    for rows, name in ((4, "click_4"), (2, "click"), (4, "click_4")):
        given = pipeline.upload("click_list", np.ones((1, rows, 1)), rows)
        before = pipeline.runs[name]
        state = pipeline.run(pipeline.set(state, {"click_list": given}), rows=rows)
        assert pipeline.runs[name] == before + 1
        assert np.shape(state.value("row_logits")) == (1, rows, 1)
    assert pipeline.runs == {"image": 1, "click": 1, "click_4": 2}
    assert (pipeline.prepare(2), pipeline.prepare(4)) == (0.0, 0.25)
    with pytest.raises(SessionError, match="a list of 3 rows"):
        pipeline.run(state, rows=3)
    with pytest.raises(SessionError, match="a list of 3 rows"):
        pipeline.prepare(3)


@pytest.mark.parametrize(
    ("larger", "words"),
    [
        (listed(5), r"\(1, 5, 1\) for click_list"),
        (listed(4, dtype="float16"), "float16"),
        (listed(4, more=(PROB,)), "has probability float32 .* for prob"),
        (StageGraph(file="c", inputs=(F,), outputs=listed(4).outputs), "no such tensor for click_list"),
    ],
)
def test_sizes_differ_in_rows_alone(manifest: Manifest, larger: StageGraph, words: str) -> None:
    with pytest.raises(BundleCorruptError, match=words):
        sizes_of(manifest, (2, listed(2)), (4, larger))

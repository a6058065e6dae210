from __future__ import annotations

from collections.abc import Mapping

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


def feed(pipeline: StagePipeline, **numbers: float) -> None:
    for name, number in numbers.items():
        pipeline.set(name, np.array([number], dtype=np.float32))


def number(pipeline: StagePipeline, name: str) -> float:
    return float(pipeline.value(name)[0])  # type: ignore[index]


def test_runs_what_is_stale_and_nothing_else(manifest: Manifest) -> None:
    pipeline = pipeline_of(THREE, manifest)
    assert set(pipeline.inputs) == {"rgb", "depth", "prev", "click"}
    feed(pipeline, rgb=1, depth=10, prev=0, click=100)
    pipeline.ensure()
    assert pipeline.runs == {"image": 1, "modality": 1, "click": 1}
    assert number(pipeline, "prob") == 1 + 10 + 1 + 100
    pipeline.ensure()
    assert pipeline.runs == {"image": 1, "modality": 1, "click": 1}
    feed(pipeline, click=200)
    assert pipeline.save().stale == {"click"}
    pipeline.ensure()
    assert number(pipeline, "prob") == 212
    feed(pipeline, depth=20)
    assert pipeline.save().stale == {"modality", "click"}
    pipeline.ensure()
    assert pipeline.runs == {"image": 1, "modality": 2, "click": 3}
    assert number(pipeline, "prob") == 222
    feed(pipeline, rgb=2)
    assert pipeline.save().stale == {"image", "modality", "click"}


def test_a_feature_that_skips_a_stage_reaches_the_click(manifest: Manifest) -> None:
    graphs = {**THREE, "modality": StageGraph(file="b", inputs=(DEPTH,), outputs=(FUSED,))}
    pipeline = pipeline_of(graphs, manifest)
    feed(pipeline, rgb=1, depth=10, prev=0, click=100)
    pipeline.ensure()
    feed(pipeline, rgb=2)
    assert pipeline.save().stale == {"image", "click"}
    pipeline.ensure()
    assert pipeline.runs == {"image": 2, "modality": 1, "click": 2}


def test_up_to_a_rate(manifest: Manifest) -> None:
    pipeline = pipeline_of(THREE, manifest)
    feed(pipeline, rgb=1, depth=10)
    pipeline.ensure(Rate.IMAGE)
    assert pipeline.runs == {"image": 1, "modality": 0, "click": 0}
    pipeline.ensure(Rate.MODALITY)
    assert pipeline.runs == {"image": 1, "modality": 1, "click": 0}
    with pytest.raises(SessionError, match="'click' cannot run without prev, click"):
        pipeline.ensure()


def test_features_from_outside(manifest: Manifest) -> None:
    pipeline = pipeline_of(BLACK_BOX, manifest)
    assert set(pipeline.inputs) == {"f", "depth", "prev", "click"}
    feed(pipeline, f=5, depth=1, prev=0, click=0)
    pipeline.ensure()
    assert number(pipeline, "prob") == 6


def test_save_and_restore(manifest: Manifest) -> None:
    pipeline = pipeline_of(THREE, manifest)
    feed(pipeline, rgb=1, depth=10, prev=0, click=100)
    pipeline.ensure()
    before = pipeline.save()
    feed(pipeline, rgb=7)
    pipeline.ensure(Rate.IMAGE)
    pipeline.restore(before)
    assert pipeline.save().stale == frozenset()
    assert number(pipeline, "f") == 1
    assert number(pipeline, "prob") == 112


def test_unknown_inputs(manifest: Manifest) -> None:
    pipeline = pipeline_of(THREE, manifest)
    with pytest.raises(SessionError, match="'thermal' is no input"):
        feed(pipeline, thermal=1)
    with pytest.raises(SessionError, match="'fused' is no input"):
        feed(pipeline, fused=1)
    with pytest.raises(SessionError, match="not computed yet"):
        pipeline.value("prob")


def test_stages_must_fit_each_other(manifest: Manifest) -> None:
    wide = StageGraph(file="c", inputs=(tensor("fused", Role.FEATURE, (2,)), PREV, CLICK), outputs=(PROB,))
    with pytest.raises(BundleCorruptError, match=r"wants fused as float32 \(2,\)"):
        pipeline_of({**THREE, "click": wide}, manifest)
    twice = StageGraph(file="c", inputs=(FUSED, PREV, CLICK), outputs=(PROB, F))
    with pytest.raises(BundleCorruptError, match="computes f, which exists"):
        pipeline_of({**THREE, "click": twice}, manifest)


def test_a_cleared_input_is_missed(manifest: Manifest) -> None:
    pipeline = pipeline_of(THREE, manifest)
    feed(pipeline, rgb=1, depth=10, prev=0, click=0)
    pipeline.ensure()
    pipeline.clear("depth")
    assert pipeline.save().stale == {"modality", "click"}
    with pytest.raises(SessionError, match="stage 'modality' cannot run without depth"):
        pipeline.ensure()
    pipeline.clear("depth")
    feed(pipeline, depth=20)
    pipeline.ensure()
    assert number(pipeline, "fused") == 21


# --- bypass -----------------------------------------------------------------------------------------------------------


def bypassable(manifest: Manifest, **sources: str) -> StagePipeline:
    stages = tuple(
        Stage(name=name, rate=RATES[name], graphs={}, bypass=sources if name == "modality" else {}) for name in THREE
    )
    return StagePipeline(msgspec.structs.replace(manifest, stages=stages), THREE, SumRunner(THREE))


def test_a_bypassed_stage_does_not_run(manifest: Manifest) -> None:
    pipeline = bypassable(manifest, fused="f")
    feed(pipeline, rgb=1, prev=0, click=0)
    assert pipeline.reads("depth")
    pipeline.bypass(True)
    assert not pipeline.reads("depth")
    assert pipeline.reads("extra")
    pipeline.ensure()
    assert number(pipeline, "fused") == number(pipeline, "f") == 1
    assert pipeline.runs == {"image": 1, "modality": 0, "click": 1}
    pipeline.bypass(True)
    assert pipeline.save().stale == frozenset()
    feed(pipeline, depth=10)
    pipeline.bypass(False)
    assert pipeline.save().stale == {"modality", "click"}
    pipeline.ensure()
    assert (number(pipeline, "fused"), number(pipeline, "prob")) == (11, 12)
    saved = pipeline.save()
    pipeline.bypass(True)
    pipeline.ensure()
    pipeline.restore(saved)
    assert number(pipeline, "fused") == 11
    feed(pipeline, depth=20)
    pipeline.ensure()
    assert number(pipeline, "fused") == 21


@pytest.mark.parametrize("sources", [{"fused": "prob"}, {"fused": "nothing"}, {"fused": "f", "other": "f"}])
def test_a_bypass_that_does_not_fit(manifest: Manifest, sources: dict[str, str]) -> None:
    with pytest.raises(BundleCorruptError, match="cannot be bypassed"):
        bypassable(manifest, **sources)

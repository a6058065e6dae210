from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Manifest, Rate, Role, Stage, StageGraph, TensorSpec
from mmms_deploy.bundle.contract import ClickContract, ImageSpec
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.session.pipeline import Chain


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


def chain_of(graphs: Mapping[str, StageGraph], manifest: Manifest) -> Chain:
    stages = tuple(Stage(name=name, rate=RATES[name], graphs={}) for name in graphs)
    return Chain(msgspec.structs.replace(manifest, stages=stages), graphs, SumRunner(graphs))


@pytest.fixture
def manifest(paint: object) -> Manifest:
    base: Manifest = paint.manifest  # type: ignore[attr-defined]
    return msgspec.structs.replace(base, image=ImageSpec(), clicks=ClickContract())


def feed(chain: Chain, **numbers: float) -> None:
    for name, number in numbers.items():
        chain.set(name, np.array([number], dtype=np.float32))


def number(chain: Chain, name: str) -> float:
    return float(chain.value(name)[0])  # type: ignore[index]


def test_runs_what_is_stale_and_nothing_else(manifest: Manifest) -> None:
    chain = chain_of(THREE, manifest)
    assert set(chain.given) == {"rgb", "depth", "prev", "click"}
    feed(chain, rgb=1, depth=10, prev=0, click=100)
    chain.ensure()
    assert chain.runs == {"image": 1, "modality": 1, "click": 1}
    assert number(chain, "prob") == 1 + 10 + 1 + 100
    chain.ensure()
    assert chain.runs == {"image": 1, "modality": 1, "click": 1}
    feed(chain, click=200)
    assert chain.stale == {"click"}
    chain.ensure()
    assert number(chain, "prob") == 212
    feed(chain, depth=20)
    assert chain.stale == {"modality", "click"}
    chain.ensure()
    assert chain.runs == {"image": 1, "modality": 2, "click": 3}
    assert number(chain, "prob") == 222
    feed(chain, rgb=2)
    assert chain.stale == {"image", "modality", "click"}


def test_a_feature_that_skips_a_stage_reaches_the_click(manifest: Manifest) -> None:
    graphs = {**THREE, "modality": StageGraph(file="b", inputs=(DEPTH,), outputs=(FUSED,))}
    chain = chain_of(graphs, manifest)
    feed(chain, rgb=1, depth=10, prev=0, click=100)
    chain.ensure()
    feed(chain, rgb=2)
    assert chain.stale == {"image", "click"}
    chain.ensure()
    assert chain.runs == {"image": 2, "modality": 1, "click": 2}


def test_up_to_a_rate(manifest: Manifest) -> None:
    chain = chain_of(THREE, manifest)
    feed(chain, rgb=1, depth=10)
    chain.ensure(Rate.IMAGE)
    assert chain.runs == {"image": 1, "modality": 0, "click": 0}
    chain.ensure(Rate.MODALITY)
    assert chain.runs == {"image": 1, "modality": 1, "click": 0}
    with pytest.raises(SessionError, match="'click' cannot run without prev, click"):
        chain.ensure()


def test_features_from_outside(manifest: Manifest) -> None:
    chain = chain_of(BLACK_BOX, manifest)
    assert set(chain.given) == {"f", "depth", "prev", "click"}
    feed(chain, f=5, depth=1, prev=0, click=0)
    chain.ensure()
    assert number(chain, "prob") == 6


def test_save_and_restore(manifest: Manifest) -> None:
    chain = chain_of(THREE, manifest)
    feed(chain, rgb=1, depth=10, prev=0, click=100)
    chain.ensure()
    before = chain.save()
    feed(chain, rgb=7)
    chain.ensure(Rate.IMAGE)
    chain.restore(before)
    assert chain.stale == frozenset()
    assert number(chain, "f") == 1
    assert number(chain, "prob") == 112


def test_unknown_inputs(manifest: Manifest) -> None:
    chain = chain_of(THREE, manifest)
    with pytest.raises(SessionError, match="'thermal' is no input"):
        feed(chain, thermal=1)
    with pytest.raises(SessionError, match="'fused' is no input"):
        feed(chain, fused=1)
    with pytest.raises(SessionError, match="not computed yet"):
        chain.value("prob")


def test_stages_must_fit_each_other(manifest: Manifest) -> None:
    wide = StageGraph(file="c", inputs=(tensor("fused", Role.FEATURE, (2,)), PREV, CLICK), outputs=(PROB,))
    with pytest.raises(BundleCorruptError, match=r"wants fused as float32 \(2,\)"):
        chain_of({**THREE, "click": wide}, manifest)
    twice = StageGraph(file="c", inputs=(FUSED, PREV, CLICK), outputs=(PROB, F))
    with pytest.raises(BundleCorruptError, match="computes f, which exists"):
        chain_of({**THREE, "click": twice}, manifest)


def test_a_cleared_input_is_missed(manifest: Manifest) -> None:
    chain = chain_of(THREE, manifest)
    feed(chain, rgb=1, depth=10, prev=0, click=0)
    chain.ensure()
    chain.clear("depth")
    assert chain.stale == {"modality", "click"}
    with pytest.raises(SessionError, match="stage 'modality' cannot run without depth"):
        chain.ensure()
    chain.clear("depth")
    feed(chain, depth=20)
    chain.ensure()
    assert number(chain, "fused") == 21


# --- bypass -----------------------------------------------------------------------------------------------------------


def bypassable(manifest: Manifest, **detour: str) -> Chain:
    stages = tuple(
        Stage(name=name, rate=RATES[name], graphs={}, bypass=detour if name == "modality" else {}) for name in THREE
    )
    return Chain(msgspec.structs.replace(manifest, stages=stages), THREE, SumRunner(THREE))


def test_a_bypassed_stage_does_not_run(manifest: Manifest) -> None:
    chain = bypassable(manifest, fused="f")
    feed(chain, rgb=1, prev=0, click=0)
    assert chain.reads("depth")
    chain.bypass(True)
    assert not chain.reads("depth")
    assert chain.reads("extra")
    chain.ensure()
    assert number(chain, "fused") == number(chain, "f") == 1
    assert chain.runs == {"image": 1, "modality": 0, "click": 1}
    chain.bypass(True)
    assert chain.stale == frozenset()
    feed(chain, depth=10)
    chain.bypass(False)
    assert chain.stale == {"modality", "click"}
    chain.ensure()
    assert (number(chain, "fused"), number(chain, "prob")) == (11, 12)
    saved = chain.save()
    chain.bypass(True)
    chain.ensure()
    chain.restore(saved)
    assert number(chain, "fused") == 11
    feed(chain, depth=20)
    chain.ensure()
    assert number(chain, "fused") == 21


@pytest.mark.parametrize("detour", [{"fused": "prob"}, {"fused": "nothing"}, {"fused": "f", "other": "f"}])
def test_a_bypass_that_does_not_fit(manifest: Manifest, detour: dict[str, str]) -> None:
    with pytest.raises(BundleCorruptError, match="cannot be bypassed"):
        bypassable(manifest, **detour)

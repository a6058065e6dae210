"""Which layers stay in float32, with likeness that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir
import pytest

from mmms_deploy.errors import Door, GateError
from mmms_deploy.export.int8.layers import Layer, quantised_layers
from mmms_deploy.export.int8.quantisation import quantise
from mmms_deploy.export.int8.replaying import Likeness
from mmms_deploy.export.int8.selection import ALONE_CLICKS, Search, share
from tests.support.quantised import LAYERS, calls, small_network

STAGES = ("image", "click")
TOTAL = len(STAGES) * len(LAYERS)
MOST = TOTAL // 2
Key = tuple[str, str]
"""A stage and a node."""


@pytest.fixture(scope="module")
def quantised() -> ir.Model:
    return quantise(small_network(), calls())


class Measure:
    """Counts what it was asked, and takes the likeness from the layers in 8 bits."""

    def __init__(self, likeness: Callable[[frozenset[Key]], Likeness]) -> None:
        self.likeness = likeness
        self.asked: list[frozenset[Key]] = []

    def __call__(self, graphs: Mapping[str, ir.Model], clicks: int | None) -> Likeness:
        found = frozenset(
            (stage, layer.node) for stage, model in graphs.items() for layer in quantised_layers(model.graph, {})
        )
        assert clicks == (ALONE_CLICKS if len(found) == 1 else None)
        self.asked.append(found)
        return self.likeness(found)


def searched(quantised: ir.Model, likeness: Callable[[frozenset[Key]], Likeness]) -> tuple[Search, Measure]:
    measure = Measure(likeness)
    original = small_network()
    search = Search(
        dict.fromkeys(STAGES, quantised), dict.fromkeys(STAGES, original), measure, iou=0.99, least=0.95
    )
    return search, measure


def costing(**costs: float) -> Callable[[frozenset[Key]], Likeness]:
    """Layers that cost what they cost alone, such as ``click_linear=0.02``; the others nothing."""
    by_layer = {tuple(name.split("_")): cost for name, cost in costs.items()}

    def likeness(found: frozenset[Key]) -> Likeness:
        loss = sum(by_layer.get(key, 0.0) for key in found)
        return Likeness(1 - loss, 1 - loss)

    return likeness


def test_nothing_is_measured_alone_where_all_pass(quantised: ir.Model) -> None:
    search, measure = searched(quantised, costing(click_linear=0.009))
    assert search.smallest() == 0
    assert [len(found) for found in measure.asked] == [TOTAL]
    assert {stage: [layer.node for layer in layers] for stage, layers in search.layers.items()} == {
        stage: list(LAYERS) for stage in STAGES
    }


@pytest.mark.parametrize(
    ("costs", "left"),
    [
        ({"click_linear": 0.02}, {("click", "linear")}),
        ({"click_linear": 0.02, "image_conv": 0.005}, {("click", "linear")}),
        ({"click_linear": 0.02, "image_conv": 0.03}, {("click", "linear"), ("image", "conv")}),
        (
            {"click_linear": 0.02, "image_conv": 0.03, "click_conv": 0.011, "image_second": 0.009},
            {("click", "linear"), ("image", "conv"), ("click", "conv")},
        ),
    ],
    ids=["one", "one of two", "two", "half"],
)
def test_the_fewest_stay_in_float32(quantised: ir.Model, costs: dict[str, float], left: set[Key]) -> None:
    search, measure = searched(quantised, costing(**costs))
    count = search.smallest()
    assert {(stage, layer.node) for stage, layers in search.left(count).items() for layer in layers} == left
    assert count == len(left)
    assert search.passes(measure(search.graphs(count), None))
    assert measure.asked[-1] == {(stage, node) for stage in STAGES for node in LAYERS} - left
    assert not search.passes(measure(search.graphs(count - 1), None)), "one fewer does not do"


def test_each_layer_is_measured_alone_and_once(quantised: ir.Model) -> None:
    steps: list[tuple[int, int]] = []
    search, measure = searched(quantised, costing(click_linear=0.02, image_second=0.001))
    search._on_layer = lambda number, total: steps.append((number, total))
    costs = search.costs()
    assert search.costs() is costs
    assert sorted(measure.asked, key=sorted) == sorted(
        (frozenset({(stage, node)}) for stage in STAGES for node in LAYERS), key=sorted
    )
    assert steps == [(number, TOTAL) for number in range(1, TOTAL + 1)]
    assert [(cost.stage, cost.layer.weight) for cost in costs[:2]] == [
        ("click", "linear.weight"),
        ("image", "second.weight"),
    ]
    assert [cost.loss for cost in costs[:3]] == pytest.approx([0.02, 0.001, 0.0])


def test_never_more_than_half_of_them(quantised: ir.Model) -> None:
    """The refusal names what costs most."""
    search, measure = searched(
        quantised, costing(click_linear=0.02, image_conv=0.03, click_conv=0.011, image_second=0.0101)
    )
    with pytest.raises(GateError, match=f"with {MOST} of {TOTAL} layers in float32, the mean IoU is 0.9899") as caught:
        search.smallest()
    assert "layer conv.weight of stage image costs 0.0300" in str(caught.value)
    assert "at least 0.99, and 0.95 of every mask" in str(caught.value)
    assert "Int8Options(iou=...)" in caught.value.message(Door.PYTHON)
    assert "--int8-iou" in caught.value.message(Door.COMMAND_LINE)
    assert min(map(len, measure.asked[-1:])) == TOTAL - MOST


def test_the_smallest_mask_counts_too(quantised: ir.Model) -> None:
    bad = ("click", "second")

    def likeness(found: frozenset[Key]) -> Likeness:
        return Likeness(0.995, 0.9 if bad in found and len(found) > 1 else 0.96)

    search, _ = searched(quantised, likeness)
    assert not search.passes(Likeness(0.995, 0.94))
    assert not search.passes(Likeness(0.98, 0.98))
    assert search.passes(Likeness(0.99, 0.95))
    with pytest.raises(GateError, match=r"the smallest 0\.9000"):
        search.smallest()


def test_a_likeness_that_comes_and_goes_ends_all_the_same(quantised: ir.Model) -> None:
    """Fewer layers in 8 bits are not always closer; what is returned passed."""
    passing = {TOTAL - 1, TOTAL - MOST}

    def likeness(found: frozenset[Key]) -> Likeness:
        return Likeness(1.0, 1.0) if len(found) in passing else Likeness(0.5, 0.5)

    search, measure = searched(quantised, likeness)
    count = search.smallest()
    assert search.passes(measure(search.graphs(count), None))
    assert len(measure.asked) < 3 * TOTAL


def test_further_layers_can_be_asked_for(quantised: ir.Model) -> None:
    search, _ = searched(quantised, costing(click_linear=0.02))
    assert search.smallest() == 1
    assert search.smallest(from_count=2) == 2
    assert search.smallest(from_count=MOST) == MOST
    with pytest.raises(GateError, match=f"with {MOST} of {TOTAL} layers in float32, alone, layer linear.weight"):
        search.smallest(from_count=MOST + 1)


def test_a_share_counts_work() -> None:
    layers = [Layer("a", "a", 300), Layer("b", "b", 100)]
    assert share(layers, []) == 1
    assert share(layers, layers[1:]) == 0.75
    assert share(layers, layers) == 0
    assert share([], []) == 0

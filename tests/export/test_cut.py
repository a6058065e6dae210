"""The cut: stages evaluated in order compute what the whole graph computes, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from mmms_deploy.bundle import Rate
from mmms_deploy.errors import CutError
from mmms_deploy.export.cut import cut

SHAPE = (2, 3)
RATES = tuple(Rate)


def value_info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)


def model_of(nodes, inputs, outputs, initializers=(), functions=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "whole", [value_info(n) for n in inputs], [value_info(n) for n in outputs], list(initializers)
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)
    onnx.checker.check_model(model, full_check=not functions)
    return model


def constant(name: str, value: float) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, SHAPE, np.full(SHAPE, value, np.float32).ravel())


def evaluate(model: onnx.ModelProto, feed: dict) -> dict:
    session = ReferenceEvaluator(model)
    values = session.run(None, {name: feed[name] for name in session.input_names})
    return dict(zip(session.output_names, values, strict=True))


def check(model: onnx.ModelProto, rates: dict[str, Rate], seed: int = 0):
    """Cut ``model``; compare stages with the whole; return the stages."""
    rng = np.random.default_rng(seed)
    feed = {name: rng.standard_normal(SHAPE).astype(np.float32) for name in rates}
    expected = evaluate(model, feed)
    stages = cut(ir.from_proto(model), rates)
    known = dict(feed)
    for stage in stages:
        proto = ir.to_proto(stage.model)
        onnx.checker.check_model(proto, full_check=True)
        assert all(rates.get(name, stage.rate) <= stage.rate for name in stage.inputs)
        known.update(evaluate(proto, {name: known[name] for name in stage.inputs}))
    renamed = {name: name if name in known and name not in feed else f"{name}_out" for name in expected}
    for name, value in expected.items():
        np.testing.assert_array_equal(known[renamed[name]], value)
    assert [stage.rate for stage in stages] == sorted(stage.rate for stage in stages)
    return stages


BINARY = ("Add", "Mul", "Sub", "Max")
UNARY = ("Relu", "Neg", "Tanh", "Identity")


@st.composite
def graphs(draw):
    """A random graph over 1..4 inputs of random rates, with constants, two-output nodes and branches that capture."""
    inputs = [f"in{i}" for i in range(draw(st.integers(1, 4)))]
    rates = {name: draw(st.sampled_from(RATES)) for name in inputs}
    initializers = [constant("c0", 0.5), constant("c1", -2.0)]
    values = [*inputs, "c0", "c1"]
    nodes = [helper.make_node("Constant", [], ["flag"], value=helper.make_tensor("f", TensorProto.BOOL, (), [True]))]
    for i in range(draw(st.integers(1, 12))):
        pick = st.sampled_from(values)
        out = f"v{i}"
        kind = draw(st.sampled_from(["unary", "binary", "split", "if", "clip"]))
        if kind == "unary":
            nodes.append(helper.make_node(draw(st.sampled_from(UNARY)), [draw(pick)], [out]))
        elif kind == "binary":
            nodes.append(helper.make_node(draw(st.sampled_from(BINARY)), [draw(pick), draw(pick)], [out]))
        elif kind == "clip":  # an absent optional input
            nodes.append(helper.make_node("Clip", [draw(pick), "", "limit"], [out]))
        elif kind == "split":  # several outputs, read separately
            nodes.append(helper.make_node("Concat", [draw(pick), draw(pick)], [f"{out}_cat"], axis=0))
            nodes.append(helper.make_node("Split", [f"{out}_cat"], [out, f"{out}_b"], axis=0, num_outputs=2))
            values.append(f"{out}_b")
        else:  # branches that capture values of the outer graph
            captured, other = draw(pick), draw(pick)
            branches = {
                "then_branch": helper.make_graph(
                    [helper.make_node("Mul", [captured, other], [f"{out}_t"])], "t", [], [value_info(f"{out}_t")]
                ),
                "else_branch": helper.make_graph(
                    [helper.make_node("Neg", [other], [f"{out}_e"])], "e", [], [value_info(f"{out}_e")]
                ),
            }
            nodes.append(helper.make_node("If", ["flag"], [out], **branches))
        values.append(out)
    initializers.append(helper.make_tensor("limit", TensorProto.FLOAT, (), [0.75]))
    computed = [value for value in values if value.startswith("v")]
    outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=4, unique=True))
    return model_of(nodes, inputs, outputs, initializers), rates


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 2**16))
def test_stages_equal_the_whole(drawn, seed) -> None:
    model, rates = drawn
    check(model, rates, seed)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_a_stage_reads_nothing_faster_than_itself(drawn) -> None:
    model, rates = drawn
    made: dict[str, Rate] = {}
    for stage in cut(ir.from_proto(model), rates):
        for name in stage.inputs:
            assert name in made or rates[name] <= stage.rate
        assert set(stage.features) <= set(stage.outputs)
        made |= dict.fromkeys(stage.outputs, stage.rate)


def test_the_boundary_is_what_crosses() -> None:
    nodes = [
        helper.make_node("Relu", ["slow"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Add", ["b", "fast"], ["c"]),
        helper.make_node("Mul", ["c", "b"], ["out"]),
    ]
    image, click = check(model_of(nodes, ["slow", "fast"], ["out"]), {"slow": Rate.IMAGE, "fast": Rate.CLICK})
    assert image.inputs == ("slow",)
    assert image.outputs == image.features == ("b",)
    assert click.inputs == ("b", "fast")
    assert click.outputs == ("out",)
    assert [node.op_type for node in image.model.graph] == ["Relu", "Neg"]
    assert [node.op_type for node in click.model.graph] == ["Add", "Mul"]


def test_three_rates_make_three_stages() -> None:
    nodes = [
        helper.make_node("Relu", ["rgb"], ["a"]),
        helper.make_node("Add", ["a", "depth"], ["b"]),
        helper.make_node("Add", ["b", "click"], ["c"]),
        helper.make_node("Add", ["c", "a"], ["out"]),
    ]
    rates = {"rgb": Rate.IMAGE, "depth": Rate.MODALITY, "click": Rate.CLICK}
    stages = check(model_of(nodes, ["rgb", "depth", "click"], ["out"]), rates)
    assert [stage.inputs for stage in stages] == [("rgb",), ("a", "depth"), ("b", "a", "click")]


def test_constant_nodes_are_copied_to_every_stage_that_reads_them() -> None:
    nodes = [
        helper.make_node("Neg", ["c"], ["k"]),
        helper.make_node("Add", ["slow", "k"], ["a"]),
        helper.make_node("Add", ["fast", "k"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    model = model_of(nodes, ["slow", "fast"], ["out"], [constant("c", 1.0)])
    image, click = check(model, {"slow": Rate.IMAGE, "fast": Rate.CLICK})
    assert image.features == ("a",)
    assert "Neg" in [node.op_type for node in image.model.graph]
    assert "Neg" in [node.op_type for node in click.model.graph]


def test_an_output_that_is_an_input_or_a_constant() -> None:
    nodes = [helper.make_node("Add", ["slow", "fast"], ["sum"])]
    graph = helper.make_graph(
        nodes,
        "whole",
        [value_info("slow"), value_info("fast")],
        [value_info("sum"), value_info("slow"), value_info("c")],
        [constant("c", 3.0)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    check(model, {"slow": Rate.IMAGE, "fast": Rate.CLICK})


def test_dead_nodes_and_unread_inputs_are_dropped() -> None:
    nodes = [helper.make_node("Relu", ["slow"], ["dead"]), helper.make_node("Neg", ["fast"], ["out"])]
    (stage,) = check(model_of(nodes, ["slow", "fast"], ["out"]), {"slow": Rate.IMAGE, "fast": Rate.CLICK})
    assert stage.rate is Rate.CLICK
    assert stage.inputs == ("fast",)


def test_local_functions_are_cut_through() -> None:
    function = helper.make_function(
        "local",
        "TwoRates",
        ["a", "b"],
        ["y"],
        [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Add", ["r", "b"], ["y"])],
        [helper.make_opsetid("", 21)],
    )
    nodes = [helper.make_node("TwoRates", ["slow", "fast"], ["out"], domain="local")]
    model = model_of(nodes, ["slow", "fast"], ["out"], functions=[function])
    image, click = check(model, {"slow": Rate.IMAGE, "fast": Rate.CLICK})
    assert [node.op_type for node in image.model.graph] == ["Relu"]
    assert [node.op_type for node in click.model.graph] == ["Add"]


@pytest.mark.parametrize(
    "rates", [{}, {"slow": Rate.IMAGE}, {"slow": Rate.IMAGE, "fast": Rate.CLICK, "more": Rate.CLICK}]
)
def test_every_input_needs_one_rate(rates) -> None:
    model = model_of([helper.make_node("Add", ["slow", "fast"], ["out"])], ["slow", "fast"], ["out"])
    with pytest.raises(CutError, match="one rate for each graph input"):
        cut(ir.from_proto(model), rates)


def test_random_numbers_cannot_be_cut() -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["slow"], ["noise"]),
        helper.make_node("Add", ["noise", "fast"], ["out"]),
    ]
    model = model_of(nodes, ["slow", "fast"], ["out"])
    with pytest.raises(CutError, match="RandomNormalLike"):
        cut(ir.from_proto(model), {"slow": Rate.IMAGE, "fast": Rate.CLICK})

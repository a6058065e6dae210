"""Writing graphs: sizes of a stage share their weights, which lie once in the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from mmms_deploy.bundle import BundleWriter, Precision, Rate, Role
from mmms_deploy.bundle.external_data import check_graph
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.graphs import SHARED_ABOVE, write_stages

WIDTH = 24
WEIGHT = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32)


class Roles:
    def role(self, name: str) -> Role:
        return Role.CLICK if name == "click_list" else Role.ROWS


def sized(rows: int, weight: np.ndarray, *, larger: bool, name: str = "weight") -> StageModel:
    """(1, rows, WIDTH) times a weight, plus a small number."""
    given = ir.val("click_list", dtype=ir.DataType.FLOAT, shape=(1, rows, WIDTH))
    small = ir.val("small", const_value=ir.tensor(np.float32([2.0]), name="small"))
    large = ir.val(name, const_value=ir.tensor(weight, name=name))
    product = ir.node("MatMul", [given, large])
    total = ir.node("Add", [product.outputs[0], small])
    total.outputs[0].name = "row_logits"
    total.outputs[0].dtype, total.outputs[0].shape = ir.DataType.FLOAT, ir.Shape((1, rows, WIDTH))
    graph = ir.Graph(
        [given], total.outputs, nodes=[product, total], initializers=[small, large], opset_imports={"": 21}, name="g"
    )
    return StageModel(Rate.CLICK, ir.Model(graph, ir_version=10), ("click_list",), ("row_logits",), (), rows, larger)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[BundleWriter]:
    with BundleWriter(tmp_path / "bundle") as writer:
        yield writer


def test_sizes_share_their_weights(writer: BundleWriter) -> None:
    assert WEIGHT.nbytes > SHARED_ABOVE
    stages = [sized(2, WEIGHT, larger=False), sized(5, WEIGHT.copy(), larger=True, name="another")]
    before = [stage.model.graph.initializers for stage in stages]
    graphs = write_stages(writer, Roles(), stages, Precision.FP32)
    assert [graph.file for graph in graphs] == ["click.fp32.onnx", "click_5.fp32.onnx"]
    assert {graph.data for graph in graphs} == {"click.fp32.onnx.data"}
    data = writer.path("click.fp32.onnx.data")
    assert data.read_bytes() == WEIGHT.tobytes(), "once, and not the small one"
    for graph, rows in zip(graphs, (2, 5), strict=True):
        file = writer.path(graph.file)
        assert file.stat().st_size < WEIGHT.nbytes
        assert check_graph(file, {data.name: data.stat().st_size}) == {data.name}, "what the manifest's hash covers"
        given = np.ones((1, rows, WIDTH), dtype=np.float32)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"click_list": given})
        np.testing.assert_allclose(found, given @ WEIGHT + 2, rtol=1e-5)
    assert all(isinstance(v.const_value, ir.Tensor) for weights in before for v in weights.values()), "as they were"


def test_weights_that_differ_lie_beside_each_other(writer: BundleWriter) -> None:
    write_stages(writer, Roles(), [sized(2, WEIGHT, larger=False), sized(5, 2 * WEIGHT, larger=True)], Precision.FP32)
    places = {}
    for file in ("click.fp32.onnx", "click_5.fp32.onnx"):
        tensors = {tensor.name: tensor for tensor in onnx.load(writer.path(file)).graph.initializer}
        places[file] = onnx.numpy_helper.to_array(tensors["weight"], str(writer.folder))
    np.testing.assert_array_equal(places["click_5.fp32.onnx"], 2 * places["click.fp32.onnx"])


def test_one_size_keeps_its_weights(writer: BundleWriter) -> None:
    (graph,) = write_stages(writer, Roles(), [sized(2, WEIGHT, larger=False)], Precision.FP32)
    assert graph.data is None
    assert [file.name for file in writer.folder.iterdir()] == ["click.fp32.onnx"]

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmms_deploy.export.operations import UncountedError, count_flops, count_model


def model(nodes, inputs, outputs, weights=()):
    def infos(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    constants = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in dict(weights).items()]
    graph = helper.make_graph(nodes, "graph", infos(inputs), infos(outputs), constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def node(op, inputs, **attributes):
    return helper.make_node(op, inputs, ["y"], **attributes)


@pytest.mark.parametrize(
    ("operator", "inputs", "weights", "expected"),
    [
        # (2 x 3 x 4 outputs) times 5 products, 2 operations each
        (node("MatMul", ["x", "w"]), {"x": (2, 3, 5)}, {"w": (5, 4)}, 2 * 2 * 3 * 4 * 5),
        (node("MatMul", ["x", "w"]), {"x": (1, 2, 7, 5)}, {"w": (2, 5, 3)}, 2 * (1 * 2 * 7 * 3) * 5),
        (node("Gemm", ["x", "w"]), {"x": (6, 5)}, {"w": (5, 4)}, 2 * 6 * 4 * 5),
        (node("Gemm", ["x", "w"], transA=1, transB=1), {"x": (5, 6)}, {"w": (4, 5)}, 2 * 6 * 4 * 5),
        # 8 x 8 outputs of 16 channels, each from 3 x 3 x 4
        (node("Conv", ["x", "w"], pads=[1] * 4), {"x": (1, 4, 8, 8)}, {"w": (16, 4, 3, 3)}, 2 * 16 * 64 * 36),
        # depthwise: each output channel sees one input channel
        (node("Conv", ["x", "w"], group=4), {"x": (1, 4, 8, 8)}, {"w": (4, 1, 3, 3)}, 2 * 4 * 36 * 9),
        (node("Conv", ["x", "w"], strides=[4, 4]), {"x": (1, 3, 16, 16)}, {"w": (8, 3, 4, 4)}, 2 * 8 * 16 * 48),
        (node("ConvTranspose", ["x", "w"], strides=[2, 2]), {"x": (1, 4, 5, 5)}, {"w": (4, 6, 2, 2)}, 2 * 100 * 24),
        (node("Einsum", ["x", "w"], equation="bij,bjk->bik"), {"x": (2, 3, 5)}, {"w": (2, 5, 4)}, 2 * 2 * 3 * 5 * 4),
        (node("Add", ["x", "w"]), {"x": (2, 3)}, {"w": (2, 3)}, 0),
    ],
)
def test_by_hand(operator, inputs, weights, expected) -> None:
    made = model([operator], inputs, {"y": None}, weights)
    assert count_model(made) == expected


def test_shapes_are_inferred_through_a_file_without_its_weights(tmp_path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    made = model(nodes, {"x": (1, 3, 8, 8)}, {"y": (16, 10)}, {"w1": (32, 3, 2, 2), "w2": (32, 10)})
    made.graph.initializer.append(numpy_helper.from_array(np.array([16, 32]), "shape"))
    expected = 2 * (32 * 16) * 12 + 2 * (16 * 10) * 32
    for name, external in (("inside.onnx", False), ("outside.onnx", True)):
        path = tmp_path / name
        onnx.save(made, path, save_as_external_data=external, location="weights.data", size_threshold=0)
        (tmp_path / "weights.data").unlink(missing_ok=True)
        if not external:
            assert count_flops(path) == expected
    # The shape of a reshape lies outside as well, so that it cannot be known.
    with pytest.raises(UncountedError):
        count_flops(tmp_path / "outside.onnx")


def test_an_unknown_shape_is_no_zero() -> None:
    made = model([node("MatMul", ["x", "w"])], {"x": ("n", 5)}, {"y": None}, {"w": (5, 4)})
    with pytest.raises(UncountedError, match=r"'y'.*unknown"):
        count_model(made)


def test_operators_that_are_not_counted() -> None:
    made = model([node("LSTM", ["x", "w", "w"], hidden_size=2)], {"x": (3, 1, 5)}, {"y": None}, {"w": (1, 8, 5)})
    with pytest.raises(UncountedError, match="LSTM"):
        count_model(made)
    made = model([node("Einsum", ["x"], equation="ii->i")], {"x": (3, 3)}, {"y": None})
    with pytest.raises(UncountedError, match="ii->i"):
        count_model(made)

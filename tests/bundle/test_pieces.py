"""What a packed bundle holds of a graph, and that the graph comes out of it with every bit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.bundle.pieces import Bytes, Halves, Positions, Stored, Tensors, assemble
from mmms_deploy.weights.position_map import position_map
from mmms_deploy.weights.safetensors_file import safetensors_bytes

SIDE = 32


def tensors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = {
        "matrix": (24, 60),
        "kernel": (8, 3, 5, 5),
        "bias": (70,),
        "table": (1, 6, 7, 7),
        "window": (1, 6, 8, 8),
        "short": (3,),
    }
    return {name: draw.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}


def constants() -> dict[str, np.ndarray]:
    """What an export makes of them."""
    wide = {name: value.astype(np.float32) for name, value in tensors().items()}
    scaled = wide["matrix"].T.copy()
    scaled[:, :8] *= np.float32(80**-0.5)
    rows = wide["kernel"] * np.linspace(0.1, 0.4, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    positions = position_map(wide["table"], wide["window"], (SIDE, SIDE))
    off = positions.copy()
    off.view(np.int32)[0, 0, :3] += [[1], [-2], [3]]
    return {
        "as_it_is": wide["bias"],
        "transposed": wide["matrix"].T,
        "moved": wide["kernel"].transpose(2, 3, 1, 0),
        "scaled": scaled,
        "by_row": rows,
        "own": np.random.default_rng(1).normal(size=(9, 50)).astype(np.float32),
        "positions": positions.transpose(0, 2, 3, 1),
        "off": off,
        "again": wide["matrix"],
        "integers": np.arange(100),
    }


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    made = [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants().items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "a", [], [], initializer=made))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "a.onnx"


def source(name: str) -> Tensors:
    return {"a": tensors()}[name]


def test_a_graph_comes_out_with_every_bit(graph: Path) -> None:
    from tools.find_pieces import PieceFinder

    pieces, held = PieceFinder({"a": tensors()}).pieces(graph)
    assert b"".join(assemble(pieces, held, source)) == graph.read_bytes()
    stored = [piece for piece in pieces if isinstance(piece, Stored)]
    assert [piece.tensor for piece in stored] == ["bias", "matrix", "kernel", "matrix", "kernel", "matrix"]
    assert [len(piece.factors) for piece in stored] == [0, 0, 0, 2, 8, 0]
    assert [piece.corrected for piece in pieces if isinstance(piece, Positions)] == [False, True]
    own = sum(constants()[name].nbytes for name in ("own", "integers", "off"))
    assert own < len(held) < own + 1000


def test_a_checkpoint_comes_out_with_every_bit() -> None:
    pytest.importorskip("onnx")
    from tools.find_pieces import halves

    content = safetensors_bytes(tensors())
    pieces, held = halves(content)
    assert len(held) == len(content)
    assert b"".join(assemble(pieces, held, source)) == content
    with pytest.raises(ValueError, match="F32"):
        halves(safetensors_bytes(constants_of_one_type()))


def test_what_another_checkpoint_has_is_not_held_a_second_time() -> None:
    pytest.importorskip("onnx")
    from tools.find_pieces import halves

    own = {"aaa": tensors()["matrix"] + np.float16(1), "more": np.ones((40, 9), np.float16)}
    content = safetensors_bytes({**tensors(), **own, "bias": tensors()["bias"] + np.float16(1)})
    pieces, held = halves(content, {"a": tensors()})
    stored = [piece.tensor for piece in pieces if isinstance(piece, Stored)]
    assert stored == ["kernel", "matrix", "table", "window"]  # not the short one, and not the other bias
    assert len(held) == len(content) - sum(tensors()[name].nbytes for name in stored)
    assert b"".join(assemble(pieces, held, source)) == content


def constants_of_one_type() -> dict[str, np.ndarray]:
    return {"own": constants()["own"]}


def test_of_any_other_file_nothing_is_found(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tools.find_pieces import PieceFinder

    content = tensors()["bias"].astype(np.float32).tobytes()
    (tmp_path / "golden.npz").write_bytes(content)
    assert PieceFinder({"a": tensors()}).pieces(tmp_path / "golden.npz") == ([Bytes(len(content))], content)


@pytest.mark.parametrize(
    "piece",
    [
        Bytes(9),
        Bytes(-1),
        Halves(5),
        Halves(-1),
        Bytes(3),
        Stored("a", "nothing"),
        Stored("a", "matrix", (0,)),
        Stored("a", "matrix", (), 2, ((24, 1.0),)),
        Stored("a", "matrix", (), 0, ((23, 1.0),)),
        Stored("a", "matrix", (), 0, ((25, 1.0), (-1, 1.0))),
        Stored("a", "matrix", (), 0, ((1 << 60, 1.0),)),
        Positions("a", "matrix", "window", (8, 8), (0, 1, 2, 3)),
        Positions("a", "table", "window", (0, 8), (0, 1, 2, 3)),
        Positions("a", "table", "window", (9, 9), (0, 1, 2, 3)),
        Positions("a", "table", "window", (1 << 30, 1 << 30), (0, 1, 2, 3)),
        Positions("a", "table", "window", (8, 8), (0, 1, 1, 3)),
        Positions("a", "table", "window", (8, 8), (0, 1, 2, 3), corrected=True),
    ],
)
def test_pieces_that_do_not_fit_are_refused(piece: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (NumPy raises it, too)
        list(assemble([piece], b"12345678", source))  # type: ignore[list-item]


def test_a_position_map_is_the_one_of_torch() -> None:
    torch = pytest.importorskip("torch")
    from mmms_deploy.models.hiera import position_map as of_torch

    draw = np.random.default_rng(0)
    for size, grid in ((7, (112, 112)), (14, (64, 96)), (7, (56, 40))):
        table, window = (draw.normal(size=(1, 5, side, side)).astype(np.float32) for side in (size, 8))
        expected = of_torch(torch.from_numpy(table), torch.from_numpy(window), grid).numpy()
        np.testing.assert_allclose(position_map(table, window, grid), expected, rtol=0, atol=5e-6)


def test_a_position_map_has_the_same_bits_on_every_machine() -> None:
    """Those that PyTorch computes on a CPU that adds products without rounding them."""
    table, window = (
        (np.arange(2 * side**2) * 37 % 101 / np.float32(16) - 3).astype(np.float32).reshape(1, 2, side, side)
        for side in (7, 8)
    )
    made = position_map(table, window, (64, 112))
    assert hashlib.sha256(made.astype("<f4").tobytes()).hexdigest()[:16] == "fa4a0c4247faf2cd"

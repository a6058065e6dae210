from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision, Role, StageGraph
from mmms_deploy.engines.openvino import compile as openvino_compile
from mmms_deploy.engines.openvino import engine as openvino_engine
from mmms_deploy.engines.openvino.engine import OpenVinoCpu
from mmms_deploy.engines.openvino.inspect import Node, compiled_nodes, exact_comparisons, matrix_precisions, not_exact
from mmms_deploy.engines.openvino.library import bf16_capable, core
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import EngineUnavailableError, MMMSDeployWarning
from mmms_deploy.session import Session
from tests.support.engines import skip_without
from tests.support.toy import Graph, _disk, spec, taken_as_it_is

SIDE = 448


@pytest.fixture
def bf16() -> None:
    skip_without("openvino", Precision.BF16)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache that keeps every stage."""
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_compile, "CACHE_ABOVE_SECONDS", 0.0)
    return tmp_path / "cache" / "openvino"


def convolved(bundle: Bundle) -> Bundle:
    """The bundle, with a click stage whose disk goes through convolutions and to no output of its own."""
    graph = Graph([spec("click", Role.CLICK, (1, 4))], [spec("prob", Role.PROBABILITY, (1, 1, SIDE, SIDE))])
    disk = _disk(graph, (SIDE, SIDE), 5.0)
    wide = graph.node("Conv", disk, graph.constant(np.eye(8, 1).reshape(8, 1, 1, 1)))
    graph.node("Conv", wide, graph.constant(np.eye(1, 8).reshape(1, 8, 1, 1)), out="prob")
    saved = graph.save(bundle.file("click.fp32.onnx"), "click")
    stage = msgspec.structs.replace(bundle.manifest.stages[-1], graphs={Precision.FP32: saved})
    bundle.manifest = msgspec.structs.replace(bundle.manifest, stages=(stage,), files={})
    return bundle


def test_precision_is_always_said(paint: Bundle) -> None:
    """OpenVINO takes BF16 by itself where the CPU has it, and half of a session would not notice."""
    engine = OpenVinoCpu(paint, Precision.FP32, threads=1)
    for stage in ("image", "click"):
        model = engine.compiled(stage).model
        assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert model.get_property("ENABLE_CPU_PINNING") is False
        assert model.get_property("NUM_STREAMS") == 1
        assert all(node.precision not in ("bf16", "f16") for node in compiled_nodes(model))
    assert (engine.info.name, engine.info.providers) == ("openvino", ("CPU",))
    engine.close()


@pytest.mark.usefixtures("bf16")
def test_disks_that_reach_no_output_stay_exact(copy: Path) -> None:
    """The trap of the hint: without what this engine does about it, this graph draws other disks."""
    engine = OpenVinoCpu(convolved(Bundle(copy)), Precision.BF16, threads=1)
    assert engine.info.evidence == "2 of 2 matrix operations in bf16"
    runner = engine.open()
    axis = np.arange(SIDE, dtype=np.float32)
    for x, y in ((0, 0), (447, 447), (300.3, 401.7), (222.75, 100.2)):
        click = runner.upload(engine.graphs["click"].inputs[0], np.array([[x, y, 1, 1]]))
        disk = (axis[None] - np.float32(x)) ** 2 + (axis[:, None] - np.float32(y)) ** 2 <= 25
        np.testing.assert_array_equal(runner.download(runner.run("click", {"click": click})["prob"])[0, 0], disk)
    engine.close()


@pytest.mark.usefixtures("bf16")
def test_disks_that_cannot_be_kept_exact_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_compile, "not_exact", lambda nodes, comparisons: frozenset(comparisons))
    with pytest.raises(EngineUnavailableError, match="does not compute node9 of stage 'click' in float32"):
        OpenVinoCpu(convolved(Bundle(copy)), Precision.BF16, threads=1)


def test_what_must_be_exact_is_found(copy: Path) -> None:
    bundle = convolved(Bundle(copy))
    model = core().read_model(str(bundle.file("click.fp32.onnx")))
    (found,) = exact_comparisons(model).values()
    assert found.output.get_node().get_type_name() == "LessEqual"


def sampling(bundle: Bundle) -> str:
    """Write a graph beside a bundle's: a map of its columns' numbers, sampled at a click, and the sine of its place."""
    width = 1024
    graph = Graph(
        [spec("click", Role.CLICK, (1, 4))],
        [spec("seen", Role.FEATURE, (1, 1, 1, 1)), spec("code", Role.FEATURE, (1, 1))],
    )
    x = graph.node("Gather", "click", graph.constant([0], "int64"), axis=1)
    share = graph.node("Div", x, graph.constant(float(width)))
    place = graph.node("Sub", graph.node("Mul", share, graph.constant(2.0)), graph.constant(1.0))
    both = graph.node("Concat", place, graph.constant([[0.0]]), axis=1)
    grid = graph.node("Reshape", both, graph.constant([1, 1, 1, 2], "int64"))
    columns = graph.constant(np.arange(width, dtype=np.float32).reshape(1, 1, 1, width))
    graph.node("GridSample", columns, grid, out="seen", align_corners=0, mode="linear")
    graph.node("Sin", graph.node("Mul", share, graph.constant(64.0)), out="code")
    graph.save(bundle.path / "sampling.onnx", "click")
    return str(bundle.path / "sampling.onnx")


def test_places_must_be_exact(copy: Path) -> None:
    found = exact_comparisons(core().read_model(sampling(Bundle(copy))))
    assert {operation.output.get_node().get_type_name() for operation in found.values()} == {"Reshape", "Multiply"}


@pytest.mark.usefixtures("bf16")
def test_a_click_is_sampled_where_it_is_in_bf16(copy: Path) -> None:
    """BF16 has eight bits: 701.5 would be 700 or 704."""
    model = core().read_model(sampling(Bundle(copy)))
    settings = openvino_compile.latency_settings(Precision.BF16, 1)
    compiled, _ = openvino_compile.compile_model(core(), model, Precision.BF16, settings)
    found = compiled(np.array([[701.5, 0, 1, 1]], np.float32))
    assert float(found[0].item()) == pytest.approx(701.0, abs=2.0)
    assert float(found[1].item()) == pytest.approx(np.sin(701.5 / 1024 * 64), abs=0.01)


def test_reading_a_compiled_graph() -> None:
    nodes = (
        Node("Input", "f32", "", frozenset({"click"}), ()),
        Node("Subgraph", "bf16", "", frozenset({"square"}), (0,)),
        Node("Subgraph", "f32", "", frozenset({"lost"}), (1,)),
        Node("Subgraph", "f32", "", frozenset({"kept", "more"}), (0,)),
        Node("Convolution", "bf16", "", frozenset({"conv"}), (3,)),
        Node("FullyConnected", "f32", "", frozenset({"linear"}), (4,)),
    )
    names = {"lost": frozenset({"lost"}), "fused": frozenset({"fused", "more"}), "gone": frozenset({"gone"})}
    assert not_exact(nodes, names) == {"lost", "gone"}
    assert matrix_precisions(nodes, Precision.BF16) == (1, 2)


# --- a precision that is not there ------------------------------------------------------------------------------------


def test_a_cpu_without_bf16(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "bf16_capable", lambda: False)
    with pytest.raises(EngineUnavailableError, match="this CPU has no instructions for it"):
        OpenVinoCpu(paint, Precision.BF16)
    with pytest.raises(EngineUnavailableError, match="this CPU has no instructions for it"):
        open_engine(paint, precision="bf16", strict=True)
    with pytest.warns(MMMSDeployWarning, match="openvino in fp32 is taken instead of openvino in bf16"):
        assert open_engine(paint, precision="bf16").info.precision is Precision.FP32


@pytest.mark.usefixtures("bf16")
def test_a_hint_that_is_not_followed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library says bf16, and the compiled graph does not."""
    monkeypatch.setattr(openvino_compile, "matrix_precisions", lambda nodes, precision: (0, 2))
    with pytest.raises(EngineUnavailableError, match="runs 0 of 2 matrix operations in bf16"):
        OpenVinoCpu(convolved(Bundle(copy)), Precision.BF16, threads=1)


def test_float32_that_is_none(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_compile, "narrow_nodes", lambda nodes: 1)
    with pytest.raises(EngineUnavailableError, match=r"with the precision f32, 1 nodes in 16 bits"):
        OpenVinoCpu(convolved(Bundle(copy)), Precision.FP32, threads=1)


def test_a_precision_it_never_computes_in(paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError, match="fp16 was requested of OpenVINO"):
        OpenVinoCpu(paint, Precision.FP16)


# --- the cache of compiled graphs -------------------------------------------------------------------------------------


def answer(engine: OpenVinoCpu) -> np.ndarray:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(np.full((64, 96, 3), 77, dtype=np.uint8))
        session.click(20, 20)
        probability = session.click(40, 30, False).network_probability
    engine.close()
    return probability


def from_cache(engine: OpenVinoCpu) -> list[bool]:
    return [engine.compiled(stage).cached for stage in engine.graphs]


def test_compiled_graphs_are_kept(paint: Bundle, cached: Path) -> None:
    precisions = [Precision.FP32] + ([Precision.BF16] if bf16_capable() else [])
    for count, precision in enumerate(precisions, start=1):
        first = OpenVinoCpu(paint, precision, threads=1)
        assert from_cache(first) == [False, False]
        assert len(list(cached.iterdir())) == 2 * count, "nothing half written either"
        second = OpenVinoCpu(paint, precision, threads=2)
        assert from_cache(second) == [True, True]
        assert second.info.precision is precision
        assert second.info.evidence == first.info.evidence
        np.testing.assert_array_equal(answer(second), answer(first))


@pytest.mark.usefixtures("bf16")
def test_kept_graphs_are_proven_again(copy: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = convolved(Bundle(copy))
    entry = {"click.fp32.onnx": SimpleNamespace(sha256="0" * 64)}
    bundle.manifest = msgspec.structs.replace(bundle.manifest, files=entry)
    taken_as_it_is(bundle)
    OpenVinoCpu(bundle, Precision.BF16, threads=1).close()
    assert from_cache(OpenVinoCpu(bundle, Precision.BF16, threads=1)) == [True]
    monkeypatch.setattr(openvino_compile, "not_exact", lambda nodes, comparisons: frozenset(comparisons))
    with pytest.raises(EngineUnavailableError, match="does not compute node9"):
        OpenVinoCpu(bundle, Precision.BF16, threads=1)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "nonsense", "folder"])
def test_a_damaged_cache_is_made_again(paint: Bundle, cached: Path, damage: str) -> None:
    expected = answer(OpenVinoCpu(paint, Precision.FP32, threads=1))
    for file in cached.iterdir():
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        parts = {"cut": raw[:-100], "bit": raw, "empty": b"", "nonsense": b"nonsense" * 99}
        file.unlink()
        if damage == "folder":
            file.mkdir()
        else:
            file.write_bytes(parts[damage])
    engine = OpenVinoCpu(paint, Precision.FP32, threads=1)
    assert from_cache(engine) == [False, False]
    np.testing.assert_array_equal(answer(engine), expected)
    if damage != "folder":
        assert from_cache(OpenVinoCpu(paint, Precision.FP32, threads=1)) == [True, True]


def test_another_graph_is_another_file(paint: Bundle, echo: Bundle, cached: Path) -> None:
    OpenVinoCpu(paint, Precision.FP32, threads=1).close()
    assert from_cache(OpenVinoCpu(echo, Precision.FP32, threads=1)) == [True, False], "the image stages are the same"


def test_a_cache_that_is_off_or_cannot_be_written(
    paint: Bundle, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    OpenVinoCpu(paint, Precision.FP32, threads=1).close()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "file"))
    assert from_cache(OpenVinoCpu(paint, Precision.FP32, threads=1)) == [False, False]
    assert not cached.exists()


def test_what_was_not_used_for_long_is_removed(paint: Bundle, cached: Path) -> None:
    OpenVinoCpu(paint, Precision.FP32, threads=1).close()
    for file in cached.iterdir():
        os.utime(file, (1, 1))
    # What is used stays.
    assert from_cache(OpenVinoCpu(paint, Precision.FP32, threads=1)) == [True, True]
    assert all(file.stat().st_mtime > 1e9 for file in cached.iterdir())
    old = cached / "old.blob"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    if bf16_capable():
        OpenVinoCpu(paint, Precision.BF16, threads=1).close()
        assert not old.exists()


def test_a_fast_stage_is_not_kept(paint: Bundle, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_compile, "CACHE_ABOVE_SECONDS", 1e9)
    OpenVinoCpu(paint, Precision.FP32, threads=1).close()
    assert not cached.exists()


def test_many_processes_worth_of_threads_share_a_cache(paint: Bundle, cached: Path) -> None:
    answers: list[np.ndarray] = []

    def load() -> None:
        answers.append(answer(OpenVinoCpu(paint, Precision.FP32, threads=1)))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(np.array_equal(answers[0], other) for other in answers)
    assert all(file.suffix == ".blob" for file in cached.iterdir())


# --- buffers ----------------------------------------------------------------------------------------------------------


def test_buffers_are_used_again_when_nobody_holds_them(paint: Bundle) -> None:
    engine = OpenVinoCpu(paint, Precision.FP32, threads=1)
    runner = engine.open()
    graph: StageGraph = engine.graphs["click"]
    inputs = {item.name: runner.zeros(item) for item in graph.inputs}
    addresses: set[int] = set()
    for _ in range(50):
        outputs: dict[str, Any] = runner.run("click", inputs)
        addresses.add(outputs["prob"].tensor.data.ctypes.data)
    assert len(addresses) <= 2
    held = [runner.run("click", inputs)["prob"] for _ in range(20)]
    assert len({value.tensor.data.ctypes.data for value in held}) == 20
    del held, outputs
    assert all(len(free) <= 4 for free in runner._free.values())
    engine.close()

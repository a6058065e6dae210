"""Graphs as NNCF and what follows it make them, and what stands in the way."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mmms_deploy.commands import export as export_command
from mmms_deploy.errors import Door, ExportError
from mmms_deploy.export.int8 import quantisation
from mmms_deploy.export.int8.layers import quantised_layers
from mmms_deploy.export.int8.quantisation import import_nncf, quantise
from tests.support.invoke import invoke
from tests.support.quantised import LAYERS, calls, small_network


@pytest.fixture(scope="module")
def quantised() -> onnx.ModelProto:
    return ir.serde.serialize_model(quantise(small_network(), calls()))


def test_activations_are_unsigned_and_weights_have_no_zero_point(quantised: onnx.ModelProto) -> None:
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    made = {node.output[0]: node for node in quantised.graph.node}
    activations = weights = 0
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[1]].size == 1, "one scale for all channels"
            assert constants[node.input[2]].dtype == np.uint8
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in made:
            activations += 1
            assert list(node.input[1:]) == list(made[node.input[0]].input[1:])
        else:
            weights += 1
            assert len(node.input) == 2, "it has no zero point"
            assert constants[node.input[0]].dtype == np.int8
    assert (activations, weights) == (len(LAYERS), len(LAYERS))


def test_the_graph_is_whole(quantised: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantised, full_check=True)
    read = {name for node in quantised.graph.node for name in node.input}
    assert {tensor.name for tensor in quantised.graph.initializer} <= read, "nothing is left over"
    assert [value.name for value in quantised.graph.output] == ["answer", "disk_out"]


def test_layers_that_stay_in_float32() -> None:
    original = small_network()
    kept = quantise(original, calls(), ["linear"])
    assert [layer.node for layer in quantised_layers(kept.graph, {})] == ["conv", "second"]
    assert not any("Quantize" in node.op_type for node in original.graph), "it is left as it is"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("nncf").level
    quantise(small_network(), calls())
    said = capfd.readouterr()
    assert said.out == ""
    assert "nncf" not in said.err.lower()
    assert logging.getLogger("nncf").level == (before or logging.INFO)


# --- what stands in the way -------------------------------------------------------------------------------------------


def test_without_nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nncf"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ExportError, match=r"not installed: nncf(?s:.*)\[int8\](?s:.*)pip install"):
        import_nncf()


def test_the_command_says_it_before_pytorch_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setattr(export_command, "_load_export_room", lambda: pytest.fail("PyTorch is loaded"))
    done = invoke(export_command.main, "--random-weights", "0", "--out", tmp_path / "out", "--precision", "fp32,int8")
    assert done.exit_code == 1
    assert "not installed: nncf" in done.stderr


def test_a_graph_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "LARGEST", 1000)
    with pytest.raises(ExportError, match=r"GB of weights in 8 bits(?s:.*)leave Precision.INT8 out") as caught:
        quantise(small_network(), calls())
    assert "leave int8 out of --precision" in caught.value.message(Door.COMMAND_LINE)


def test_nncf_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("an operator\n  that it does not know")

    nncf = import_nncf()
    monkeypatch.setattr(nncf, "quantize", fails)
    before = logging.getLogger("nncf").level
    with pytest.raises(ExportError, match="NNCF cannot quantise a stage: an operator that it does not know") as caught:
        quantise(small_network(), calls())
    assert "leave int8 out of --precision" in caught.value.message(Door.COMMAND_LINE)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert logging.getLogger("nncf").level == (before or logging.INFO)


def test_its_telemetry_is_off() -> None:
    """In a process that has imported nothing of it before."""
    script = (
        "import sys\n"
        "from mmms_deploy.export.int8.quantisation import import_nncf\n"
        "import_nncf()\n"
        "print('nncf' in sys.modules, 'openvino_telemetry' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["True", "False"], done.stderr

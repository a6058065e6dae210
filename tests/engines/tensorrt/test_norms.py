"""Norms between half tensors are computed in float32: in networks of the stand-in, and of TensorRT-RTX where it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.tensorrt.api import logger
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.norms import widen_norms
from tests.standins.tensorrt import TensorRtStandIn
from tests.support.norms import norms_graph


@pytest.fixture(params=["10.16", "11.4", "rtx"])
def trt(request: pytest.FixtureRequest) -> Any:
    """A library that parses graphs."""
    return pytest.importorskip("tensorrt_rtx") if request.param == "rtx" else TensorRtStandIn(f"{request.param}.0.1")


def parsed(trt: Any, folder: Path, dtype: str) -> Any:
    file = folder / "norms.onnx"
    norms_graph(dtype).save(file, "norms")
    builder = trt.Builder(logger(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger(trt)).parse_from_file(str(file))
    return network


def layers_of(network: Any, *kinds: Any) -> Iterator[Any]:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return (layer for layer in layers if not kinds or layer.type in kinds)


def inputs_of(layer: Any) -> list[Any]:
    return [tensor for i in range(layer.num_inputs) if (tensor := layer.get_input(i)) is not None]


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "HALF"), ("bfloat16", "BF16")])
def test_norms_are_float32_and_all_else_is_half(trt: Any, tmp_path: Path, dtype: str, kind: str) -> None:
    network = parsed(trt, tmp_path, dtype)
    assert widen_norms(trt, network) == 3
    norms = list(layers_of(network, trt.LayerType.NORMALIZATION))
    assert len(norms) == 3
    for norm in norms:
        assert {tensor.dtype.name for tensor in (*inputs_of(norm), norm.get_output(0))} == {"FLOAT"}
    others = list(layers_of(network, trt.LayerType.MATRIX_MULTIPLY, trt.LayerType.ELEMENTWISE))
    assert len(others) >= 2
    for layer in others:
        assert {tensor.dtype.name for tensor in inputs_of(layer)} == {kind}
    made = {layer.get_output(0).name: layer for layer in layers_of(network)}
    assert made["y"].type == trt.LayerType.CAST
    assert made["y"].get_output(0).is_network_output
    assert made["y"].get_output(0).dtype.name == kind
    assert {name for name, layer in made.items() if layer.get_output(0).is_network_output} == {"y", "z"}
    for cast in layers_of(network, trt.LayerType.CAST):
        assert cast.metadata.startswith("[ONNX Layer: ")
    assert widen_norms(trt, network) == 0


def test_a_network_in_float32_stays_as_it_is(trt: Any, tmp_path: Path) -> None:
    network = parsed(trt, tmp_path, "float32")
    before = network.num_layers
    assert widen_norms(trt, network) == 0
    assert network.num_layers == before


def test_every_build_widens_them(trt: Any, tmp_path: Path) -> None:
    """The stand-in keeps the types of the norms that it compiles; the real compiler takes what was changed."""
    file = tmp_path / "norms.onnx"
    norms_graph("float16").save(file, "norms")
    real = not isinstance(trt, TensorRtStandIn)
    built = build_plan(
        trt,
        file,
        stage="click",
        precision=Precision.FP16,
        every_click=True,
        options=BuildOptions(),
        activate=None if real else lambda: None,
    )
    assert built.report.evidence(Precision.FP16).startswith("1 of 1 matrix operations in fp16")
    if not real:
        assert trt.norms == {"FLOAT"}

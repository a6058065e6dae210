"""Convolutions that oneDNN's AMX kernel computes wrongly in bfloat16 are right in our engine, on every CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.openvino.amx import ENOUGH_CHANNELS, faulty_convolutions, widen
from mmms_deploy.engines.openvino.compile import compile_model
from mmms_deploy.engines.openvino.engine import bf16_capable
from mmms_deploy.engines.openvino.inspect import Node
from mmms_deploy.errors import EngineUnavailableError

HINT = "INFERENCE_PRECISION_HINT"
FAULTY = [(4, 16, 16), (8, 8, 8), (8, 8, 1), (12, 8, 3), (16, 4, 4), (16, 14, 14), (24, 8, 4), (2, 32, 1), (20, 16, 16)]
"""(channels, kernel, stride) that the AMX kernel gets wrong (OpenVINO 2026.4)."""
SOUND = [(3, 16, 16), (3, 32, 32), (3, 32, 8), (5, 32, 4), (15, 32, 1), (16, 3, 1), (16, 2, 2), (32, 8, 8), (64, 4, 4)]


def convolution(channels: int, kernel: int, stride: int, side: int = 64, groups: int = 1) -> openvino.Model:
    """A convolution between two activations, as in a network; its weights keep the size of the numbers."""
    rng = np.random.default_rng(channels * 1000 + kernel)
    image = ops.parameter((1, channels * groups, side, side), np.float32, name="image")
    weights = rng.standard_normal((32, channels, kernel, kernel)).astype(np.float32) / math.sqrt(channels * kernel**2)
    same = [0, 0]
    if groups > 1:
        weights = np.stack([weights] * groups)
    convolve = ops.convolution if groups == 1 else ops.group_convolution
    product = convolve(ops.relu(image), ops.constant(weights), [stride, stride], same, same, [1, 1])
    product.set_friendly_name("convolution")
    return openvino.Model([ops.relu(product)], [image])


def answer(model: openvino.Model, precision: Precision, image: np.ndarray) -> np.ndarray:
    compiled, _ = compile_model(openvino.Core(), model, precision, {HINT: str({"fp32": "f32"}.get(precision, "bf16"))})
    return compiled(image)[0]


@pytest.mark.parametrize(("channels", "kernel", "stride"), [*FAULTY, *SOUND])
def test_bf16_is_close_to_float32(channels: int, kernel: int, stride: int) -> None:
    if not bf16_capable():
        pytest.skip("this CPU has no instructions for bf16 (AVX512_BF16 or AMX)")
    image = np.random.default_rng(0).standard_normal((1, channels, 64, 64)).astype(np.float32)
    wanted = answer(convolution(channels, kernel, stride), Precision.FP32, image)
    found = answer(convolution(channels, kernel, stride), Precision.BF16, image)
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)


@pytest.mark.parametrize(("channels", "kernel", "stride"), FAULTY)
def test_zero_channels_change_nothing(channels: int, kernel: int, stride: int) -> None:
    image = np.random.default_rng(0).standard_normal((1, channels, 64, 64)).astype(np.float32)
    wanted = answer(convolution(channels, kernel, stride), Precision.FP32, image)
    model = convolution(channels, kernel, stride)
    (wide,) = (op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution")
    widen(wide)
    assert wide.input(1).get_shape()[1] == wide.input(0).get_shape()[1] == ENOUGH_CHANNELS
    np.testing.assert_allclose(answer(model, Precision.FP32, image), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: convolution(8, 8, 8, groups=2), id="groups"),
        pytest.param(lambda: convolution(24, 14, 9, side=14), id="one pixel wide"),
        pytest.param(lambda: convolution(64, 3, 2, side=3), id="one pixel wide, many channels"),
    ],
)
def test_what_cannot_be_widened_is_right_or_refused(model: Callable[[], openvino.Model]) -> None:
    if not bf16_capable():
        pytest.skip("this CPU has no instructions for bf16 (AVX512_BF16 or AMX)")
    image = np.random.default_rng(0).standard_normal(tuple(model().input(0).shape)).astype(np.float32)
    wanted = answer(model(), Precision.FP32, image)
    try:
        found = answer(model(), Precision.BF16, image)
    except EngineUnavailableError as error:
        refused = error.given
    else:
        refused = ""
    if refused:
        assert "computes convolutions wrongly in bf16: convolution" in refused
        return
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)


@pytest.mark.parametrize("primitive", ["brgconv_avx512_amx_bf16", "brgconv_avx512_bf16"])
def test_only_what_runs_on_amx_is_changed(primitive: str) -> None:
    nodes = (Node("Convolution", "bf16", primitive, frozenset({"convolution"}), ()),)
    for channels, kernel, stride in FAULTY:
        found = faulty_convolutions(convolution(channels, kernel, stride), nodes)
        assert [op.get_friendly_name() for op in found] == ["convolution"] * ("amx" in primitive)
    for channels, kernel, stride in SOUND:
        assert not faulty_convolutions(convolution(channels, kernel, stride), nodes)

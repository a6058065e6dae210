"""Convolutions that oneDNN computes wrongly are right in our engine, on every CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.openvino.amx import ENOUGH_CHANNELS, faulty_convolutions, one_column_convolutions, widen
from mmms_deploy.engines.openvino.compile import compile_model
from mmms_deploy.engines.openvino.inspect import Node
from mmms_deploy.engines.openvino.library import bf16_capable, import_openvino

openvino = import_openvino()
ops = openvino.opset13

HINT = "INFERENCE_PRECISION_HINT"
FAULTY = [(4, 16, 16), (8, 8, 8), (8, 8, 1), (12, 8, 3), (16, 4, 4), (16, 14, 14), (24, 8, 4), (2, 32, 1), (20, 16, 16)]
"""(channels, kernel, stride) that the AMX kernel gets wrong (OpenVINO 2026.4)."""
SOUND = [(3, 16, 16), (3, 32, 32), (3, 32, 8), (5, 32, 4), (15, 32, 1), (16, 3, 1), (16, 2, 2), (32, 8, 8), (64, 4, 4)]


def convolution(channels: int, kernel: int, stride: int, side: int = 64, groups: int = 1) -> Any:
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


def answer(model: Any, precision: Precision, image: np.ndarray) -> np.ndarray:
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


def test_zero_channels_of_every_group_change_nothing() -> None:
    image = np.random.default_rng(0).standard_normal((1, 16, 64, 64)).astype(np.float32)
    wanted = answer(convolution(8, 8, 8, groups=2), Precision.FP32, image)
    model = convolution(8, 8, 8, groups=2)
    (wide,) = (op for op in model.get_ordered_ops() if op.get_type_name() == "GroupConvolution")
    widen(wide)
    assert wide.input(1).get_shape()[2] == ENOUGH_CHANNELS
    assert wide.input(0).get_shape()[1] == 2 * ENOUGH_CHANNELS
    np.testing.assert_allclose(answer(model, Precision.FP32, image), wanted, rtol=0, atol=1e-5)


ONE_COLUMN = [
    # channels, kernel, strides, side, padding before and behind the width, dilation
    (1, (7, 9), (1, 4), (18, 8), (1, 0), 1),
    (1, (6, 3), (1, 5), (14, 5), (0, 1), 1),
    (1, (4, 8), (1, 2), (16, 7), (0, 1), 1),
    (24, (14, 14), (9, 9), (14, 14), (0, 0), 1),
    (64, (3, 3), (2, 2), (3, 3), (0, 0), 1),
    (3, (3, 3), (1, 3), (9, 7), (0, 0), 2),
    (2, (5, 2), (1, 7), (20, 1), (2, 1), 1),  # the kernel covers padding alone
]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize(("channels", "kernel", "strides", "side", "padding", "dilation"), ONE_COLUMN)
def test_an_output_one_pixel_wide_is_right(
    channels: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    side: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    precision: Precision,
    grouped: bool,
) -> None:
    if precision is Precision.BF16 and not bf16_capable():
        pytest.skip("this CPU has no instructions for bf16 (AVX512_BF16 or AMX)")
    groups = 2 if grouped else 1
    rng = np.random.default_rng(0)
    values = rng.standard_normal((1, groups * channels, *side)).astype(np.float32)
    weights = rng.standard_normal((groups, 8, channels, *kernel)).astype(np.float32) / math.sqrt(channels)

    padded = np.pad(values.astype(np.float64), ((0, 0), (0, 0), (0, 0), padding))
    reach = tuple(dilation * (length - 1) + 1 for length in kernel)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], ::dilation, ::dilation]
    apart = windows.reshape(1, groups, channels, *windows.shape[2:])
    wanted = np.einsum("ngchwij,gocij->ngohw", apart, weights).reshape(1, groups * 8, *windows.shape[2:4])
    assert wanted.shape[-1] == 1

    image = ops.parameter(values.shape, np.float32, name="image")
    convolve = ops.group_convolution if grouped else ops.convolution
    product = convolve(
        image,
        ops.constant(weights if grouped else weights[0]),
        list(strides),
        [0, padding[0]],
        [0, padding[1]],
        [dilation, dilation],
    )
    product.set_friendly_name("convolution")
    model = openvino.Model([product], [image])
    (concerned,) = one_column_convolutions(model)
    assert concerned.get_friendly_name() == "convolution"
    found = answer(model, precision, values)
    assert not one_column_convolutions(model)
    limit = 1e-5 if precision is Precision.FP32 else 0.01
    assert np.linalg.norm(found - wanted) <= limit * np.linalg.norm(wanted)


def test_only_a_stride_without_effect_is_removed() -> None:
    assert not one_column_convolutions(convolution(3, 16, 16))
    assert not one_column_convolutions(convolution(3, 1, 2, side=1))
    assert not one_column_convolutions(convolution(3, 3, 1, side=3))


@pytest.mark.parametrize("primitive", ["brgconv_avx512_amx_bf16", "brgconv_avx512_bf16"])
def test_only_what_runs_on_amx_is_changed(primitive: str) -> None:
    nodes = (Node("Convolution", "bf16", primitive, frozenset({"convolution"}), ()),)
    for channels, kernel, stride in FAULTY:
        found = faulty_convolutions(convolution(channels, kernel, stride), nodes)
        assert [op.get_friendly_name() for op in found] == ["convolution"] * ("amx" in primitive)
    for channels, kernel, stride in SOUND:
        assert not faulty_convolutions(convolution(channels, kernel, stride), nodes)

"""Reading lists of kernels, from the messages of a build and from the engine inspectors of several versions."""

from __future__ import annotations

import json

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.tensorrt.inspect import (
    Kernel,
    Network,
    Tensor,
    check_precision,
    kernels_of_inspector,
    kernels_of_messages,
    memory_of_messages,
    summarise,
    type_name,
)
from mmms_deploy.errors import MMMSDeployWarning, PlanPrecisionError

# From a build with TensorRT-RTX 1.7.1, strides and formats as they are.
MESSAGE = """Layers:
Name: node6+node3_myl0_0, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,196,128], Strides: [25088,128,1], \
StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: \
__mye3080_dconst_myl0, Dimensions: [3,128,128], Strides: [16384,128,1], StrideOrder: [2,1,0], Datatype: Half, Format: \
(Linear) Row major linear format }, { Name: __mye2944node6_alpha_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0]\
, Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: __mye3071_myl0, Dimensions: \
[3,196,128], Strides: [25088,128,1], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }]\
, TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: node6][ONNX Layer: node3]
Name: _gemm_mha_v2_myl0_1, LayerType: kgen, Inputs: [ { Name: __mye3071_myl0, Dimensions: [2,196,64], Strides: \
[64,128,1], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }, { Name: __mye3071_myl0, \
Dimensions: [2,64,196], Strides: [64,1,128], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear \
format }], Constants: [], Outputs: [ { Name: __mye3102_myl0, Dimensions: [2,196,64], Strides: [64,128,1], StrideOrder: \
[2,1,0], Datatype: Half, Format: (Linear) Row major linear format }], TacticName: _gemm_mha_v2_0x2194, StreamId: 0, \
Metadata: [ONNX Layer: node12][ONNX Layer: node9][ONNX Layer: node7]
"""
NETWORK = Network(matrices={"node3": "fp16", "node6": "fp16", "node7": "fp16", "node12": "fp16"}, attentions=("node9",))


def test_a_list_in_the_messages_of_a_build() -> None:
    kernels = kernels_of_messages(["something else", MESSAGE, MESSAGE])
    assert [kernel.name for kernel in kernels] == ["node6+node3_myl0_0", "_gemm_mha_v2_myl0_1"]
    assert kernels[0].origins == ("node6", "node3")
    assert kernels[0].operand == "fp16"  # the float32 factor alpha is no operand
    report = summarise(NETWORK, kernels, listed="build")
    assert report.evidence(Precision.FP16) == "4 of 4 matrix operations in fp16, 1 of 1 attentions fused"
    assert report.types == {"fp16": 2}


def inspector(style: str, word: str) -> str:
    """Two layers, as TensorRT 10.12 (``Format/Datatype``) and later ones (``Datatype``) write them."""

    def tensor(*shape: int) -> dict[str, object]:
        where = {"old": {"Format/Datatype": f"Row major linear {word} format"}, "new": {"Datatype": word}}[style]
        return {"Name": "t", "Location": "Device", "Dimensions": list(shape), **where}

    convolution = {
        "Name": "conv + relu",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor(1, 3, 448, 448)],
        "Outputs": [tensor(1, 64, 112, 112)],
        "ParameterType": "Convolution",
        "Weights": {"Type": "Half" if word != "FP32" else "Float", "Count": 3072},
        "Bias": {"Type": "Float", "Count": 64},
        "TacticValue": "0x1",
        "Metadata": "[ONNX Layer: conv]\u001e[ONNX Layer: relu]",
    }
    product = {
        "Name": "matmul_myl0_3",
        "LayerType": "gemm",
        "Inputs": [tensor(4, 8), tensor(8, 4)],
        "Outputs": [tensor(4, 4)],
        "Metadata": "[ONNX Layer: matmul]",
    }
    return json.dumps({"Layers": [convolution, product, "a name alone"], "Bindings": ["x"]})


@pytest.mark.parametrize(("style", "word"), [("old", "FP16"), ("new", "Half")])
def test_an_inspectors_list(style: str, word: str) -> None:
    kernels = kernels_of_inspector(inspector(style, word))
    assert [kernel.origins for kernel in kernels] == [("conv", "relu"), ("matmul",)]
    network = Network(matrices={"conv": "fp16", "matmul": "fp16"}, attentions=())
    report = summarise(network, kernels, listed="inspector", activation_bytes=7)
    assert report.matrices == {"fp16": 2}
    assert report.activation_bytes == 7
    check_precision(report, Precision.FP16, "click", "TensorRT 11.4")
    with pytest.raises(PlanPrecisionError, match="2 in fp16 of 2"):
        check_precision(report, Precision.BF16, "click", "TensorRT 11.4")


def test_a_typed_graph_that_the_library_widened() -> None:
    network = Network(matrices={"conv": "fp16", "matmul": "fp16"}, attentions=())
    report = summarise(network, kernels_of_inspector(inspector("old", "FP32")), listed="inspector")
    assert report.wide == ("conv", "matmul")
    with pytest.raises(PlanPrecisionError, match=r"2 in fp32 of 2 matrix operations \(conv, matmul\)"):
        check_precision(report, Precision.FP16, "click", "TensorRT 10.12")


def test_a_plan_that_is_not_proven_may_be_allowed_and_says_so() -> None:
    """The kernels of a GPU that was never listed may have names that are read wrongly."""
    network = Network(matrices={"conv": "fp16", "matmul": "fp16"}, attentions=())
    report = summarise(network, kernels_of_inspector(inspector("old", "FP32")), listed="inspector")
    assert report.doubts == (
        "CaskConvolution 'conv + relu', without a tactic: fp32 for conv",
        "gemm 'matmul_myl0_3', without a tactic: fp32 for matmul",
    )
    assert not report.proven(Precision.FP16)
    assert report.evidence(Precision.FP16) == "0 of 2 matrix operations in fp16; precision not proven"
    with pytest.warns(MMMSDeployWarning, match="precision not proven") as warned:
        check_precision(report, Precision.FP16, "click", "TensorRT 10.12", allow_unproven=True)
    assert "gemm 'matmul_myl0_3'" in str(warned[0].message)
    proven = summarise(network, kernels_of_inspector(inspector("new", "Half")), listed="inspector")
    assert (proven.doubts, proven.proven(Precision.FP16)) == ((), True)
    check_precision(proven, Precision.FP16, "click", "TensorRT 10.12", allow_unproven=True)


def test_a_kernel_that_shows_no_type_is_listed_and_no_reason_to_refuse() -> None:
    network = Network(matrices={"a": "fp16", "b": "fp16"}, attentions=())
    silent = kernel("a", "gemm", ("a",), "")
    report = summarise(network, (silent, kernel("b", "gemm", ("b",), "fp16")), listed="inspector")
    assert report.doubts == ("gemm 'a', without a tactic: no type for a",)
    assert report.proven(Precision.FP16)


def kernel(name: str, kind: str, origins: tuple[str, ...], dtype: str) -> Kernel:
    operand = Tensor(dtype=dtype, elements=100, rank=2)
    return Kernel(name=name, kind=kind, origins=origins, inputs=(operand, operand), constants=(), outputs=(operand,))


def test_a_kernel_that_only_moves_data_does_not_count() -> None:
    """A cast kernel can carry the name of the convolution that it prepares the input of."""
    kernels = (kernel("__myl_Cast", "kgen", ("conv",), "fp32"), kernel("conv", "correlation", ("conv",), "fp16"))
    report = summarise(Network(matrices={"conv": "fp16"}, attentions=()), kernels, listed="build")
    assert report.matrices == {"fp16": 1}


def test_an_attention_in_two_kernels_is_not_fused() -> None:
    network = Network(matrices={"qk": "fp16", "av": "fp16"}, attentions=("softmax",))
    apart = (
        kernel("qk", "gemm", ("qk",), "fp16"),
        kernel("softmax", "kgen", ("softmax",), "fp16"),
        kernel("av", "gemm", ("av",), "fp16"),
    )
    assert summarise(network, apart, listed="build").fused == 0
    together = (kernel("_gemm_mha_v2", "kgen", ("qk", "softmax", "av"), "fp16"),)
    assert summarise(network, together, listed="build").fused == 1


def test_what_was_computed_at_build_time_is_not_missed() -> None:
    network = Network(matrices={"a": "fp16", "b": "fp16", "folded": "fp16"}, attentions=())
    kernels = (kernel("a", "gemm", ("a",), "fp16"), kernel("b", "gemm", ("b",), "fp16"))
    assert summarise(network, kernels, listed="build").matrices == {"fp16": 2}


def test_a_list_without_origins_shows_nothing_by_itself() -> None:
    network = Network(matrices={"a": "fp16"}, attentions=())
    report = summarise(network, (kernel("a", "gemm", (), "fp32"),), listed="inspector")
    assert report.listed == ""
    assert "as its typed graph says" in report.evidence(Precision.FP16)


# --- as TensorRT 10 writes it: after https://github.com/NVIDIA/TensorRT/issues/4397, 4020 and 3583 --------------------

BERT = """Layers:
Name: /l0/key/MatMul+/l0/query/MatMul+/l0/value/MatMul_myl0_9, LayerType: gemm, Inputs: [ { Name: __mye56070_13, \
Dimensions: [1,40,256], Format/Datatype: Half }], Outputs: [ { Name: __mye56071_14, Dimensions: [3,40,256], \
Format/Datatype: Half }], TacticName: sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64_stage6_warpsize2x2x1_\
tensor16x8x16, StreamId: 0, Metadata: [ONNX Layer: query][ONNX Layer: key][ONNX Layer: value]
Name: _gemm_mha_v2_myl0_10, LayerType: kgen, Inputs: [ { Name: __mye56071_14, Dimensions: [4,40,64], Format/Datatype: \
Half }, { Name: mask, Dimensions: [4,40,40], Format/Datatype: Float }], Outputs: [ { Name: __mye56080_15, Dimensions: \
[4,40,64], Format/Datatype: Half }], TacticName: _gemm_mha_v2_0xbcebb264ff01c4c4, StreamId: 0, Metadata: [ONNX Layer: \
softmax][ONNX Layer: av][ONNX Layer: qk]
Name: signal^1_myl0_11, LayerType: signal, Inputs: [], Outputs: [], TacticName: , StreamId: 1, Metadata:\x20
Name: __myl_Fc_myl0_12, LayerType: fusion, Inputs: [ { Name: __mye56080_15, Dimensions: [1,40,256], Format/Datatype: \
Half }], Outputs: [ { Name: out, Dimensions: [1,40,1024], Format/Datatype: Half }], TacticName: \
sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64_stage6_by_fusion_tactic, StreamId: 0, Metadata: [ONNX Layer: \
dense][ONNX Layer: erf]
Name: patch + relu, LayerType: CaskGemmConvolution, Inputs: [ { Name: image, Location: Device, Dimensions: [6,256,120,\
184], Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], Outputs: [ { Name: relu, Location: Device, \
Dimensions: [6,128,120,184], Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], ParameterType: \
Convolution, Kernel: [1,1], Weights: {"Type": "Half", "Count": 32768}, Bias: {"Type": "Float", "Count": 128}, HasBias: \
1, TacticName: ampere_h16816gemm_128x64, TacticValue: 0x0000000000020764, StreamId: 0, Metadata: [ONNX Layer: patch]
"""


def test_a_verbose_log_of_tensorrt_10() -> None:
    kernels = kernels_of_messages([BERT])
    assert [kernel.kind for kernel in kernels] == ["gemm", "kgen", "signal", "fusion", "CaskGemmConvolution"]
    matrices = dict.fromkeys(("query", "key", "value", "qk", "av", "dense", "patch"), "fp16")
    report = summarise(Network(matrices=matrices, attentions=("softmax",)), kernels, listed="build")
    assert report.matrices == {"fp16": 7}
    assert report.kernels == 4, "a signal launches nothing"
    assert report.types == {"fp16": 4}
    assert (report.fused, report.unproven) == (1, 2), "the mask beside the factors is float32, and the tactic is silent"


@pytest.mark.parametrize(
    ("tactic", "dtype"),
    [
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "bf16"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc", "fp32"),
        ("sm80_xmma_gemm_f16f16_f16f32_f32_nn_n", "fp16"),
        ("cutlass3x_sm90_tensorop_s64x128x16gemm_f16_f16_f32_f16_f16_128x128x64", "fp16"),
        ("__myelin_CASK_STUB", "fp32"),
    ],
)
def test_a_tactic_says_what_it_multiplies(tactic: str, dtype: str) -> None:
    """A tensor that is added to the product is no factor; here it is a large float32 tensor."""
    residual = Tensor(dtype="fp32", elements=10**6, rank=3)
    asked = Kernel(
        name="a", kind="gemm", origins=("a",), inputs=(residual,), constants=(), outputs=(residual,), tactic=tactic
    )
    assert asked.operand == dtype


def test_a_kernel_with_operands_of_two_types_shows_nothing() -> None:
    network = Network(matrices={"a": "fp16", "b": "fp16"}, attentions=())
    half, wide = Tensor(dtype="fp16", elements=100, rank=2), Tensor(dtype="fp32", elements=900, rank=2)
    mixed = Kernel(name="a", kind="gemm", origins=("a",), inputs=(half, wide), constants=(), outputs=(wide,))
    report = summarise(network, (mixed, kernel("b", "gemm", ("b",), "fp16")), listed="inspector")
    assert (report.matrices, report.unproven) == ({"fp16": 2}, 1)
    assert report.evidence(Precision.FP16) == (
        "2 of 2 matrix operations in fp16, 1 of them as its typed graph says (their kernels do not show it)"
    )
    check_precision(report, Precision.FP16, "click", "TensorRT 10.16")


def test_a_cast_that_carries_the_name_of_a_product_does_not_widen_it() -> None:
    network = Network(matrices={"a": "fp16", "b": "fp16"}, attentions=())
    kernels = (kernel("__myl_CastMove_myl0_0", "kgen", ("a",), "fp32"), kernel("b", "gemm", ("b",), "fp16"))
    report = summarise(network, kernels, listed="inspector")
    assert (report.matrices, report.unproven) == ({"fp16": 2}, 1)


def test_a_region_listed_as_one_layer_says_nothing_of_its_kernels() -> None:
    """TensorRT 8 lists Myelin's regions so, and 10 without details; their inputs may be of any type."""
    image = {"Name": "image", "Dimensions": [1, 3, 448, 448], "Format/Datatype": "Row major linear FP32"}
    region = {
        "Name": "{ForeignNode[qk...av]}",
        "LayerType": "Myelin",
        "Inputs": [image],
        "Outputs": [image],
        "Metadata": "[ONNX Layer: qk]\x1e[ONNX Layer: softmax]\x1e[ONNX Layer: av]",
    }
    others = [
        {"Name": name, "LayerType": "CaskConvolution", "Weights": {"Type": "Half", "Count": 9}, "Metadata": origin}
        for name, origin in (("c", "[ONNX Layer: c]"), ("d", "[ONNX Layer: d]"))
    ]
    text = json.dumps({"Layers": [region, *others]}).replace("\\u001e", "\x1e")
    network = Network(matrices=dict.fromkeys(("qk", "av", "c", "d"), "fp16"), attentions=("softmax",))
    report = summarise(network, kernels_of_inspector(text), listed="inspector")
    assert (report.matrices, report.fused, report.kernels, report.regions) == ({"fp16": 4}, 0, 2, 1)
    assert "2 of them as its typed graph says (their kernels do not show it, 1 parts" in report.evidence(Precision.FP16)
    alone = summarise(network, kernels_of_inspector(json.dumps({"Layers": [region]})), listed="inspector")
    assert (alone.listed, alone.matrices, alone.kernels) == ("", {"fp16": 4}, 0)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"Layers": null}', '{"Layers": "x"}', '{"Layers": [{}, 3]}'])
def test_what_is_no_list_ends_nothing(text: str) -> None:
    network = Network(matrices={"a": "fp16"}, attentions=())
    assert summarise(network, kernels_of_inspector(text), listed="inspector").listed == ""


def test_memory() -> None:
    said = ["Total Activation Memory: 27283968 bytes", "Total Weights Memory: 32340736 bytes", "Total Host Memory: 1"]
    assert memory_of_messages(said) == (27283968, 32340736)
    assert memory_of_messages([]) == (None, None)


@pytest.mark.parametrize(
    ("words", "name"),
    [("Half", "fp16"), ("BFloat16", "bf16"), ("BF16", "bf16"), ("FLOAT", "fp32"), ("Int32", "int32"), ("N/A", "")],
)
def test_names_of_types(words: str, name: str) -> None:
    assert type_name(words) == name

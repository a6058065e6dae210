"""The parts of half precision: converted modules, graphs that round, watched blocks; every backbone, cut and family."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import BlockPeak, Precision, Rate
from mmms_deploy.bundle.contract import ClickContract, ModalitySpec, PreviousMask
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import ExportError
from mmms_deploy.export.absmax import Peaks
from mmms_deploy.export.cut import Cut, cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.half.gate import cosine
from mmms_deploy.export.half.network import DTYPES, OPSETS, HalfNetwork, WideNorm, half_network, half_of
from mmms_deploy.export.half.precision import near_fp16
from mmms_deploy.export.half.rounded import rounded
from mmms_deploy.export.network import export_whole
from mmms_deploy.export.rewrites import EVERY
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.source import Source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.replay.verification import verify
from tests.support.bfloat16 import without_onednn
from tests.support.releases import TINY
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import DEPTH, EVENT, tiny_config


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


# --- modules ----------------------------------------------------------------------------------------------------------


class TestHalfOf:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_all_but_wide_norms_is_half(self, dtype: torch.dtype) -> None:
        shared = nn.Linear(4, 4)
        module = nn.ModuleDict(
            {
                "a": shared,
                "b": shared,
                "norms": nn.Sequential(nn.GroupNorm(1, 4), nn.BatchNorm2d(4), nn.RMSNorm(4)),
                "layer": nn.LayerNorm(4),
            }
        )
        module.register_buffer("table", torch.rand(3))
        module.register_buffer("places", torch.arange(3))
        before = {name: (id(tensor), tensor.dtype) for name, tensor in module.state_dict(keep_vars=True).items()}
        half = half_of(module, dtype)
        assert {n: (id(t), t.dtype) for n, t in module.state_dict(keep_vars=True).items()} == before
        assert half["a"].weight is half["b"].weight
        assert half["a"].weight.dtype is half.table.dtype is dtype
        assert half.places.dtype is torch.int64
        for norm, original in zip(half["norms"], module["norms"], strict=True):
            assert isinstance(norm, WideNorm)
            assert norm.norm.weight is original.weight
        if dtype is torch.bfloat16:
            assert isinstance(half["layer"], WideNorm)
            assert half["layer"].norm.weight is module["layer"].weight
        else:
            assert isinstance(half["layer"], nn.LayerNorm)
            assert half["layer"].weight.dtype is torch.float16

    def test_a_layer_norm_in_fp16_sums_in_float32(self) -> None:
        x = 300 * torch.rand(2, 800, generator=torch.Generator().manual_seed(0))  # squares overflow float16
        norm = nn.LayerNorm(800)
        wanted = norm(x.half().float())
        torch.testing.assert_close(half_of(norm, torch.float16)(x.half()).float(), wanted, rtol=1e-3, atol=1e-3)

    def test_a_norm_computes_in_float32(self) -> None:
        x = (300 * torch.rand(2, 8)).half()  # squares overflow float16
        norm = WideNorm(nn.LayerNorm(8))
        assert norm(x).dtype is torch.float16
        torch.testing.assert_close(norm(x), norm.norm(x.float()).half(), rtol=0, atol=0)


@pytest.mark.parametrize("precision", DTYPES, ids=str)
@pytest.mark.parametrize("skip", [(), (EVERY,)], ids=["rewritten", "paper form"])
@pytest.mark.parametrize("name", list(TINY))
def test_backbones(name: str, skip: tuple[str, ...], precision: Precision) -> None:
    """Features of pixels, or of normalised images, in half and in float32; every backbone in either form."""
    network = random_network(tiny_config(DEPTH, backbone=TINY[name].config(name)), 0)
    deployed, applied = deploy_form(network, skip)
    half = HalfNetwork(deployed, network, precision)
    generator = torch.Generator().manual_seed(0)
    image, depth = 255 * torch.rand(1, 3, 64, 96, generator=generator), torch.randn(1, 1, 64, 96, generator=generator)
    if "fold_normalisation" not in applied:
        image = (image / 255 - 0.45) / 0.225
    expected = deployed.features(image, {"depth": depth})
    with without_onednn():
        found = half.features(image, {"depth": depth})
    for ours, wanted in zip(found, expected, strict=True):
        assert ours.dtype is DTYPES[precision]
        assert 1 - cosine(ours.float().numpy(), wanted.numpy()) < (1e-5 if precision is Precision.FP16 else 1e-3)
    interaction = torch.rand(1, 3, 64, 96, generator=generator)
    with without_onednn():
        logits = half.respond(found, interaction)
    assert logits.dtype is torch.float32
    assert (logits - deployed.respond(expected, interaction)).abs().max() < 0.1


def test_pixels_are_normalised_in_float32() -> None:
    """Rounded to float16, or multiplied with folded weights, the error of the first layer is half as large again."""
    network = random_network(tiny_config(), 0)
    deployed, _ = deploy_form(network)
    half = HalfNetwork(deployed, network, Precision.FP16)
    pixels = 255 * torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    wanted = deployed.backbone.vit.patch_embed(pixels)
    ours = half.backbone.vit.patch_embed((pixels * half.factor + half.shift).half()).float()
    folded = half_of(deployed.backbone.vit.patch_embed, torch.float16)(pixels.half()).float()
    assert (ours - wanted).norm() < 0.8 * (folded - wanted).norm()
    assert (ours - wanted).norm() < 5e-4 * wanted.norm()


# Most of it is torch, which traces four times in all; one precision in every run of the tests is enough.
@pytest.mark.parametrize(
    "precision",
    [pytest.param(one, marks=[] if one is Precision.BF16 else [pytest.mark.slow]) for one in OPSETS],
    ids=str,
)
def test_the_same_network_gives_the_same_bytes(precision: Precision) -> None:
    def exported() -> list[bytes]:
        network = random_network(tiny_config(), 0)
        recurrent = half_network(deploy_form(network)[0], network, precision, ())
        stages = cut(export_whole(recurrent, OPSETS[precision]), recurrent.rates())
        return [ir.to_proto(stage.model).SerializeToString(deterministic=True) for stage in stages]

    assert exported() == exported()


# --- graphs that round ------------------------------------------------------------------------------------------------


def half_graph(kind: int, *nodes: tuple[str, list[str], str], **constants: np.ndarray) -> ir.Model:
    """A graph from x, half, to y, half."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    border = [helper.make_tensor_value_info(name, kind, [2, 4]) for name in ("x", "y")]
    weights = [numpy_helper.from_array(value.astype(dtype), name) for name, value in constants.items()]
    body = [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes]
    graph = helper.make_graph(body, "g", border[:1], border[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    from onnx import shape_inference

    return ir.from_proto(shape_inference.infer_shapes(model))


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = import_onnxruntime().InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_every_result_is_rounded(kind: int) -> None:
    dtype = {TensorProto.FLOAT16: torch.float16, TensorProto.BFLOAT16: torch.bfloat16}[kind]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4, generator=generator).to(dtype)
    x = torch.randn(2, 4, generator=generator).to(dtype)
    model = half_graph(
        kind,
        ("MatMul", ["x", "w"], "a"),
        ("Relu", ["a"], "b"),
        ("Mul", ["b", "b"], "c"),
        ("Add", ["c", "x"], "y"),
        w=weight.float().numpy(),
    )
    product = torch.relu((x.float() @ weight.float()).to(dtype)).float()
    wanted = (((product * product).to(dtype)).float() + x.float()).to(dtype).float().numpy()
    ours = rounded(model)
    assert [value.dtype for value in (*ours.graph.inputs, *ours.graph.outputs)] == [ir.DataType.FLOAT] * 2
    np.testing.assert_array_equal(run(ours, x.float().numpy()), wanted)
    assert model.graph.inputs[0].dtype == kind  # left as it is


def test_what_overflows_becomes_infinite() -> None:
    """ONNX Runtime computes both nodes in float32 and would hide it."""
    model = half_graph(
        TensorProto.FLOAT16, ("Mul", ["x", "big"], "a"), ("Mul", ["a", "small"], "y"),
        big=np.float32([3000.0]), small=np.float32([2.0**-10]),
    )  # fmt: skip
    x = np.full((2, 4), 50.0, dtype=np.float32)
    assert np.isinf(run(rounded(model), x)).all()
    np.testing.assert_array_equal(run(rounded(model), x / 5), 3000 * 10 / 1024 + 0 * x)


def test_graphs_in_graphs_are_refused() -> None:
    model = half_graph(TensorProto.FLOAT16, ("Identity", ["x"], "y"))
    inner = ir.Graph([], [], nodes=[])
    node = next(iter(model.graph))
    node.attributes["body"] = ir.AttrGraph("body", inner)
    with pytest.raises(ExportError, match="Identity"):
        rounded(model)


def test_cosine() -> None:
    a = np.arange(4, dtype=np.float32)
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(0 * a, 0 * a) == 1
    assert cosine(0 * a, a) == 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(cosine(a, a + np.inf))


# --- the blocks' largest activations ----------------------------------------------------------------------------------


def test_blocks_are_watched_while_it_lasts() -> None:
    network = random_network(tiny_config(backbone=TINY["dinov2_b14_reg"].config("dinov2_b14_reg")), 0)
    block = network.backbone.vit.blocks[1]
    block.mlp.fc2.bias[0] = 1e4
    block.ls2.gamma.fill_(1e-4)
    block.mlp.fc1.bias[0] = 321.0
    image = torch.zeros(1, 3, 64, 96)
    every, folded = Peaks(network, ()), Peaks(network, ("fold_layer_scale",))
    with every.watching(), folded.watching():
        network.encode(image)
    found = every.found()
    assert [peak.block for peak in found] == list(range(1, len(network.backbone.vit.blocks) + 1))
    assert (found[1].layer, round(found[1].inside, -2)) == ("mlp.fc2", 10000)
    assert folded.found()[1].layer in ("mlp.fc1", "mlp.act", "mlp.norm")  # not fc2
    assert 300 < folded.found()[1].inside < 350
    assert found[1].output == folded.found()[1].output < 100
    block.mlp.fc1.bias[0] = 1e6
    network.encode(image)
    assert every.found() == found


def test_blocks_near_the_end_of_float16() -> None:
    peaks = [
        BlockPeak(block=1, output=1.0, inside=8000.0, layer="mlp.fc1"),
        BlockPeak(block=2, output=9000.0, inside=8200.0, layer="mlp.fc1"),
        BlockPeak(block=3, output=1e5, inside=5.0, layer="norm1"),
    ]
    assert near_fp16(peaks) == ["block 2: 9e+03 in its output, 8.2e+03 in mlp.fc1", "block 3: 1e+05 in its output"]


# --- every cut, both families -----------------------------------------------------------------------------------------

CLICKS = ClickContract(previous=PreviousMask.PROBABILITY)
OPTIONAL = tuple(
    ModalitySpec(name=m.name, channels=m.channels, scale=m.scale, mean=m.mean, std=m.std, optional=True)
    for m in (DEPTH, EVENT)
)
NETWORKS = {
    "optional": (tiny_config(*OPTIONAL, clicks=CLICKS), ()),
    "black box": (tiny_config(DEPTH, clicks=CLICKS), (Cut.BLACK_BOX, Cut.LATE)),
    "skipclick": (tiny_skipclick(), ()),
    "skipclick with depth": (tiny_skipclick(DEPTH), (Cut.LATE,)),
}


# An export each: in every run of the tests, one network of each family.
@pytest.mark.parametrize(
    "name",
    [
        "optional",
        "skipclick",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("black box", "skipclick with depth")),
    ],
)
def test_networks_and_cuts_in_fp16(name: str, tmp_path: Path) -> None:
    config, cuts = NETWORKS[name]
    save_checkpoint(tmp_path / "tiny.safetensors", random_network(config, 0))
    source = Source(checkpoint=tmp_path / "tiny.safetensors")
    bundle = export_bundle(source, tmp_path / "out", cuts=cuts, precisions=[Precision.FP16]).bundle
    assert bundle.manifest.precisions == (Precision.FP32, Precision.FP16)
    stages = {stage.rate: stage.graphs for stage in bundle.manifest.stages}
    crossing = [s for s in stages[Rate.IMAGE][Precision.FP16].outputs if s.role == "feature"]
    assert crossing
    assert {spec.dtype for spec in crossing} == {"float16"}
    assert (Rate.MODALITY in stages) == ("depth" in name or name in ("optional", "black box"))
    assert bool(bundle.manifest.activations) == (name != "black box")
    verify(bundle, EngineRequest(engine="onnxruntime", precision=Precision.FP16, strict=True))
    given = {spec.name: spec.dtype for spec in stages[Rate.IMAGE][Precision.FP16].inputs}
    assert set(given.values()) == {"float32"}


# --- full size --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_in_every_precision(tmp_path: Path) -> None:
    """DINOv2-B14 with registers at 448 x 448, random weights; its memory is that of the float32 export."""
    command = [sys.executable, "-c", "from mmms_deploy.commands.export import main; main()"]
    arguments = ["--random-weights", "0", "--precision", "fp32,fp16,bf16", "--out", str(tmp_path / "full")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = re.search(r"peak memory\s+([\d.]+)\s+GiB", done.stdout)
    assert peak is not None
    assert float(peak[1]) < 8
    manifest = Bundle(tmp_path / "full").manifest
    for stage in manifest.stages:
        sizes = {p: manifest.files[graph.file].size for p, graph in stage.graphs.items()}
        assert sizes[Precision.FP16] < 0.51 * sizes[Precision.FP32]
        assert sizes[Precision.BF16] < 0.51 * sizes[Precision.FP32]
    worst = {(c.name, c.measure): c.worst for c in manifest.gate}
    assert worst["fp16 against fp32", "largest 1 - cosine of a feature"] < 1e-5
    assert worst["bf16 against fp32", "largest 1 - cosine of a feature"] < 1e-3
    with Session(tmp_path / "full", engine="onnxruntime", precision="fp16", strict=True) as session:
        session.set_image(np.zeros((480, 640, 3), np.uint8))
        assert session.click(100, 100).mask.shape == (480, 640)

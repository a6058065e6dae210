"""Half precision end to end: the contents of the graphs, sessions that use them, and errors that the gate catches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Precision, Role
from mmms_deploy.bundle.contract import ClickContract, PreviousMask
from mmms_deploy.commands.export import main
from mmms_deploy.engines.onnxruntime.cpu import OnnxRuntimeCpu
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import Door, GateError
from mmms_deploy.export import exporter
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.half import export as half_export
from mmms_deploy.export.half.precision import FP16_ALARM, FP16_LARGEST, other_precisions, reduced_precisions
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.progress import Progress
from mmms_deploy.replay.verification import LIMITS, verify
from tests.support.tiny import DEPTH, tiny_config

CONFIG = tiny_config(DEPTH, clicks=ClickContract(previous=PreviousMask.MASK))
HALF = {Precision.FP16: "float16", Precision.BF16: "bfloat16"}
PRECISIONS = (Precision.FP32, *HALF)
ONNX_TYPES = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}
MOVES = {"Cast", "Concat", "Expand", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
NORMS = {"LayerNormalization", "GroupNormalization"}
COORDINATES = {"Add", "Mul", "Sub", "Pow", "Where"}
"""Float32 arithmetic that only clicks and pixels may enter."""
ANSWER = {"Sigmoid"}
SUMS = {"ReduceSum"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, random_network(CONFIG, 1))
    return path


@pytest.fixture(scope="module")
def steps() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, steps: list[Progress], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("out") / "tiny"
    report = export_bundle(Source(checkpoint=checkpoint), out, precisions=PRECISIONS, on_progress=steps.append)
    assert list(out.parent.iterdir()) == [out]
    return Bundle(report.bundle.path)


@pytest.fixture(scope="module", params=HALF, ids=str)
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param


@pytest.fixture(scope="module")
def graphs(bundle: Bundle, precision: Precision) -> dict[str, onnx.ModelProto]:
    """The stages' graphs, with the types of all tensors."""
    loaded = {s.name: onnx.load(bundle.file(s.graphs[precision].file)) for s in bundle.manifest.stages}
    return {n: onnx.shape_inference.infer_shapes(g, check_type=True, strict_mode=True) for n, g in loaded.items()}


# --- what is in a bundle ----------------------------------------------------------------------------------------------


def test_the_manifest_names_every_precision(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.precisions == PRECISIONS
    for stage in manifest.stages:
        files = [manifest.files[stage.graphs[p].file].size for p in (Precision.FP32, *HALF)]
        assert files[1] < 0.75 * files[0]  # the weights of a narrow network are little more than its nodes
        assert stage.graphs[Precision.FP16].file == f"{stage.name}.fp16.onnx"


def test_the_manifest_says_the_opset_of_every_graph(bundle: Bundle) -> None:
    provenance = bundle.manifest.provenance
    said = {Precision.FP32: provenance.opset, **provenance.half_opsets}
    for stage in bundle.manifest.stages:
        for precision, graph in stage.graphs.items():
            imports = onnx.load(bundle.file(graph.file)).opset_import
            assert [entry.version for entry in imports if not entry.domain] == [said[precision]]
    assert said.keys() == set(PRECISIONS)


def test_steps_are_announced(steps: list[Progress], bundle: Bundle) -> None:
    assert len(steps) == exporter.count_steps(3, PRECISIONS) == exporter.count_steps(3) + 7
    assert len({step.task for step in steps}) == len(steps)
    assert {step.total for step in steps} == {len(steps)}


def test_borders(bundle: Bundle, precision: Precision) -> None:
    """Inputs from the host are float32, tensors that stay on the device are half, outputs have types of NumPy."""
    half, seen = HALF[precision], Counter[Role]()
    expected = {
        Role.IMAGE: "float32",
        Role.MODALITY: "float32",
        Role.CLICK: "float32",
        Role.FEATURE: half,
        Role.STATE: "float16",
        Role.PROBABILITY: "float16",
        Role.MASK: "uint8",
    }
    for stage in bundle.manifest.stages:
        graph = stage.graphs[precision]
        for spec in (*graph.inputs, *graph.outputs):
            assert spec.dtype == expected[spec.role], spec
            seen[spec.role] += 1
    assert seen.keys() == expected.keys(), "every role that this network has"


def test_the_largest_activations_are_recorded(bundle: Bundle, checkpoint: Path) -> None:
    peaks = bundle.manifest.activations
    assert [peak.block for peak in peaks] == [1, 2, 3, 4]
    assert all(0 < peak.output < 100 and 0 < peak.inside < 100 and peak.layer for peak in peaks)
    assert len({peak.output for peak in peaks}) == 4


# --- what is in a graph -----------------------------------------------------------------------------------------------


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    infos = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def wide_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes that compute in float32."""
    types = element_types(model)
    for node in model.graph.node:
        if (
            TensorProto.FLOAT in {types[name] for name in (*node.input[:1], *node.output[:1])}
            and node.op_type != "Cast"
        ):
            yield node


def test_float32_is_what_is_declared(graphs: dict[str, onnx.ModelProto], precision: Precision) -> None:
    kinds, norms = Counter(), Counter()
    for model in graphs.values():
        found = Counter(node.op_type for node in wide_nodes(model))
        compared = {"Greater", "LessOrEqual"}
        assert found.keys() <= MOVES | NORMS | COORDINATES | ANSWER | SUMS | compared, found
        kinds += found
        types = element_types(model)
        for node in model.graph.node:
            if node.op_type == "LayerNormalization":
                norms[types[node.output[0]]] += 1
                assert {types[name] for name in (*node.input, *node.output)} == {types[node.output[0]]}
                assert {a.name: a.i for a in node.attribute}["stash_type"] == TensorProto.FLOAT, "it sums in float32"
    assert norms.keys() == {TensorProto.FLOAT16 if precision is Precision.FP16 else TensorProto.FLOAT}
    assert norms.total() > 20
    assert kinds["GroupNormalization"] == 9
    assert kinds["Sigmoid"] == 1


def test_float32_arithmetic_sees_clicks_and_pixels_only(graphs: dict[str, onnx.ModelProto]) -> None:
    for model in graphs.values():
        constants = {tensor.name for tensor in model.graph.initializer}
        exact = constants | {v.name for v in model.graph.input if v.name in ("click", "rgb", "present")}
        for node in model.graph.node:
            if all(name in exact for name in node.input) and node.op_type not in ("Conv", "MatMul"):
                exact.update(node.output)
        for node in wide_nodes(model):
            if node.op_type in COORDINATES:
                assert set(node.input) <= exact, node


def test_matrix_operations_are_half(graphs: dict[str, onnx.ModelProto], precision: Precision) -> None:
    found = Counter()
    for model in graphs.values():
        types = element_types(model)
        for node in model.graph.node:
            if node.op_type in ("Conv", "MatMul", "Gemm", "Softmax", "Gelu", "Resize"):
                assert {types[name] for name in node.output} == {ONNX_TYPES[precision]}, node
                found[node.op_type] += 1
    assert found["Conv"] > 20
    assert found["MatMul"] > 20
    assert found["Softmax"] > 5


def test_the_graphs_are_plain_onnx(graphs: dict[str, onnx.ModelProto], precision: Precision) -> None:
    for model in graphs.values():
        onnx.checker.check_model(model, full_check=True)
        (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
        assert opset == (21 if precision is Precision.FP16 else 22)  # attention is an operator from 23 on
        assert not {"Attention", "Loop", "If", "ScatterND"} & {node.op_type for node in model.graph.node}
        assert TensorProto.DOUBLE not in element_types(model).values()
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_every_weight_is_there_once(graphs: dict[str, onnx.ModelProto], precision: Precision) -> None:
    """No tensor is there twice or in both types, and only weights of wide norms, clicks and pixels are float32."""
    for model in graphs.values():
        seen: set[tuple[int, tuple[int, ...], bytes]] = set()
        narrow = set()
        norm_weights = {n for node in model.graph.node if node.op_type in NORMS for n in node.input[1:]}
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.int64 or array.size < 4:
                continue
            key = (tensor.data_type, array.shape, array.tobytes())
            assert key not in seen, tensor.name
            seen.add(key)
            if tensor.data_type == ONNX_TYPES[precision]:
                narrow.add((array.shape, array.astype(np.float32).tobytes()))
                continue
            coordinates = array.shape in {(1, 1, 1, 96), (1, 1, 64, 1)}
            assert tensor.name in norm_weights or coordinates, tensor.name
        dtype = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}[precision]
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in norm_weights:
                array = torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(dtype).float().numpy()
                assert array.size < 4 or (array.shape, array.tobytes()) not in narrow


# --- what answers with it ---------------------------------------------------------------------------------------------


def test_a_session_in_fp16(bundle: Bundle) -> None:
    sample = sample_images((DEPTH,))[0]
    engine = {"engine": "onnxruntime", "strict": True}
    with (
        Session(bundle, precision="fp32", **engine) as expected,
        Session(bundle, precision="fp16", **engine) as session,
    ):
        assert session.engine.precision is Precision.FP16
        for each in (expected, session):
            each.set_image(sample.image, **sample.modalities)
        masks = []
        for x, y, positive in sample.clicks.tolist():
            wanted, got = expected.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
            assert got.network_probability.dtype == got.probability.dtype == np.float32
            assert 0 < np.abs(got.network_probability - wanted.network_probability).max() < 0.02
            masks.append(got.mask)
        assert session.runs == {"image": 1, "click": 10}
        np.testing.assert_array_equal(session.undo().mask, masks[-2])
        np.testing.assert_array_equal(session.redo().mask, masks[-1])
        session.reset()
        assert not session.mask.any()
        x, y, positive = sample.clicks[0].tolist()
        np.testing.assert_array_equal(session.click(x, y, positive > 0.5).mask, masks[0])


@pytest.mark.parametrize("chosen", [Precision.FP32, Precision.FP16])
def test_the_golden_replay_by_precision(bundle: Bundle, chosen: Precision) -> None:
    report = verify(bundle, EngineRequest(engine="onnxruntime", precision=chosen, strict=True))
    assert report.engine.precision is chosen
    assert report.limit == LIMITS[chosen]
    assert report.telling


def test_disks_are_exact_in_the_graph_as_it_is(bundle: Bundle) -> None:
    engine = OnnxRuntimeCpu(bundle, Precision.FP16, threads=1)
    runner = engine.open()
    specs = {spec.name: spec for spec in engine.graphs["click"].inputs}
    values = {name: runner.zeros(spec) for name, spec in specs.items()}
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    for x, y in ((0, 0), (95.49, 63.49), (-0.5, 31.5), (40.3, 20.7), (93, 60.0004), (7.0001, 50.4999)):
        click = runner.upload(specs["click"], np.array([[x, y, 1, 1]]))
        (maps,) = runner.download(runner.run("click", {**values, "click": click})["maps_next"])
        assert maps.dtype == np.float16
        np.testing.assert_array_equal(maps[0], (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2 <= 25)
        assert not maps[1].any()
    engine.close()


# --- what the gate says -----------------------------------------------------------------------------------------------


def test_the_gate_s_numbers(bundle: Bundle, precision: Precision) -> None:
    checks = [check for check in bundle.manifest.gate if str(precision) in check.name]
    assert [check.measure.split(" of ")[0] for check in checks] == [
        "pixels that differ",
        "largest 1 - cosine",
        "largest 1 - IoU",
        "mean 1 - IoU after the last click",
        *(["largest 1 - IoU"] if precision is Precision.FP16 else []),
    ]
    assert all(check.worst <= check.limit for check in checks)
    assert checks[0].samples > 200
    assert checks[1].samples == 12  # three images, four features
    assert 1e-8 < checks[1].worst < 1e-3  # rounding is seen


def changed(make, part: str, factor: float):
    """Return ``half_network`` with one of the half network's weights changed."""

    def wrapped(*args) -> RecurrentNetwork:
        network = make(*args)
        for name, parameter in network.named_parameters():
            if part in name:
                parameter.data.mul_(factor)
                return network
        raise AssertionError(part)

    return wrapped


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("part", "factor", "blamed"),
    [
        ("feature_biases.2", 1000.0, "stage image, tensor f_mix_16, image astronaut"),
        ("decode_head.linear_pred.bias", -9.0, "stage click, tensor prob, image astronaut, click 1"),
    ],
)
def test_another_weight_is_blamed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, factor: float, blamed: str
) -> None:
    monkeypatch.setattr(half_export, "half_network", changed(half_export.half_network, part, factor))
    with pytest.raises(GateError, match=rf"(?s)fp16 against .*{blamed}.*\[Precision.FP32, Precision.BF16\]") as caught:
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out", precisions=[Precision.FP16])
    assert "--precision fp32, or fp32,bf16" in caught.value.message(Door.COMMAND_LINE)
    assert not list(tmp_path.iterdir())


def test_half_coordinates_are_found(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RecurrentNetwork.add_disk

    def narrow(self: RecurrentNetwork, maps: torch.Tensor, click: torch.Tensor) -> torch.Tensor:
        return real(self, maps, click.to(maps.dtype).float())

    monkeypatch.setattr(RecurrentNetwork, "add_disk", narrow)
    with pytest.raises(GateError, match=r"(?s)disks in fp16 against fp32: pixels that differ.*click at \("):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out", precisions=[Precision.FP16])
    assert not list(tmp_path.iterdir())


def overflowing(path: Path, factor: float) -> Path:
    """A network whose residual stream in the backbone is large from the second block on; norms scale it back."""
    # A probability is fed back: a binary mask turns small changes near the threshold into whole pixels.
    network = random_network(tiny_config(clicks=ClickContract(previous=PreviousMask.PROBABILITY)), 1)
    with torch.no_grad():
        network.backbone.vit.blocks[1].mlp.fc2.weight.mul_(factor)
    save_checkpoint(path, network)
    return path


@pytest.mark.usefixtures("traced")
def test_what_overflows_float16_is_refused_and_bf16_is_not(tmp_path: Path) -> None:
    """ONNX Runtime alone would not notice: it leaves out the rounding between nodes that it computes in float32."""
    file = overflowing(tmp_path / "large.safetensors", 3e6)
    with pytest.raises(
        GateError, match=r"(?s)infinite or NaN at stage image, tensor f_mix_8, image astronaut.*FP32, Precision.BF16"
    ):
        export_bundle(Source(checkpoint=file), tmp_path / "fp16", precisions=[Precision.FP16])
    assert list(tmp_path.iterdir()) == [file]
    bundle = export_bundle(Source(checkpoint=file), tmp_path / "bf16", precisions=[Precision.BF16]).bundle
    assert bundle.manifest.precisions == (Precision.FP32, Precision.BF16)
    assert [peak.output > FP16_LARGEST for peak in bundle.manifest.activations] == [False, True, True, True]


def test_the_command_warns_of_large_activations(tmp_path: Path) -> None:
    file, out = overflowing(tmp_path / "large.safetensors", 2.2e5), tmp_path / "out"
    result = CliRunner().invoke(main, ["--ckpt", str(file), "--precision", "fp16, fp32", "--out", str(out)])
    assert result.exit_code == 0, result.output
    manifest = Bundle(out).manifest
    assert manifest.precisions == (Precision.FP32, Precision.FP16)
    assert FP16_ALARM < manifest.activations[1].output < FP16_LARGEST
    output = " ".join(result.output.split())
    for block in (2, 3, 4):
        assert f"near the end of float16's range, 65504: block {block}: " in output
    assert "block 1:" not in output
    assert f"{manifest.activations[1].output:.3g} in its output" in output
    assert "image.fp16.onnx" in output
    assert "click.fp16.onnx" in output
    assert "bf16 has float32's range" in output


@pytest.mark.parametrize("wrong", ["fp8", "fp32,half", "fp32;fp16", ""])
def test_unknown_precisions(tmp_path: Path, wrong: str) -> None:
    result = CliRunner().invoke(main, ["--ckpt", "demo", "--precision", wrong, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "is none of fp32, fp16, bf16" in result.output
    assert not list(tmp_path.iterdir())


def test_requested_precisions() -> None:
    assert reduced_precisions([Precision.BF16, Precision.FP16, Precision.BF16]) == (Precision.FP16, Precision.BF16)
    assert reduced_precisions([Precision.FP32]) == reduced_precisions([]) == ()
    assert "fp32,bf16" in other_precisions(Precision.FP16).command_fix
    assert "bf16" not in other_precisions(Precision.BF16).command_fix
    assert "BF16" in other_precisions(Precision.FP16).fix
    assert "BF16" not in other_precisions(Precision.BF16).fix

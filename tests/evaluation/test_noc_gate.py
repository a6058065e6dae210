"""The gate by clicks, and a checkpoint in PyTorch as a predictor."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from mmms_deploy.bundle import GateCheck, Precision
from mmms_deploy.bundle.contract import ClickContract, PreviousMask, to_builtins
from mmms_deploy.bundle.manifest import Manifest
from mmms_deploy.commands.export import main
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import CheckpointNotFoundError, Door, GateError, MMMSDeployWarning
from mmms_deploy.evaluation import Settings, evaluate, summarise_run
from mmms_deploy.evaluation import noc_gate as gate_module
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.evaluation.checkpoint_predictor import TorchPredictor, open_torch
from mmms_deploy.evaluation.comparison import Comparison, Difference
from mmms_deploy.evaluation.errors import EvaluationModalityError, EvaluationSettingsError
from mmms_deploy.evaluation.noc_gate import check_objects, gated_precisions, noc_gate, precision_gate
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.progress import Progress
from tests.support.invoke import invoke
from tests.support.scenes import Scenes, scene
from tests.support.tiny import DEPTH, tiny_config
from tests.support.toy import taken_as_it_is, write_toy
from tests.support.traced import traced_once

CONFIG = tiny_config(DEPTH, clicks=ClickContract(previous=PreviousMask.PROBABILITY))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, random_network(CONFIG, 0))
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory) -> Bundle:
    with traced_once(tmp_path_factory):
        return export_bundle(Source(checkpoint=checkpoint), tmp_path_factory.mktemp("out") / "tiny").bundle


def test_an_export_needs_as_many_clicks_as_its_checkpoint(bundle, checkpoint) -> None:
    network = open_source(Source(checkpoint=checkpoint)).network
    steps: list[Progress] = []
    checks = noc_gate(bundle, network, [Scenes(4, modalities=("depth",))], scenes=2, on_progress=steps.append)
    assert [check.samples for check in checks] == [4, 4]
    assert all(check.worst <= check.limit for check in checks)
    assert [check.name for check in checks] == ["clicks on ellipses against torch", "masks on ellipses against torch"]
    assert [step.task for step in steps] == ["gate: clicks on ellipses, beside PyTorch"]


def test_another_network_does_not_pass(bundle) -> None:
    with pytest.raises(GateError, match="ellipses against torch: largest"):
        noc_gate(bundle, random_network(CONFIG, 1), [Scenes(2, modalities=("depth",))])


def test_data_without_the_networks_modalities_are_refused(bundle, checkpoint) -> None:
    network = open_source(Source(checkpoint=checkpoint)).network
    with pytest.raises(EvaluationModalityError, match="needs depth"):
        noc_gate(bundle, network, [Scenes(2)])


def test_a_checkpoint_and_its_bundle_are_compared(bundle, checkpoint) -> None:
    contestant, specs = open_torch(str(checkpoint), {"without": None})
    assert [spec.name for spec in specs] == ["depth"]
    assert contestant.facts.name == "tiny in PyTorch"
    assert contestant.facts.identity == bundle.manifest.provenance.checkpoint_sha256
    source = BundleSource(bundle, EngineRequest(engine="onnxruntime"))
    data = Scenes(2, modalities=("depth",))
    evaluation = evaluate(data, source.open, Settings(max_clicks=4), against=contestant)
    source.close()
    comparison = summarise_run(evaluation.facts, evaluation)[0].comparison
    assert comparison is not None
    assert min(comparison.worst_agreement) > 0.99
    with pytest.raises(CheckpointNotFoundError):
        open_torch("nowhere.pth")


def test_a_checkpoint_is_opened_as_its_bundle_describes_it(bundle, checkpoint) -> None:
    """An export may change the description: ``mmms-export --size``."""

    def size(manifest: Manifest) -> tuple[int, int]:
        predictor = open_torch(str(checkpoint), beside=manifest)[0].open()
        assert isinstance(predictor, TorchPredictor)
        predictor.set_image(np.zeros((40, 60, 3), np.uint8), depth=np.zeros((40, 60), np.float32))
        height, width = predictor.click(30, 20, True).network_probability.shape[-2:]
        return height, width

    manifest = bundle.manifest
    smaller = to_builtins(msgspec.structs.replace(CONFIG, size=(64, 64)))
    made = msgspec.structs.replace(manifest.provenance, description=smaller)
    assert size(msgspec.structs.replace(manifest, provenance=made)) == (64, 64)
    of_another = msgspec.structs.replace(made, checkpoint_sha256="0" * 64)
    assert size(msgspec.structs.replace(manifest, provenance=of_another)) == CONFIG.size


def test_a_reset_keeps_the_image_and_forgets_the_clicks(checkpoint) -> None:
    predictor = TorchPredictor(open_source(Source(checkpoint=checkpoint)).network)
    data = scene(0, modalities=("depth",))
    predictor.set_image(data.image, **data.modalities)
    first = predictor.click(30, 20, True)
    predictor.click(5, 5, False)
    predictor.reset()
    np.testing.assert_array_equal(predictor.click(30, 20, True).probability, first.probability)


# --- reduced precisions -----------------------------------------------------------------------------------------------

HALF = (Precision.FP32, Precision.FP16)


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> Bundle:
    """The same graphs in both precisions."""
    return write_toy(tmp_path_factory.mktemp("toys") / "half", radius=9, precisions=HALF)


@pytest.fixture(scope="module")
def worse(tmp_path_factory) -> Bundle:
    """A network that draws smaller disks in FP16."""
    folder = tmp_path_factory.mktemp("toys")
    bundle = write_toy(folder / "worse", radius=9, precisions=HALF)
    smaller = write_toy(folder / "smaller", radius=6)
    graph = smaller.path / "click.fp32.onnx"
    (bundle.path / "click.fp16.onnx").write_bytes(graph.read_bytes())
    return taken_as_it_is(bundle)


def test_a_reduced_precision_is_compared_with_float32_on_its_engine(half) -> None:
    steps: list[Progress] = []
    data = [Scenes(3, name="some"), Scenes(9, name="others")]
    clicks, masks = precision_gate(half, data, scenes=3, least=12, on_progress=steps.append)
    assert clicks.name == "clicks in fp16 against fp32 on onnxruntime"
    assert masks.name == "masks in fp16 against fp32 on onnxruntime"
    assert (clicks.samples, clicks.worst, masks.samples, masks.worst) == (12, 0, 12, 0)
    assert (clicks.limit, masks.limit) == (0.1, 0.01)
    assert [step.task for step in steps] == ["gate: clicks in fp16 on some", "gate: clicks in fp16 on others"]
    assert data[1].read[-3:] == [0, 3, 6], "images are spread evenly"


def test_a_precision_that_needs_more_clicks_does_not_pass(worse) -> None:
    with pytest.raises(
        GateError, match=r"clicks in fp16 against fp32 on onnxruntime.*NoC@\d\d: .*would have been seen"
    ) as caught:
        precision_gate(worse, [Scenes(3)], least=6, agreement_limits={"fp16": 1.0})
    assert "--against-precision fp32" in caught.value.message(Door.COMMAND_LINE)
    assert "--" not in caught.value.message(Door.PYTHON)
    precision_gate(worse, [Scenes(3)], least=6, noc_limit=20, agreement_limits={"fp16": 1.0})


def test_a_precision_whose_masks_differ_does_not_pass(worse) -> None:
    with pytest.raises(GateError, match="masks in fp16 against fp32 on onnxruntime: 1 - mean IoU"):
        precision_gate(worse, [Scenes(3)], least=6, noc_limit=20)


def reduced_checks(difference: Difference) -> list[GateCheck]:
    comparison = Comparison(
        differences=(difference,),
        agreement=(0.999, 0.993),
        worst_agreement=(0.9, 0.8),
        identical=0,
        objects=200,
        most=(),
        other_click_seconds=0.01,
        mean_agreement=0.996,
    )
    return gate_module._reduced_checks(comparison, "int8 against fp32 on openvino", 0.1, 0.005)


def test_a_difference_that_may_be_chance_passes() -> None:
    """Its interval contains 0, however large it is; outside of the limit one that does not is refused."""
    base = {"target": 0.9, "noc": 5.5, "other": 5.0, "difference": 0.5, "better": 1, "worse": 2, "visible": 0.9}
    chance, seen = (Difference(**base, low=low, high=1.2) for low in (-0.2, 0.1))
    assert [check.worst for check in reduced_checks(chance)] == [0.0, pytest.approx(0.004)]
    assert (
        reduced_checks(chance)[0].where
        == "NoC@90: 5.500 against 5.000, +0.500 (-0.200 to +1.200); 0.900 would have been seen"
    )
    assert reduced_checks(seen)[0].worst == 0.5


def test_too_few_objects_are_refused_before_anything_runs(half) -> None:
    data = Scenes(40)
    with pytest.raises(GateError) as caught:
        precision_gate(half, [data], scenes=20)
    assert "40 objects in 20 images" in str(caught.value)
    assert "200 objects or more" in str(caught.value.expected)
    assert "--gate-images" in caught.value.message(Door.COMMAND_LINE)
    assert "--" not in caught.value.message(Door.PYTHON)
    assert len(data.read) == 20


def test_images_are_read_until_there_are_enough_objects() -> None:
    data = Scenes(1000)
    check_objects([data], None)
    assert len(data.read) == 100
    with pytest.raises(EvaluationSettingsError, match="named"):
        check_objects([data, data], None)


def test_a_bundle_in_float32_alone_needs_no_objects(tmp_path) -> None:
    assert precision_gate(write_toy(tmp_path / "plain"), [Scenes(1)]) == []
    assert gated_precisions((Precision.FP32,)) == []
    assert gated_precisions((Precision.FP16, Precision.FP32)) == [Precision.FP16]


def test_graphs_that_no_engine_executes_here_are_said_to_be_left_out(tmp_path) -> None:
    """OpenVINO's BF16 comes from the float32 graphs, and tells nothing of a bundle's graphs in BF16."""
    brain = write_toy(tmp_path / "brain", precisions=(Precision.FP32, Precision.BF16))
    assert gated_precisions(brain.manifest.precisions) == []
    with pytest.warns(MMMSDeployWarning, match="executes the bf16 graphs on this machine's CPU"):
        assert precision_gate(brain, [Scenes(2)]) == []


# --- mmms-export --gate noc -------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path) -> str:
    for name in ("images", "masks", "depth"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(2):
        one = scene(index, surfaces=1)
        Image.fromarray(one.image).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray(one.surfaces[0].mask).save(tmp_path / "data" / "masks" / f"{index}.png")
        np.save(tmp_path / "data" / "depth" / f"{index}.npy", np.ones(one.image.shape[:2], np.float32))
    return f"folder={tmp_path / 'data'}:name=some"


@pytest.mark.usefixtures("traced")
def test_the_command_keeps_what_the_gates_measured(checkpoint, data, tmp_path, monkeypatch) -> None:
    def reduced(bundle, datasets, *, scenes, on_progress):
        assert ([dataset.name for dataset in datasets], scenes) == (["some"], 1)
        return [GateCheck(name="clicks in int8", measure="clicks", worst=0, limit=0.1, where="here", samples=200)]

    monkeypatch.setattr(gate_module, "precision_gate", reduced)
    out = tmp_path / "gated"
    result = invoke(main, "--ckpt", checkpoint, "--out", out, "--gate", "noc", "--gate-data", data, "--gate-images", 1)
    assert result.exit_code == 0, result.output
    *_, clicks, masks, other = Bundle(out).manifest.gate
    assert (clicks.name, masks.name) == ("clicks on some against torch", "masks on some against torch")
    assert other.name == "clicks in int8"
    assert clicks.samples == 1


def test_too_few_objects_for_a_reduced_precision_are_an_error_before_the_export(checkpoint, data, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ["--precision", "fp32,fp16", "--gate", "noc", "--gate-data", data, "--out", out]
    result = invoke(main, "--ckpt", checkpoint, *arguments)
    assert result.exit_code == 1
    assert "2 objects in 2 images" in result.stderr
    assert "raise --gate-images" in result.stderr
    assert not out.exists()


@pytest.mark.usefixtures("traced")
def test_an_export_that_a_gate_refuses_leaves_nothing(checkpoint, tmp_path) -> None:
    def refuse(bundle, network):
        assert Bundle(bundle.path).manifest.name == "refused"
        raise GateError("no")

    with pytest.raises(GateError):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "refused", gates=[refuse])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate", "noc"], "go together"),
        (["--gate-data", "folder=x"], "go together"),
        (["--gate", "noc", "--gate-data", "folder=x", "--cut", "black-box"], "takes images"),
    ],
)
def test_the_gate_by_clicks_needs_data_and_images(checkpoint, arguments, message) -> None:
    result = invoke(main, "--ckpt", checkpoint, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_data_that_cannot_be_opened_are_an_error_before_the_export(checkpoint, tmp_path) -> None:
    arguments = ["--gate", "noc", "--gate-data", f"folder={tmp_path / 'nowhere'}", "--out", tmp_path / "out"]
    result = invoke(main, "--ckpt", checkpoint, *arguments)
    assert result.exit_code == 1
    assert "nothing at this path" in result.stderr
    assert not (tmp_path / "out").exists()

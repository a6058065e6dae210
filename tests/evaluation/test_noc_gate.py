"""The gate by clicks, and a checkpoint in PyTorch as a predictor."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from mmms_deploy.bundle.contract import ClickContract, PreviousMask, to_builtins
from mmms_deploy.bundle.manifest import Manifest
from mmms_deploy.commands.export import main
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import CheckpointNotFoundError, GateError
from mmms_deploy.evaluation import Settings, evaluate, summarise_run
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.evaluation.checkpoint_predictor import TorchPredictor, open_torch
from mmms_deploy.evaluation.errors import EvaluationModalityError
from mmms_deploy.evaluation.noc_gate import noc_gate
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.progress import Progress
from tests.support.invoke import invoke
from tests.support.scenes import Scenes, scene
from tests.support.tiny import DEPTH, tiny_config
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
def test_the_command_keeps_what_the_gate_measured(checkpoint, data, tmp_path) -> None:
    out = tmp_path / "gated"
    result = invoke(main, "--ckpt", checkpoint, "--out", out, "--gate", "noc", "--gate-data", data, "--gate-images", 1)
    assert result.exit_code == 0, result.output
    *_, clicks, masks = Bundle(out).manifest.gate
    assert (clicks.name, masks.name) == ("clicks on some against torch", "masks on some against torch")
    assert clicks.samples == 1


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

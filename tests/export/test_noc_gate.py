"""The gate by clicks, and a checkpoint in PyTorch as what is evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle
from mmms_deploy.contract import ClickContract, PreviousMask
from mmms_deploy.errors import CheckpointNotFoundError, EvaluationModalityError, GateError
from mmms_deploy.evaluation import Settings, evaluate, summarise_run
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.noc_gate import noc_gate
from mmms_deploy.export.predictor import TorchPredictor, open_torch
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from tests.evaluation.scenes import Scenes, scene
from tests.tiny import DEPTH, tiny_config

CONFIG = tiny_config(DEPTH, clicks=ClickContract(previous=PreviousMask.PROBABILITY))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, random_network(CONFIG, 0))
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory) -> Bundle:
    return export_bundle(Source(checkpoint=checkpoint), tmp_path_factory.mktemp("out") / "tiny").bundle


def test_an_export_needs_as_many_clicks_as_its_checkpoint(bundle, checkpoint) -> None:
    network = open_source(Source(checkpoint=checkpoint)).network
    steps: list[str] = []
    checks = noc_gate(bundle, network, [Scenes(4, modalities=("depth",))], scenes=2, on_step=steps.append)
    assert [check.samples for check in checks] == [4, 4]
    assert all(check.worst <= check.limit for check in checks)
    assert [check.name for check in checks] == ["clicks on ellipses against torch", "masks on ellipses against torch"]
    assert steps == ["gate: clicks on ellipses, beside PyTorch"]


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
    source = BundleSource(bundle, {"engine": "onnxruntime"})
    data = Scenes(2, modalities=("depth",))
    evaluation = evaluate(data, source.open, Settings(max_clicks=4), against=contestant)
    source.close()
    comparison = summarise_run(evaluation.facts, evaluation)[0].comparison
    assert comparison is not None
    assert min(comparison.worst_agreement) > 0.99
    with pytest.raises(CheckpointNotFoundError):
        open_torch("nowhere.pth")


def test_a_reset_keeps_the_image_and_forgets_the_clicks(checkpoint) -> None:
    predictor = TorchPredictor(open_source(Source(checkpoint=checkpoint)).network)
    data = scene(0, modalities=("depth",))
    predictor.set_image(data.image, **data.modalities)
    first = predictor.click(30, 20, True)
    predictor.click(5, 5, False)
    predictor.reset()
    np.testing.assert_array_equal(predictor.click(30, 20, True).probability, first.probability)

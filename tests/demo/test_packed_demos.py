"""The bundles that ship with the package are those of the checkpoints that ship with it, and answer as they do.

Here the small one; the other one needs the weights of its backbone (``test_demo_weights.py``).
"""

from __future__ import annotations

from contextlib import closing

import msgspec
import numpy as np
import pytest

import mmms_deploy
from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import sha256_of
from mmms_deploy.bundle.packed import CHECKPOINTS, NAMES, checkpoint_tensors, packed_checkpoint
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_engine
from mmms_deploy.replay.verification import verify
from tests.support.paths import ROOT
from tools.pack_demo import bundles_in, packed_weights

DEMO = ROOT / "mmms_deploy" / "demo"


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle("demo-small")


def test_it_is_the_bundle_of_the_checkpoint(demo: Bundle) -> None:
    """Otherwise: make demo-small-bundle."""
    manifest = demo.manifest
    assert manifest.name == "demo-small"
    assert manifest.trained
    assert manifest.provenance.checkpoint == "demo-small.safetensors"
    assert manifest.provenance.checkpoint_sha256 == sha256_of(packed_checkpoint("demo-small"))
    assert manifest.size == (224, 224)
    assert manifest.modalities == ()
    assert {str(precision) for stage in manifest.stages for precision in stage.graphs} == {"fp32"}


@pytest.mark.parametrize("name", NAMES)
def test_the_packed_checkpoint_is_the_one_of_the_bundle(name: str) -> None:
    """Also of ``demo``, whose bundle cannot be made without the weights of its backbone."""
    manifest = msgspec.json.decode(bundles_in(DEMO / "bundles.tar.xz")[name]["bundle.json"])
    file = packed_checkpoint(name)
    assert file.name == manifest["provenance"]["checkpoint"]
    assert sha256_of(file) == manifest["provenance"]["checkpoint_sha256"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_packed_again_gives_the_same_archive(name: str) -> None:
    before = {one: checkpoint_tensors(one) for one in CHECKPOINTS[: CHECKPOINTS.index(name)]}
    members, sums = packed_weights(packed_checkpoint(name), before)
    assert sums == (DEMO / f"{name}-checkpoint.sha256").read_bytes()
    assert {name: members} == bundles_in(DEMO / f"{name}-checkpoint.tar.xz")


def test_no_checkpoint_ships_a_second_time() -> None:
    assert not list(DEMO.glob("*.safetensors"))


def test_the_archive_holds_no_weights() -> None:
    assert (DEMO / "bundles.tar.xz").stat().st_size < 3e6


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_it_replays_the_clicks_of_the_checkpoint(demo: Bundle, engine: str) -> None:
    report = verify("demo-small", EngineRequest(engine=engine, precision="fp32"))
    assert report.worst.iou > 0.999


def test_one_line_opens_it() -> None:
    with Session("demo-small", engine="onnxruntime") as session:
        session.set_image(np.full((60, 80, 3), 128, np.uint8))
        assert session.click(40, 30).mask.shape == (60, 80)
    with closing(open_engine("demo-small", engine="onnxruntime")) as engine:
        assert engine.info.name == "onnxruntime"
    assert mmms_deploy.Bundle("demo-small").path == Bundle("demo-small").path

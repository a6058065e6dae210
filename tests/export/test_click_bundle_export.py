"""A click bundle of a real export with modalities: no weight of backbone and fuser, the same answers to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.source import Source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.replay import write_click_bundle
from tests.support.click_bundles import answers, contents, found_in, kept_for_clicks, weights_before_clicks
from tests.support.exporting import skip_without_export
from tests.support.tiny import tiny_config

pytestmark = pytest.mark.slow
skip_without_export()

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
THERMAL = np.random.default_rng(1).random((90, 120), dtype=np.float32)
THERMALS = (ModalitySpec(name="thermal", optional=True),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three stages: the backbone, the fuser, the clicks."""
    folder = tmp_path_factory.mktemp("export")
    save_checkpoint(folder / "tiny.safetensors", random_network(tiny_config(modalities=THERMALS), 3))
    return export_bundle(Source(checkpoint=folder / "tiny.safetensors"), folder / "whole").bundle


@pytest.fixture(scope="module")
def clicks(whole: Bundle) -> Bundle:
    return write_click_bundle(whole, whole.path.parent / "clicks")


def test_no_weight_of_backbone_and_fuser_is_in_it(whole: Bundle, clicks: Bundle) -> None:
    weights = weights_before_clicks(whole)
    assert {name.partition(":")[0] for name in weights} == {"image.fp32.onnx", "modality.fp32.onnx"}
    assert found_in(weights, list(contents(whole.path))) == list(weights)
    shared = found_in(weights, list(contents(clicks.path)))
    assert [name for name in shared if not name.endswith((".rows", ".columns"))] == []
    assert "thermal" not in (clicks.path / "bundle.json").read_text()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("given", [{"thermal": THERMAL}, {}], ids=["with thermal", "without"])
def test_the_answers_are_those_of_the_whole_bundle(
    whole: Bundle, clicks: Bundle, tmp_path: Path, engine: str, given: dict[str, np.ndarray]
) -> None:
    with Session(whole, engine=engine) as session:
        session.set_image(IMAGE, **given)
        features = kept_for_clicks(session, tmp_path / "image.features")
        values = session._state.image.pipeline.values
        seen = {"thermal": THERMAL} | ({"at its size": session._runner.download(values["thermal"])} if given else {})
        expected = answers(session)
    tensors = load_file(tmp_path / "image.features")
    assert not {array.size for array in tensors.values()} & {array.size for array in seen.values()}
    assert found_in(seen, [(tmp_path / "image.features").read_bytes()]) == []
    with Session(clicks, engine=engine) as session:
        session.use(features)
        assert answers(session) == expected

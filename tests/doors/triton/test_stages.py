"""The forms without code: graphs with Triton's implicit state, as the written configurations say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import Modulation, PreviousMask
from mmms_deploy.doors.triton.repository import write_repository
from mmms_deploy.doors.triton.settings import Form, RepositorySettings
from mmms_deploy.errors import DoorError
from tests.support.norms import SHAPE, norms_graph
from tests.support.paths import ROOT
from tests.support.toy import write_toy
from tests.support.triton import StageClient, read_pbtxt

ONNX = RepositorySettings(form=Form.ONNX)
PHOTO = np.asarray(Image.open(ROOT / "docs" / "images" / "photo.jpg").convert("RGB"))
CLICKS = [(220.0, 130.0, 1), (420.0, 440.0, 0), (300.5, 300.25, 1)]


@pytest.mark.parametrize("kind", ["demo-small", "paint", "labels"])
def test_the_state_that_triton_keeps_gives_a_sessions_masks(kind: str, tmp_path: Path) -> None:
    toys = {"paint": lambda: write_toy(tmp_path / "toy"), "labels": lambda: write_toy(tmp_path / "toy", labels=True)}
    bundle = toys[kind]() if kind in toys else Bundle(kind)
    names = write_repository(tmp_path / "models", bundle, ONNX)
    client = StageClient(tmp_path / "models")
    assert names == tuple(client.models) == tuple(f"{bundle.manifest.name}_{stage}" for stage in ("image", "click"))
    other = PHOTO[::2, ::3].copy()
    features = {1: client.features(PHOTO), 2: client.features(other)}
    with (
        Session(bundle, engine="onnxruntime", precision="fp32") as one,
        Session(bundle, engine="onnxruntime", precision="fp32") as two,
    ):
        one.set_image(PHOTO)
        two.set_image(other)
        for number, (x, y, positive) in enumerate(CLICKS):
            for sequence, session, scale in ((1, one, (1, 1)), (2, two, (3, 2))):
                point = (x / scale[0], y / scale[1], positive)
                mask = client.click(features[sequence], session.image_size, point, sequence=sequence, start=number == 0)
                expected = session.click(point[0], point[1], bool(positive)).mask
                assert mask.any()
                assert (mask == expected).all(), f"click {number} of sequence {sequence}"
        again = client.click(features[1], one.image_size, CLICKS[0], start=True)
        one.reset()
        assert (again == one.click(*CLICKS[0][:2]).mask).all(), "START forgets"


def test_a_repository_for_tensorrt(tmp_path: Path, paint: Bundle) -> None:
    names = write_repository(tmp_path / "models", paint, RepositorySettings(form=Form.TENSORRT, name="net"))
    assert names == ("net_image", "net_click")
    config = read_pbtxt((tmp_path / "models" / "net_click" / "config.pbtxt").read_text())
    assert (config["backend"], config["default_model_filename"]) == ("tensorrt", "model.plan")
    assert config["instance_group"] == [{"kind": "KIND_GPU", "count": 1}]
    script = tmp_path / "models" / "compile.sh"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line.startswith("trtexec")]
    assert [line.split('"')[1] for line in lines] == [f"$here/{name}/1/model.onnx" for name in names]
    for name in names:
        assert (tmp_path / "models" / name / "1" / "model.onnx").is_file()


def test_half_graphs_for_tensorrt_have_wide_norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``trtexec`` compiles them as they are, and TensorRT computes a norm in the type of its inputs."""
    import onnx
    import onnxruntime

    bundle = write_toy(tmp_path / "toy", precisions=(Precision.FP32, Precision.FP16))
    norms_graph("float16").save(bundle.path / "click.fp16.onnx", "click")
    bundle = _resealed(bundle)
    half = RepositorySettings(form=Form.TENSORRT, precision=Precision.FP16, name="net")
    write_repository(tmp_path / "models", bundle, half)
    written = tmp_path / "models" / "net_click" / "1" / "model.onnx"
    before, after = onnx.load(bundle.file("click.fp16.onnx")), onnx.load(written)
    onnx.checker.check_model(after, full_check=True)
    typed = onnx.shape_inference.infer_shapes(after, check_type=True, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    norms = [node for node in typed.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 3
    for norm in norms:
        assert {kinds[name] for name in (*norm.input, *norm.output)} == {onnx.TensorProto.FLOAT}
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float16)
    answers = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for model in (before, after)
    ]
    for wanted, found in zip(*answers, strict=True):
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3)
    write_repository(tmp_path / "plain", bundle, RepositorySettings(form=Form.ONNX, precision=Precision.FP16))
    assert onnx.load(tmp_path / "plain" / "toy_click" / "1" / "model.onnx") == before
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DoorError, match="needs onnx") as caught:
        write_repository(tmp_path / "none", bundle, half)
    assert "pip install onnx" in str(caught.value)
    assert not (tmp_path / "none").exists()
    write_repository(tmp_path / "single", bundle, RepositorySettings(form=Form.TENSORRT))


def test_weights_beside_a_graph_come_with_it(tmp_path: Path) -> None:
    import onnx

    bundle = write_toy(tmp_path / "toy")
    graph = bundle.path / "click.fp32.onnx"
    model = onnx.load(graph)
    onnx.save(model, tmp_path / "click.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    (tmp_path / "click.onnx").replace(graph)
    (tmp_path / "weights.data").replace(bundle.path / "weights.data")
    bundle = _resealed(bundle)
    write_repository(tmp_path / "models", bundle, ONNX)
    assert (tmp_path / "models" / "toy_click" / "1" / "weights.data").is_file()
    client = StageClient(tmp_path / "models")
    assert client.click(client.features(PHOTO), PHOTO.shape[:2], CLICKS[0], start=True).any()


def _resealed(bundle: Bundle) -> Bundle:
    """The bundle, with the files that lie in its folder now."""
    from mmms_deploy.bundle import BundleWriter

    with BundleWriter(bundle.path.with_name("sealed") / "toy") as writer:
        for file in bundle.path.iterdir():
            if file.name not in ("bundle.json", "README.md"):
                writer.path(file.name).write_bytes(file.read_bytes())
        return writer.commit(bundle.manifest)


def changed(bundle: Bundle, **clicks: object) -> Bundle:
    """The bundle with another click contract."""
    copy = Bundle(bundle.path)
    contract = msgspec.structs.replace(bundle.manifest.clicks, **clicks)
    copy.manifest = msgspec.structs.replace(bundle.manifest, clicks=contract)
    return copy


def test_networks_that_need_more_between_two_clicks_are_refused(
    tmp_path: Path, paint: Bundle, proposing: Bundle
) -> None:
    rule = paint.manifest.clicks
    cases = {
        "takes all clicks as a list": proposing,
        "answers a first click twice": changed(paint, first_pass=True),
        "resizes its answer": changed(paint, previous_resize=rule.mask_resize),
        "changes its previous mask": changed(
            paint,
            modulation=Modulation(),
            previous=PreviousMask.PROBABILITY,
            channels=(*rule.channels, "modulated"),
        ),
    }
    for why, bundle in cases.items():
        with pytest.raises(DoorError, match=why) as caught:
            write_repository(tmp_path / "models", bundle, ONNX)
        assert "form 'python'" in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_a_precision_that_is_not_there(tmp_path: Path, paint: Bundle) -> None:
    with pytest.raises(DoorError, match="no graph of stage image in fp16"):
        write_repository(tmp_path / "models", paint, RepositorySettings(form=Form.ONNX, precision=Precision.FP16))
    assert list(tmp_path.iterdir()) == []

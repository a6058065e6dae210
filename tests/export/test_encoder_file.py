"""An encoder in an ONNX file as the backbone: what is checked, and that the bundle answers as the network does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from mmms_deploy import LATER, Session
from mmms_deploy.bundle import Precision, sha256_of
from mmms_deploy.commands.export import main
from mmms_deploy.errors import DescriptionError, ExportError
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.encoder_file import EncoderFile
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.network import BACKBONE
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import BackboneConfig
from mmms_deploy.models.backbones import build_backbone
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.models.config import EncoderOutput, OnnxEncoder
from mmms_deploy.models.description import parse_description
from mmms_deploy.models.onnx_backbone import OnnxBackbone
from tests.support.encoders import CHANNELS, write_encoder
from tests.support.tiny import DEPTH, tiny_config

SIZE = (64, 96)
PRECISIONS = (Precision.FP32, Precision.BF16)
"""bfloat16's graphs have an opset of their own; the encoder in them stays float32."""
OUTPUTS = tuple(
    EncoderOutput(name=name, stride=stride, channels=CHANNELS[stride])
    for name, stride in (("coarse", 16), ("fine", 4), ("middle", 8))
)


def described(size: tuple[int, int] = SIZE, outputs: tuple[EncoderOutput, ...] = OUTPUTS) -> BackboneConfig:
    return BackboneConfig(name="onnx", onnx=OnnxEncoder(size=size, outputs=outputs))


def checkpoint(folder: Path, config: BackboneConfig, *modalities) -> Path:
    save_checkpoint(folder / "net.safetensors", random_network(tiny_config(*modalities, backbone=config), 0))
    return folder / "net.safetensors"


def backbone(config: BackboneConfig) -> OnnxBackbone:
    made = build_backbone(config, SIZE)
    assert isinstance(made, OnnxBackbone)
    return made


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder.onnx")


def test_its_maps_come_finest_first(encoder) -> None:
    made, rgb = backbone(described()), torch.randn(1, 3, *SIZE)
    made.run = EncoderFile(encoder, made)
    assert made.strides == (4, 8, 16)
    session = onnxruntime.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])
    wanted = session.run(["fine", "middle", "coarse"], {"image": rgb.numpy()})
    for ours, theirs, shape in zip(made(rgb), wanted, made.map_shapes(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
        assert ours.shape == (1, *shape)


def test_a_bundle_with_it(encoder, tmp_path) -> None:
    """It takes images, passes the gate, and fuses a later modality without the encoder."""
    source = Source(checkpoint=checkpoint(tmp_path, described(), DEPTH), backbone_onnx=encoder)
    bundle = export_bundle(source, tmp_path / "bundle", cuts=[Cut.LATE], precisions=PRECISIONS).bundle
    assert bundle.manifest.precisions == PRECISIONS
    assert [stage.name for stage in bundle.manifest.stages] == ["image", "modality", "click"]
    assert bundle.manifest.provenance.backbone_checkpoint == "encoder.onnx"
    assert bundle.manifest.activations == ()
    graph = onnx.load(bundle.path / "image.fp32.onnx").graph
    assert [value.name for value in graph.input] == ["rgb"]
    names = {name for node in graph.node for name in (node.name, *node.output)}
    assert "encoder.middle" in names
    assert not {"encoder.other", "encoder.resize"} & names
    sample = sample_images((DEPTH,))[0]
    with Session(bundle) as session:
        session.set_image(sample.image, depth=LATER)
        session.set_modalities(**sample.modalities)
        session.click(100, 100)
        assert session.runs == {"image": 1, "modality": 1, "click": 1}


def test_the_command_takes_one_of_another_size_with_its_weights_beside_it(tmp_path) -> None:
    """Everything is in the bundle afterwards; a batch of unknown size does not matter."""
    file = write_encoder(tmp_path / "encoder.onnx", size=(128, 64), external=True, dynamic=True)
    path = checkpoint(tmp_path, described((128, 64)))
    options = ["--ckpt", str(path), "--backbone-onnx", str(file), "--out", str(tmp_path / "bundle")]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert "converter" not in result.output
    file.unlink()
    file.with_suffix(".onnx.data").unlink()
    graph = onnx.load(tmp_path / "bundle" / "image.fp32.onnx").graph
    assert "encoder.resize" in {node.name for node in graph.node}
    with Session(tmp_path / "bundle") as session:
        session.set_image(np.zeros((50, 70, 3), np.uint8))
        session.click(3, 4)


def test_the_image_is_resized_as_torch_does(tmp_path) -> None:
    made, rgb = backbone(described((128, 64))), torch.randn(1, 3, *SIZE)
    made.run = EncoderFile(write_encoder(tmp_path / "encoder.onnx", size=(128, 64)), made)
    wanted = made.run(F.interpolate(rgb, size=(128, 64), mode="bilinear", align_corners=False))
    for ours, theirs in zip(made(rgb), wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_the_manifest_knows_its_hash(encoder, tmp_path) -> None:
    source = Source(checkpoint=checkpoint(tmp_path, described()), backbone_onnx=encoder)
    assert open_source(source).hashes["backbone"] == sha256_of(encoder)


def test_a_provider_may_run_it(tmp_path) -> None:
    """The cut black-box needs no file; a session takes the encoder's maps as they are."""
    source = Source(checkpoint=checkpoint(tmp_path, described()))
    with pytest.raises(DescriptionError, match="backbone is an ONNX file, and none was given"):
        open_source(source)
    bundle = export_bundle(source, tmp_path / "bundle", cuts=[Cut.BLACK_BOX]).bundle
    inputs = {spec.name: spec.shape for spec in bundle.manifest.stages[0].graphs[Precision.FP32].inputs}
    assert inputs == {"backbone_1": (1, 6, 16, 24), "backbone_2": (1, 8, 8, 12), "backbone_3": (1, 12, 4, 6)}
    with Session(bundle) as session:
        given = {name: np.ones(shape, np.float32) for name, shape in inputs.items()}
        assert set(given) == set(BACKBONE[:3])
        session.set_features(given, (200, 300))
        assert session.click(10, 10).mask.shape == (200, 300)


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "config", "message"),
        [
            ({"size": (64, 64)}, described(), r"its input image is tensor\(float\) \[1, 3, 64, 64\]"),
            ({"output_type": onnx.TensorProto.FLOAT16}, described(), r"its output coarse is float16 \[1, 12, 4, 6\]"),
            ({}, described(outputs=(EncoderOutput(name="fin", stride=4, channels=6),)), "it has no output fin"),
            (
                {},
                described(outputs=(EncoderOutput(name="fine", stride=8, channels=6),)),
                r"its output fine is float32 \[1, 6, 16, 24\]\n.*float32 \[1, 6, 8, 12\]",
            ),
        ],
        ids=["size", "type", "name", "stride"],
    )
    def test_a_file_that_is_not_as_described(self, settings, config, message, tmp_path) -> None:
        file = write_encoder(tmp_path / "encoder.onnx", **settings)
        with pytest.raises(ExportError, match=message):
            EncoderFile(file, backbone(config))

    def test_a_file_that_is_none(self, tmp_path) -> None:
        with pytest.raises(ExportError, match="cannot be read"):
            EncoderFile(tmp_path / "no.onnx", backbone(described()))
        (tmp_path / "text.onnx").write_text("no graph")
        with pytest.raises(ExportError, match=r"text\.onnx"):
            EncoderFile(tmp_path / "text.onnx", backbone(described()))

    def test_weights_that_are_missing(self, tmp_path) -> None:
        file = write_encoder(tmp_path / "encoder.onnx", external=True)
        (tmp_path / "encoder.onnx.data").unlink()
        with pytest.raises(ExportError, match="files beside it"):
            EncoderFile(file, backbone(described()))

    def test_for_another_backbone(self, encoder, tmp_path) -> None:
        save_checkpoint(tmp_path / "net.safetensors", random_network(tiny_config(), 0))
        with pytest.raises(DescriptionError, match="for the backbone timm:vit_tiny_patch16_224"):
            open_source(Source(checkpoint=tmp_path / "net.safetensors", backbone_onnx=encoder))

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            ({"name": "onnx"}, "without its description"),
            ({"name": "onnx", "maps": "neck", "onnx": {"size": [64, 96], "outputs": []}}, "different strides"),
            (
                {"name": "dinov2_b14_reg", "onnx": {"size": [64, 96], "outputs": [{"name": "a", "stride": 4}]}},
                "channels",
            ),
        ],
    )
    def test_descriptions(self, raw, message) -> None:
        with pytest.raises(DescriptionError, match=re.escape(message)):
            build_backbone(parse_description({"backbone": raw}, "here").backbone, SIZE)

    def test_onnx_of_another_name(self) -> None:
        with pytest.raises(DescriptionError, match="with the name 'onnx' only"):
            build_backbone(BackboneConfig(onnx=OnnxEncoder(size=SIZE, outputs=OUTPUTS)), SIZE)

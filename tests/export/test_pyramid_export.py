"""A pyramid backbone from checkpoint to masks: every cut, every precision, every engine of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Precision
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.network import BACKBONE
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.samples import Sample, sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from tests.support.tiny import DEPTH, HIERA, tiny_config

ENGINES = ("onnxruntime", "openvino")
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16)
CUTS = {"default": (), "late and black_box": (Cut.LATE, Cut.BLACK_BOX)}
SHAPES = ((1, 8, 16, 24), (1, 16, 8, 12), (1, 32, 4, 6), (1, 64, 2, 3))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, random_network(tiny_config(DEPTH, backbone=HIERA), 0))
    return Source(checkpoint=path)


@pytest.fixture(scope="module")
def exported(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    folder, bundles = tmp_path_factory.mktemp("pyramid"), dict[str, Bundle]()

    def export(name: str) -> Bundle:
        if name not in bundles:
            precisions = PRECISIONS if name == "default" else (Precision.FP32,)
            bundles[name] = export_bundle(source, folder / name, cuts=CUTS[name], precisions=precisions).bundle
        return bundles[name]

    return export


@pytest.fixture(scope="module")
def sample() -> Sample:
    return sample_images((DEPTH,))[0]


def test_the_bundle_in_every_precision(exported) -> None:
    manifest = exported("default").manifest
    assert manifest.precisions == PRECISIONS
    assert "fold_positions" in manifest.provenance.rewrites
    assert "fold_normalisation" not in manifest.provenance.rewrites  # its patch embedding is padded
    assert manifest.image.mean == tiny_config().image.mean
    assert [peak.block for peak in manifest.activations] == [1, 2, 3, 4, 5, 6]
    assert manifest.provenance.description["adapter"] == {"kind": "top_down", "width": 128}


def test_positions_are_a_constant(exported) -> None:
    """An engine need not know the bicubic interpolation of its table."""
    graph = onnx.load(exported("default").path / "image.fp32.onnx").graph
    modes = {
        a.s.decode() for node in graph.node if node.op_type == "Resize" for a in node.attribute if a.name == "mode"
    }
    assert modes == {"linear"}
    assert any(list(weight.dims) == [1, 16, 24, 8] for weight in graph.initializer)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_provider_gives_the_maps_of_all_strides(engine, exported, source, sample) -> None:
    """The same masks, with the modality later and the backbone elsewhere."""
    reference = TorchReference(open_source(source).network)
    reference.set_image(sample.image, sample.modalities)
    provided = {name: x.numpy() for name, x in zip(BACKBONE, reference.backbone_maps, strict=True)}
    assert tuple(x.shape for x in provided.values()) == SHAPES
    apart = exported("late and black_box")
    assert [stage.name for stage in apart.manifest.stages] == ["image", "modality", "click"]
    with (
        Session(exported("default"), engine=engine, precision="fp32") as whole,
        Session(apart, engine=engine, precision="fp32") as session,
    ):
        whole.set_image(sample.image, **sample.modalities)
        session.set_features(provided, sample.image.shape[:2], **sample.modalities)
        for x, y, positive in sample.clicks[:4].tolist():
            wanted, answer = whole.click(x, y, positive > 0.5), reference.click(x, y, positive > 0.5)
            got = session.click(x, y, positive > 0.5)
            np.testing.assert_allclose(got.network_probability, wanted.network_probability, atol=2e-4)
            np.testing.assert_array_equal(got.mask[answer.certain], answer.mask[answer.certain])
        assert session.runs == {"image": 1, "modality": 1, "click": 4}


def test_the_form_of_the_paper(source: Source, tmp_path: Path) -> None:
    """Without any rewrite the tables are brought to the grid in the graph."""
    bundle = export_bundle(source, tmp_path / "paper", no_rewrite=["all"]).bundle
    assert bundle.manifest.provenance.rewrites == ()

"""iCMFormer exported: where it is cut, what each stage computes, and that a bundle answers as the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Precision, Rate, Role
from mmms_deploy.bundle.split import split_of
from mmms_deploy.commands.export import main
from mmms_deploy.errors import CutError
from mmms_deploy.export.cut import Cut, cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.network import RecurrentNetwork, export_whole
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites import EVERY, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.models.config import SwinConfig
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from tests.support.icmformer import tiny_icmformer

KINDS = ("swin", "vit")


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory) -> tuple[Path, Bundle]:
    folder = tmp_path_factory.mktemp("icmformer")
    path = folder / "net.safetensors"
    save_checkpoint(path, random_network(tiny_icmformer(request.param), 0))
    precisions = (Precision.FP32, Precision.FP16, Precision.BF16) if request.param == "swin" else (Precision.FP32,)
    return path, export_bundle(Source(checkpoint=path), folder / "bundle", precisions=precisions).bundle


def test_the_bundle_answers_as_the_checkpoint(exported, cpu_engine) -> None:
    path, bundle = exported
    engine, precision = cpu_engine
    network = open_source(Source(checkpoint=path)).network
    reference, sample = TorchReference(network), sample_images(())[1]
    reference.set_image(sample.image, {})
    coarse = precision is not Precision.FP32
    with Session(bundle.path, engine=engine, precision=precision) as session:
        session.set_image(sample.image)
        for x, y, positive in sample.clicks[:4].tolist():
            answer, result = reference.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
            difference = np.abs(result.probability - answer.probability)
            assert difference.mean() < (2e-2 if coarse else 1e-5)
            assert difference.max() < (0.2 if coarse else 1e-4)
        before = session.undo().probability
        assert np.array_equal(session.redo().probability, result.probability)
        assert not np.array_equal(before, result.probability)


def test_what_crosses(exported) -> None:
    """The image's stream up to the middle, keys and values, and nothing else."""
    _, bundle = exported
    manifest = Bundle(bundle.path).manifest
    image, click = manifest.stages
    assert (image.rate, click.rate) == (Rate.IMAGE, Rate.CLICK)
    swin = manifest.provenance.description["swin"] is not None
    features = {s.name: s.shape for s in image.graphs[Precision.FP32].outputs if s.role is Role.FEATURE}
    if swin:  # 72 x 104, windows of 4, 8 heads of 4 channels
        assert features["image_4"] == (1, 18, 26, 8)
        assert features["image_16"] == (1, 5 * 7, 32)
        assert features["keys_1"] == (1, 8, 4, 5 * 7)
        assert features["values_2"] == (1, 8, 5 * 7, 4)
    else:  # 64 x 96, one window, 3 heads of 8 channels
        assert features["image_16"] == (1, 4 * 6, 24)
        assert features["keys_1"] == (1, 3, 8, 4 * 6)
        assert features["values_2"] == (1, 3, 4 * 6, 8)
    assert len(features) == 5 + swin
    split = split_of(manifest)
    assert split is not None
    assert 1 < split.gain < 2
    assert split.boundary == 4 * sum(int(np.prod(shape)) for shape in features.values())
    assert set(manifest.provenance.rewrites) <= set(names_for("icmformer"))
    assert "fold_cross_attention" in manifest.provenance.rewrites


def test_the_image_s_stage_holds_only_the_rows_that_it_uses() -> None:
    """Keys and values, and no queries: of 2 blocks of 32 channels, beside the merging of patches from 64 to 32."""
    network = RecurrentNetwork(deploy_form(random_network(tiny_icmformer("swin"), 0))[0])
    image, _ = cut(export_whole(network), network.rates())
    shapes = [value.shape.numpy() for value in image.model.graph.initializers.values() if value.shape is not None]
    matrices = [tuple(sorted(shape)) for shape in shapes if len(shape) == 2]
    assert matrices.count((32, 64)) == 3
    assert (32, 96) not in matrices


def test_the_paper_s_form_has_no_scattered_masks() -> None:
    """Masks and indices of a Swin are constants: nothing is assigned by slices."""
    network = RecurrentNetwork(deploy_form(random_network(tiny_icmformer("swin"), 0), {EVERY})[0])
    kinds = {node.op_type for node in ir.to_proto(export_whole(network)).graph.node}
    assert not {"ScatterND", "ScatterElements", "GatherND", "Loop"} & kinds


def test_no_provider_can_run_a_part_of_it(tmp_path) -> None:
    """Clicks go through the same weights, so there is no backbone to leave out."""
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, random_network(tiny_icmformer("vit"), 0))
    with pytest.raises(CutError):
        export_bundle(Source(checkpoint=path), tmp_path / "bundle", cuts=[Cut.BLACK_BOX])
    assert not (tmp_path / "bundle").exists()


class TestFullSize:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("fields", "image", "click"),
        [
            ({}, 77.3, 198.0),
            ({"swin": SwinConfig(width=96, heads=(3, 6, 12, 24)), "size": (224, 224), "head_width": 192}, 5.01, 41.4),
        ],
    )
    def test_operations(self, fields, image, click, tmp_path) -> None:
        """The ViT's: 77.3 and 202.3 with all waste of the released code removed, of which split_fusion saves 4.4."""
        path = tmp_path / "net.safetensors"
        save_checkpoint(path, random_network(ICMFormerConfig(**fields), 0))
        result = CliRunner().invoke(main, ["--ckpt", str(path), "--out", str(tmp_path / "bundle")])
        assert result.exit_code == 0, result.output
        print(result.output)
        split = split_of(Bundle(tmp_path / "bundle").manifest)
        assert split is not None
        assert split.before / 1e9 == pytest.approx(image, rel=0.02)
        assert split.click / 1e9 == pytest.approx(click, rel=0.01)

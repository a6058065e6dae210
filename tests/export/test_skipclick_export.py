"""SkipClick exported: the same cut, the same recurrent form, the same sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Precision, Rate, Role
from mmms_deploy.bundle.contract import ClickChannel, Coordinates, ModalitySpec, PreviousMask, to_builtins
from mmms_deploy.commands.export import main
from mmms_deploy.export.cut import Cut, cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.network import RecurrentNetwork, export_whole
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites import EVERY, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import SkipClickConfig
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from tests.support.skipclick import NARROW, official_state, save_official, tiny_official, tiny_skipclick
from tests.support.tiny import DEPTH

FEATURES = ("f_fuse", "f_skip_1", "f_skip_2", "f_skip_3", "f_skip_4")
BACKBONE = {"name": "dinov2_b14_reg", "blocks": [3, 6, 9, 12], "overrides": NARROW}


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "skipclick.pth"
    tiny_official(path)
    return path


@pytest.fixture(scope="module", params=["official", "one modality"])
def exported(request, official, tmp_path_factory) -> tuple[Source, Bundle]:
    folder = tmp_path_factory.mktemp("out")
    source = Source(checkpoint=official, overrides={"backbone": BACKBONE})
    if request.param != "official":
        save_checkpoint(folder / "net.safetensors", random_network(tiny_skipclick(DEPTH), 0))
        source = Source(checkpoint=folder / "net.safetensors")
    return source, export_bundle(source, folder / "bundle").bundle


def test_the_manifest_says_what_the_official_software_does(exported) -> None:
    _, bundle = exported
    manifest = Bundle(bundle.path).manifest
    clicks = manifest.clicks
    assert clicks.channels == (ClickChannel.PREVIOUS, ClickChannel.POSITIVE, ClickChannel.NEGATIVE)
    assert (clicks.radius, clicks.threshold, clicks.previous) == (5.0, 0.5, PreviousMask.PROBABILITY)
    assert clicks.coordinates is Coordinates.SCALE
    assert clicks.previous_resize is not None
    for rule in (clicks.mask_resize, clicks.previous_resize, manifest.image.resize):
        assert (rule.align_corners, rule.antialias) == (True, False)
    assert manifest.provenance.description["family"] == "skipclick"
    assert set(manifest.provenance.rewrites) <= set(names_for("skipclick"))
    assert "fold_mix_attention" in manifest.provenance.rewrites
    assert all(check.worst <= check.limit for check in manifest.gate)


def test_a_session_clicks_as_the_official_software_does(exported) -> None:
    """Its loop: the map at the photograph's size, as it is shown, is what the network sees next."""
    source, bundle = exported
    network = open_source(source).network
    sample = sample_images(network.config.modalities)[1]
    side = network.config.size
    (height, width), points = sample.image.shape[:2], []
    grid = torch.stack(torch.meshgrid(torch.arange(side[0]), torch.arange(side[1]), indexing="ij"))
    reference = TorchReference(network)
    reference.set_image(sample.image, sample.modalities)
    shown = torch.zeros(1, 1, height, width)
    differs = 0.0
    with Session(bundle.path, engine="onnxruntime", precision="fp32") as session, torch.no_grad():
        session.set_image(sample.image, **sample.modalities)
        own = torch.zeros(1, 1, *side)
        for x, y, positive in sample.clicks[:6].tolist():
            points.append((y * side[0] / height, x * side[1] / width, positive > 0.5))
            disks = torch.zeros(2, *side)
            for row, column, inside in points:
                near = (grid[0] - row) ** 2 + (grid[1] - column) ** 2 <= 25
                disks[0 if inside else 1][near] = 1
            previous = functional.interpolate(shown, side, mode="bilinear", align_corners=True)
            differs = max(differs, float((previous - own).abs().max()))
            logits = network.respond(reference.features, torch.cat([previous[0], disks])[None])
            own = torch.sigmoid(logits)
            shown = functional.interpolate(own, (height, width), mode="bilinear", align_corners=True)
            result = session.click(x, y, positive > 0.5)
            np.testing.assert_allclose(result.probability, shown[0, 0].numpy(), atol=1e-4)
    assert differs > 1e-3, "the picture tells the two forms of feedback apart"


def test_it_answers_as_the_checkpoint_on_every_engine(exported, cpu_engine) -> None:
    source, bundle = exported
    engine, precision = cpu_engine
    network = open_source(source).network
    reference = TorchReference(network)
    sample = sample_images(network.config.modalities)[0]
    reference.set_image(sample.image, sample.modalities)
    coarse = precision is not Precision.FP32
    with Session(bundle.path, engine=engine, precision=precision) as session:
        session.set_image(sample.image, **sample.modalities)
        for x, y, positive in sample.clicks[:5].tolist():
            answer, result = reference.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
            difference = np.abs(result.probability - answer.probability)
            assert difference.mean() < (2e-2 if coarse else 1e-5)
            assert difference.max() < (0.2 if coarse else 1e-4)


def whole(config: SkipClickConfig, *skip: str) -> tuple[RecurrentNetwork, ir.Model]:
    network = RecurrentNetwork(deploy_form(random_network(config, 0), skip)[0])
    return network, export_whole(network)


def test_what_crosses_the_boundary(exported) -> None:
    """With the neck split at the skips, its first layers' results cross."""
    _, bundle = exported
    image, click = bundle.manifest.stages
    assert (image.rate, click.rate) == (Rate.IMAGE, Rate.CLICK)
    shapes = {spec.name: spec.shape[1:] for spec in image.graphs[Precision.FP32].outputs if spec.role is Role.FEATURE}
    assert tuple(shapes) == FEATURES
    size, patch = bundle.manifest.size, 8 if bundle.manifest.modalities else 14
    height, width = size[0] // patch, size[1] // patch
    assert shapes["f_fuse"] == (height * width, 24)
    assert shapes["f_skip_1"] == shapes["f_skip_2"] == (24, 2 * height, 2 * width)
    assert shapes["f_skip_3"] == (16, height, width)
    assert shapes["f_skip_4"] == (96, height // 2, width // 2)


def test_the_paper_s_boundary_is_found_in_the_paper_s_graph() -> None:
    network, graph = whole(tiny_skipclick(), EVERY)
    image, click = cut(graph, network.rates())
    assert (image.rate, image.outputs) == (Rate.IMAGE, FEATURES)
    assert click.inputs == (*FEATURES, "maps", "prev", "click")
    assert click.outputs == ("maps_next", "prob", "mask")
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    kinds = {node.op_type for node in proto.graph.node}
    assert not {"Attention", "Loop", "ScatterND", "ScatterElements", "Tile"} & kinds
    # Position tables are constants: what is resized is bilinear.
    modes = {a.s for node in proto.graph.node if node.op_type == "Resize" for a in node.attribute if a.name == "mode"}
    assert modes == {b"linear"}


def test_dead_blocks_are_not_exported() -> None:
    """A published one-feature network runs on block 2; the blocks after it have no effect."""
    network, graph = whole(tiny_skipclick(levels=(1,), skips=False))
    names = " ".join(value for value in graph.graph.initializers)
    assert "backbone.vit.blocks.2." in names
    assert "backbone.vit.blocks.3." not in names
    assert cut(graph, network.rates())[0].outputs == ("f_fuse",)


def test_a_backbone_elsewhere(tmp_path) -> None:
    """In the paper's form, the four given maps are features themselves."""
    source = Source(random_seed=0, overrides=to_builtins(tiny_skipclick()))
    bundle = export_bundle(source, tmp_path / "away", cuts=[Cut.BLACK_BOX], no_rewrite=[EVERY]).bundle
    given = [spec.name for spec in bundle.manifest.stages[0].graphs[Precision.FP32].inputs]
    assert given == ["backbone_1", "backbone_2", "backbone_3", "backbone_4"]


def test_an_optional_modality(tmp_path) -> None:
    optional = ModalitySpec(name="depth", optional=True)
    source = Source(random_seed=0, overrides=to_builtins(tiny_skipclick(optional)))
    bundle = export_bundle(source, tmp_path / "optional").bundle
    assert [stage.rate for stage in bundle.manifest.stages] == [Rate.IMAGE, Rate.MODALITY, Rate.CLICK]
    sample = sample_images((optional,))[0]
    with Session(bundle.path) as session:
        session.set_image(sample.image)
        without = session.click(100, 100).probability
        session.set_image(sample.image, **sample.modalities)
        assert np.abs(session.click(100, 100).probability - without).max() > 1e-3


class TestFullSize:
    """The published network at 448 x 448, random weights in an official file."""

    @pytest.mark.slow
    def test_the_command_recognises_the_file(self, tmp_path) -> None:
        path = tmp_path / "skipclick.pth"
        save_official(path, official_state(random_network(SkipClickConfig(), 0)), SkipClickConfig())
        result = CliRunner().invoke(main, ["--ckpt", str(path), "--out", str(tmp_path / "bundle")])
        assert result.exit_code == 0, result.output
        print(result.output)
        manifest = Bundle(tmp_path / "bundle").manifest
        features = [s for s in manifest.stage("image").graphs[Precision.FP32].outputs if s.role is Role.FEATURE]
        assert sum(spec.nbytes for spec in features) == 33_554_432
        for check in manifest.gate:
            print(f"{check.name}: {check.measure} {check.worst:.2g} (limit {check.limit:g})")
        assert {"split_skips", "split_fusion"} <= set(manifest.provenance.rewrites)

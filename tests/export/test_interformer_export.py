"""InterFormer exported: a map of labels as the only state, keys of the image computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Precision, Rate, Role
from mmms_deploy.bundle.contract import ClickMemory, to_builtins
from mmms_deploy.commands.export import main
from mmms_deploy.export.cut import Cut, cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.labelled import LabelledNetwork, recurrent_network
from mmms_deploy.export.network import export_whole
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites import BACKBONE, EVERY
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.replay import verify
from tests.support.families import GoldenFile
from tests.support.interformer import expected_labels, expected_mask, golden_file, tiny_interformer, tiny_official

KEYS = tuple(f"{kind}_{scale}" for scale in (4, 8, 16, 32) for kind in ("keys", "values"))


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "iter_320000.pth"
    tiny_official(path)
    return path


@pytest.fixture(scope="module")
def exported(official, tmp_path_factory) -> Bundle:
    """What the command makes of an official file, without any other flag."""
    out = tmp_path_factory.mktemp("out") / "bundle"
    result = CliRunner().invoke(main, ["--ckpt", str(official), "--out", str(out), "--precision", "fp32,fp16"])
    assert result.exit_code == 0, result.output
    return Bundle(out)


def test_the_manifest_says_what_the_network_sees(exported) -> None:
    manifest = exported.manifest
    assert manifest.clicks.memory is ClickMemory.LABELS
    assert [(link.input, link.output, link.start) for link in manifest.state] == [
        ("click_labels", "click_labels_next", 2)
    ]
    assert manifest.provenance.description["family"] == "interformer"
    assert manifest.provenance.rewrites == ("matrix_resize", "keys_once", "label_planes")
    assert all(check.worst <= check.limit for check in manifest.gate)
    disks = next(check for check in manifest.gate if check.name == "disks in fp16 against fp32")
    assert (disks.worst, disks.samples > 100) == (0.0, True)


def test_what_crosses_the_boundary(exported) -> None:
    """The pyramid's finest map, and what the first block of every scale reads of the others."""
    image, click = exported.manifest.stages
    assert (image.rate, click.rate) == (Rate.IMAGE, Rate.CLICK)
    for precision in exported.manifest.precisions:
        features = {spec.name: spec.shape for spec in image.graphs[precision].outputs if spec.role is Role.FEATURE}
        assert tuple(features) == ("f_4", *KEYS)
        assert features["f_4"] == (1, 8, 16, 16)
        state = next(spec for spec in click.graphs[precision].inputs if spec.role is Role.STATE)
        assert (state.name, state.dtype, state.shape) == ("click_labels", "uint8", (1, 1, 64, 64))


def test_in_the_paper_s_form_the_cut_finds_the_keys_itself() -> None:
    network = recurrent_network(deploy_form(random_network(tiny_interformer(), 0), {EVERY})[0])
    graph = export_whole(network)
    image, click = cut(graph, network.rates())
    assert set(image.outputs) >= {"f_4", "f_8", "f_16", "f_32"}
    assert "f_4" in click.inputs
    assert not {"f_8", "f_16", "f_32"} & set(click.inputs)
    assert len(set(click.inputs) - {"f_4", "click_labels", "click"}) == 8
    assert click.outputs == ("click_labels_next", "prob", "mask")
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert not {"Attention", "Loop", "ScatterND", "GatherND", "Tile"} & {node.op_type for node in proto.graph.node}


def test_it_answers_as_the_checkpoint_on_every_engine(official, exported, cpu_engine) -> None:
    engine, precision = cpu_engine
    network = open_source(Source(checkpoint=official)).network
    reference = TorchReference(network)
    sample = sample_images(())[0]
    reference.set_image(sample.image, {})
    with Session(exported.path, engine=engine, precision=precision) as session:
        session.set_image(sample.image)
        x, y, positive = sample.clicks[0].tolist()
        answer, result = reference.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
        difference = np.abs(result.probability - answer.probability)
        assert difference.mean() < (2e-2 if precision is not Precision.FP32 else 1e-5)
        if precision is Precision.FP32:
            for x, y, positive in sample.clicks[1:5].tolist():
                answer, result = reference.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
                assert (answer.mask != result.mask)[answer.certain].sum() == 0
            assert answer.mask.any()
            assert not answer.mask.all()


def test_the_replay_passes(exported) -> None:
    assert verify(exported).worst.iou >= 0.99


def test_labels_move_as_the_answers_say() -> None:
    network = LabelledNetwork(random_network(tiny_interformer(), 0))
    labels = torch.full((1, 1, 64, 96), 2, dtype=torch.uint8)
    labels[..., :5] = torch.arange(5, dtype=torch.uint8)
    drawn = network.draw({"click_labels": labels}, torch.tensor([[50.0, 30.0, 1.0, 1.0]]))
    assert torch.equal(drawn["click_labels"][0, 0, 30, 44:57], torch.tensor([2.0, *[4.0] * 11, 2.0]))
    for logit, expected in ((1.0, [0, 2, 3, 3, 4]), (-1.0, [0, 1, 1, 2, 4]), (0.0, [0, 1, 1, 2, 4])):
        after, _, mask = network.outcome(drawn, torch.full((1, 1, 64, 96), logit))
        assert after.dtype is torch.uint8
        assert after[0, 0, 0, :5].tolist() == expected
        assert after[0, 0, 30, 50] == 4
        assert bool(mask.all()) is (logit > 0)
    nothing = network.draw({"click_labels": labels}, torch.tensor([[50.0, 30.0, 1.0, 0.0]]))
    assert torch.equal(nothing["click_labels"], labels.float())
    negative = network.draw(drawn, torch.tensor([[50.0, 30.0, 0.0, 1.0]]))
    assert negative["click_labels"][0, 0, 30, 50] == 0


def test_what_a_provider_gives() -> None:
    """One map; and with it, a click is answered as with the backbone."""
    deployed = deploy_form(random_network(tiny_interformer(), 0), {*BACKBONE})[0]
    whole, away = recurrent_network(deployed), recurrent_network(deployed, {Cut.BLACK_BOX})
    given = dict(zip(away.input_names(), away.example_inputs(), strict=True))
    assert (away.image_names(), given["backbone_1"].shape) == (("backbone_1",), (1, 24, 4, 6))
    rgb = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (given["backbone_1"],) = deployed.encode(rgb)
        answer = away(*given.values())
        for ours, wanted in zip(answer, whole(rgb, *whole.example_inputs()[1:]), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


@pytest.mark.slow
def test_a_backbone_elsewhere(tmp_path) -> None:
    source = Source(random_seed=0, overrides=to_builtins(tiny_interformer()))
    bundle = export_bundle(source, tmp_path / "away", cuts=[Cut.BLACK_BOX]).bundle
    given = bundle.manifest.stages[0].graphs[Precision.FP32].inputs
    assert [(spec.name, spec.shape) for spec in given] == [("backbone_1", (1, 24, 4, 6))]


def test_a_session_meets_the_golden_numbers(tmp_path) -> None:
    """Closed loop through the bundle, at the picture's own size, up to the step that refines a part only."""
    golden = GoldenFile("interformer-mini")
    golden_file(golden, tmp_path / "mini.pth")
    height, width = golden.meta["size"]
    source = Source(checkpoint=tmp_path / "mini.pth", overrides={"size": (height, width)})
    bundle = export_bundle(source, tmp_path / "mini").bundle
    with Session(bundle.path, engine="onnxruntime") as session:
        session.set_image(golden.image())
        for step, (row, column, positive) in enumerate(golden.meta["clicks"][:3]):
            result = session.click(column, row, positive)
            margin = np.log(result.network_probability) - np.log1p(-result.network_probability)
            rows = golden.arrays[f"rows{step}"]
            worst = np.abs(margin[[7, height // 2, height - 3]] - (rows[1] - rows[0])).max()
            print(f"step {step}: largest difference of the margin {worst:.2g}")
            assert worst < 2e-4
            assert (result.mask != expected_mask(golden, step)).sum() <= 3
            if step < 2:
                held = session._runner.download(session._state.surfaces.current.history.current.state["click_labels"])
                seen = expected_labels(golden, step + 1)
                same = held[0, 0] == seen
                assert np.count_nonzero(~same) <= 81 + 3  # the next click's disk


class TestFullSize:
    """The published network at 512 x 512, golden weights in an official file."""

    @pytest.mark.slow
    def test_the_command_recognises_the_file(self, tmp_path) -> None:
        golden = GoldenFile("interformer-light")
        golden_file(golden, tmp_path / "light.pth")
        result = CliRunner().invoke(main, ["--ckpt", str(tmp_path / "light.pth"), "--out", str(tmp_path / "bundle")])
        assert result.exit_code == 0, result.output
        manifest = Bundle(tmp_path / "bundle").manifest
        features = [s for s in manifest.stage("image").graphs[Precision.FP32].outputs if s.role is Role.FEATURE]
        print(sum(spec.nbytes for spec in features), [(spec.name, spec.shape) for spec in features])
        for check in manifest.gate:
            print(f"{check.name}: {check.measure} {check.worst:.2g} (limit {check.limit:g})")
        with Session(tmp_path / "bundle", engine="onnxruntime") as session:
            session.set_image(golden.image())
            for step, (row, column, positive) in enumerate(golden.meta["clicks"]):
                mask = session.click(column, row, positive).mask
                assert (mask != expected_mask(golden, step)).sum() <= 5

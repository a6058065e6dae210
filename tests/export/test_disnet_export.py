"""DISNet exported: an image stage, one for the first click, and one for later clicks in two sizes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import Precision, Rate, Role
from mmms_deploy.bundle.contract import AnswerForm, ClickList, to_builtins
from mmms_deploy.bundle.notebook import bundle_view
from mmms_deploy.bundle.split import split_of
from mmms_deploy.commands.export import main
from mmms_deploy.errors import ClickError, CutError
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.proposal_reference import ProposalReference
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.export.trace import decided_clicks
from mmms_deploy.models import DISNetConfig, save_checkpoint
from mmms_deploy.replay import verify
from mmms_deploy.replay.golden import load_golden
from mmms_deploy.session.answers import NetworkAnswer
from tests.support.disnet import centred_disnet, golden_config, random_disnet, tiny_disnet
from tests.support.families import GoldenFile
from tests.support.shared import shared

SIZES = (4, 12)


def with_lists(config: DISNetConfig, *sizes: int) -> DISNetConfig:
    """The network with other lengths of its list of clicks."""
    return msgspec.structs.replace(config, clicks=msgspec.structs.replace(config.clicks, listed=ClickList(sizes=sizes)))


def make(folder: Path, precision: str = "fp32") -> None:
    """Write a narrow checkpoint, and what the command makes of it without any other flag."""
    network = centred_disnet(with_lists(tiny_disnet(proposals={"layers": 1}), *SIZES))
    save_checkpoint(folder / "disnet.safetensors", network)
    given = ["--ckpt", str(folder / "disnet.safetensors"), "--out", str(folder / "bundle"), "--precision", precision]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0, result.output
    (folder / "said.txt").write_text(result.output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return shared(tmp_path_factory, "disnet", make)


@pytest.fixture(scope="module")
def exported(folder) -> Bundle:
    return Bundle(folder / "bundle")


def test_three_rates_are_found(exported) -> None:
    manifest = exported.manifest
    assert [(stage.name, stage.rate, stage.rows) for stage in manifest.stages] == [
        ("image", Rate.IMAGE, None),
        ("first_click", Rate.FIRST_CLICK, None),
        ("click", Rate.CLICK, 4),
        ("click_12", Rate.CLICK, 12),
    ]
    image, first, click, longer = (stage.graphs[Precision.FP32] for stage in manifest.stages)
    assert [(spec.name, spec.shape) for spec in image.outputs] == [("f_patches", (1, 24, 24))]
    assert {spec.name: (spec.role, spec.shape) for spec in first.outputs} == {
        "candidates": (Role.CANDIDATES, (1, 5, 16, 24)),
        "scores": (Role.SCORES, (1, 5)),
        "f_tokens": (Role.FEATURE, (1, 5, 16)),
        "f_pixels": (Role.FEATURE, (1, 16, 384)),
    }
    inputs = {"candidates": (1, 5, 16, 24), "f_tokens": (1, 5, 16), "f_pixels": (1, 16, 384), "choice": (1, 1)}
    for graph, rows in ((click, 4), (longer, 12)):
        assert {spec.name: spec.shape for spec in graph.inputs} == {**inputs, "click_list": (1, rows, 4)}
        assert [(spec.name, spec.role, spec.shape) for spec in graph.outputs] == [
            ("logits", Role.LOGITS, (1, 1, 16, 24))
        ]
    assert click.data == longer.data == "click.fp32.onnx.data"
    assert manifest.state == ()


def test_the_manifest(exported) -> None:
    manifest = exported.manifest
    answers = manifest.clicks.answers
    assert answers is not None
    assert (answers.form, answers.size, answers.candidates, answers.proposals) == (AnswerForm.LOGITS, (16, 24), 5, True)
    assert manifest.provenance.rewrites == (
        *("pixel_shuffle", "fold_click_attention", "gather_clicks", "fold_vit_attention", "fold_normalisation"),
    )
    assert all(check.worst <= check.limit for check in manifest.gate)
    assert {check.name for check in manifest.gate} >= {"stages against whole graph", "deploy form against paper form"}
    assert len(manifest.activations) == 4


def test_every_place_says_that_it_is_a_reconstruction(folder, exported) -> None:
    said = "This DISNet is a reconstruction"
    assert said in " ".join((folder / "said.txt").read_text().split())
    assert said in (exported.path / "README.md").read_text()
    assert said in bundle_view(exported.manifest, exported.path)


def test_what_the_split_gains(folder, exported) -> None:
    split = split_of(exported.manifest)
    assert split is not None
    flops = {stage.name: stage.flops for stage in exported.manifest.stages}
    assert (split.before, split.first, split.click) == (flops["image"], flops["first_click"], flops["click"])
    assert split.gain == sum(flops[name] for name in ("image", "first_click", "click")) / flops["click"]
    assert "from the second click on" in split.sentence
    assert split.sentence in " ".join((folder / "said.txt").read_text().split())


def test_it_answers_as_the_checkpoint_on_every_engine(folder, exported, cpu_engine) -> None:
    """Also with another proposal than the best one, and with more clicks than the short list holds."""
    engine, precision = cpu_engine
    reference = ProposalReference(open_source(Source(checkpoint=folder / "disnet.safetensors")).network)
    sample = sample_images(())[1]
    reference.set_image(sample.image, {})
    limit = 1e-4 if precision is Precision.FP32 else 0.05

    def compare(answer, result) -> None:
        assert np.abs(result.probability - answer.probability).mean() < limit
        if precision is Precision.FP32:
            assert not (answer.mask != result.mask)[answer.certain].any()

    with Session(exported.path, engine=engine, precision=precision) as session:
        session.set_image(sample.image)
        for number, (x, y, positive) in enumerate(sample.clicks[:6].tolist()):
            answer, result = reference.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
            if number == 0:
                assert len(result.candidates) == 5
                scores = [candidate.score for candidate in result.candidates]
                np.testing.assert_allclose(scores, reference.scores, atol=limit)
                other = (reference.choice + 2) % 5
                answer, result = reference.choose(other), session.choose(other)
            compare(answer, result)
            assert (result.timings.compile > 0) == (number == SIZES[0] and engine != "cuda")


def test_no_stage_runs_that_needs_not(exported) -> None:
    with Session(exported.path, engine="onnxruntime") as session:
        session.set_image(sample_images(())[0].image)
        first = session.click(100, 100)
        assert session.runs == {"image": 1, "first_click": 1, "click": 0, "click_12": 0}
        session.click(150, 120)
        session.click(60, 40, positive=False)
        session.undo()
        assert np.array_equal(session.undo().mask, first.mask)
        assert session.runs == {"image": 1, "first_click": 1, "click": 2, "click_12": 0}
        for number in range(SIZES[1] - 1):
            session.click(30 + 20 * number, 50)
        with pytest.raises(ClickError, match="at most 12"):
            session.click(10, 10)
        assert len(session.clicks) == SIZES[1]


def test_the_replay_goes_on_from_the_checkpoint_s_choice(exported) -> None:
    assert verify(exported).worst.iou >= 0.99
    cases = load_golden(exported.file("golden.npz"))
    assert all(case.choice in range(5) for case in cases)
    assert all(0.02 < case.masks.mean() < 0.98 for case in cases)


def test_it_has_no_further_cut() -> None:
    with pytest.raises(CutError, match="a network with proposals"):
        recurrent_network(random_disnet(tiny_disnet()), {Cut.LATE})


def test_the_gate_s_first_click_is_decided() -> None:
    """The margin is that of the nearest logit; a click that is decided comes first, and all others follow."""
    network = recurrent_network(centred_disnet(tiny_disnet(proposals={"layers": 1})))
    reference, sample = ProposalReference(network.network), sample_images(())[0]
    reference.set_image(sample.image, {})
    rows = decided_clicks(network, reference, sample)
    assert sorted(rows) == sorted((*reference.to_network(x, y), p, 1.0) for x, y, p in sample.clicks.tolist())
    margin = network.proposing.decision_margin(reference.features[0], torch.tensor(rows[:1]))
    assert 2e-5 <= margin < 0.1


@pytest.mark.slow
def test_half_precision_and_the_paper_s_form(tmp_path) -> None:
    make(tmp_path, "fp32,fp16,bf16")
    manifest = Bundle(tmp_path / "bundle").manifest
    for precision in ("fp16", "bf16"):
        for what in ("the first click's disk", "decay maps"):
            found = [check for check in manifest.gate if check.name == f"{what} in {precision} against fp32"]
            assert [check.worst for check in found] == [0.0] * (1 if "disk" in what else 2)
        assert verify(Bundle(tmp_path / "bundle")).worst.iou >= 0.95
    config = with_lists(tiny_disnet(proposals={"layers": 1}, refinement={"click_sampling": "nearest"}), *SIZES)
    source = Source(random_seed=0, overrides=to_builtins(config))
    plain = export_bundle(source, tmp_path / "plain", no_rewrite=["all"]).bundle
    features = [s.name for s in plain.manifest.stage("click").graphs[Precision.FP32].inputs if s.role is Role.FEATURE]
    assert len(features) > 2  # keys and values of the first attention depend on the first click alone
    assert verify(plain).worst.iou >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "base"])
def test_a_session_meets_the_golden_numbers(tmp_path, name) -> None:
    """They come from our own reading of the manuscript, not from its authors."""
    golden = GoldenFile(f"disnet-{name}")
    network = random_disnet(with_lists(golden_config(name), 12))
    weights = {key: torch.from_numpy(values) for key, values in golden.weights().items()}
    network.load_state_dict(network.adapt(weights, None))
    save_checkpoint(tmp_path / "golden.safetensors", network)
    report = export_bundle(Source(checkpoint=tmp_path / "golden.safetensors"), tmp_path / "bundle")
    for stage in report.bundle.manifest.stages:
        print(stage.name, stage.flops)
    for check in report.bundle.manifest.gate:
        print(f"{check.name}: {check.measure} {check.worst:.2g} (limit {check.limit:g})")
    height, width = network.config.size
    with Session(report.bundle, engine="onnxruntime") as session:
        session.set_image(golden.image())
        for step, (row, column, positive) in enumerate(golden.meta["clicks"]):
            result = session.click(column, row, positive)
            if step == 0:
                session.choose(golden.meta["selected"])
                continue
            expected = golden.arrays[f"logits_low{step}"].reshape(result.answer.numbers.shape)
            worst, largest = np.abs(result.answer.numbers - expected).max(), np.abs(expected).max()
            print(f"click {step + 1}: largest difference of a logit {worst:.2g}, the largest {largest:.2g}")
            # As in the gate: where a query's own mask is near zero, rounding decides what the query sees.
            assert worst < 2e-4 * largest
            mask = np.unpackbits(golden.arrays[f"mask{step}"], count=height * width).reshape(height, width)
            certain = np.abs(NetworkAnswer(expected, result.answer.rule).resized((height, width))) > 2e-4 * largest
            differing = result.mask != mask
            print(f"click {step + 1}: {differing.sum()} pixels differ, {(~certain).sum()} are uncertain")
            assert certain.mean() > 0.99
            assert not differing[certain].any()

"""Click stages for several objects: the same answers as the stage for one, row by row; which networks have them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import GOLDEN_NAME, GateCheck, Precision, Rate
from mmms_deploy.bundle.names import CLICK, MASK, PROB, RGB, of_object, without_object
from mmms_deploy.bundle.split import how_often, split_of
from mmms_deploy.commands.export import main
from mmms_deploy.errors import ExportError, GateError
from mmms_deploy.export.batched import BatchedNetwork, checked_batches, compare_batches
from mmms_deploy.export.comparison import Worst, difference
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.gate import OnnxGraph
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.source import Source
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.replay.golden import load_golden
from tests.support.annotating import GREY
from tests.support.disnet import tiny_disnet
from tests.support.dynamite import tiny_dynamite
from tests.support.icmformer import tiny_icmformer
from tests.support.interformer import tiny_interformer
from tests.support.ritm import tiny_mfp, tiny_simpleclick
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import DEPTH, tiny_config

FAMILIES: dict[str, Callable[[], Any]] = {
    "mmms": tiny_config,
    "mmms with depth": lambda: tiny_config(DEPTH),
    "skipclick": tiny_skipclick,
    "simpleclick": tiny_simpleclick,
    "icmformer vit": lambda: tiny_icmformer("vit"),
    "icmformer swin": lambda: tiny_icmformer("swin"),
    "interformer": tiny_interformer,
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "mfp": (tiny_mfp, "changed outside of its graph"),
    "dynamite": (tiny_dynamite, "answers for all objects in one run already"),
    "disnet": (tiny_disnet, "takes all clicks as a list"),
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rows_are_answered_as_alone(family: str) -> None:
    config = FAMILIES[family]()
    torch.manual_seed(0)
    network = deploy_form(random_network(config, 0).eval())[0]
    single = recurrent_network(network)
    height, width = config.size
    rgb = torch.rand(1, 3, height, width)
    modalities = {one.name: torch.rand(1, one.channels, height, width) for one in config.modalities}
    features = network.features(rgb, modalities)
    names = [*network.feature_names, RGB][: len(features)]
    batched = BatchedNetwork(single, 3, dict(zip(names, features, strict=True)))
    given: list[torch.Tensor] = []
    alone = []
    for number in batched.objects:
        state = [torch.zeros_like(one) + (2 if one.dtype == torch.uint8 else 0) for one in single.start().values()]
        for turn in range(number):
            click = torch.tensor([[7.0 + 11 * number, 9.0 + 13 * turn, float(turn % 2 == 0), 1.0]])
            before, answer = state, single.click_stage(features, *state, click)
            outputs = dict(zip(single.click_names(), answer, strict=True))
            state = [outputs[link.output] for link in single.links]
        given += [*before, click]
        alone.append(outputs)
    found = dict(zip(batched.output_names(), batched(*features, *given), strict=True))
    for number, outputs in zip(batched.objects, alone, strict=True):
        for name, wanted in outputs.items():
            got = found[of_object(name, number)]
            assert got.shape == wanted.shape
            if name == PROB:
                torch.testing.assert_close(got, wanted, rtol=0, atol=2e-6)
            elif name != MASK:
                certain = (outputs[PROB] - config.clicks.threshold).abs() > 1e-4
                assert ((got == wanted) | ~certain).all()


@pytest.mark.parametrize("family", REFUSED)
def test_networks_without_are_refused_by_name(family: str) -> None:
    make, said = REFUSED[family]
    config = make()
    with pytest.raises(ExportError, match=said) as caught:
        checked_batches((4,), config.clicks, config.family)
    assert config.family in str(caught.value)
    assert checked_batches((), config.clicks, config.family) == ()


@pytest.mark.parametrize("number", [0, 1, -3, 65])
def test_numbers_out_of_range(number: int) -> None:
    with pytest.raises(ExportError, match=f"{number} objects"):
        checked_batches((4, number), tiny_config().clicks, "mmms")
    assert checked_batches((16, 4, 4), tiny_config().clicks, "mmms") == (4, 16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    save_checkpoint(path, random_network(tiny_config(), 0))
    return Source(checkpoint=path)


@pytest.fixture(scope="module")
def bundle(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("out") / "batched"
    return export_bundle(source, out, batches=(4, 2), precisions=[Precision.FP16]).bundle


def test_what_is_written(bundle: Bundle) -> None:
    manifest = Bundle(bundle.path).manifest
    assert manifest.batches == {2: "click_batch_2", 4: "click_batch_4"}
    click, four = manifest.stage("click"), manifest.stage("click_batch_4")
    for precision in (Precision.FP32, Precision.FP16):
        one, several = click.graphs[precision], four.graphs[precision]
        assert one.data == several.data == f"click.{precision}.onnx.data", "the weights lie once"
        assert (bundle.path / several.file).stat().st_size < 3 * (bundle.path / one.file).stat().st_size
        features = [spec for spec in one.inputs if "@" not in of_object(spec.name, 1)[: len(spec.name)]]
        assert {without_object(spec.name) for spec in several.inputs} == {spec.name for spec in features}
        assert len(several.outputs) == 4 * len(one.outputs)
        onnx.checker.check_model(str(bundle.path / several.file))
    assert four.rate is Rate.CLICK
    assert four.flops is not None
    assert click.flops is not None
    assert 3 < four.flops / click.flops <= 4.01
    assert how_often(manifest, four) == "where up to 4 objects are clicked at once"
    split = split_of(manifest)
    assert split is not None
    assert split.click == click.flops, "what a click costs is said of one object"


def test_the_gate_says_so(bundle: Bundle) -> None:
    checks = [check for check in bundle.manifest.gate if check.name.startswith("stages for several objects")]
    assert [(check.limit, check.samples > 0) for check in checks][:2] == [(0.0, True), (1e-4, True)]
    assert len(checks) == 4, "float32 and float16: what clicks draw, and the answers"
    assert all(check.worst <= check.limit for check in checks)


@pytest.mark.usefixtures("every_engine")
def test_sessions_answer_the_same_together(bundle: Bundle) -> None:
    clicks = {str(number): (8 + 9 * number, 10 + 6 * number, number != 2) for number in range(1, 5)}
    with Session(bundle, threads=1, batch=True) as session, Session(bundle, threads=1, batch=False) as alone:
        for one in (session, alone):
            one.set_image(GREY)
        limit = 1e-4 if session.engine.precision is Precision.FP32 else 0.05
        for _ in range(2):
            ours, theirs = (one.click_objects(clicks) for one in (session, alone))
            for name in clicks:
                apart = np.abs(ours[name].network_probability - theirs[name].network_probability)
                assert apart.max() <= limit
        assert session.runs["click_batch_4"] == 2
        assert alone.runs["click"] == 8


def test_the_gate_refuses_a_stage_that_answers_otherwise(bundle: Bundle, tmp_path: Path) -> None:
    """Two objects that are mixed up."""
    manifest = bundle.manifest
    case = load_golden(bundle.path / GOLDEN_NAME)[0]
    files = {stage.name: bundle.path / stage.graphs[Precision.FP32].file for stage in manifest.stages}
    features = OnnxGraph(files["image"], optimised=True).run({RGB: prepare(case.image, manifest.image, manifest.size)})

    def checked() -> list[GateCheck]:
        worst = Worst("several against one", "difference", 1e-4)
        return compare_batches(manifest, files, features, case, answers=worst, measure=difference)

    assert [check.worst <= check.limit for check in checked()] == [True, True]
    mixed = onnx.load(files["click_batch_2"], load_external_data=False)
    places = {of_object(PROB, 1): of_object(PROB, 2), of_object(PROB, 2): of_object(PROB, 1)}
    for node in mixed.graph.node:
        for side in (node.input, node.output):
            side[:] = [places.get(name, name) for name in side]
    shutil.copyfile(bundle.path / "click.fp32.onnx.data", tmp_path / "click.fp32.onnx.data")
    files["click_batch_2"] = tmp_path / "mixed.onnx"
    onnx.save(mixed, files["click_batch_2"])
    with pytest.raises(GateError, match="stage for 2 objects, tensor prob, object 1"):
        checked()


@pytest.mark.parametrize("value", ["1", "65", "four"])
def test_the_command_refuses_other_numbers(value: str) -> None:
    result = CliRunner().invoke(main, ["--ckpt", "demo-small", "--batch", value])
    assert result.exit_code == 2
    assert "--batch" in result.output


def test_a_pair_has_none() -> None:
    result = CliRunner().invoke(main, ["--ckpt", "sam2-tiny", "--batch", "4"])
    assert result.exit_code == 2
    assert "--batch is for a network in PyTorch" in result.output


def test_a_state_is_no_recurrent_network_of_its_own(source: Source) -> None:
    """Names of objects are names of the stage for one again."""
    network = random_network(tiny_config(), 0).eval()
    batched = BatchedNetwork(RecurrentNetwork(network), 2, {})
    assert [without_object(name) for name in batched.input_names()] == ["maps", "prev", CLICK] * 2
    assert {str(batched.role(name)) for name in batched.input_names()} == {"state", "click"}

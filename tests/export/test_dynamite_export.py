"""DynaMITe exported: all clicks as a list, one graph for every size of it, and the answers of a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle import GOLDEN_NAME, Precision, Rate, Role
from mmms_deploy.bundle.contract import ClickContract, ClickList, ClickMemory, Coordinates
from mmms_deploy.bundle.split import split_of
from mmms_deploy.commands.export import main
from mmms_deploy.errors import ClickError
from mmms_deploy.export.joint import JointReference, surfaces_of
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import save_checkpoint
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.replay import verify
from mmms_deploy.replay.golden import load_golden
from tests.support.dynamite import golden_steps, random_dynamite, save_official
from tests.support.families import GoldenFile
from tests.support.shared import shared

SIZES = (12, 40)
CLICKS = ClickContract(
    memory=ClickMemory.CLICKS, listed=ClickList(sizes=SIZES, objects=5), coordinates=Coordinates.SCALE
)
PAIRS = tuple(f"{kind}_{n}" for n in (1, 2, 3) for kind in ("keys", "values"))
FEATURES = {"pixels", "pixel_tokens", "level_32", "level_16", "level_8", "pixel_queries", *PAIRS}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a checkpoint and with what the command makes of it."""

    def make(folder: Path) -> None:
        save_checkpoint(folder / "tiny.safetensors", random_dynamite("mit", clicks=CLICKS, heads=2))
        arguments = ["--ckpt", str(folder / "tiny.safetensors"), "--out", str(folder / "bundle")]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output

    return shared(tmp_path_factory, "dynamite", make)


@pytest.fixture(scope="module")
def exported(made) -> Bundle:
    return Bundle(made / "bundle")


@pytest.fixture(scope="module")
def network(made) -> DynaMITe:
    found = open_source(Source(checkpoint=made / "tiny.safetensors")).network
    assert isinstance(found, DynaMITe)
    return found


def test_the_manifest_says_what_the_network_takes(exported) -> None:
    manifest = exported.manifest
    assert (manifest.clicks.memory, manifest.clicks.objects, manifest.state) == (ClickMemory.CLICKS, 5, ())
    assert [(stage.name, stage.rate, stage.rows) for stage in manifest.stages] == [
        ("image", Rate.IMAGE, None),
        ("click", Rate.CLICK, 12),
        ("click_40", Rate.CLICK, 40),
    ]
    assert manifest.provenance.rewrites == (
        *("plain_attention", "fold_attention", "split_queries", "ffn_as_convs", "fold_pixel_attention"),
    )
    assert all(check.worst <= check.limit for check in manifest.gate)
    found = {(check.name, check.samples) for check in manifest.gate}
    assert ("stages against whole graph", 26) in found, "two lists: twelve features, and the answer"
    assert ("session against torch, closed loop", 30) in found
    assert len(manifest.activations) == 4, "the backbone's blocks"


def test_what_crosses_the_boundary(exported) -> None:
    """What clicks read of the image, each once; and nothing of the image is computed at a click."""
    image, *clicks = (stage.graphs[Precision.FP32] for stage in exported.manifest.stages)
    assert {spec.name for spec in image.outputs} == FEATURES
    for graph, rows in zip(clicks, SIZES, strict=True):
        inputs = {spec.name: spec for spec in graph.inputs}
        assert inputs.keys() == FEATURES | {"click_list"}
        assert (inputs["click_list"].role, inputs["click_list"].shape) == (Role.CLICK, (1, rows, 5))
        assert [(spec.role, spec.shape) for spec in graph.outputs] == [(Role.ROWS, (1, rows + 2, 16, 16))]


def test_graphs_are_those_that_engines_compile(exported) -> None:
    for stage in exported.manifest.stages:
        nodes = {node.op_type for node in onnx.load(exported.file(stage.graphs[Precision.FP32].file)).graph.node}
        assert not nodes & {"NonZero", "Loop", "If", "ScatterND", "GatherND", "Tile", "Attention", "Einsum"}


def test_sizes_share_their_weights(exported) -> None:
    """Two graphs of few bytes, and one file that holds every weight once."""
    _, *clicks = (stage.graphs[Precision.FP32] for stage in exported.manifest.stages)
    assert {graph.data for graph in clicks} == {"click.fp32.onnx.data"}
    places = [
        {entry.key: entry.value for entry in tensor.external_data}["offset"]
        for graph in clicks
        for tensor in onnx.load(exported.file(graph.file), load_external_data=False).graph.initializer
        if tensor.external_data
    ]
    assert len(places) > 40
    assert len(set(places)) <= len(places) / 2 + 10, "what is folded differs, and nothing else"
    assert all(graph.data in exported.files_of(graph) for graph in clicks)


def test_a_small_list_is_folded(exported) -> None:
    """Its folded attention saves operations; the larger list is answered as the paper writes it."""
    image, click, larger = (stage.flops for stage in exported.manifest.stages)
    assert 0 < click < larger
    split = split_of(exported.manifest)
    assert (split.before, split.click) == (image, click)


def test_golden_clicks_keep_their_objects(exported) -> None:
    for case, sample in zip(load_golden(exported.file(GOLDEN_NAME)), sample_images(()), strict=True):
        np.testing.assert_array_equal(case.surfaces, surfaces_of(sample.clicks))
        assert set(case.surfaces) == {1, 2, 3}
        np.testing.assert_array_equal(case.masks, case.labels == case.surfaces[:, None, None])
    assert verify(exported).worst.iou >= 0.99


def test_it_answers_as_the_checkpoint_on_every_engine(network, exported, cpu_engine) -> None:
    """Past the smallest list, too, where a larger size is compiled once."""
    engine, precision = cpu_engine
    reference, sample = JointReference(network), sample_images(())[0]
    reference.set_image(sample.image, {})
    clicks = [*sample.clicks.tolist()] * 2
    surfaces = [*surfaces_of(sample.clicks).tolist()] * 2
    with Session(exported.path, engine=engine, precision=precision) as session:
        session.set_image(sample.image)
        compiled = []
        for number, ((x, y, positive), surface) in enumerate(zip(clicks[:14], surfaces, strict=False), start=1):
            session.select(str(surface))
            result = session.click(x, y, positive > 0.5)
            compiled.append(result.timings.compile)
            if precision is not Precision.FP32 or number not in (5, 13):
                reference.add(x, y, positive > 0.5, surface)
                continue
            answer = reference.click(x, y, positive > 0.5, surface)
            assert (session.labels != answer.labels)[answer.certain].mean() < 1e-3
            assert answer.certain.mean() > 0.5
        assert [number for number, spent in enumerate(compiled, start=1) if spent > 0] == [13]
        assert session.runs == {"image": 1, "click": 12, "click_40": 2}
        session.undo()
        session.redo()
        assert session.runs == {"image": 1, "click": 12, "click_40": 2}, "undo runs nothing"


def test_past_the_last_size(exported) -> None:
    with Session(exported, threads=1) as session:
        session.set_image(np.full((40, 60, 3), 90, np.uint8))
        session.set_clicks([(x, 10) for x in range(40)])
        with pytest.raises(ClickError, match="click 41") as caught:
            session.click(5, 5)
        assert "longer list" in str(caught.value.fix)
        assert len(session.clicks) == 40


@torch.no_grad()
def test_an_object_has_the_pixels_of_its_best_click(network, exported) -> None:
    """Two objects and the background: one map of labels, and an object's mask changes with another's click."""
    sample = sample_images(())[2]
    with Session(exported, threads=1) as session:
        session.set_image(sample.image)
        session.click(100, 100)
        first = session.mask.copy()
        session.select("2")
        session.click(300, 200)
        both = session.labels
        assert set(np.unique(both)) <= {0, 1, 2}
        session.select("1")
        np.testing.assert_array_equal(session.mask, both == 1)
        assert (session.mask != first).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mit_b0", "swin_tiny"])
def test_the_authors_masks_in_a_session(name, tmp_path) -> None:
    """An official file through the command, and a session on its bundle: the masks of the authors' own code."""
    golden = GoldenFile(f"dynamite-{name}")
    height, width = golden.meta["size"]
    save_official(tmp_path / "model.pth", {key: torch.from_numpy(value) for key, value in golden.weights().items()})
    arguments = [
        "--ckpt",
        str(tmp_path / "model.pth"),
        "--size",
        f"{height}x{width}",
        "--out",
        str(tmp_path / "bundle"),
    ]
    result = CliRunner().invoke(main, [*arguments, "--size", f"{height}x{width}"])
    assert result.exit_code == 0, result.output
    with Session(tmp_path / "bundle") as session:
        for step, (clicks, objects) in enumerate(golden_steps(golden.meta)):
            session.set_image(golden.image())
            for x, y, _, number in sorted(clicks, key=lambda click: click[2]):
                session.select(str(max(1, number)))
                session.click(x, y, number > 0)
            shape = (objects, height, width)
            theirs = np.unpackbits(golden.arrays[f"masks{step}"])[: np.prod(shape)].reshape(shape).astype(bool)
            differing = sum(int(((session.labels == n + 1) != mask).sum()) for n, mask in enumerate(theirs))
            print(f"{name}, step {step}: {differing} of {height * width} pixels")
            assert differing <= 10

"""Exports end to end: the manifest, errors that the gate catches, and that nothing half written is left."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner

from mmms_deploy import Bundle, Session
from mmms_deploy import export as export_room
from mmms_deploy.bundle import Precision, Rate, Role, sha256_of
from mmms_deploy.bundle.contract import ClickContract, ImageSpec, PreviousMask
from mmms_deploy.commands.export import main
from mmms_deploy.errors import Door, GateError, OutputExistsError, OutputWriteError
from mmms_deploy.export import exporter, gate, graphs
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.operations import count_flops
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites import EVERY, REWRITES, deploy, names_for
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.progress import Progress
from tests.support.documents import blocks
from tests.support.paths import ROOT
from tests.support.tiny import DEPTH, tiny_config

# The previous mask is a probability: a binary one would turn a difference of 1e-7 at the threshold into 1.
CONFIG = tiny_config(DEPTH, clicks=ClickContract(previous=PreviousMask.PROBABILITY))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "mmms.safetensors"
    save_checkpoint(path, random_network(CONFIG, 0))
    return path


@pytest.fixture(scope="module")
def steps() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def bundle(checkpoint, steps, tmp_path_factory) -> Bundle:
    """The bundle that the Python of docs/export.md makes; ``steps`` has what it prints before its last line."""
    folder = tmp_path_factory.mktemp("out")
    (folder / checkpoint.name).symlink_to(checkpoint)
    (snippet,) = blocks(ROOT / "docs" / "export.md", "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(snippet.text, snippet.where, "exec"), {"print": steps.append})
    out = folder / str(steps.pop())
    assert list(out.parent.iterdir()) == [out]
    return Bundle(out)


def test_the_manifest_tells_the_truth(bundle, checkpoint) -> None:
    manifest = Bundle(bundle.path).manifest
    assert manifest.size == (64, 96)
    assert manifest.precisions == (Precision.FP32,)
    assert manifest.trained
    assert manifest.provenance.checkpoint == "mmms.safetensors"
    assert manifest.provenance.checkpoint_sha256 == sha256_of(checkpoint)
    assert manifest.provenance.parameters == sum(p.numel() for p in random_network(tiny_config(DEPTH), 0).parameters())
    assert manifest.provenance.description["clicks"]["radius"] == 5.0
    assert {"torch", "onnx", "timm"} <= manifest.provenance.packages.keys()
    image, click = manifest.stages
    assert (image.rate, click.rate) == (Rate.IMAGE, Rate.CLICK)
    roles = {spec.name: spec.role for stage in manifest.stages for spec in stage.graphs[Precision.FP32].inputs}
    assert roles["rgb"] is Role.IMAGE
    assert roles["depth"] is Role.MODALITY
    assert roles["f_mix_32"] is Role.FEATURE
    assert roles["maps"] is roles["prev"] is Role.STATE
    assert [(check.worst <= check.limit, check.samples > 0) for check in manifest.gate] == [(True, True)] * 10
    assert manifest.gate[0].name == "deploy form against paper form"
    assert manifest.provenance.rewrites == tuple(  # it has no LayerScale
        name for name in names_for("mmms") if name not in ("fold_layer_scale", "fold_positions")
    )
    # Normalisation is in the graph; the description still says what the checkpoint wants.
    assert manifest.image == ImageSpec(scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert manifest.provenance.description["image"]["mean"] == list(ImageSpec().mean)
    for stage in manifest.stages:
        assert stage.flops == count_flops(bundle.file(stage.graphs[Precision.FP32].file)) > 0


def test_the_bundle_answers_as_the_checkpoint(bundle, checkpoint) -> None:
    network = open_source(Source(checkpoint=checkpoint)).network
    reference = TorchReference(network)
    sample = sample_images(network.config.modalities)[2]
    reference.set_image(sample.image, sample.modalities)
    with Session(bundle.path) as session:
        session.set_image(sample.image, **sample.modalities)
        for x, y, positive in sample.clicks.tolist():
            answer, result = reference.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
            np.testing.assert_allclose(result.probability, answer.probability, atol=1e-4)
            assert (result.mask != answer.mask).mean() < 1e-3
        assert session.runs == {"image": 1, "click": len(sample.clicks)}


def test_every_step_is_announced(bundle, steps) -> None:
    assert len(steps) == exporter.count_steps(len(sample_images(())))
    assert len({step.task for step in steps}) == len(steps)
    assert [(step.done, step.total) for step in steps] == [(done, len(steps)) for done in range(len(steps))]


def test_the_room_gives_the_names_that_a_user_needs() -> None:
    for name in export_room.__all__:
        assert getattr(export_room, name).__name__ == name
    assert export_room.export_bundle is export_bundle


def test_an_existing_folder_is_not_touched(bundle, checkpoint, tmp_path) -> None:
    before = sorted(f.read_bytes() for f in bundle.path.iterdir())
    with pytest.raises(OutputExistsError, match="overwrite=True") as caught:
        export_bundle(Source(checkpoint=checkpoint), bundle.path)
    assert "--overwrite" in caught.value.message(Door.COMMAND_LINE)
    assert sorted(f.read_bytes() for f in bundle.path.iterdir()) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="is no bundle"):
        export_bundle(Source(checkpoint=checkpoint), tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_rewrites_the_graph_is_the_paper_form(bundle, checkpoint, tmp_path) -> None:
    plain = export_bundle(Source(checkpoint=checkpoint), tmp_path / "plain", no_rewrite={EVERY})
    manifest = plain.bundle.manifest
    assert manifest.provenance.rewrites == ()
    assert manifest.image == ImageSpec()
    assert len(manifest.gate) == 9
    features = {spec.name: spec.shape for spec in manifest.stage("click").graphs[Precision.FP32].inputs}
    assert features["f_mix_4"] == (1, 8, 16, 24)
    sample = sample_images((DEPTH,))[0]
    answers = []
    for path in (bundle.path, plain.bundle.path):
        with Session(path) as session:
            session.set_image(sample.image, **sample.modalities)
            answers.append([session.click(x, y, p > 0.5).probability for x, y, p in sample.clicks.tolist()])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)


@pytest.mark.parametrize("wrong", ["fold_attention", "fold_normalisation"])
def test_a_wrong_rewrite_is_named(checkpoint, tmp_path, monkeypatch, wrong) -> None:
    def off(network) -> bool:
        done = real(network)
        norm = network.csnet.get_submodule("norm4")
        norm.bias = torch.nn.Parameter(norm.bias + 0.1)
        return done

    real = deploy.FUNCTIONS[wrong]
    monkeypatch.setattr(deploy, "FUNCTIONS", {**deploy.FUNCTIONS, wrong: off})
    with pytest.raises(
        GateError, match=f"(?s)image astronaut, click 1; it comes with .* {wrong}.*no_rewrite=.*{wrong}"
    ) as caught:
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out")
    assert f"--no-rewrite {wrong}" in caught.value.message(Door.COMMAND_LINE)
    assert not list(tmp_path.iterdir())


def test_an_unknown_rewrite(checkpoint, tmp_path) -> None:
    with pytest.raises(ValueError, match="no rewrite is named fold"):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out", no_rewrite=["fold"])
    assert not list(tmp_path.iterdir())


def changed_weight(model: ir.Model, name_part: str) -> ir.Model:
    """Return the graph with one weight scaled by 1.1."""
    name = next(n for n in model.graph.initializers if name_part in n)
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.1), name=name)
    return model


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("part", "blamed"),
    [("backbone.vit.blocks.2.mlp.fc1.bias", "tensor f_mix_16"), ("csnet.decode_head.linear_pred", "tensor prob")],
)
def test_the_gate_catches_a_changed_weight(checkpoint, tmp_path, monkeypatch, part, blamed) -> None:
    real = exporter.export_whole
    monkeypatch.setattr(exporter, "export_whole", lambda network: changed_weight(real(network), part))
    with pytest.raises(GateError, match=f"{blamed}.*image astronaut, click 1"):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("traced")
def test_the_gate_catches_a_stage_that_differs_from_the_whole(checkpoint, tmp_path, monkeypatch) -> None:
    real = exporter.cut

    def bad_cut(model, rates):
        image, click = real(model, rates)
        changed_weight(click.model, "csnet.decode_head.linear_pred")
        return image, click

    monkeypatch.setattr(exporter, "cut", bad_cut)
    with pytest.raises(GateError, match=r"stages against whole graph.*stage click, tensor prob"):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("traced")
def test_the_gate_catches_a_wrong_resize_rule(checkpoint, tmp_path, monkeypatch) -> None:
    """All tensors agree, but the deployed session prepares the image in another way than the checkpoint wants."""
    real = exporter._manifest

    def wrong(*args):
        manifest = real(*args)
        rule = msgspec.structs.replace(manifest.image, std=(0.5, 0.5, 0.5))
        return msgspec.structs.replace(manifest, image=rule)

    monkeypatch.setattr(exporter, "_manifest", wrong)
    with pytest.raises(GateError, match="session against torch, closed loop"):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def export_alone(*arguments: str) -> float:
    """Run mmms-export in a process of its own and return its peak memory in GiB."""
    command = [sys.executable, "-c", "from mmms_deploy.commands.export import main; main()"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = re.search(r"peak memory\s+([\d.]+)\s+GiB", done.stdout)
    assert peak is not None
    return float(peak[1])


@pytest.mark.slow
def test_a_full_size_export_stays_below_8_gib(tmp_path) -> None:
    """DINOv2-B14 with registers at 448 x 448 and one modality."""
    assert export_alone("--random-weights", "0", "--modality", "depth:3", "--out", str(tmp_path / "full")) < 8


@pytest.mark.slow
def test_a_graph_over_two_gigabytes(tmp_path) -> None:
    """A ViT-H: its weights do not fit in one protobuf message."""
    backbone = "timm:vit_huge_patch16_gap_448"
    export_alone("--random-weights", "0", "--backbone", backbone, "--size", "224", "--out", str(tmp_path / "huge"))
    manifest = Bundle(tmp_path / "huge").manifest
    graph = manifest.stage("image").graphs[Precision.FP32]
    assert graph.data is not None
    assert manifest.files[graph.data].size > 2**31
    assert manifest.files[graph.file].size < 10**7


def test_a_network_that_answers_nan_is_refused(tmp_path, monkeypatch) -> None:
    """Finite weights can still overflow."""
    network = random_network(tiny_config(), 0)
    with torch.no_grad():
        network.csnet.decode_head.linear_pred.weight.fill_(3e38)
        network.csnet.decode_head.linear_fuse.bn.weight.fill_(3e38)
    path = tmp_path / "huge.safetensors"
    save_checkpoint(path, network)
    with pytest.raises(GateError):
        export_bundle(Source(checkpoint=path), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("traced")
def test_a_full_disk_leaves_nothing(checkpoint, tmp_path, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporter, "save_golden", full)
    with pytest.raises(OutputWriteError, match="free some space"):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_terminated_export_leaves_nothing(checkpoint, tmp_path) -> None:
    command = [sys.executable, "-c", "from mmms_deploy.commands.export import main; main()"]
    started = subprocess.Popen([*command, "--ckpt", str(checkpoint), "--out", str(tmp_path / "out")])
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()):  # the temporary folder
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.terminate()
    assert started.wait(60) == 143
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place(checkpoint, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputWriteError):
        export_bundle(Source(checkpoint=checkpoint), tmp_path / "file" / "out")


@pytest.mark.usefixtures("traced")
def test_weights_above_the_limit_go_beside_the_graph(checkpoint, tmp_path, monkeypatch) -> None:
    """The path of graphs over 2 GB, taken here by a lower limit."""
    monkeypatch.setattr(graphs, "EXTERNAL_DATA_ABOVE", 100_000)
    made = export_bundle(Source(checkpoint=checkpoint), tmp_path / "out").bundle
    graph = made.manifest.stage("image").graphs[Precision.FP32]
    assert graph.data == "image.fp32.onnx.data"
    assert made.manifest.files[graph.data].size > 400_000
    sample = sample_images((DEPTH,))[0]
    with Session(made.path) as session:
        session.set_image(sample.image, **sample.modalities)
        session.click(10, 10)


class TestCommand:
    """mmms-export as a user runs it."""

    def run(self, *args: str):
        return CliRunner().invoke(main, args, catch_exceptions=False)

    def test_random_weights_are_reported(self, tmp_path) -> None:
        toml = tmp_path / "net.toml"
        toml.write_bytes(msgspec.json.encode(tiny_config()))
        toml = toml.rename(tmp_path / "net.json")
        out = tmp_path / "random"
        result = self.run("--random-weights", "3", "--description", str(toml), "--size", "64", "--out", str(out))
        assert result.exit_code == 0, result.output
        assert "weights are random" in result.output
        assert "The split gains" in result.output
        assert "Exact rewrites applied: fold_head, matrix_resize" in result.output
        manifest = Bundle(out).manifest
        assert not manifest.trained
        assert manifest.provenance.random_seed == 3
        assert manifest.size == (64, 64)

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            ((), 2, "--ckpt FILE and --random-weights"),
            (("--ckpt", "a.pt", "--random-weights", "0"), 2, "--ckpt FILE and --random-weights"),
            (("--ckpt", "no/such.pt"), 1, "no checkpoint at"),
            (("--random-weights", "0", "--size", "100"), 1, "network height 100"),
            (("--random-weights", "0", "--size", "big"), 2, "no size"),
            (("--random-weights", "0", "--modality", "Depth"), 2, "no modality"),
            (("--random-weights", "0", "--modality", "depth", "--modality", "depth"), 2, "differ"),
            (("--random-weights", "0", "--backbone", "vgg"), 2, "backbone 'vgg' is not known"),
            (("--ckpt", "demo", "--no-rewrite", "fold"), 2, "is not one of 'fold_head', 'matrix_resize'"),
            (("--random-weights", "0", "--description", "none.toml"), 1, "none.toml cannot be read"),
        ],
    )
    def test_user_errors(self, tmp_path, monkeypatch, args, code, message) -> None:
        monkeypatch.chdir(tmp_path)
        result = self.run(*args)
        assert result.exit_code == code
        assert message in result.output
        assert "Traceback" not in result.output
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    @pytest.mark.usefixtures("traced")
    def test_a_gate_failure_is_a_failure(self, checkpoint, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(gate, "FEATURE_LIMIT", -1.0)
        result = self.run("--ckpt", str(checkpoint), "--out", str(tmp_path / "out"))
        assert result.exit_code == 1
        assert "error: whole ONNX graph against torch" in result.output
        assert not list(tmp_path.iterdir())

    def test_help_shows_examples(self) -> None:
        result = self.run("--help")
        assert result.exit_code == 0
        assert "mmms-export --ckpt demo" in result.output
        shown = " ".join(result.output.split())
        for rewrite in REWRITES:
            assert f"{rewrite.name} {rewrite.description}" in shown

"""The further cuts: their stages, which stage runs after which change, and that all cuts give the same masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mmms_deploy import LATER, Bundle, Session
from mmms_deploy.bundle import Rate
from mmms_deploy.bundle.contract import ClickContract, ImageSpec, ModalitySpec, PreviousMask
from mmms_deploy.commands.export import main
from mmms_deploy.errors import CutError
from mmms_deploy.export.cut import Cut, choose_cuts
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.network import BACKBONE
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.samples import Sample, sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.replay.verification import verify
from tests.support.tiny import DEPTH, EVENT, tiny_config

CLICKS = ClickContract(previous=PreviousMask.PROBABILITY)
EVERY = {"default": (), "late": (Cut.LATE,), "black_box": (Cut.BLACK_BOX,), "both": (Cut.LATE, Cut.BLACK_BOX)}
Exported = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, random_network(tiny_config(DEPTH, clicks=CLICKS), 0))
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same checkpoint in every cut."""
    folder, bundles = tmp_path_factory.mktemp("cuts"), dict[str, Bundle]()

    def export(name: str) -> Bundle:
        if name not in bundles:
            bundles[name] = export_bundle(Source(checkpoint=checkpoint), folder / name, cuts=EVERY[name]).bundle
        return bundles[name]

    return export


@pytest.fixture(scope="module")
def sample() -> Sample:
    return sample_images((DEPTH,))[1]


@pytest.fixture(scope="module")
def provided(checkpoint: Path, sample: Sample) -> dict[str, np.ndarray]:
    """The backbone's features, as a provider computes them."""
    reference = TorchReference(open_source(Source(checkpoint=checkpoint)).network)
    reference.set_image(sample.image, sample.modalities)
    return {name: value.numpy() for name, value in zip(BACKBONE, reference.backbone_maps, strict=True)}


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("default", {"image": ("rgb", "depth")}),
        ("late", {"image": ("rgb",), "modality": ("depth",)}),
        ("black_box", {"image": (*BACKBONE, "depth")}),
        ("both", {"image": BACKBONE, "modality": ("depth",)}),
    ],
)
def test_stages_and_what_they_are_given(name: str, stages: dict, exported: Exported) -> None:
    manifest = exported(name).manifest
    inputs = {s.name: [spec.name for spec in next(iter(s.graphs.values())).inputs] for s in manifest.stages}
    assert list(inputs) == [*stages, "click"]
    for stage, given in stages.items():
        assert [n for n in inputs[stage] if n in ("rgb", "depth", *BACKBONE)] == list(given)
    assert manifest.provenance.cuts == tuple(sorted(EVERY[name]))
    assert len(manifest.gate) == 10
    # A provider prepares the image as the paper does; otherwise the first layer normalises it.
    assert manifest.image == (ImageSpec() if "black" in name or name == "both" else manifest.image)
    assert manifest.image.scale == (ImageSpec().scale if Cut.BLACK_BOX in EVERY[name] else 1.0)


@pytest.mark.parametrize("name", EVERY)
def test_all_cuts_give_the_same_masks(
    name: str, exported: Exported, sample: Sample, provided: dict[str, np.ndarray]
) -> None:
    with Session(exported("default"), engine="onnxruntime") as expected, Session(exported(name)) as session:
        expected.set_image(sample.image, **sample.modalities)
        if Cut.BLACK_BOX in EVERY[name]:
            session.set_features(provided, sample.image.shape[:2], **sample.modalities)
        else:
            session.set_image(sample.image, **sample.modalities)
        for x, y, positive in sample.clicks[:5].tolist():
            wanted, got = expected.click(x, y, positive > 0.5), session.click(x, y, positive > 0.5)
            np.testing.assert_allclose(got.network_probability, wanted.network_probability, atol=2e-4)
            certain = np.abs(wanted.probability - 0.5) > 1e-3
            np.testing.assert_array_equal(got.mask[certain], wanted.mask[certain])
        assert 0 < wanted.mask.sum() < wanted.mask.size


def test_a_late_modality_runs_the_fuser_and_no_backbone(exported: Exported, sample: Sample) -> None:
    depth = sample.modalities["depth"]
    with Session(exported("late")) as session, Session(exported("default")) as whole:
        session.set_image(sample.image, depth=LATER)
        assert session.runs == {"image": 1, "modality": 0, "click": 0}
        session.set_modalities(depth=depth)
        session.click(100, 100)
        session.set_modalities(depth=depth[::-1])
        assert session.runs == {"image": 1, "modality": 2, "click": 2}
        whole.set_image(sample.image, depth=depth[::-1])
        wanted = whole.click(100, 100)
        np.testing.assert_allclose(session.result.network_probability, wanted.network_probability, atol=1e-4)
        whole.set_modalities(depth=depth)  # works with every cut; the count shows the cost
        assert whole.runs == {"image": 2, "click": 2}


def test_golden_features_replay_without_a_backbone(exported: Exported) -> None:
    report = verify(exported("both"))
    assert len(report.checks) == 30


def test_a_provider_keeps_its_weights(checkpoint: Path, tmp_path: Path, exported: Exported, provided: dict) -> None:
    """The checkpoint need not hold the backbone, and the answers from given features are the same."""
    network = open_source(Source(checkpoint=checkpoint)).network
    file = tmp_path / "trained.safetensors"
    save_checkpoint(file, network)
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
        state = {n: stored.get_tensor(n) for n in stored.keys() if not n.startswith("backbone.")}  # noqa: SIM118
    save_file(state, file, metadata=metadata)
    with pytest.raises(Exception, match="backbone"):
        export_bundle(Source(checkpoint=file), tmp_path / "whole")
    bundle = export_bundle(Source(checkpoint=file), tmp_path / "box", cuts=[Cut.BLACK_BOX]).bundle
    image = sample_images((DEPTH,))[1]
    answers = []
    for each in (bundle, exported("black_box")):
        with Session(each, engine="onnxruntime") as session:
            session.set_features(provided, image.image.shape[:2], **image.modalities)
            answers.append(session.click(100, 100).network_probability)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


# --- optional modalities ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def optional(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, TorchReference]:
    """Depth and event, both optional, and the torch network that they come from."""
    modalities = tuple(
        ModalitySpec(name=m.name, channels=m.channels, scale=m.scale, mean=m.mean, std=m.std, optional=True)
        for m in (DEPTH, EVENT)
    )
    folder = tmp_path_factory.mktemp("optional")
    save_checkpoint(folder / "tiny.safetensors", random_network(tiny_config(modalities=modalities, clicks=CLICKS), 1))
    source = Source(checkpoint=folder / "tiny.safetensors")
    return export_bundle(source, folder / "bundle").bundle, TorchReference(open_source(source).network)


def test_optional_modalities_are_cut_off_late_and_bypassed(optional: tuple[Bundle, TorchReference]) -> None:
    manifest = optional[0].manifest
    assert [stage.rate for stage in manifest.stages] == [Rate.IMAGE, Rate.MODALITY, Rate.CLICK]
    assert manifest.provenance.cuts == ("late",)
    assert set(manifest.stage("modality").bypass) == {"f_mix_4", "f_mix_8", "f_mix_16", "f_mix_32"}


@pytest.mark.parametrize("names", [(), ("depth",), ("event",), ("depth", "event")])
def test_any_part_of_the_optional_modalities(optional: tuple[Bundle, TorchReference], names: tuple[str, ...]) -> None:
    bundle, reference = optional
    (sample, *_) = sample_images(bundle.manifest.modalities)
    given = {name: sample.modalities[name] for name in names}
    reference.set_image(sample.image, given)
    with Session(bundle, engine="onnxruntime") as session:
        session.set_image(sample.image, **given)
        for x, y, positive in sample.clicks[:3].tolist():
            wanted = reference.click(x, y, positive > 0.5).network_probability[0, 0].numpy()
            np.testing.assert_allclose(session.click(x, y, positive > 0.5).network_probability, wanted, atol=2e-4)
        assert session.runs["modality"] == (1 if names else 0)


# --- what makes no sense ----------------------------------------------------------------------------------------------


def test_late_needs_a_modality() -> None:
    with pytest.raises(CutError, match="without extra modalities"):
        choose_cuts([Cut.LATE], ())
    with pytest.raises(CutError, match="clicks go through as a whole"):
        choose_cuts([Cut.BLACK_BOX], (), frozen=False)
    assert choose_cuts([Cut.BLACK_BOX], ()) == {Cut.BLACK_BOX}
    assert choose_cuts((), (DEPTH,)) == frozenset()
    assert choose_cuts((), (ModalitySpec(name="depth", optional=True),)) == {Cut.LATE}


def test_on_the_command_line(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "late"
    result = CliRunner().invoke(main, ["--ckpt", str(checkpoint), "--out", str(out), "--cut", "late"])
    assert result.exit_code == 0, result.output
    assert Bundle(out).manifest.provenance.cuts == ("late",)
    assert "when a modality" in " ".join(result.output.split())

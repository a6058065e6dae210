"""SimpleClick and MFP exported: where they are cut, and that a bundle answers as the checkpoint, undone or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmms_deploy import Bundle, Session
from mmms_deploy.bench.eager import EagerMMMS
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Precision, Rate, Role
from mmms_deploy.bundle.split import split_of
from mmms_deploy.errors import CutError
from mmms_deploy.evaluation.answering import answering
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import sample_images
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.replay import verify
from tests.support.families import GoldenFile, probe
from tests.support.official import config_of
from tests.support.ritm import official_class, save_official, tiny_mfp, tiny_simpleclick

CONFIGS: dict[str, Any] = {
    "simpleclick": tiny_simpleclick(),
    "mfp": tiny_mfp(),
    "mfp-hrnet": tiny_mfp("hrnet"),
}
CLICKS = [(200.0, 150.0, True), (90.5, 60.25, False), (260.0, 220.0, True)]


def source(name: str, path: Path) -> Source:
    """An official file; HRNet's says no size."""
    return Source(checkpoint=path, overrides={"size": (64, 96)} if name == "mfp-hrnet" else None)


@pytest.fixture(scope="module", params=["simpleclick", "mfp", pytest.param("mfp-hrnet", marks=pytest.mark.slow)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Bundle]:
    folder = tmp_path_factory.mktemp("ritm")
    save_official(folder / "net.pth", CONFIGS[request.param])
    found = source(request.param, folder / "net.pth")
    precisions = (Precision.FP32, Precision.FP16) if request.param == "mfp" else (Precision.FP32,)
    return found, export_bundle(found, folder / "bundle", precisions=precisions).bundle


def test_the_bundle_answers_as_the_checkpoint(
    exported: tuple[Source, Bundle], every_engine: tuple[str, Precision]
) -> None:
    found, bundle = exported
    engine, precision = every_engine
    reference, sample = TorchReference(open_source(found).network), sample_images(())[1]
    reference.set_image(sample.image, {})
    coarse = precision is not Precision.FP32
    with Session(bundle.path, engine=engine, precision=precision) as session:
        session.set_image(sample.image)
        for x, y, positive in CLICKS:
            answer, result = reference.click(x, y, positive), session.click(x, y, positive)
            difference = np.abs(result.probability - answer.probability)
            assert difference.mean() < (2e-2 if coarse else 2e-5)


def test_pytorch_answers_as_the_session(exported: tuple[Source, Bundle]) -> None:
    """What a bench compares with makes both passes of a first click, and modulates, as the session does."""
    _, bundle = exported
    eager, (picture,) = EagerMMMS(bundle.manifest, 1, whole=True), make_pictures(bundle.manifest, 1, 4, (80, 120))
    with Session(bundle.path, engine="onnxruntime", precision="fp32") as session:
        session.set_image(picture.rgb)
        eager.set_image(picture)
        for point in picture.clicks:
            eager.click(*point)
            session.click(*point)
            assert np.abs(eager.probability - session.result.network_probability).mean() < 2e-5


def runs(session: Session) -> int:
    """How often the click stage ran."""
    return session._pipeline.runs["click"]


def test_only_a_click_on_nothing_runs_twice(exported: tuple[Source, Bundle]) -> None:
    _, bundle = exported
    twice = bundle.manifest.clicks.first_pass
    image = sample_images(())[0].image
    with Session(bundle.path) as session:
        session.set_image(image)
        seen = []
        for count, click in enumerate(CLICKS, start=1):
            seen.append(session.click(*click).probability)
            assert runs(session) == count + twice
        for _ in CLICKS:
            session.undo()
        for expected in seen:
            assert np.array_equal(session.redo().probability, expected)
        assert runs(session) == len(CLICKS) + twice
        session.reset()
        assert np.array_equal(session.click(*CLICKS[0]).probability, seen[0])
        assert runs(session) == len(CLICKS) + 1 + 2 * twice


def test_a_mask_that_is_put_in_is_the_previous_one(exported: tuple[Source, Bundle]) -> None:
    _, bundle = exported
    twice = bundle.manifest.clicks.first_pass
    image = sample_images(())[0].image
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    with Session(bundle.path) as session:
        session.set_image(image)
        first = session.click(*CLICKS[0]).probability
        session.reset()
        session.set_mask(mask)  # nothing: as if there were none
        assert np.array_equal(session.click(*CLICKS[0]).probability, first)
        before = runs(session)
        mask[100:300, 50:400] = True
        session.set_mask(mask)
        session.click(*CLICKS[1])
        assert runs(session) == before + 1
        assert before == 2 + 2 * twice


def test_a_surface_begins_with_a_state_of_its_own(exported: tuple[Source, Bundle]) -> None:
    _, bundle = exported
    image = sample_images(())[0].image
    with Session(bundle.path) as session:
        session.set_image(image)
        alone = session.click(*CLICKS[2]).probability
        session.reset()
        session.click(*CLICKS[0])
        session.click(*CLICKS[1])
        before = runs(session)
        session.select("another")
        assert np.array_equal(session.click(*CLICKS[2]).probability, alone)
        assert runs(session) == before + 1 + bundle.manifest.clicks.first_pass


def test_what_crosses(exported: tuple[Source, Bundle]) -> None:
    """Image and clicks meet in the first layer, and the report says that little is gained."""
    _, bundle = exported
    manifest = bundle.manifest
    image, click = manifest.stages
    assert (image.rate, click.rate) == (Rate.IMAGE, Rate.CLICK)
    features = {s.name: s.shape for s in image.graphs[Precision.FP32].outputs if s.role is Role.FEATURE}
    modulated = {s.shape for s in click.graphs[Precision.FP32].inputs if s.role is Role.MODULATED}
    expected: dict[str, tuple[int, ...]] = {"f_patches": (1, 24, 24)}
    if manifest.clicks.modulation is not None:
        hrnet = "f_stem" in features
        expected = {"f_stem": (1, 64, 32, 48)} if hrnet else expected
    assert features == expected
    read = {s.name: s.shape for s in click.graphs[Precision.FP32].inputs if s.role is Role.IMAGE}
    assert read == ({} if manifest.clicks.modulation is None else {"rgb": (1, 3, 64, 96)})
    assert modulated == (set() if manifest.clicks.modulation is None else {(1, 1, 64, 96)})
    split = split_of(manifest)
    assert split is not None
    assert 1 < split.gain < 1.5


def test_the_replay_is_that_of_the_checkpoint(exported: tuple[Source, Bundle]) -> None:
    _, bundle = exported
    assert not verify(bundle).failures


def test_no_provider_can_run_a_part_of_it(tmp_path: Path) -> None:
    save_official(tmp_path / "net.pth", CONFIGS["mfp"])
    with pytest.raises(CutError):
        export_bundle(source("mfp", tmp_path / "net.pth"), tmp_path / "bundle", cuts=[Cut.BLACK_BOX])


@pytest.mark.parametrize(
    ("name", "rewrites"),
    [
        ("simpleclick", {"matrix_resize", "split_fusion", "pixel_shuffle", "fold_vit_attention", "fold_normalisation"}),
        ("mfp", {"matrix_resize", "split_fusion", "pixel_shuffle", "fold_vit_attention"}),
        ("mfp-hrnet", {"matrix_resize"}),
    ],
)
def test_rewrites(name: str, rewrites: set[str]) -> None:
    network = random_network(CONFIGS[name], 0)
    deployed, applied = deploy_form(network)
    assert set(applied) == rewrites
    assert deployed.config.image.scale == (1.0 if "fold_normalisation" in rewrites else network.config.image.scale)


@pytest.fixture(scope="module", params=["simpleclick-xtiny", "mfp-tiny"])
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Bundle]:
    """A golden file's name, and the bundle of an official file with its weights."""
    golden = GoldenFile(request.param)
    state = {key: torch.from_numpy(value) for key, value in golden.weights().items()}
    heads = {"xtiny": 4, "tiny": 3}[golden.meta["config"]]
    config = tiny_mfp() if golden.meta["family"] == "mfp" else tiny_simpleclick()
    entry = config_of(official_class(config), {"backbone_params": {"num_heads": heads}})
    folder = tmp_path_factory.mktemp("official")
    torch.save({"state_dict": state, "config": entry}, folder / "net.pth")
    return request.param, export_bundle(Source(checkpoint=folder / "net.pth"), folder / "bundle").bundle


@pytest.mark.slow
def test_a_session_answers_the_official_numbers(official: tuple[str, Bundle]) -> None:
    """From an official file to clicks, with the numbers of the official software."""
    name, bundle = official
    golden = GoldenFile(name)
    with Session(bundle.path, engine="onnxruntime") as session:
        session.set_image(golden.image())
        for number, (y, x, positive) in enumerate(golden.meta["clicks"]):
            result = session.click(x, y, bool(positive))
            rows = golden.arrays[f"rows{number}"].reshape(3, -1)
            height = result.probability.shape[0]
            expected = 1 / (1 + np.exp(-rows.astype(np.float64)))
            np.testing.assert_allclose(result.probability[[7, height // 2, height - 3]], expected, rtol=0, atol=1e-4)
            mask = np.unpackbits(golden.arrays[f"mask{number}"], count=result.mask.size).reshape(result.mask.shape)
            assert (result.mask != mask).sum() <= 4


@pytest.mark.slow
def test_the_published_protocol_answers_the_official_predictor_s_numbers(official: tuple[str, Bundle]) -> None:
    """A bundle in crops and as the mean with the mirror image, as the evaluation of the official software has it."""
    name, bundle = official
    golden = GoldenFile(f"{name}-predictor")
    assert all(golden.meta[field] == GoldenFile(name).meta[field] for field in ("seed", "gains", "shifts"))
    how = answering(bundle.manifest, published=True)
    with Session(bundle.path, engine="onnxruntime", zoom=how.crop or False, flip=how.flip) as session:
        session.set_image(golden.image())
        for number, (y, x, positive) in enumerate(golden.meta["clicks"]):
            result = session.click(x, y, bool(positive))
            expected = golden.arrays[f"prob.probe{number}"]
            np.testing.assert_allclose(probe(result.probability, expected.size), expected, rtol=0, atol=1e-4)
            mask = np.unpackbits(golden.arrays[f"mask{number}"], count=result.mask.size).reshape(result.mask.shape)
            assert (result.above(0.5) != mask).sum() <= 4

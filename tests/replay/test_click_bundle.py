"""Click bundles: what they hold, what they must not hold, and that they answer as the whole bundle does, to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmms_deploy import Bundle, Features, Session
from mmms_deploy.bundle import GOLDEN_NAME, ModalitySpec, Precision, Rate
from mmms_deploy.bundle.click_inputs import click_inputs
from mmms_deploy.bundle.manifest_file import digest_of
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import BundleCorruptError, BundleError, OutputExistsError, VerificationError
from mmms_deploy.replay import load_golden, replay, write_click_bundle
from mmms_deploy.replay.golden import GoldenCase, save_golden
from tests.support.annotating import SIZE
from tests.support.click_bundles import (
    answers,
    contents,
    found_in,
    kept_for_clicks,
    weights_before_clicks,
    write_sharing,
)
from tests.support.engines import CPU_ENGINES, skip_without
from tests.support.golden_cases import golden, spoiled
from tests.support.joint import write_joint
from tests.support.proposing import write_proposing
from tests.support.toy import taken_as_it_is, write_toy

Engine = tuple[str, Precision]
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).random(SIZE, dtype=np.float32) * 50
EVENT = np.random.default_rng(2).random((*SIZE, 3), dtype=np.float32)
MODAL = (ModalitySpec(name="depth", scale=0.01), ModalitySpec(name="event", channels=3))
OPTIONAL = (ModalitySpec(name="depth", scale=0.01, optional=True),)
BACKBONE = {f"backbone_{n}": np.full((1, 2, 4, 6), n / 10, dtype=np.float32) for n in range(1, 5)}

TOYS: dict[str, tuple[Callable[[Path], Bundle], Mapping[str, Any]]] = {
    "paint": (write_toy, {}),
    "three stages": (lambda out: write_toy(out, three_stages=True), {}),
    "labels": (lambda out: write_toy(out, labels=True), {}),
    "modalities": (lambda out: write_toy(out, modalities=MODAL), {"depth": DEPTH, "event": EVENT}),
    "optional, there": (lambda out: write_toy(out, modalities=OPTIONAL), {"depth": DEPTH}),
    "optional, bypassed": (lambda out: write_toy(out, modalities=OPTIONAL), {}),
    "proposals": (write_proposing, {}),
    "all at once": (write_joint, {}),
    "a shared file": (write_sharing, {}),
}


@pytest.fixture(scope="module")
def demo_clicks(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_click_bundle("demo-small", tmp_path_factory.mktemp("clicks") / "demo-clicks")


@pytest.fixture(scope="module", params=TOYS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle, Any]:
    """A whole bundle, its click bundle, and the modalities of ``IMAGE``."""
    write, modalities = TOYS[request.param]
    folder = tmp_path_factory.mktemp("both")
    whole = write(folder / "whole")
    return whole, write_click_bundle(whole, folder / "clicks"), modalities


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_the_answers_are_those_of_the_whole_bundle(
    tmp_path: Path, both: tuple[Bundle, Bundle, Any], engine: Engine
) -> None:
    skip_without(*engine)
    whole, clicks, modalities = both
    with Session(whole, engine=engine[0], precision=engine[1]) as session:
        session.set_image(IMAGE, **modalities)
        given = kept_for_clicks(session, tmp_path / "image.features")
        expected = answers(session)
    with Session(clicks, engine=engine[0], precision=engine[1]) as session:
        session.use(given)
        assert session.features.key == given.key
        assert answers(session) == expected
        assert {name for name, runs in session.runs.items() if runs} <= {s.name for s in clicks.manifest.stages}


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_the_answers_of_the_demo(tmp_path: Path, demo_clicks: Bundle, engine: Engine) -> None:
    skip_without(*engine)
    with Session("demo-small", engine=engine[0], precision=engine[1]) as session:
        session.set_image(IMAGE)
        given = kept_for_clicks(session, tmp_path / "image.features")
        expected = answers(session)
    with Session(demo_clicks, engine=engine[0], precision=engine[1]) as session:
        session.use(given)
        assert answers(session) == expected


def test_it_holds_the_click_stage_alone(demo_clicks: Bundle) -> None:
    parent, manifest = Bundle("demo-small").manifest, Bundle(demo_clicks.path).manifest
    assert {file.name for file in demo_clicks.path.iterdir()} == {
        "README.md",
        "bundle.json",
        "click.fp32.onnx",
        "golden.npz",
    }
    assert [stage.rate for stage in manifest.stages] == [Rate.CLICK]
    assert (manifest.features_of, manifest.click_only) == (parent.digest, True)
    assert (manifest.modalities, manifest.activations) == ((), ())
    assert manifest.clicks == parent.clicks
    assert manifest.provenance.license == parent.provenance.license == "apache-2.0"
    assert manifest.digest != parent.digest


def test_no_weight_before_the_clicks_is_in_any_file(demo_clicks: Bundle) -> None:
    whole = Bundle("demo-small")
    weights = weights_before_clicks(whole)
    assert len(weights) > 20
    assert found_in(weights, list(contents(whole.path))) == list(weights), "what is looked for can be found"
    shared = found_in(weights, list(contents(demo_clicks.path)))
    # Resizing as a product of matrices: they follow from the sizes alone, in eighths, and nothing in them is learned.
    assert [name for name in shared if not name.endswith((".rows", ".columns"))] == []
    for name in shared:
        np.testing.assert_array_equal(8 * weights[name], np.round(8 * weights[name]))


def test_a_file_that_stages_share_gives_only_its_own_bytes(tmp_path: Path) -> None:
    whole = write_sharing(tmp_path / "whole")
    weights = {"image": np.random.default_rng(1).random((2, 4096)).astype(np.float32)}
    assert found_in(weights, list(contents(whole.path))) == ["image"]
    clicks = write_click_bundle(whole, tmp_path / "clicks")
    assert "weights.data" in clicks.manifest.files
    assert found_in(weights, list(contents(clicks.path))) == []


def test_a_weight_without_a_length_is_refused_in_a_shared_file(tmp_path: Path) -> None:
    whole = write_sharing(tmp_path / "whole", lengths=False)
    with pytest.raises(BundleError, match=r"the rest of weights\.data"):
        write_click_bundle(whole, tmp_path / "clicks")
    assert not (tmp_path / "clicks").exists()


def test_no_modality_is_in_the_bundle_nor_in_the_features(tmp_path: Path) -> None:
    whole = write_toy(tmp_path / "whole", modalities=MODAL, golden=[_golden_of_modalities()])
    clicks = write_click_bundle(whole, tmp_path / "clicks")
    text = (clicks.path / "bundle.json").read_text() + (clicks.path / "README.md").read_text()
    assert "depth" not in text
    assert "event" not in text
    sensors = {"depth": DEPTH, "depth in units": DEPTH * np.float32(0.01), "event": EVENT}
    assert set(found_in(sensors, list(contents(whole.path)))) == {"depth", "event"}
    assert found_in(sensors, list(contents(clicks.path))) == []
    assert all(not case.modalities and not case.image.any() for case in load_golden(clicks.file(GOLDEN_NAME)))

    with Session(whole) as session:
        session.set_image(IMAGE, depth=DEPTH, event=EVENT)
        session.features.save(tmp_path / "all.features", picture=True)
        kept_for_clicks(session, tmp_path / "some.features")
        # What the network sees: in its units, at its size.
        values = session._state.image.pipeline.values
        sensors |= {f"{name} for the network": session._runner.download(values[name]) for name in ("depth", "event")}
    held = {name: load_file(tmp_path / f"{name}.features") for name in ("all", "some")}
    assert found_in(sensors, [(tmp_path / "all.features").read_bytes()]), "features for a fuser hold modalities"
    assert found_in(sensors, [(tmp_path / "some.features").read_bytes()]) == []
    assert set(held["some"]) == {*click_inputs(whole.manifest), "image_png"} == {"fused", "image_png"}
    assert {"depth", "event"} <= set(held["all"])
    sizes = {array.size for array in sensors.values()}
    assert not any(array.size in sizes for array in held["some"].values())


def _golden_of_modalities() -> GoldenCase:
    masks = np.zeros((1, *SIZE), dtype=np.bool_)
    clicks = np.array([[10, 10, 1]], dtype=np.float32)
    return GoldenCase(
        image=IMAGE, modalities={"depth": DEPTH, "event": EVENT}, clicks=clicks, masks=masks, certain=masks
    )


def test_another_process_needs_nothing_of_the_whole_bundle(tmp_path: Path) -> None:
    """The owner's folder is gone, and so is everything that only an export needs."""
    (tmp_path / "owner").mkdir()
    (tmp_path / "service").mkdir()
    whole = write_toy(tmp_path / "owner" / "whole", modalities=MODAL)
    write_click_bundle(whole, tmp_path / "service" / "clicks")
    with Session(whole, engine="onnxruntime") as session:
        session.set_image(IMAGE, depth=DEPTH, event=EVENT)
        kept_for_clicks(session, tmp_path / "service" / "image.features")
        expected = session.click(10, 10).network_probability
    for file in (tmp_path / "owner" / "whole").iterdir():
        file.unlink()
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['torch'] = None\n"
        "from mmms_deploy import Features, Session\n"
        "with Session('clicks', engine='onnxruntime') as session:\n"
        "    session.use(Features.load('image.features'))\n"
        "    result = session.click(10, 10)\n"
        "    result.overlay()\n"
        "    sys.stdout.buffer.write(result.network_probability.tobytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "service", capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == expected.tobytes()


def test_a_provider_may_run_the_backbone(tmp_path: Path) -> None:
    whole = write_toy(tmp_path / "whole", modalities=MODAL[:1], black_box=True, golden=[_without_golden_pixels()])
    clicks = write_click_bundle(whole, tmp_path / "clicks")
    with Session(whole) as session:
        session.set_features({"f1": np.full((1, 1, 1, 1), 0.3, np.float32)}, SIZE, depth=DEPTH)
        given = session.features.for_clicks(whole.manifest)
        expected = answers(session)
    with Session(clicks) as session:
        session.use(given)
        assert answers(session) == expected


def _without_golden_pixels() -> GoldenCase:
    case = _golden_of_modalities()
    return replace(case, features={"f1": np.full((1, 1, 1, 1), 0.3, np.float32)}, modalities={"depth": DEPTH})


def test_the_golden_clicks_are_replayed(tmp_path: Path, paint: Bundle) -> None:
    case = golden(paint)
    whole = write_toy(tmp_path / "whole", golden=[case, case])
    clicks = write_click_bundle(whole, tmp_path / "clicks")
    report = replay(clicks, EngineRequest(threads=1))
    assert (len(report.checks), report.failures, report.telling) == (6, (), True)
    assert report.worst.iou == 1.0


def test_a_bundle_that_answers_otherwise_is_not_kept(tmp_path: Path, paint: Bundle) -> None:
    whole = write_toy(tmp_path / "whole", golden=[spoiled(golden(paint), 1)])
    with pytest.raises(VerificationError, match="another mask"):
        write_click_bundle(whole, tmp_path / "clicks")
    assert [file.name for file in tmp_path.iterdir()] == ["whole"]


def test_golden_features_that_were_spoiled_are_found(tmp_path: Path, paint: Bundle) -> None:
    clicks = write_click_bundle(write_toy(tmp_path / "whole", golden=[golden(paint)]), tmp_path / "clicks")
    (case,) = load_golden(clicks.file(GOLDEN_NAME))
    assert set(case.features) == {"f1"}
    save_golden(clicks.path / GOLDEN_NAME, [replace(case, features={"f1": case.features["f1"] + 1})])
    assert replay(taken_as_it_is(clicks), EngineRequest(threads=1)).failures


def test_precisions(tmp_path: Path) -> None:
    both = (Precision.FP32, Precision.FP16)
    whole = write_toy(tmp_path / "whole", precisions=both)
    assert write_click_bundle(whole, tmp_path / "all").manifest.precisions == both
    one = write_click_bundle(whole, tmp_path / "one", precisions=["fp16"])
    assert one.manifest.precisions == (Precision.FP16,)
    assert sorted(file.name for file in one.path.glob("*.onnx")) == ["click.fp16.onnx"]
    for wanted in (["bf16"], ["fp32", "int8"], []):
        with pytest.raises(BundleError, match="has no graphs in"):
            write_click_bundle(whole, tmp_path / "none", precisions=wanted)


def test_what_has_no_stage_to_keep_is_refused(tmp_path: Path, paint: Bundle) -> None:
    clicks = write_click_bundle(paint, tmp_path / "clicks")
    with pytest.raises(BundleError, match="is a click bundle already"):
        write_click_bundle(clicks, tmp_path / "again")
    box = write_toy(tmp_path / "box", black_box=True)
    with pytest.raises(BundleError, match="all of box runs at every click"):
        write_click_bundle(box, tmp_path / "none")
    early = write_toy(tmp_path / "early")
    flops = {"image": 1.0, "click": 99.0}
    stages = tuple(msgspec.structs.replace(stage, flops=flops[stage.name]) for stage in early.manifest.stages)
    early.manifest = msgspec.structs.replace(early.manifest, stages=stages)
    with pytest.raises(BundleError, match=r"fused early: a click computes 99.0% of the network"):
        write_click_bundle(early, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_modality_that_the_click_stage_reads_is_refused(tmp_path: Path) -> None:
    whole = write_toy(tmp_path / "whole", modalities=MODAL)
    *before, click = whole.manifest.stages
    graph = click.graphs[Precision.FP32]
    depth = before[-1].graphs[Precision.FP32].inputs[1]
    graph = msgspec.structs.replace(graph, inputs=(*graph.inputs, depth))
    click = msgspec.structs.replace(click, graphs={Precision.FP32: graph})
    whole.manifest = msgspec.structs.replace(whole.manifest, stages=(*before, click))
    with pytest.raises(BundleError, match="reads depth itself"):
        write_click_bundle(whole, tmp_path / "clicks")


def test_an_older_folder_stays(tmp_path: Path, paint: Bundle) -> None:
    clicks = write_click_bundle(paint, tmp_path / "clicks")
    with pytest.raises(OutputExistsError):
        write_click_bundle(paint, tmp_path / "clicks")
    (tmp_path / "clicks" / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match=r"mine\.txt"):
        write_click_bundle(paint, tmp_path / "clicks", overwrite=True)
    (tmp_path / "clicks" / "mine.txt").unlink()
    assert write_click_bundle(paint, tmp_path / "clicks", overwrite=True).path == clicks.path


def test_other_manifests_are_written_as_before(tmp_path: Path, demo_clicks: Bundle) -> None:
    plain = json.loads((write_toy(tmp_path / "plain").path / "bundle.json").read_text())
    assert "features_of" not in plain
    assert plain["digest"] == digest_of(plain)
    assert (
        json.loads((demo_clicks.path / "bundle.json").read_text())["features_of"]
        == Bundle("demo-small").manifest.digest
    )


def test_a_parent_that_is_no_digest_is_refused(tmp_path: Path, demo_clicks: Bundle) -> None:
    (tmp_path / "bad").mkdir()
    for file in demo_clicks.path.iterdir():
        (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "bad" / "bundle.json").read_text())
    manifest["features_of"] = "me"
    manifest["digest"] = digest_of(manifest)
    (tmp_path / "bad" / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleCorruptError, match="features_of"):
        Bundle(tmp_path / "bad")


def test_the_model_card_says_what_it_is(demo_clicks: Bundle) -> None:
    card = (demo_clicks.path / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for said in (
        "click bundle",
        "## What is missing, on purpose",
        Bundle("demo-small").manifest.digest,
        "session.use(Features.load(",
        "--features photo.features",
        "not encrypted",
    ):
        assert said in card
    for wrong in ("set_image", "The split gains", "uint8, resized"):
        assert wrong not in card
    assert "click bundle" in demo_clicks._repr_html_()


def test_features_from_a_file_are_those_of_the_image(tmp_path: Path, demo_clicks: Bundle) -> None:
    with Session("demo-small") as session:
        session.set_image(IMAGE)
        given = kept_for_clicks(session, tmp_path / "image.features")
    assert given.picture is not None
    np.testing.assert_array_equal(given.picture, IMAGE)
    assert Features.load(tmp_path / "image.features").key == given.key

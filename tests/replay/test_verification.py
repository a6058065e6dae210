from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import BundleCorruptError, EngineUnavailableError, MMMSDeployWarning, VerificationError
from mmms_deploy.replay.golden import GoldenCase
from mmms_deploy.replay.metrics import iou
from mmms_deploy.replay.verification import LIMITS, replay, replay_engines, verify
from mmms_deploy.session import Session
from tests.support.golden_cases import CLICKS, golden, spoiled
from tests.support.toy import write_toy

pytestmark = pytest.mark.usefixtures("every_engine")


@pytest.fixture(scope="module")
def case(paint: Bundle) -> GoldenCase:
    return golden(paint)


def test_a_good_bundle_passes(tmp_path: Path, case: GoldenCase, every_engine: tuple[str, Precision]) -> None:
    write_toy(tmp_path / "good", golden=[case, case])
    seen: list[tuple[int, int | None]] = []
    report = verify(tmp_path / "good", on_progress=lambda step: seen.append((step.done, step.total)))
    assert seen == [(n, 6) for n in range(1, 7)]
    assert [(c.case, c.click) for c in report.checks] == [(case, click) for case in range(2) for click in range(3)]
    assert report.worst.iou == 1.0
    assert (report.engine.name, report.engine.precision) == every_engine
    assert report.limit == LIMITS[report.engine.precision]
    assert not report.failures
    assert all(c.certain > 0.9 and c.milliseconds > 0 for c in report.checks)
    check = report.check()
    assert (check.worst, check.limit, check.samples) == (1.0, report.limit, 6)


def test_another_mask_fails_and_says_where(tmp_path: Path, case: GoldenCase) -> None:
    write_toy(tmp_path / "bad", golden=[case, spoiled(case, 1)])
    with pytest.raises(VerificationError, match=r"1 of 6 golden clicks .* \(image 2, click 2\)"):
        verify(tmp_path / "bad")
    report = replay(tmp_path / "bad")
    assert [(c.case, c.click) for c in report.failures] == [(1, 1)]
    assert report.worst.iou < 0.99
    assert report.check().where == "image 2, click 2"
    verify(tmp_path / "bad", limit=0.1)


def test_uncertain_pixels_do_not_count(tmp_path: Path, case: GoldenCase) -> None:
    bad = spoiled(case, 2)
    lenient = GoldenCase(
        image=bad.image,
        modalities=bad.modalities,
        clicks=bad.clicks,
        masks=bad.masks,
        certain=bad.certain & (bad.masks == case.masks),
    )
    write_toy(tmp_path / "lenient", golden=[lenient])
    assert verify(tmp_path / "lenient").worst.iou == 1.0


def test_modalities_are_replayed(tmp_path: Path) -> None:
    modalities = (ModalitySpec(name="depth"), ModalitySpec(name="event", channels=3))
    bundle = write_toy(tmp_path / "first", modalities=modalities)
    write_toy(tmp_path / "second", modalities=modalities, golden=[golden(bundle)])
    verify(tmp_path / "second")


def test_changed_files_are_found_before_anything_runs(tmp_path: Path, case: GoldenCase) -> None:
    bundle = write_toy(tmp_path / "changed", golden=[case])
    graph = bundle.file("click.fp32.onnx")
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    with pytest.raises(BundleCorruptError, match="SHA-256"):
        verify(tmp_path / "changed")


def test_a_replay_that_does_not_fit_its_bundle(tmp_path: Path, case: GoldenCase) -> None:
    outside = GoldenCase(image=case.image, clicks=CLICKS + np.float32(1000), masks=case.masks, certain=case.certain)
    write_toy(tmp_path / "outside", golden=[outside])
    with pytest.raises(BundleCorruptError, match=r"golden image 1 .* does not fit its bundle"):
        verify(tmp_path / "outside")
    write_toy(tmp_path / "modal", modalities=(ModalitySpec(name="depth"),), golden=[case])
    with pytest.raises(BundleCorruptError, match="missing: depth"):
        verify(tmp_path / "modal")


def test_every_engine_is_replayed_and_remembered(
    tmp_path: Path, case: GoldenCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # what auto takes is what is found here
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    bundle = write_toy(tmp_path / "all", golden=[case])
    seen: list[tuple[str, int, int | None]] = []
    outcomes = replay_engines(
        bundle,
        EngineRequest(threads=1),
        on_progress=lambda step: seen.append((step.task, step.done, step.total)),
    )
    ran = [outcome for outcome in outcomes if outcome.report is not None]
    assert [(o.engine, o.precision) for o in outcomes] == [
        ("openvino", Precision.FP32),
        ("onnxruntime", Precision.FP32),
        ("openvino", Precision.BF16),
    ]
    assert all(outcome.passed and outcome.kept for outcome in ran)
    assert seen[:4] == [("openvino in fp32", n, 3) for n in range(4)], "0 before it is opened"
    fastest = min(ran, key=lambda outcome: outcome.report.milliseconds)
    with Session(bundle) as session:
        assert (session.engine.name, session.engine.precision) == (fastest.engine, fastest.precision)
        assert f"the fastest of {len(ran)} that passed the golden replay here" in session.engine.reason


def test_empty_masks_prove_no_reduced_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    for outcome in replay_engines(write_toy(tmp_path / "blank"), EngineRequest(threads=1)):
        if outcome.report is not None:
            assert not outcome.report.failures
            assert not outcome.report.telling
        assert outcome.passed == (outcome.precision is Precision.FP32)


def test_an_engine_that_answers_otherwise_is_not_taken(
    tmp_path: Path, case: GoldenCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    bundle = write_toy(tmp_path / "bad", golden=[spoiled(case, 1)])
    outcomes = replay_engines(bundle, EngineRequest(threads=1))
    assert not any(outcome.passed for outcome in outcomes)
    with pytest.warns(MMMSDeployWarning, match="openvino in fp32 failed the golden replay"), Session(bundle) as session:
        assert session.engine.precision is Precision.FP32


def test_an_engine_that_cannot_be_opened_is_an_outcome(
    tmp_path: Path, case: GoldenCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise EngineUnavailableError("its libraries are broken")

    monkeypatch.setattr("mmms_deploy.engines.openvino.engine.OpenVinoCpu", broken)
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    outcomes = replay_engines(write_toy(tmp_path / "broken", golden=[case]))
    first, second, third = (outcome for outcome in outcomes if not outcome.engine.startswith("standin"))
    assert str(first.error) == str(third.error) == "its libraries are broken"
    assert second.passed
    assert not any(outcome.kept for outcome in outcomes)


def test_iou() -> None:
    a = np.array([[True, True, False]])
    assert iou(a, a) == 1.0
    assert iou(a, ~a) == 0.0
    assert iou(a, np.array([[True, False, False]])) == 0.5
    assert iou(a & False, a & False) == 1.0

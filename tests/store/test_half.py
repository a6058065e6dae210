"""Features in half precision: the verdict that allows it, where it is kept, and that what is clicked on is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Features, FeatureStore, Model
from mmms_deploy.bundle import GOLDEN_NAME, Precision
from mmms_deploy.engines import Engine
from mmms_deploy.errors import BundleCorruptError, StoreWarning
from mmms_deploy.export.half.precision import REDUCED
from mmms_deploy.replay.golden import load_golden
from mmms_deploy.store import HalfVerdict, half
from mmms_deploy.store.half import judge, read_verdict, verdict_name
from tests.support.annotating import GREY
from tests.support.stored import features

LARGE = np.array([[1.0, 65504.0, -65519.0]], np.float32)


@pytest.fixture(scope="module")
def small_verdict(small_engine: Engine) -> HalfVerdict:
    """The verdict on the small demo, found out once for all tests."""
    with Model(small_engine.bundle, engine=small_engine) as model:
        return judge(model)


@pytest.fixture
def judged(small_verdict: HalfVerdict, monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """The models that were judged; the verdict is that on the small demo."""
    models: list[Model] = []
    monkeypatch.setattr("mmms_deploy.store.store.judge", lambda model: models.append(model) or small_verdict)
    return models


@pytest.fixture
def model(small_engine: Engine) -> Iterator[Model]:
    with Model(small_engine.bundle, engine=small_engine) as model:
        yield model


def passing(bundle: str, *, passed: bool = True) -> HalfVerdict:
    return HalfVerdict(
        bundle=bundle,
        precision=Precision.FP32,
        engine="by hand",
        passed=passed,
        worst=1.0,
        limit=0.97,
        last=1.0,
        last_limit=0.99,
        clicks=1,
        largest=1.0,
        nbytes=4,
        rounded_nbytes=2,
    )


def with_verdict(store: FeatureStore, given: Features, *, passed: bool = True) -> FeatureStore:
    store._verdicts[given.bundle, given.precision] = passing(given.bundle, passed=passed)
    return store


def test_the_limits_are_those_of_fp16() -> None:
    assert pytest.approx(1 - REDUCED[Precision.FP16].last) == half.LAST_LIMIT
    assert pytest.approx(1 - REDUCED[Precision.FP16].mask) == half.LIMITS[Precision.FP16]


def test_the_verdict_on_the_small_demo(model: Model, small_verdict: HalfVerdict) -> None:
    verdict = small_verdict
    assert verdict.passed, verdict.reason
    assert verdict.worst > 0.97
    assert verdict.last > 0.99
    assert verdict.clicks == sum(len(case.clicks) for case in load_golden(model.bundle.file(GOLDEN_NAME)))
    assert verdict.nbytes == 2 * verdict.rounded_nbytes == model.encode(GREY).nbytes
    assert 1 < verdict.largest < 65504


def test_a_verdict_is_found_out_once(model: Model, store: FeatureStore, judged: list[Model]) -> None:
    first = store.half_verdict(model)
    assert [one.half_verdict(model) for one in (store, FeatureStore(store.folder))] == [first, first]
    assert len(judged) == 1
    store.half_verdict(model, again=True)
    assert len(judged) == 2


def test_without_a_folder_it_is_in_the_cache(
    model: Model, judged: list[Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    verdict = FeatureStore().half_verdict(model)
    (file,) = (tmp_path / "cache").rglob("*.json")
    assert file.name == verdict_name(verdict.bundle, verdict.precision)
    assert FeatureStore().half_verdict(model) == verdict
    assert len(judged) == 1


def test_where_nothing_can_be_written_it_holds_for_the_store(
    model: Model, judged: list[Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    (tmp_path / "file").write_text("in the way")
    store = FeatureStore(tmp_path / "file")
    with pytest.warns(StoreWarning, match="cannot be written"):
        verdict = store.half_verdict(model)
    assert store.half_verdict(model) == verdict
    assert len(judged) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5000, b"\xff", b"other"])
def test_a_damaged_verdict_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "verdict.json"
    if content == b"other":
        half.keep_verdict(passing("c" * 64), lambda content: file.write_bytes(content) and None)
        assert read_verdict(file, "c" * 64, Precision.FP32) is not None
    else:
        file.write_bytes(content)
    assert read_verdict(file, "b" * 64, Precision.FP32) is None


def test_what_is_clicked_on_is_what_is_stored(model: Model, judged: list[Model], tmp_path: Path) -> None:
    """From the first moment, and after a reload: the same masks, bit by bit."""
    store = FeatureStore(tmp_path / "features")
    store.half_verdict(model)
    image = load_golden(model.bundle.file(GOLDEN_NAME))[0].image

    def clicked(source: FeatureStore) -> tuple[object, int]:
        with Model(model.bundle, engine=model.opened, store=source) as one, one.session() as session:
            session.set_image(image)
            answers = [session.click(x, 100, x != 130).network_probability for x in (100, 130, 160)]
            return np.stack(answers), session.runs["image"]

    first, runs = clicked(store)
    again, runs_again = clicked(FeatureStore(tmp_path / "features"))
    exact, _ = clicked(FeatureStore(half="off"))
    assert (runs, runs_again) == (1, 0)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, exact)
    assert store.stats().rounded == 1
    (file,) = (tmp_path / "features").rglob("*.features")
    assert {str(array.dtype) for array in Features.load(file).arrays.values()} == {"float16"}
    assert file.stat().st_size < model.encode(image).nbytes * 0.51


def test_without_a_passed_verdict_nothing_is_rounded(tmp_path: Path) -> None:
    given = features(1)
    for name, store in {
        "none": FeatureStore(tmp_path / "none"),
        "failed": with_verdict(FeatureStore(tmp_path / "failed"), given, passed=False),
        "off": with_verdict(FeatureStore(tmp_path / "off", half="off"), given),
    }.items():
        assert store.keep(given) is given, name
        assert store.stats().rounded == 0


def test_rounded_features_are_kept_and_returned(store: FeatureStore) -> None:
    given = features(1)
    with_verdict(store, given)
    kept, found = store.keep(given), store.find(given.key)
    assert found is not None
    for one in (kept, found):
        assert one.arrays["f1"].dtype == np.float16
        np.testing.assert_array_equal(one.arrays["f1"], given.arrays["f1"].astype(np.float16))
    # Rounding what was rounded changes nothing.
    assert FeatureStore(store.folder).keep(kept).to_bytes() == found.to_bytes()


@pytest.mark.parametrize("number", [65520.0, 1e30, np.inf, -np.inf, np.nan])
def test_numbers_beyond_float16_stay_float32(store: FeatureStore, number: float) -> None:
    fits = features(1).with_arrays({"f1": LARGE})
    assert fits.rounded() is not None
    beyond = features(2).with_arrays({"f1": np.array([[1.0, number]], np.float32), "f2": LARGE})
    assert beyond.rounded() is None
    with_verdict(store, beyond)
    assert store.keep(beyond) is beyond
    found = FeatureStore(store.folder).find(beyond.key)
    assert found is not None
    np.testing.assert_array_equal(found.arrays["f1"], beyond.arrays["f1"])


def test_features_in_other_types_are_as_they_are(store: FeatureStore) -> None:
    given = features(1).with_arrays({"f1": np.ones((1, 2), np.float16), "f2": np.ones((1, 3), np.uint8)})
    with_verdict(store, given)
    assert store.keep(given) is given


def test_the_gate_refuses_features_that_make_other_masks(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def coarse(given: Features) -> Features:
        return given.with_arrays({name: np.zeros_like(array) for name, array in given.arrays.items()})

    monkeypatch.setattr(Features, "rounded", coarse)
    verdict = judge(model)
    assert not verdict.passed
    assert verdict.worst < verdict.limit
    assert "a mask has the IoU" in verdict.reason


def test_the_gate_refuses_features_beyond_float16(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Features, "rounded", lambda given: None)
    verdict = judge(model)
    assert (verdict.passed, verdict.reason) == (
        False,
        "features of 3 of 3 images are not finite or beyond float16",
    )


def test_the_gate_refuses_a_replay_that_tells_nothing(tmp_path: Path) -> None:
    from mmms_deploy.engines import open_engine
    from tests.support.toy import write_toy

    bundle = write_toy(tmp_path / "empty", echo=True, radius=1000.0)
    engine = open_engine(bundle, threads=1)
    with Model(bundle, engine=engine) as model:
        verdict = judge(model)
    engine.close()
    assert (verdict.passed, verdict.worst) == (False, 1.0)
    assert "tells nothing" in verdict.reason


def test_a_bundle_without_a_replay_has_no_verdict(copy: Path, store: FeatureStore) -> None:
    from tests.support.toy import taken_as_it_is

    with Model(Bundle(copy), threads=1) as model:
        (copy / GOLDEN_NAME).write_bytes(b"")
        taken_as_it_is(model.bundle)
        with pytest.raises(BundleCorruptError):
            store.half_verdict(model)

"""A store of features: what goes where, what is found, and sessions on it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Features, FeatureStore, Model, Session
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines import Engine, open_engine
from mmms_deploy.engines.cuda.runner import CudaRunner
from mmms_deploy.errors import FeatureError, StoreError
from tests.support import standin_engine
from tests.support.annotating import GREY, SIZE, annotated
from tests.support.stored import features, picture, renamed
from tests.support.toy import write_toy

DEPTH, EVENT = np.full(SIZE, 20.0), np.full((*SIZE, 3), 0.1)


@pytest.fixture(scope="module")
def engine(paint: Bundle) -> Iterator[Engine]:
    engine = open_engine(paint, threads=1)
    yield engine
    engine.close()


@pytest.fixture
def on_gpu(paint: Bundle) -> Iterator[Engine]:
    """An engine whose device is not the host, as far as its users can tell."""
    engine = standin_engine.on_gpu(paint)
    yield engine
    engine.close()


def numbers(given: Features | None) -> Any:
    assert given is not None
    return given.arrays["f1"]


def test_what_is_kept_is_found_with_the_same_numbers(store: FeatureStore) -> None:
    given = features(1)
    assert store.find(given.key) is None
    assert store.keep(given) is given
    np.testing.assert_array_equal(numbers(store.find(given.key)), given.arrays["f1"])
    assert store.find(features(2).key) is None
    stats = store.stats()
    assert (stats.misses, stats.host.hits, stats.kept, stats.hits) == (2, 1, 1, 1)
    assert (stats.host.entries, stats.host.bytes) == (1, given.nbytes)


def test_a_second_store_finds_it_on_the_disk_and_then_in_memory(store: FeatureStore) -> None:
    given = features(1)
    store.keep(given)
    other = FeatureStore(store.folder)
    for _ in range(2):
        np.testing.assert_array_equal(numbers(other.find(given.key)), given.arrays["f1"])
    stats = other.stats()
    assert stats.disk is not None
    assert (stats.disk.hits, stats.host.hits, stats.disk.entries, stats.misses) == (1, 1, 1, 0)


def test_neither_picture_nor_file_name_is_kept(store: FeatureStore, paint: Bundle, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(GREY).save(tmp_path / "holiday.png")
    with Model(paint, threads=1, store=store) as model:
        made = model.encode(tmp_path / "holiday.png")
        assert (made.file_name, made.picture is None) == ("holiday.png", False)
        found = store.find(made.key)
    assert found is not None
    assert (found.file_name, found.picture) == ("", None)
    (file,) = (store.folder or tmp_path).rglob("*.features")
    assert b"holiday" not in file.read_bytes()


def test_the_least_recently_used_leaves_the_host_and_stays_on_the_disk(tmp_path: Path) -> None:
    given = [features(number) for number in range(3)]
    store = FeatureStore(tmp_path, host_bytes=2 * given[0].nbytes)
    for one in given[:2]:
        store.keep(one)
    store.find(given[0].key)
    store.keep(given[2])
    stats = store.stats()
    assert (stats.host.entries, stats.host.evictions, stats.host.bytes) == (2, 1, 2 * given[0].nbytes)
    before = stats.hits
    for one in (given[0], given[2]):
        store.find(one.key)
    assert store.stats().host.hits == before + 2
    np.testing.assert_array_equal(numbers(store.find(given[1].key)), given[1].arrays["f1"])
    after = store.stats()
    assert after.disk is not None
    assert after.disk.hits == 1


def test_without_a_folder_what_leaves_the_host_is_gone() -> None:
    given = [features(number) for number in range(3)]
    store = FeatureStore(host_bytes=2 * given[0].nbytes)
    for one in given:
        store.keep(one)
    assert [store.find(one.key) is not None for one in given] == [False, True, True]
    assert (store.folder, store.stats().disk) == (None, None)


def test_what_is_larger_than_the_budget_pushes_nothing_out() -> None:
    small, large = features(1, 10), features(2, 1000)
    store = FeatureStore(host_bytes=small.nbytes)
    for one in (small, large):
        store.keep(one)
    assert store.find(small.key) is not None
    assert store.find(large.key) is None


def test_the_first_numbers_of_an_image_stay(store: FeatureStore) -> None:
    first, second = features(1), renamed(features(2), 1)
    store.keep(first)
    other = FeatureStore(store.folder)  # another process, which did not find it a moment ago
    for one in (store, other):
        kept = one.keep(second)
        np.testing.assert_array_equal(kept.arrays["f1"], first.arrays["f1"])
    assert (store.stats().kept, other.stats().kept) == (1, 0)


def test_what_is_forgotten_is_nowhere(store: FeatureStore) -> None:
    given = features(1)
    store.keep(given)
    store.forget(given.key)
    store.forget(given.key)
    assert store.find(given.key) is None
    assert store.stats().host.bytes == 0
    assert FeatureStore(store.folder).find(given.key) is None


def test_a_store_in_another_process_is_another_one_on_the_same_folder(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, host_bytes=5, device_bytes=6, disk_bytes=7, half="off")
    copied = copy.copy(store)
    assert copied.__reduce__() == store.__reduce__()
    assert copied is not store


@pytest.mark.parametrize(
    ("name", "value"),
    [("folder", 3), ("folder", ""), ("host_bytes", -1), ("disk_bytes", 1.5), ("device_bytes", True), ("half", "maybe")],
)
def test_what_is_no_setting_is_refused(name: str, value: Any) -> None:
    with pytest.raises(StoreError, match=r"path|bytes|half"):
        FeatureStore(**{name: value})


# --- sessions -------------------------------------------------------------------------------------------------------


def test_an_image_that_comes_back_runs_no_backbone_and_has_its_objects(store: FeatureStore, engine: Engine) -> None:
    with Session(engine.bundle, engine=engine, store=store, resume=True) as session:
        session.set_image(picture(51))
        session.click(10, 10)
        session.select("other")
        session.click(60, 40)
        session.click(30, 20, False)
        labels, clicks = session.labels.copy(), session.all_clicks
        session.undo()
        session.redo()
        for number in range(52, 60):
            session.set_image(picture(number))
        images = session.runs["image"]
        assert session.set_image(picture(51)).found
        assert session.runs["image"] == images == 9
        np.testing.assert_array_equal(session.labels, labels)
        assert (session.all_clicks, session.surface) == (clicks, "other")
        assert session.can_undo


def test_answers_are_the_same_with_and_without_a_store(every_engine: object, paint: Bundle, tmp_path: Path) -> None:
    with Session(paint) as session:
        expected = annotated(session)
    for runs in (2, 0):
        with Session(paint, store=FeatureStore(tmp_path)) as session:
            for ours, theirs in zip(annotated(session), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            assert session.runs["image"] == runs


def test_another_bundle_or_precision_is_another_entry(store: FeatureStore) -> None:
    one, other = features(1), features(1, bundle="c" * 64)
    store.keep(one)
    assert store.find(other.key) is None
    assert store.find(one.key._replace(precision="bf16")) is None


def test_a_changed_map_is_another_entry_and_the_first_one_comes_back(store: FeatureStore, modal: Bundle) -> None:
    with Session(modal, threads=1, store=store, resume=True) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        session.click(10, 10)
        first = session.result.network_probability
        assert not session.set_image(GREY, depth=DEPTH * 2, event=EVENT).found
        assert session.clicks == ()
        session.click(10, 10)
        second = session.result.network_probability
        assert not np.array_equal(first, second)
        assert session.set_image(GREY, depth=DEPTH, event=EVENT).found
        np.testing.assert_array_equal(session.result.network_probability, first)
        assert session.runs["image"] == 2
        assert session.modalities == {"depth", "event"}
        # What is found can be changed like any other image.
        assert session.set_modalities(depth=DEPTH * 2).found
        np.testing.assert_array_equal(session.result.network_probability, second)
        assert not session.set_modalities(depth=DEPTH * 3).found
        assert session.runs["image"] == 2
        assert session.set_modalities(event=EVENT * 2).total > 0
    expected = answer_of(modal, DEPTH * 3, EVENT * 2)
    with Session(modal, threads=1, store=store) as session:
        assert session.set_image(GREY, depth=DEPTH * 3, event=EVENT * 2).found
        np.testing.assert_array_equal(session.click(10, 10).network_probability, expected)


def answer_of(bundle: Bundle, depth: Any, event: Any) -> Any:
    with Session(bundle, threads=1) as session:
        session.set_image(GREY, depth=depth, event=event)
        return session.click(10, 10).network_probability


def test_a_found_image_takes_another_map_where_both_share_a_stage(tmp_path: Path, store: FeatureStore) -> None:
    """The inputs that were not set, because the features were there, are set when they are needed."""
    bundle = write_toy(
        tmp_path / "modal", modalities=(ModalitySpec(name="depth", scale=0.01), ModalitySpec(name="event", channels=3))
    )
    expected = answer_of(bundle, DEPTH * 2, EVENT)
    with Session(bundle, threads=1, store=store) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
    with Session(bundle, threads=1, store=store) as session:
        assert session.set_image(GREY, depth=DEPTH, event=EVENT).found
        session.click(10, 10)
        session.set_modalities(depth=DEPTH * 2)
        np.testing.assert_array_equal(session.result.network_probability, expected)


def test_what_waits_for_a_modality_is_never_kept(store: FeatureStore, modal: Bundle) -> None:
    with Session(modal, threads=1, store=store) as session:
        session.set_image(GREY, depth=LATER, event=EVENT)
        incomplete = session.features
        assert incomplete.awaited == {"depth"}
        assert store.keep(incomplete) is incomplete
        assert store.stats().host.entries == 0
        session.set_modalities(depth=DEPTH)
        complete = session.features
        expected = session.click(10, 10).network_probability
    assert store.find(incomplete.key) is None
    assert store.find(complete.key) is not None
    with Session(modal, threads=1, store=store) as session:
        assert session.set_image(GREY, depth=DEPTH, event=EVENT).found
        np.testing.assert_array_equal(session.click(10, 10).network_probability, expected)


@pytest.mark.parametrize(
    "other",
    [
        {"f1": np.zeros((1, 2, 3), np.float32)},
        {"f1": np.zeros((1, 1, 1, 1), np.int64)},
        {"f2": np.zeros((1, 3, 8, 12), np.float32)},
        {"maps": np.zeros((1, 2, 64, 96), np.float32)},
        {},
    ],
    ids=["shape", "type", "no f1", "a state alone", "nothing"],
)
def test_features_that_do_not_fit_are_forgotten_and_computed(
    store: FeatureStore, engine: Engine, other: dict[str, Any]
) -> None:
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(GREY)
        right = session.features
    store.keep(right.with_arrays(other))
    with Session(engine.bundle, engine=engine, store=store) as session:
        assert not session.set_image(GREY).found
        assert session.runs["image"] == 1
        assert session.set_image(GREY).found
    np.testing.assert_array_equal(numbers(store.find(right.key)), right.arrays["f1"])


# --- devices --------------------------------------------------------------------------------------------------------


def test_features_stay_on_the_device_for_sessions_of_its_engine(
    on_gpu: Engine, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore()
    with Model(paint, engine=on_gpu, store=store) as model, model.session() as session:
        session.set_image(GREY)
        expected = session.click(10, 10).network_probability
        assert (store.stats().device.entries, store.stats().device.bytes) == (1, 4)
        session.set_image(picture(7))
        uploads, upload = [], CudaRunner.upload
        monkeypatch.setattr(
            CudaRunner, "upload", lambda self, spec, array: uploads.append(spec.name) or upload(self, spec, array)
        )
        assert session.set_image(GREY).found
        assert uploads == []
        np.testing.assert_array_equal(session.click(10, 10).network_probability, expected)
        assert store.stats().device.hits == 1
        with model.session() as other:
            assert other.set_image(GREY).found
            np.testing.assert_array_equal(other.click(10, 10).network_probability, expected)
        assert store.stats().device.hits == 2


def test_what_leaves_the_device_is_on_the_host(on_gpu: Engine, paint: Bundle) -> None:
    store = FeatureStore(device_bytes=4)
    with Session(paint, engine=on_gpu, store=store) as session:
        for number in (1, 2):
            session.set_image(picture(number))
        assert (store.stats().device.entries, store.stats().device.evictions) == (1, 1)
        assert session.set_image(picture(1)).found
    stats = store.stats()
    assert (stats.device.hits, stats.host.hits) == (0, 1)


def test_features_of_a_closed_session_come_from_the_host(on_gpu: Engine, paint: Bundle) -> None:
    store = FeatureStore()
    with Session(paint, engine=on_gpu, store=store) as session:
        session.set_image(GREY)
        expected = session.click(10, 10).network_probability
    with Session(paint, engine=on_gpu, store=store) as session:
        assert session.set_image(GREY).found
        np.testing.assert_array_equal(session.click(10, 10).network_probability, expected)
    assert store.stats().device.entries == 0


def test_another_engine_takes_what_is_on_the_host(on_gpu: Engine, engine: Engine, paint: Bundle) -> None:
    store = FeatureStore()
    with (
        Session(paint, engine=on_gpu, store=store) as one,
        Session(paint, engine=engine, store=store) as other,
    ):
        one.set_image(GREY)
        assert other.set_image(GREY).found
        np.testing.assert_array_equal(one.click(10, 10).network_probability, other.click(10, 10).network_probability)
    assert (store.stats().device.hits, store.stats().host.hits) == (0, 1)


def test_on_the_cpu_the_device_is_the_host(engine: Engine, paint: Bundle) -> None:
    store = FeatureStore()
    with Model(paint, engine=engine, store=store) as model:
        store.hold(model.encode(GREY))
    assert (store.stats().device.entries, store.stats().host.entries) == (0, 1)


def test_no_memory_on_the_device_is_no_error(on_gpu: Engine, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmms_deploy.errors import ResidentBudgetError

    def refuse(self: object, value: object) -> None:
        raise ResidentBudgetError("no memory is left")

    monkeypatch.setattr(CudaRunner, "detach", refuse)
    store = FeatureStore()
    with Session(paint, engine=on_gpu, store=store) as session:
        for found in (False, True):
            assert session.set_image(GREY).found is found
    assert store.stats().device.entries == 0


# --- threads --------------------------------------------------------------------------------------------------------


def test_many_threads_on_few_images_run_the_backbone_once_each(store: FeatureStore, engine: Engine) -> None:
    images = [picture(number) for number in range(4)]
    sessions = [Session(engine.bundle, engine=engine, store=store) for _ in range(8)]
    begin, wrong = threading.Barrier(len(sessions)), []
    with Session(engine.bundle, engine=engine) as alone:
        expected = []
        for image in images:
            alone.set_image(image)
            expected.append(alone.click(10, 10).network_probability)

    def annotate(number: int) -> None:
        begin.wait()
        for step in range(12):
            which = (number + step) % len(images)
            sessions[number].set_image(images[which])
            if not np.array_equal(sessions[number].click(10, 10).network_probability, expected[which]):
                wrong.append((number, step))

    threads = [threading.Thread(target=annotate, args=(number,)) for number in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    runs = sum(session.runs["image"] for session in sessions)
    for session in sessions:
        session.close()
    assert wrong == []
    assert runs == len(images)
    stats = store.stats()
    assert (stats.misses, stats.hits, stats.kept) == (4, 8 * 12 - 4, 4)


def test_the_next_one_encodes_where_the_first_one_fails(store: FeatureStore) -> None:
    key, waiting, found = features(1).key, threading.Event(), []

    def other() -> None:
        waiting.set()
        with store.encoding(key) as known:
            found.append(known)

    thread = threading.Thread(target=other)

    def first() -> None:
        with store.encoding(key) as known:
            assert known is None
            thread.start()
            waiting.wait(10)
            raise FeatureError("a stage failed")

    with pytest.raises(FeatureError, match="a stage failed"):
        first()
    thread.join(10)
    assert found == [None]

"""Journals of every kind of network lead to the same masks again; what differs, fails or is missing is said by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Features, FeatureStore, Journal, MaskCleaning, Session
from mmms_deploy.bundle import ZoomRule
from mmms_deploy.bundle.contract import Coordinates, ModalitySpec, ResizeRule
from mmms_deploy.errors import ImageMissingError, JournalDiffersError, JournalError, WorkDiffersError
from mmms_deploy.journal import Images, Outcome, read_journal, recreate, replay_journal, replay_work
from mmms_deploy.session import recording, save_features
from tests.support.annotating import GREY, SIZE
from tests.support.joint import write_joint
from tests.support.journals import (
    DEPTH,
    ONE,
    OTHER,
    PICTURE,
    Kept,
    check_replay,
    joint_walk,
    lines,
    modal_walk,
    proposing_walk,
    recorded,
    separate_walk,
    write_pictures,
)
from tests.support.toy import write_toy

ALIGNED = ResizeRule(align_corners=True)
CLEANING = MaskCleaning(fill_holes=30, drop_specks=30, simplify=2)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    modalities = (ModalitySpec(name="depth", scale=0.01, optional=True),)
    return write_toy(tmp_path_factory.mktemp("bundles") / "late", modalities=modalities)


@pytest.fixture(scope="module")
def ritm(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(
        tmp_path_factory.mktemp("bundles") / "ritm",
        coordinates=Coordinates.SCALE,
        mask_resize=ALIGNED,
        previous_resize=ALIGNED,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "pictures")


@pytest.mark.parametrize(
    ("bundle", "walk", "options"),
    [
        ("paint", separate_walk, {}),
        ("paint", separate_walk, {"history_limit": 2}),
        ("joint", joint_walk, {}),
        ("proposing", proposing_walk, {}),
        ("late", modal_walk, {}),
        ("ritm", separate_walk, {"zoom": ZoomRule(smallest=20)}),
        ("ritm", separate_walk, {"zoom": True, "flip": True}),
        ("ritm", separate_walk, {"flip": True}),
        ("paint", separate_walk, {"cleaning": CLEANING}),
        ("joint", joint_walk, {"cleaning": CLEANING}),
        ("proposing", proposing_walk, {"cleaning": CLEANING}),
    ],
    ids=[
        "separate",
        "limited",
        "joint",
        "proposing",
        "modalities",
        "zoom",
        "zoom and flip",
        "flip",
        "cleaned",
        "cleaned jointly",
        "cleaned proposals",
    ],
)
def test_the_same_masks(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    folder: Path,
    bundle: str,
    walk: Callable[[Session], object],
    options: dict[str, Any],
) -> None:
    opened = request.getfixturevalue(bundle)
    found = recorded(opened, tmp_path / "a.jsonl", walk, **options)
    report = check_replay(tmp_path / "a.jsonl", opened, Images([folder]))
    assert len(report.rows) == len(found) - 2
    assert len(report.compared) == sum("mask" in line for line in found) > len(found) // 2


def test_two_engines_side_by_side(paint: Bundle, joint: Bundle, tmp_path: Path, folder: Path) -> None:
    for bundle, walk in ((paint, separate_walk), (joint, joint_walk)):
        path = tmp_path / f"{bundle.manifest.name}.jsonl"
        recorded(bundle, path, walk)
        report = replay_journal(path, bundle, Images([folder]), request=ONE, against="openvino")
        assert report.against is not None
        assert report.against.name == "openvino"
        compared = [row for row in report.rows if row.against is not None and row.against.pixels is not None]
        assert len(compared) == len(report.compared)
        assert all(row.outcome is Outcome.SAME for row in report.compared)
        assert min(row.against.iou for row in compared if row.against is not None) > 0.9  # type: ignore[type-var]


def test_a_mask_that_differs(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Session(paint, engine="onnxruntime", threads=1, journal=Journal(path, masks=True)) as session:
        session.set_image(PICTURE)
        session.click(20, 20)
        session.click(40, 30)
    kept = path.read_text().splitlines()
    kept[3] = kept[3].replace('"click":[40.0,30.0,1]', '"click":[42.0,30.0,1]')
    path.write_text("\n".join(kept) + "\n")
    report = replay_journal(path, paint, Images([folder]), request=ONE)
    image, first, second = report.rows
    assert (image.outcome, first.outcome, second.outcome) == (Outcome.DONE, Outcome.SAME, Outcome.DIFFERS)
    assert second.iou is not None
    assert 0.5 < second.iou < 1
    assert second.pixels
    with pytest.raises(JournalDiffersError, match=r"1 of 3 events .* event 3 on '1': differs"):
        report.raise_for_failures()
    report.raise_for_failures(limit=0.5)
    with pytest.raises(JournalDiffersError):
        report.raise_for_failures(limit=0.999)


def test_a_mask_that_differs_with_its_hash_alone(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    """How far it differs is not known, and shown beside the engine that wrote the journal."""
    path = tmp_path / "a.jsonl"
    recorded(paint, path, lambda session: (session.set_image(PICTURE), session.click(20, 20)))
    path.write_text(path.read_text().replace('"click":[20.0,20.0,1]', '"click":[22.0,20.0,1]'))
    report = replay_journal(path, paint, Images([folder]), request=ONE)
    assert report.rows[1].outcome is Outcome.DIFFERS
    assert report.rows[1].iou is None
    with pytest.raises(JournalDiffersError, match="pass against='onnxruntime'"):
        report.raise_for_failures(limit=0.1)


def test_features_in_the_place_of_the_image(paint: Bundle, tmp_path: Path) -> None:
    """What a server needs to bring a session back: its journal, and the features by what they are kept by."""
    store, path = Kept(), tmp_path / "a.jsonl"
    with Session(paint, engine="onnxruntime", threads=1, store=store, journal=path) as session:
        separate_walk(session)
        session.select("another")
        session.click(12, 30)
        session.undo()
        stood = session.to_dict(), session.labels.copy(), session.mask.copy()
    (one,) = read_journal(path)
    with Session(paint, engine="onnxruntime", threads=1, journal=tmp_path / "b.jsonl") as again:
        recreate(one, again, Images(features=store))
        assert again.to_dict() == stood[0]
        np.testing.assert_array_equal(again.labels, stood[1])
        np.testing.assert_array_equal(again.mask, stood[2])
        assert again.runs["image"] == 0
        assert again.redo().area > 0
    check_replay(path, paint, Images(features=store))
    with Session(paint, engine="onnxruntime", threads=1) as third:  # and from the journal of the one that came back
        recreate(read_journal(tmp_path / "b.jsonl")[0], third, Images(features=store))
        assert third.to_dict()["surfaces"][-1]["interactions"] == [[12.0, 30.0, 1]]


def test_files_of_features(late: Bundle, tmp_path: Path) -> None:
    with Session(late, engine="onnxruntime", threads=1, journal=tmp_path / "a.jsonl") as session:
        session.set_image(PICTURE, depth=PICTURE[:, :, 0])
        session.click(10, 10)
        session.features.save(tmp_path / "x.features")
    (tmp_path / "y.features").write_bytes(b"no features")
    check_replay(tmp_path / "a.jsonl", late, Images([tmp_path]))
    used = Features.load(tmp_path / "x.features")
    recorded(late, tmp_path / "b.jsonl", lambda session: (session.use(used), session.click(5, 5)))
    assert lines(tmp_path / "b.jsonl")[1]["call"] == "use"
    check_replay(tmp_path / "b.jsonl", late, Images([tmp_path]))


class Rounding(FeatureStore):
    """A store that rounds all features."""

    def _in_half(self, features: Features) -> Features:
        halves = features.rounded()
        assert halves is not None
        return halves


def test_features_in_half_precision_are_rounded_again(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    """Also where a file of features that were not rounded lies beside the picture."""
    path = tmp_path / "a.jsonl"
    with Session(paint, engine="onnxruntime", threads=1, store=Rounding(), journal=path) as session:
        session.set_image(PICTURE)
        session.click(10, 10)
        stood = session.features.arrays["f1"]
    with Session(paint, engine="onnxruntime", threads=1, journal=tmp_path / "b.jsonl") as session:
        session.set_image(PICTURE)
        whole = session.features
    assert (stood != whole.arrays["f1"]).any()
    whole.save(tmp_path / "whole.features")
    assert lines(path)[1]["image"]["rounded"] is True
    assert "rounded" not in lines(tmp_path / "b.jsonl")[1]["image"]
    for name, expected in (("a.jsonl", stood), ("b.jsonl", whole.arrays["f1"])):
        (one,) = read_journal(tmp_path / name)
        with Session(paint, engine="onnxruntime", threads=1) as again:
            recreate(one, again, Images([tmp_path, folder]))
            np.testing.assert_array_equal(again.features.arrays["f1"], expected)
    check_replay(path, paint, Images([folder]))


def test_an_image_that_is_missing(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.jsonl"

    def walk(session: Session) -> None:
        session.set_image(GREY)
        session.click(10, 10)
        session.set_image(OTHER)
        session.click(20, 20)

    recorded(paint, path, walk)
    report = replay_journal(path, paint, Images([folder]), request=ONE)
    assert [str(row.outcome) for row in report.rows] == ["missing", "skipped", "done", "same"]
    with pytest.raises(JournalDiffersError, match=r"the image .70 x 50 pixels, hash [0-9a-f]{12}") as caught:
        report.raise_for_failures(limit=0.0)
    assert "--images" in str(caught.value.command_fix)
    with pytest.raises(ImageMissingError), Session(paint, threads=1) as session:
        recreate(read_journal(path)[0], session, Images())
    with pytest.raises(JournalError, match="there is nothing at"):
        Images([tmp_path / "no"])


def test_a_modality_that_is_missing(late: Bundle, tmp_path: Path, folder: Path) -> None:
    recorded(late, tmp_path / "a.jsonl", lambda session: session.set_image(PICTURE, depth=PICTURE[:, :, 1]))
    report = replay_journal(tmp_path / "a.jsonl", late, Images([folder]), request=ONE)
    assert "the modality 'depth'" in report.rows[0].error


def test_backbone_features(tmp_path: Path) -> None:
    """A bundle without its backbone: the features of a provider are found by their content, too."""
    bundle = write_toy(tmp_path / "toy", modalities=(ModalitySpec(name="depth", scale=0.01),), black_box=True)
    features = {"f1": np.full((1, 1, 1, 1), 0.25, np.float32)}

    def walk(session: Session) -> None:
        session.set_features(features, SIZE, depth=DEPTH)
        session.click(20, 20)

    recorded(bundle, tmp_path / "a.jsonl", walk)
    folder = write_pictures(tmp_path / "pictures")
    report = replay_journal(tmp_path / "a.jsonl", bundle, Images([folder]), request=ONE)
    assert "the backbone's features" in report.rows[0].error
    save_features(folder / "x.npz", {"f1": features["f1"] * 2}, SIZE)
    save_features(folder / "y.npz", features, SIZE)
    check_replay(tmp_path / "a.jsonl", bundle, Images([folder]))


def test_an_event_that_fails_now(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    recorded(paint, path, lambda session: (session.set_image(PICTURE), session.click(20, 20), session.undo()))
    text = path.read_text()
    path.write_text(text.replace('"click":[20.0,20.0,1]', '"click":[2000.0,20.0,1]'))
    report = replay_journal(path, paint, Images([folder]), request=ONE)
    assert [str(row.outcome) for row in report.rows] == ["done", "failed", "skipped"]
    assert report.rows[1].error.startswith("ClickError: ")


def test_lost_events_are_bridged(paint: Bundle, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_PAUSE", 0.0)
    path = tmp_path / "a.jsonl"
    with Session(paint, engine="onnxruntime", threads=1, journal=path) as session:
        session.set_image(PICTURE)
        session.click(10, 10)
        session._recorder.missed()  # type: ignore[union-attr]
        session.set_image(OTHER)
        session.click(20, 20)
        session.click(30, 30)
    report = check_replay(path, paint, Images([folder]))
    assert report.lost == 1
    assert [row.event for row in report.rows] == ["image", "click", "state", "click", "click"]


def test_several_sessions_and_one_that_was_not_closed(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    for picture in (PICTURE, OTHER):
        recorded(paint, path, lambda session, picture=picture: (session.set_image(picture), session.click(20, 20)))
    path.write_bytes(path.read_bytes()[:-30])
    report = check_replay(path, paint, Images([folder]))
    assert [(row.session, row.n) for row in report.rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert report.open == 1
    assert [one.closed for one in read_journal(path)] == [True, False]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept[1:], "is no line of a journal: it has the number|stands outside of a session"),
        (lambda kept: [kept[0], *kept[2:]], "line 2 .*it has the number 2, and 1 comes next"),
        (lambda kept: [*kept, kept[1]], "stands outside of a session"),
        (lambda kept: [kept[0], "{}", *kept[1:]], "line 2"),
        (lambda kept: [kept[0], kept[1].replace('"n":1', '"n":1,"n":1'), *kept[2:]], "a key is there twice"),
        (lambda kept: [kept[0], "[" * 5000, *kept[1:]], "line 2"),
        (lambda kept: [kept[0].replace('"version":1', '"version":2'), *kept[1:]], "line 1"),
        (lambda kept: ["hello"], "line 1"),
        (lambda kept: [], "holds no whole line"),
    ],
)
def test_what_is_no_journal(paint: Bundle, tmp_path: Path, change: Callable[[list[str]], list[str]], said: str) -> None:
    path = tmp_path / "a.jsonl"
    recorded(paint, path, lambda session: (session.set_image(PICTURE), session.click(20, 20)))
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(JournalError, match=said):
        read_journal(path)


def test_every_beginning_of_a_journal_is_read(paint: Bundle, tmp_path: Path) -> None:
    """Wherever a killed process stops writing, all whole lines count."""
    path, cut = tmp_path / "a.jsonl", tmp_path / "cut.jsonl"
    recorded(paint, path, lambda session: (session.set_image(PICTURE), session.click(20, 20)))
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        cut.write_bytes(content[:end])
        whole = content[:end].count(b"\n")
        if not whole:
            with pytest.raises(JournalError, match="holds no whole line"):
                read_journal(cut)
            continue
        (one,) = read_journal(cut)
        assert len(one.events) == min(whole - 1, 2)


def test_a_file_of_work(paint: Bundle, ritm: Bundle, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "work.json"
    with Session(ritm, engine="onnxruntime", threads=1, zoom=ZoomRule(smallest=20)) as session:
        session.set_image(PICTURE)
        session.click(10, 10)
        session.select("dog")
        session.click(50, 30)
        session.save(path)
    same = replay_work(path, ritm, Images([folder]), request=ONE, against="openvino")
    same.raise_for_failures(limit=0.9)
    assert [(row.surface, str(row.outcome)) for row in same.rows] == [("1", "same"), ("dog", "same")]
    assert all(row.against is not None for row in same.rows)
    json.dumps(same.to_dict(), allow_nan=False)
    other = replay_work(path, write_toy(tmp_path / "echo", echo=True), Images([folder]), request=ONE)
    assert not other.same_bundle
    assert len(other.differing) == 2
    with pytest.raises(WorkDiffersError, match="2 of 2 objects"):
        other.raise_for_failures()
    missing = replay_work(path, ritm, request=ONE)
    assert [str(row.outcome) for row in missing.rows] == ["missing", "missing"]


def test_calls_that_were_superseded(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Session(paint, engine="onnxruntime", threads=1, journal=path) as session:
        session.set_image(PICTURE)
        before = session._state
        session.click(10, 10)
        session._go_back(before, session._state)
        session.click(20, 20)
        before = session._state
        session.set_image(OTHER)
        session.click(40, 40)
        session._go_back(before, session._state)
        mask = session.click(30, 30).mask
    report = check_replay(path, paint, Images([folder]))
    assert [row.event for row in report.rows] == [
        *("image", "click", "taken_back", "click", "image", "click", "taken_back", "click"),
    ]
    with Session(paint, engine="onnxruntime", threads=1) as again:
        recreate(read_journal(path)[0], again, Images([folder]))
        np.testing.assert_array_equal(again.mask, mask)
        assert [click.x for click in again.clicks] == [20, 30]


def test_a_session_for_asyncio(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    import asyncio

    from mmms_deploy import AsyncSession

    path = tmp_path / "a.jsonl"

    async def main() -> None:
        async with AsyncSession(paint, engine="onnxruntime", threads=1, journal=path) as session:
            await session.set_image(PICTURE)
            for x in range(10):
                task = asyncio.create_task(session.click(x, 10))
                await asyncio.sleep(0.001 * (x % 3))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await session.click(30, 30)
            await session.save(tmp_path / "work.json")
            assert not (await session.load(tmp_path / "work.json")).differing

    asyncio.run(main())
    check_replay(path, paint, Images([folder]))


def test_clicks_on_several_objects(paint: Bundle, joint: Bundle, tmp_path: Path, folder: Path) -> None:
    def walk(session: Session) -> None:
        session.set_image(PICTURE)
        session.click_objects({"dog": [50, 30, 1], "cat": [10, 10]})
        session.click_objects({"cat": [14, 12, 1], "1": [30, 40]})
        session.select("cat")
        session.select("dog")

    for bundle in (paint, joint):
        path = tmp_path / f"{bundle.manifest.name}.jsonl"
        found = recorded(bundle, path, walk)
        assert found[2]["clicks"] == [["dog", [50.0, 30.0, 1]], ["cat", [10.0, 10.0, 1]]]
        check_replay(path, bundle, Images([folder]))


def test_a_journal_says_how_masks_were_cleaned(tmp_path: Path, paint: Bundle, folder: Path) -> None:
    found = recorded(paint, tmp_path / "a.jsonl", separate_walk, cleaning=CLEANING)
    assert found[0]["cleaning"] == {"fill_holes": 30, "drop_specks": 30, "simplify": 2.0}
    plain = recorded(paint, tmp_path / "b.jsonl", separate_walk)
    assert "cleaning" not in plain[0]
    # Without what it says, masks are other ones.
    text = "".join(
        json.dumps({**line, "cleaning": None} if not place else line) + "\n" for place, line in enumerate(found)
    )
    (tmp_path / "c.jsonl").write_text(text)
    assert replay_journal(tmp_path / "c.jsonl", paint, Images([folder]), request=ONE).differing


def test_a_file_of_work_is_repeated_with_its_cleaning(tmp_path: Path, paint: Bundle, folder: Path) -> None:
    with Session(paint, engine="onnxruntime", threads=1, cleaning=CLEANING) as session:
        session.set_image(PICTURE)
        session.click(10, 10)
        session.click(40, 30)
        session.save(tmp_path / "work.json")
    replayed = replay_work(tmp_path / "work.json", paint, Images([folder]), request=ONE)
    assert [row.outcome for row in replayed.rows] == [Outcome.SAME]

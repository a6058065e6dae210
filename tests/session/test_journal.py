"""What a session writes to its journal: every call that changes it, and nothing where it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Journal, Model, Session
from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.errors import ClickError, JournalError, JournalInUseError, JournalWarning, OutputWriteError
from mmms_deploy.session import journal_file, recorder, recording
from mmms_deploy.session.mask_mark import agreement, labels_hash, mask_hash
from tests.support.annotating import GREY, SIZE
from tests.support.journals import kinds, lines, recorded, separate_walk
from tests.support.toy import write_toy

RECORDED = {
    *(
        "set_image",
        "set_features",
        "use",
        "set_modalities",
        "click",
        "add_clicks",
        "click_objects",
        "choose",
        "set_box",
        "set_mask",
        "set_clicks",
        "predict",
    ),
    *("undo", "redo", "reset", "select", "remove", "rename", "restore", "load_labels", "load"),
}
"""The calls that can change a session."""
READING = {
    *("all_clicks", "bundle", "can_redo", "can_undo", "cleaning", "clicks", "close", "detections"),
    *("download_features", "engine"),
    *("features", "image_size", "keep_image", "labels", "mask", "modalities", "renew_lock", "result", "runs", "save"),
    *("save_labels", "surface", "surfaces", "to_coco", "to_dict"),
}
"""Everything else that is public."""


def test_no_call_that_changes_a_session_is_left_out() -> None:
    public = {name for name in dir(Session) if not name.startswith("_")}
    seen = {name for name in public if getattr(getattr(Session, name), "is_recorded", False)}
    assert public == RECORDED | READING, "say of a new call whether it changes the session, and decorate it"
    assert seen == RECORDED


def test_every_event(paint: Bundle, tmp_path: Path) -> None:
    found = recorded(paint, tmp_path / "a.jsonl", separate_walk)
    assert [line["n"] for line in found] == list(range(len(found)))
    assert kinds(found) == [
        *("opened", "image", "click", "click", "click", "undo", "redo", "undo", "refused"),
        *(
            "select",
            "mask_put_in",
            "click",
            "select",
            "select",
            "mask_put_in",
            "follow",
            "follow",
            "follow",
            "follow",
            "follow",
        ),
        *("rename", "reset", "click", "remove", "annotation", "click", "annotation", "click"),
        *("image", "click", "refused", "closed"),
    ]
    opened, image, click = found[0], found[1], found[3]
    assert opened["bundle"] == {"name": "paint", "digest": paint.manifest.digest, "source": str(paint.path)}
    assert opened["engine"]["name"] == "onnxruntime"
    assert opened["history_limit"] == 100
    assert image["image"]["size"] == list(SIZE)
    assert set(image["image"]["parts"]) == {"rgb"}
    assert click["click"] == [60.125, 40.0, 1]
    assert set(click["mask"]) == {"sha256", "area"}
    assert found[8]["given"] == ["999", "1"]
    assert found[8]["error"] == "ClickError"
    assert [(line["kept"], len(line["interactions"])) for line in found if line["event"] == "follow"] == [
        *((0, 2), (1, 1), (2, 1), (3, 2), (0, 2)),
    ]
    assert found[30]["given"] == ["'nothing'"]


def test_the_mask_that_followed(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, journal=Journal(tmp_path / "a.jsonl", masks=True)) as session:
        session.set_image(GREY)
        result = session.click(20, 20)
        undone = session.undo()
    _, _, click, undo, _ = lines(tmp_path / "a.jsonl")
    assert click["mask"]["sha256"] == mask_hash(result.mask)
    assert click["mask"]["area"] == result.area > 0
    np.testing.assert_array_equal(mask_of_rle(click["mask"]), result.mask)
    assert undo["mask"]["sha256"] == mask_hash(undone.mask)
    assert undo["mask"]["area"] == 0


def test_hashes_are_of_shape_and_pixels() -> None:
    mask = np.zeros((3, 5), np.bool_)
    mask[1, 2] = True
    import hashlib

    assert mask_hash(mask) == hashlib.sha256(b"mask 3 5\n" + np.packbits(mask).tobytes()).hexdigest()
    assert mask_hash(mask) == mask_hash(np.asfortranarray(mask))
    assert mask_hash(mask) != mask_hash(mask.reshape(5, 3))
    labels = mask.astype(np.int32)
    assert labels_hash(labels) != labels_hash(labels * 2) != labels_hash(labels * 300)
    assert agreement(mask, ~mask) == (0.0, 15)
    assert agreement(mask, mask) == (1.0, 0)
    assert agreement(mask & False, mask & False) == (1.0, 0)


def test_no_pixels_are_in_it(tmp_path: Path, paint: Bundle) -> None:
    (tmp_path / "private").mkdir()
    from PIL import Image

    Image.fromarray(GREY).save(tmp_path / "private" / "photo.png")
    with Session(paint, threads=1, journal=tmp_path / "a.jsonl") as session:
        session.set_image(tmp_path / "private" / "photo.png")
        with pytest.raises(Exception, match="secret"):
            session.set_image("secret/name.png")
    text = (tmp_path / "a.jsonl").read_text()
    assert '"file_name":"photo.png"' in text
    assert "private" not in text
    assert "secret" not in text
    assert len(text) < 2000


def test_a_closed_journal_is_gone_on_with(paint: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal, Model(paint, threads=1) as model:
        for _ in range(2):
            with model.session(journal=journal) as session:
                session.set_image(GREY)
        assert not journal.closed
        assert journal.size == path.stat().st_size
    with Session(paint, threads=1, journal=path):
        pass
    assert kinds(lines(path)) == ["opened", "image", "closed"] * 2 + ["opened", "closed"]


def test_one_session_at_a_time(paint: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Session(paint, threads=1, journal=path) as first:
        before = path.read_bytes()
        with pytest.raises(JournalInUseError, match="another session writes to the journal"):
            Session(paint, threads=1, journal=path)
        with (
            Journal(tmp_path / "b.jsonl") as journal,
            Session(paint, threads=1, journal=journal),
            pytest.raises(JournalInUseError),
        ):
            Session(paint, threads=1, journal=journal)
        with pytest.raises(JournalError, match="is closed"):
            Session(paint, threads=1, journal=journal)
        assert path.read_bytes() == before
        other = f"from mmms_deploy import Journal; Journal({str(path)!r})"
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
        assert "JournalInUseError" in done.stderr
        first.set_image(GREY)
    Journal(path).close()


def test_other_files_are_refused_and_stay(paint: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n")
    (tmp_path / "line.txt").write_text("no end")
    (tmp_path / "link").symlink_to(tmp_path / "notes.txt")
    for name in ("notes.txt", "line.txt"):
        with pytest.raises(JournalError, match="is no journal"):
            Session(paint, threads=1, journal=tmp_path / name)
    with pytest.raises(OutputWriteError, match="is a link"):
        Session(paint, threads=1, journal=tmp_path / "link")
    with pytest.raises(OutputWriteError):
        Session(paint, threads=1, journal=tmp_path / "no" / "folder")
    assert (tmp_path / "notes.txt").read_text() == "my notes\n"
    assert (tmp_path / "line.txt").read_text() == "no end"


def test_a_line_that_was_cut_off_is_dropped(paint: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recorded(paint, path, lambda session: session.set_image(GREY))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"cli')
    recorded(paint, path, lambda session: session.set_image(GREY))
    assert path.read_bytes().startswith(whole)
    assert kinds(lines(path)) == ["opened", "image", "closed"] * 2
    path.write_bytes(b'{"event":"op')
    recorded(paint, path, lambda session: session.set_image(GREY))
    assert kinds(lines(path)) == ["opened", "image", "closed"]


def test_a_full_disk(paint: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicks go on, one warning says so, and the journal says later what was lost and where the session stands."""
    path, write, full = tmp_path / "a.jsonl", os.write, False

    def limited(handle: int, content: Any) -> int:
        if full and len(content) > 10:
            return write(handle, content[:10])
        if full:
            raise OSError(28, "No space left on device")
        return write(handle, content)

    monkeypatch.setattr(journal_file.os, "write", limited)
    monkeypatch.setattr(recording, "_PAUSE", 0.0)
    with Session(paint, threads=1, journal=path) as session:
        session.set_image(GREY)
        session.click(10, 10)
        size, full = path.stat().st_size, True
        with pytest.warns(JournalWarning, match="No space left on device"):
            session.click(20, 20)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            session.click(30, 30)
            with pytest.raises(ClickError):
                session.click(999, 0)
        assert path.stat().st_size == size, "no part of a line stays"
        full = False
        session.click(40, 40)
        session.click(50, 40)
        assert [click.x for click in session.clicks] == [10, 20, 30, 40, 50]
    found = lines(path)
    assert kinds(found) == ["opened", "image", "click", "state", "click", "closed"]
    assert found[3]["lost"] >= 2
    assert len(found[3]["annotation"]["surfaces"][0]["interactions"]) == 4


def test_the_limit_of_its_size(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, journal=Journal(tmp_path / "a.jsonl", limit=1500)) as session:
        session.set_image(GREY)
        with pytest.warns(JournalWarning, match="limit of 1500 bytes"):
            session.set_clicks([[x, 10] for x in range(60)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            session.click(30, 30)
    assert (tmp_path / "a.jsonl").stat().st_size <= 1500
    lines(tmp_path / "a.jsonl")


def test_an_interrupt_after_a_call_has_happened(paint: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    with Session(paint, threads=1, journal=path) as session:
        session.set_image(GREY)
        with monkeypatch.context() as patch:

            def interrupted(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(recording, "mark_of", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.click(10, 10)
        session.click(20, 20)
        assert len(session.clicks) == 2
    found = lines(path)
    assert kinds(found) == ["opened", "image", "state", "closed"]
    assert len(found[2]["annotation"]["surfaces"][0]["interactions"]) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing(paint: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Session(paint, threads=1, journal=path) as session:
        session.set_image(GREY)
        before = path.read_bytes()
        child = os.fork()
        if child == 0:
            try:
                session.click(10, 10)
            finally:
                session.close()
                os._exit(0)
        os.waitpid(child, 0)
        assert path.read_bytes() == before
        session.click(10, 10)
    assert kinds(lines(path)) == ["opened", "image", "click", "closed"]


def test_objects_that_came_back(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, journal=tmp_path / "a.jsonl", resume=True) as session:
        session.set_image(GREY)
        session.click(10, 10)
        session.set_image(GREY // 2)
        session.set_image(GREY)
    found = lines(tmp_path / "a.jsonl")
    assert [line.get("annotation") is not None for line in found] == [False, False, False, False, True, False]
    assert found[4]["mask"] == found[2]["mask"]


def test_a_call_inside_of_a_call_is_a_part_of_it(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, journal=tmp_path / "a.jsonl") as session:
        session.set_image(GREY)
        session.click(10, 10)
        session.save(tmp_path / "work.json")
        session.load(tmp_path / "work.json", image=GREY)
        session.load(tmp_path / "work.json")
    assert kinds(lines(tmp_path / "a.jsonl")) == [
        *("opened", "image", "click", "image", "annotation", "annotation", "closed"),
    ]


def test_a_session_that_cannot_be_opened_lets_its_journal_go(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "toy")
    (tmp_path / "notes.txt").write_text("my notes\n")
    with pytest.raises(JournalError):
        Session(bundle, threads=1, journal=tmp_path / "notes.txt")
    with Session(bundle, threads=1, journal=tmp_path / "a.jsonl", zoom=True) as session:
        assert session._recorder is not None
    assert lines(tmp_path / "a.jsonl")[0]["zoom"]["expansion"] == 1.4


def test_what_is_taken_back(paint: Bundle, tmp_path: Path) -> None:
    """A call that was superseded or cancelled after it ran is in the journal, and that it was taken back."""
    path = tmp_path / "a.jsonl"
    with Session(paint, threads=1, journal=path) as session:
        session.set_image(GREY)
        session.click(10, 10)
        first = session._state
        session.click(20, 20)
        session._go_back(first, session._state)
        session._go_back(session._state, session._state)  # nothing
        session.click(30, 30)
        for x in range(20):
            session.click(x, 30)
        session._go_back(first, session._state)  # farther back than its number is known
        session.click(40, 40)
    found = lines(path)
    assert kinds(found)[2:6] == ["click", "click", "taken_back", "click"]
    assert found[4]["to"] == 2
    assert found[4]["mask"] == found[2]["mask"]
    assert kinds(found)[-2:] == ["state", "closed"]
    assert found[-2]["annotation"]["surfaces"][0]["interactions"] == [[10.0, 10.0, 1], [40.0, 40.0, 1]]


def test_a_call_that_no_kind_of_event_says(paint: Bundle, tmp_path: Path) -> None:
    """It is written as where it led, so that a replay goes on from there."""

    class Larger(Session):
        @recorder.recorded
        def click_twice(self) -> None:
            self.click(10, 10)
            self.click(20, 20)

        @recorder.recorded
        def look(self) -> int:
            return self.result.area

    path = tmp_path / "a.jsonl"
    with Larger(paint, threads=1, journal=path) as session:
        session.set_image(GREY)
        session.look()
        session.click_twice()
        area = session.result.area
    found = lines(path)
    assert kinds(found) == ["opened", "image", "state", "closed"]
    assert found[2]["call"] == "click_twice"
    assert found[2]["annotation"]["surfaces"][0]["interactions"] == [[10.0, 10.0, 1], [20.0, 20.0, 1]]
    assert found[2]["mask"]["area"] == area

"""The folder of a store: damage, faults of the disk, other processes, a budget, kill -9."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from mmms_deploy import Bundle, Features, FeatureStore, Session
from mmms_deploy.errors import StoreWarning
from mmms_deploy.files import leftovers, output
from mmms_deploy.files.leftovers import OLD_SECONDS
from mmms_deploy.files.locks import lock
from mmms_deploy.files.output import append_to
from mmms_deploy.store.disk_budget import LOCK, DiskBudget
from tests.support.mutations import damaged
from tests.support.stored import features, picture

forked = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.features"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


def test_an_entry_lies_by_its_key(store: FeatureStore) -> None:
    given = features(1)
    store.keep(given)
    name = given.key.name
    assert store.folder is not None
    assert files(store.folder) == [store.folder / name[:2] / f"{name}.features"]
    assert Features.load(files(store.folder)[0]).key == given.key


def test_the_same_features_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        FeatureStore(tmp_path / name).keep(features(1))
    first, second = (files(tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("what", ["cut off", "empty", "a bit", "another entry", "no features", "under another key"])
def test_what_is_damaged_is_taken_out_and_computed_again(folder: Path, what: str, paint: Bundle) -> None:
    with Session(paint, threads=1, store=FeatureStore(folder)) as session:
        session.set_image(picture(1))
        expected = session.click(10, 10).network_probability
        (file,) = files(folder)
        session.set_image(picture(2))
        (other,) = set(files(folder)) - {file}
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-3] ^= 1
    content = {
        "cut off": whole[:-1],
        "empty": b"",
        "a bit": bytes(changed),
        "another entry": other.read_bytes(),
        "no features": b"{}" * 100,
        "under another key": features(3).to_bytes(),
    }[what]
    file.write_bytes(content)
    store = FeatureStore(folder)
    with Session(paint, threads=1, store=store) as session:
        with pytest.warns(StoreWarning, match="removed, and the image is encoded again"):
            assert not session.set_image(picture(1)).found
        np.testing.assert_array_equal(session.click(10, 10).network_probability, expected)
        assert session.runs["image"] == 1
    assert store.stats().damaged == 1
    assert file.read_bytes() == whole


def test_drawn_damage_is_never_returned(folder: Path) -> None:
    """Whatever is found has the numbers that were kept, or there is nothing."""
    given = features(1, 50)
    FeatureStore(folder).keep(given)
    (file,) = files(folder)
    whole, draw, taken_out = file.read_bytes(), random.Random(1), 0
    for _ in range(300):
        file.write_bytes(damaged(draw, whole))
        store = FeatureStore(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            found = store.find(given.key)
        if found is not None:
            np.testing.assert_array_equal(found.arrays["f1"], given.arrays["f1"])
            assert found.key == given.key
        else:
            taken_out += 1
            assert not file.exists()
        assert store.stats().damaged == (found is None)
    assert taken_out > 200


def test_an_entry_that_is_replaced_while_it_is_read_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The one that is whole now is another file than the damaged one that was read."""
    given = features(1)
    FeatureStore(folder).keep(given)
    (file,) = files(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    unpack = Features.from_bytes

    def replaced(content: bytes, name: str = "") -> Features:
        file.unlink()
        file.write_bytes(whole)
        return unpack(content, name)

    monkeypatch.setattr(Features, "from_bytes", replaced)
    assert FeatureStore(folder).find(given.key) is None
    assert file.read_bytes() == whole
    assert any(isinstance(warning.message, StoreWarning) for warning in recwarn.list)


def in_the_way(folder: Path) -> None:
    """No folder can be made there."""
    folder.write_text("a file")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_costs_no_click(
    folder: Path, paint: Bundle, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> Path:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(output, "_new_partial", refuse)
    store = FeatureStore(folder)
    with Session(paint, threads=1, store=store) as session:
        with pytest.warns(StoreWarning, match=f"cannot be written: {os.strerror(number)}"):
            session.set_image(picture(1))
        for one in (2, 1):  # it is said once
            session.set_image(picture(one))
            session.click(10, 10)
        assert session.runs["image"] == 2  # what is in memory is found
    stats = store.stats()
    assert (stats.failures, stats.host.entries) == (2, 2)
    assert stats.disk is not None
    assert stats.disk.entries == 0


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()  # type: ignore[attr-defined]

        def writelines(self, parts: list[bytes]) -> None:
            self.stream.write(b"".join(parts)[:100])  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    created = output._created
    monkeypatch.setattr(output, "_created", lambda partial: Full(created(partial)))
    with pytest.warns(StoreWarning, match="free some space"):
        FeatureStore(folder).keep(features(1))
    assert [one for one in folder.rglob("*") if one.is_file()] == []


@pytest.mark.parametrize("where", ["the folder", "the folder of an entry", "the entry"])
def test_what_is_in_the_way_costs_no_click(folder: Path, paint: Bundle, where: str) -> None:
    if where == "the folder":
        folder.write_text("a file")
    else:
        with Session(paint, threads=1, store=FeatureStore(folder)) as session:
            session.set_image(picture(1))
        (file,) = files(folder)
        file.unlink()
        if where == "the entry":
            file.mkdir()
        else:
            file.parent.rmdir()
            file.parent.write_text("a file")
    with Session(paint, threads=1, store=FeatureStore(folder)) as session:
        with pytest.warns(StoreWarning, match="cannot be"):
            session.set_image(picture(1))
        session.set_image(picture(2))
        session.set_image(picture(1))
        session.click(10, 10)


def test_a_folder_that_vanishes_is_made_again(store: FeatureStore) -> None:
    import shutil

    store.keep(features(1))
    assert store.folder is not None
    shutil.rmtree(store.folder)
    store.keep(features(2))
    assert len(files(store.folder)) == 1


# --- budget ---------------------------------------------------------------------------------------------------------


def used(folder: Path, key_name: str, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(folder / key_name[:2] / f"{key_name}.features", (then, then))


def test_what_was_not_used_for_longest_is_removed(folder: Path) -> None:
    given = [features(number) for number in range(5)]
    writer = FeatureStore(folder)
    for number, one in enumerate(given[:4]):
        writer.keep(one)
        used(folder, one.key.name, 1000 - number)
    size = files(folder)[0].stat().st_size
    reader = FeatureStore(folder, host_bytes=0, disk_bytes=4 * size)
    assert reader.find(given[0].key) is not None  # used now
    reader.keep(given[4])
    left = {one.stem for one in files(folder)}
    assert left == {given[number].key.name for number in (0, 3, 4)}
    stats = reader.stats()
    assert stats.disk is not None
    assert (stats.disk.evictions, stats.disk.bytes) == (2, 3 * size)


def test_what_is_used_in_memory_counts_as_used_on_the_disk(folder: Path) -> None:
    given = [features(number) for number in range(3)]
    store = FeatureStore(folder)
    for one in given[:2]:
        store.keep(one)
        used(folder, one.key.name, 1000)
    store.find(given[0].key)
    size = files(folder)[0].stat().st_size
    FeatureStore(folder, disk_bytes=int(2.5 * size)).keep(given[2])
    assert {one.stem for one in files(folder)} == {given[0].key.name, given[2].key.name}


def test_what_another_process_uses_meanwhile_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [features(number) for number in range(3)]
    store = FeatureStore(folder)
    for number, one in enumerate(given):
        store.keep(one)
        used(folder, one.key.name, 1000 - number)
    size = files(folder)[0].stat().st_size
    from mmms_deploy.store import disk_budget

    looked = disk_budget.entries

    def entries(place: Path) -> Iterator[disk_budget.Found]:
        found = list(looked(place))
        used(folder, given[0].key.name, 0)
        return iter(found)

    monkeypatch.setattr(disk_budget, "entries", entries)
    budget = DiskBudget(folder, 2 * size)
    budget.wrote(size)
    assert given[0].key.name in {one.stem for one in files(folder)}
    assert budget.evictions == 2


def test_one_process_at_a_time_removes_entries(folder: Path) -> None:
    store = FeatureStore(folder, disk_bytes=10)
    folder.mkdir()
    with append_to(folder / LOCK) as stream:
        lock(stream)
        store.keep(features(1))
        assert len(files(folder)) == 1
    store.keep(features(2))
    assert files(folder) == []


def test_nothing_but_entries_is_removed(folder: Path) -> None:
    others = [folder / "notes.txt", folder / "ab" / "notes.features", folder / "mine" / f"{'a' * 64}.features"]
    for one in others:
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("mine")
        os.utime(one, (0, 0))
    FeatureStore(folder, disk_bytes=1).keep(features(1))
    assert all(one.read_text() == "mine" for one in others)


# --- other processes ------------------------------------------------------------------------------------------------


def writing(folder: Path, first: int, budget: int | None = None, count: int = 10**9) -> tuple[int, BinaryIO]:
    """Start a process that keeps one image after the other and says so; its number, and what it says."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            store = FeatureStore(folder, host_bytes=0, disk_bytes=budget)
            for number in range(first, first + count):
                store.keep(features(number % 40, 20000))
                os.write(writing, bytes([number % 40]))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return child, os.fdopen(reading, "rb", buffering=0)


@forked
def test_kill_9_loses_nothing_complete_and_leaves_nothing_that_looks_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, said, kills = random.Random(18), 0, 0
    for _ in range(25):
        children = [writing(folder, first) for first in (0, 20)]
        kept = [stream.read(1) for _, stream in children]  # each is in its loop
        time.sleep(draw.uniform(0, 0.02))
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
            kills += 1
        for number, (child, stream) in enumerate(children):
            with stream:
                os.waitpid(child, 0)
                kept[number] += stream.readall()
        store = FeatureStore(folder)
        for one in {*kept[0], *kept[1]}:
            found = store.find(features(one, 20000).key)
            assert found is not None, "it was said to be kept"
            np.testing.assert_array_equal(found.arrays["f1"], features(one, 20000).arrays["f1"])
        said += len(kept[0] + kept[1])
        assert store.stats().damaged == 0
        for one in range(0, 40, 3):
            store.forget(features(one, 20000).key)  # there is something to write again
    assert said > kills
    for file in files(folder):
        Features.load(file)
    left = [one for one in folder.rglob("*") if one.is_file() and one.suffix != ".features"]
    assert all(output.PARTIAL.fullmatch(one.name) for one in left)
    for one in left:
        then = time.time() - 2 * OLD_SECONDS
        os.utime(one, (then, then))
    monkeypatch.setattr(leftovers, "_swept", set())
    for number in range(40):
        store.forget(features(number, 20000).key)
        store = FeatureStore(folder)
        store.keep(features(number, 20000))
    assert not any(one.exists() for one in left)


@forked
def test_processes_share_a_folder_with_a_budget(folder: Path) -> None:
    budget = 10 * 81000
    children = [writing(folder, first, budget, 60) for first in (0, 10, 25)]
    store, found, ends = FeatureStore(folder, host_bytes=0), 0, []
    while children:
        for number in range(40):
            one = store.find(features(number, 20000).key)
            if one is not None:
                found += 1
                np.testing.assert_array_equal(one.arrays["f1"], features(number, 20000).arrays["f1"])
        for child, stream in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ends.append(os.waitstatus_to_exitcode(status))
                stream.close()
                children.remove((child, stream))
    assert ends == [0, 0, 0]
    stats = store.stats()
    assert stats.disk is not None
    assert (stats.damaged, stats.failures) == (0, 0)
    assert 0 < stats.disk.bytes <= budget + 3 * 81000
    assert found > 0


@forked
def test_a_forked_child_has_a_store_with_locks_of_its_own(store: FeatureStore) -> None:
    given = features(1)
    store.keep(given)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with store.encoding(features(2).key), store._lock:
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            found = store.find(given.key) is not None
            with store.encoding(features(2).key) as known:
                store.keep(features(2))
            status = 0 if found and known is None else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    thread.join(10)
    assert store.find(features(2).key) is not None

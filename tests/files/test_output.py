"""Writing files: whole or not at all, under names that nobody can foresee, over nothing but regular files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from mmms_deploy.errors import OutputExistsError, OutputWriteError
from mmms_deploy.files import append_to, partial_beside, replacing, write_file, writing
from mmms_deploy.files.output import PARTIAL


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"one")
    write_file(path, [b"t", memoryview(b"wo")], sync=True)
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputWriteError) as caught:
        write_file(tmp_path / "missing" / "mask.png", b"content")
    assert (
        caught.value.given
        == f"{tmp_path / 'missing' / 'mask.png'} cannot be written: there is no folder {tmp_path / 'missing'}"
    )
    assert caught.value.fix == "make the folder first, or write elsewhere"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "shared", b"")
        write_file(tmp_path / "own", b"", mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o600


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path):
        raise KeyboardInterrupt
    with pytest.raises(OutputWriteError, match="No space left"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ZeroDivisionError), partial_beside(path):
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_nothing_is_replaced_unless_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"one", overwrite=False)
    with pytest.raises(OutputExistsError, match="exists"):
        write_file(path, b"two", overwrite=False)
    with pytest.raises(OutputExistsError), replacing(tmp_path / "other", overwrite=False):
        (tmp_path / "other").write_bytes(b"theirs")
    assert (path.read_bytes(), (tmp_path / "other").read_bytes()) == (b"one", b"theirs")
    assert names(tmp_path) == ["file", "other"]


def test_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    write_file(tmp_path / "file", b"one", overwrite=False)
    assert (tmp_path / "file").read_bytes() == b"one"


def test_a_long_name_stays_writable(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    write_file(path, b"content")
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "link", "dangling"])
def test_nothing_but_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "out", tmp_path / "other"
    other.write_bytes(b"precious")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("other" if kind == "link" else "nothing")
    before = path.lstat()
    for write in (
        lambda: write_file(path, b"content"),
        lambda: write_file(path, b"content", overwrite=False),
        lambda: partial_beside(path).__enter__(),
        lambda: append_to(path),
    ):
        with pytest.raises(OutputWriteError, match="is a "):
            write()
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert other.read_bytes() == b"precious"
    assert names(tmp_path) == ["other", "out"]


def test_what_appears_while_writing_is_not_replaced_either(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(OutputWriteError, match="FIFO"), replacing(path):
        os.mkfifo(path)
    assert path.is_fifo()


def test_a_character_device_is_written_to(tmp_path: Path) -> None:
    """``/dev/null`` stays a device, and a full one says so, directly and behind a link."""
    (tmp_path / "full").symlink_to("/dev/full")
    for path in (Path("/dev/full"), tmp_path / "full"):
        with pytest.raises(OutputWriteError, match="No space left"):
            write_file(path, b"content")
    write_file(Path("/dev/null"), b"content")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    with pytest.raises(OutputWriteError, match="device"), partial_beside(Path("/dev/null")):
        pytest.fail("a library would replace it")
    assert names(tmp_path) == ["full"]


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the name could be foreseen, what lies there stays as it is, and another name is taken."""
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / ".out.planted.partial").symlink_to(other)
    tokens = iter(["planted", "free"])
    monkeypatch.setattr("mmms_deploy.files.output.secrets.token_hex", lambda _: next(tokens))
    write_file(tmp_path / "out", b"content")
    assert other.read_bytes() == b"precious"
    assert (tmp_path / ".out.planted.partial").is_symlink()
    assert not (tmp_path / "out").is_symlink()


def test_temporary_names_differ_and_are_known(tmp_path: Path) -> None:
    with partial_beside(tmp_path / "out") as one, partial_beside(tmp_path / "out") as two:
        assert one != two
        assert all(PARTIAL.fullmatch(path.name) for path in (one, two))


def test_appending(tmp_path: Path) -> None:
    for word in (b"one", b"two"):
        with append_to(tmp_path / "file") as stream:
            stream.write(word)
    assert (tmp_path / "file").read_bytes() == b"onetwo"


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_system_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputWriteError):
        write_file(tmp_path / name, b"")
    with pytest.raises(OutputWriteError):
        append_to(tmp_path / name)


def test_other_mistakes_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ours"), writing(tmp_path):
        raise ValueError("ours")

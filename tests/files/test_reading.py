"""Reading files that others may have made: regular files only, never more than a limit, and one named error."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mmms_deploy.errors import FileReadError
from mmms_deploy.files import as_path, decode_json, open_regular, read_bytes, read_json, read_text, read_toml


@pytest.mark.parametrize("value", [None, 0, 3.5, b"", b"x", [], {}, object(), True, "", "a\0b", Path("a\0b"), "\ud800"])
def test_what_is_no_path_is_refused(value: object) -> None:
    for read in (as_path, open_regular, read_json, read_toml, lambda given: read_bytes(given, 10)):
        with pytest.raises(FileReadError) as caught:
            read(value)
        assert caught.value.expected
        str(caught.value).encode()


def test_an_object_whose_path_or_text_fails_is_refused() -> None:
    class Odd(os.PathLike[str]):
        def __fspath__(self) -> str:
            return b"bytes"  # type: ignore[return-value]

        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(FileReadError, match="an object, of type"):
        as_path(Odd())


def special(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(folder / "nothing")
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("fifo", "it is a FIFO"),
        ("folder", "it is a folder"),
        ("socket", "it is a socket"),
        ("device", "it is a device"),
        ("circle", "its links lead in a circle"),
        ("dangling", "there is no such file"),
        ("x" * 300, "the path is too long"),
        ("missing", "there is no such file"),
    ],
)
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, reason: str) -> None:
    path = special(tmp_path, kind)
    for read in (open_regular, read_json, read_toml, lambda given: read_text(given, 10)):
        with pytest.raises(FileReadError) as caught:
            read(path)
        assert caught.value.reason == reason
        assert caught.value.missing == (reason == "there is no such file")


def test_a_path_through_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileReadError, match="no folder") as caught:
        open_regular(tmp_path / "file" / "below")
    assert caught.value.missing


def test_a_device_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *args, **kwargs: pytest.fail("opened"))
    with pytest.raises(FileReadError, match="a device"):
        open_regular("/dev/zero")


def test_what_is_put_in_its_place_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    looked = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda path: looked)
    with pytest.raises(FileReadError, match="a device"):
        open_regular("/dev/zero")


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 7) == b"content"
    assert read_bytes(str(tmp_path / "link"), 100) == b"content"


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(40 << 30)
    for read in (read_json, read_toml, lambda given: read_bytes(given, 1000)):
        with pytest.raises(FileReadError, match="has 42949672960 bytes"):
            read(path)


def test_the_limit_is_kept_where_a_file_has_no_size_of_its_own() -> None:
    assert read_bytes("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(FileReadError, match="more than 10 bytes"):
        read_bytes("/proc/self/status", 10)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, 10) == b"x" * 10
    with pytest.raises(FileReadError, match="10 bytes"):
        read_bytes(path, 9)
    path.write_bytes(b"")
    assert read_bytes(path, 0) == b""


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffgrün".encode())
    assert read_text(path, 100, "utf-8-sig") == "grün"
    path.write_bytes(b"a\xffb")
    with pytest.raises(FileReadError, match=r"no text in UTF-8: .* at byte 1"):
        read_text(path, 100)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[" * 70 + b"]" * 70,
        b"\xff",
        b'"\xff"',
        b'"\\ud800"',
        b"1" * 5000,
        b"NaN",
        b"-Infinity",
        b'{"a": 1, }',
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(FileReadError, match="no usable JSON"):
        read_json(path)
    with pytest.raises(FileReadError, match="no usable JSON"):
        decode_json(content, "metadata")


def test_json_that_is_read() -> None:
    assert decode_json("[" * 64 + "]" * 64, "x")
    assert decode_json('{"ä": [1, 2.5, null, true, "grün"]}'.encode(), "x") == {"ä": [1, 2.5, None, True, "grün"]}


@pytest.mark.parametrize(
    "content",
    [b"a", b"a = " + b"[" * 100_000, b"a = 1\na = 2", b"a = \xff", b"a = " + b"1" * 5000, b"a" + b".a" * 80 + b" = 1"],
)
def test_toml_that_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    with pytest.raises(FileReadError, match="no usable TOML"):
        read_toml(path)


def test_toml_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text("[a]\nb = [1, 2]\n")
    assert read_toml(path) == {"a": {"b": [1, 2]}}


def test_a_message_about_a_name_that_is_no_utf8_can_be_printed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json"))
    with pytest.raises(FileReadError) as caught:
        read_json(path)
    assert str(caught.value).encode()
    assert "udcff.json" in str(caught.value)

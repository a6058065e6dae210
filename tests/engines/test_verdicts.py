from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines import verdicts
from mmms_deploy.engines.cpu import cpu_identity
from mmms_deploy.engines.verdicts import Verdict, read_verdict, write_verdict
from mmms_deploy.files.cache import VARIABLE, cache_folder, store, why_off

GOOD = Verdict(
    engine="openvino",
    version="1.2",
    precision=Precision.BF16,
    passed=True,
    iou=0.98,
    limit=0.95,
    milliseconds=12.5,
    threads=2,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_verdict_is_kept(paint: Bundle, folder: Path) -> None:
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) is None
    assert write_verdict(paint, GOOD)
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) == GOOD
    worse = msgspec.structs.replace(GOOD, passed=False)
    assert write_verdict(paint, worse)
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) == worse
    assert len(list((folder / "verdicts").iterdir())) == 1


def test_a_verdict_holds_for_what_it_was_found_for(
    paint: Bundle, echo: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_verdict(paint, GOOD)
    assert read_verdict(echo, "openvino", "1.2", Precision.BF16) is None
    assert read_verdict(paint, "onnxruntime", "1.2", Precision.BF16) is None
    assert read_verdict(paint, "openvino", "1.3", Precision.BF16) is None
    assert read_verdict(paint, "openvino", "1.2", Precision.FP32) is None
    monkeypatch.setattr(verdicts, "__version__", "99")
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) is None
    monkeypatch.undo()
    monkeypatch.setattr(verdicts, "cpu_identity", lambda: "another CPU")
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"engine": "openvino"}',
        b"[" * 100_000,
        msgspec.json.encode(msgspec.structs.replace(GOOD, engine="onnxruntime")),
        msgspec.json.encode(msgspec.structs.replace(GOOD, milliseconds=-1.0)),
    ],
)
def test_a_damaged_verdict_is_none(paint: Bundle, folder: Path, damage: bytes) -> None:
    write_verdict(paint, GOOD)
    (file,) = (folder / "verdicts").iterdir()
    file.write_bytes(damage)
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) is None
    write_verdict(paint, GOOD)
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) == GOOD


def test_without_a_cache(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "OFF")
    assert not write_verdict(paint, GOOD)
    assert read_verdict(paint, "openvino", "1.2", Precision.BF16) is None


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MMMS_DEPLOY_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mmms-deploy"
    for odd in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert cache_folder() == Path.home() / ".cache" / "mmms-deploy"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "mmms-deploy"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "mmms-deploy"


@pytest.mark.parametrize("named", ["", "~nobody-has-this-name/cache"])
def test_a_user_without_a_home_folder(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.setattr(Path, "home", lambda: no_home(Path()))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(VARIABLE, named)
    assert cache_folder() is None
    assert why_off() == "off: this user has no home folder; set MMMS_DEPLOY_CACHE to a folder"


def test_why_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "new" / "cache"))
    assert why_off() is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    assert f"nothing can be kept in {tmp_path}/file/cache: Not a directory" in str(why_off())

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in str(why_off())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    for name in ("verdicts/a", "verdicts/b", "openvino/c"):
        assert not store(tmp_path / "file" / name, [b"one"])
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "new" / "file"
    assert store(file, [b"one", memoryview(b"two")])
    assert file.read_bytes() == b"onetwo"
    assert file.stat().st_mode & 0o077 == 0
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    assert not store(tmp_path / "taken", [b"one"])
    assert "MMMS_DEPLOY_CACHE" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "taken"]


def test_which_cpu(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : Good 9\nflags : b a\n\nmodel name : Good 9\nflags : b a\n")
    first = cpu_identity(cpuinfo)
    assert "Good 9" in first
    other = tmp_path / "other"
    other.write_text("model name : Good 9\nflags : a b c\n")
    assert cpu_identity(other) != first
    same = tmp_path / "same"
    same.write_text("flags : a b\nmodel name : Good 9\n")
    assert cpu_identity(same) == first
    assert cpu_identity(tmp_path / "nothing")
    assert cpu_identity() == cpu_identity()

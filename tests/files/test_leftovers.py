"""What kill -9 leaves is swept when it is old; whatever could be somebody's is left alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mmms_deploy.bundle.writer import BundleWriter
from mmms_deploy.commands.output import check_output
from mmms_deploy.files import cache, leftovers
from mmms_deploy.files.leftovers import sweep
from mmms_deploy.files.output import PARTIAL, partial_beside
from mmms_deploy.weights.find import _folder_beside_cache

TWO_DAYS = 2 * 24 * 3600


def age(path: Path, seconds: float = TWO_DAYS) -> Path:
    then = time.time() - seconds
    for each in (*(path.rglob("*") if path.is_dir() else ()), path):
        os.utime(each, (then, then), follow_symlinks=False)
    return path


def killed_bundle(out: Path) -> Path:
    """What BundleWriter leaves when its process is killed."""
    writer = BundleWriter(out)
    writer.__enter__()
    for name in ("click.fp32.onnx", "image.fp32.onnx.data", "golden.npz", "bundle.json"):
        writer.path(name).touch()
    return writer.folder


def killed_file(path: Path) -> Path:
    """What a writer of files leaves when its process is killed."""
    with partial_beside(path) as partial:
        partial.write_text("half")
        other = "1" if partial.name[-9] == "0" else "0"
        left = partial.with_name(f"{partial.name[:-9]}{other}.partial")
        assert PARTIAL.fullmatch(left.name)
        partial.rename(left)
        partial.touch()
    path.unlink()
    return left


def test_what_the_writers_leave_is_swept_when_it_is_old(tmp_path: Path) -> None:
    made = [killed_bundle(tmp_path / "demo"), killed_file(tmp_path / "demo")]
    for name in (".whole.ab_cd123", ".rounded.ab_cd123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "whole.onnx").touch()
        made.append(tmp_path / name)
    assert sweep(tmp_path, "demo") == [], "somebody may be writing them"
    for path in made:
        age(path)
    assert sorted(sweep(tmp_path, "demo")) == sorted(made)
    assert list(tmp_path.iterdir()) == []


def test_long_names_are_cut(tmp_path: Path) -> None:
    long = "x" * 100
    age(killed_bundle(tmp_path / long))
    age(killed_file(tmp_path / long))
    assert len(sweep(tmp_path, long)) == 2


def test_a_file_that_is_still_written_keeps_its_folder(tmp_path: Path) -> None:
    folder = age(killed_bundle(tmp_path / "demo"))
    (folder / "click.fp32.onnx").write_bytes(b"now")
    age(folder / "bundle.json")
    assert sweep(tmp_path, "demo") == []
    assert len(list(folder.iterdir())) == 4


def test_what_could_be_somebodys_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = killed_bundle(tmp_path / "demo")
    (folder / "notes.txt").touch()
    nested = killed_bundle(tmp_path / "demo")
    (nested / "click").mkdir()
    other = killed_file(tmp_path / "other")
    for name in (".demo.partial", ".demo.12345678.PARTIAL", "demo.12345678.partial", ".demo.123.partial", ".demo.swp"):
        (tmp_path / name).touch()
    (tmp_path / ".demo.abcdefgh.partial").symlink_to(other)
    (tmp_path / ".demo.abcdefgi.partial").symlink_to(tmp_path / "nowhere")
    age(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert sweep(tmp_path, "demo") == []
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert sweep(tmp_path) == [], "it belongs to another user"
    monkeypatch.undo()
    assert sweep(tmp_path) == [other]


def test_a_bundle_that_was_being_replaced_is_kept_until_there_is_a_new_one(tmp_path: Path) -> None:
    old = tmp_path / ".demo.abcdefgh.old"
    (old / "bundle").mkdir(parents=True)
    (old / "bundle" / "bundle.json").write_text("the only one")
    age(old)
    assert sweep(tmp_path, "demo") == []
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bundle.json").touch()
    assert sweep(tmp_path) == [], "nobody said what it was"
    assert sweep(tmp_path, "demo") == [old]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nothing") == []


def test_commands_sweep_beside_their_outputs(tmp_path: Path) -> None:
    age(killed_file(tmp_path / "mask.png"))
    young = killed_file(tmp_path / "mask.png")
    check_output(tmp_path / "mask.png", overwrite=False)
    assert list(tmp_path.iterdir()) == [young]


def test_the_cache_is_swept_when_something_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_swept", set())
    (tmp_path / ".plan.abcdefgh.partial").touch()
    age(tmp_path / ".plan.abcdefgh.partial")
    assert cache.store(tmp_path / "key.json", [b"{}"])
    assert [file.name for file in tmp_path.iterdir()] == ["key.json"]


def test_what_a_killed_download_leaves_is_swept_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    with _folder_beside_cache() as folder:
        (folder / "encoder.ort").touch()
        left = folder.with_name(f"{folder.name[:-8]}ab_cd123")
        folder.rename(left)
        folder.mkdir()
    assert sweep(left.parent) == [], "it may be in use"
    age(left)
    assert sweep(left.parent, "encoder.ort") == [], "a folder that others write to as well"
    assert sweep(left.parent) == [left]
    assert not left.exists()

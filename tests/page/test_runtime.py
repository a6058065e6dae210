"""onnxruntime-web: where its files are, and how they come there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.errors import RegistryError
from mmms_deploy.files.cache import VARIABLE
from mmms_deploy.page import runtime
from mmms_deploy.page.runtime import (
    EVERY,
    LICENSE,
    NO_RUNTIME,
    ONNXRUNTIME_WEB,
    WASM_ONLY,
    fetch_runtime,
    main,
    runtime_files,
)
from tests.support.browser_clicks import runtime_folder
from tests.support.npm import archive_of, package_of

CONTENTS = {f"dist/{name}": np.random.default_rng(place).bytes(2000) for place, name in enumerate(EVERY)}
ARCHIVE = archive_of({**CONTENTS, "dist/ort.js": b"of no use"})


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy whose runtime is a small package; the folder for its files, which is not there yet."""
    monkeypatch.setattr(runtime, "ONNXRUNTIME_WEB", package_of(ARCHIVE, CONTENTS))
    monkeypatch.setattr(runtime, "FOLDER", tmp_path / "package" / "runtime")
    monkeypatch.setattr(runtime, "_in_clone", lambda: True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "package").mkdir()
    return tmp_path / "package" / "runtime"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive.tgz"
    path.write_bytes(ARCHIVE)
    return path


def test_a_clone_gets_all_files_with_their_licence(clone: Path, archive: Path) -> None:
    assert runtime_files() is None
    assert fetch_runtime(archive=archive) == clone
    assert runtime_files() == clone
    assert {file.name for file in clone.iterdir()} == {*EVERY, LICENSE.name}
    assert all((clone / name).read_bytes() == CONTENTS[f"dist/{name}"] for name in EVERY)
    assert [file.name for file in clone.parent.iterdir()] == ["runtime"]


def test_files_that_are_here_are_not_fetched_again(clone: Path, archive: Path, tmp_path: Path) -> None:
    fetch_runtime(archive=archive)
    assert fetch_runtime(archive=tmp_path / "nothing.tgz") == clone


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_folder_that_is_not_whole_counts_as_none_and_is_replaced(clone: Path, archive: Path, damage: str) -> None:
    fetch_runtime(archive=archive)
    (clone / EVERY[1]).unlink()
    if damage == "shorter":
        (clone / EVERY[1]).write_bytes(b"short")
    (clone / "old").write_text("of another version")
    assert runtime_files() != clone
    assert fetch_runtime(archive=archive) == clone
    assert {file.name for file in clone.iterdir()} == {*EVERY, LICENSE.name}


def test_another_archive_leaves_nothing(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tgz"
    other.write_bytes(archive_of({**CONTENTS, "dist/ort.js": b"another"}))
    with pytest.raises(RegistryError, match="has the hash"):
        fetch_runtime(archive=other)
    assert not list(clone.parent.iterdir())
    assert runtime_files() is None


def test_an_installed_package_keeps_them_in_the_cache(
    clone: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_in_clone", lambda: False)
    folder = fetch_runtime(archive=archive)
    assert folder.is_relative_to(tmp_path / "cache")
    assert runtime_files() == folder
    assert not clone.exists()
    (folder / EVERY[0]).write_bytes(CONTENTS[f"dist/{EVERY[0]}"][::-1])
    assert runtime_files() is None


def test_the_command_says_where_they_are_or_why_they_are_not(
    clone: Path, archive: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([str(tmp_path / "nothing.tgz")]) == 1
    assert "nothing.tgz" in capsys.readouterr().err
    assert main([str(archive)]) == 0
    assert capsys.readouterr().out == f"{clone}\n"


def test_this_repository_is_a_clone() -> None:
    assert runtime._in_clone()


def test_the_licence_and_the_way_to_the_files_are_told() -> None:
    assert ONNXRUNTIME_WEB.license == "MIT"
    assert "MIT License" in LICENSE.read_text()
    assert "make demo-page" in NO_RUNTIME
    assert set(WASM_ONLY) < set(EVERY)


@pytest.mark.browser
def test_the_pinned_files_are_those_of_the_registry() -> None:
    folder = runtime_folder()
    for file in ONNXRUNTIME_WEB.files:
        content = (folder / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)

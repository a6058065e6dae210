"""A packed bundle is unpacked once, whole or not at all, and nothing but its own files is ever used."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle, find_bundle, packed
from mmms_deploy.errors import BundleCorruptError, BundleError
from tests.support.paths import ROOT
from tools.pack_demo import packed as pack


@pytest.fixture(scope="module")
def files(paint: Bundle) -> tuple[bytes, bytes]:
    return pack(paint)


@pytest.fixture
def package(files, tmp_path, monkeypatch) -> Path:
    """A package that ships ``paint`` as its demo, and an empty cache."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "demo.tar.xz").write_bytes(files[0])
    (folder / "demo.sha256").write_bytes(files[1])
    monkeypatch.setattr(packed.resources, "files", lambda name: folder)
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packed, "_right", {})
    monkeypatch.setattr(packed, "_temporary", {})
    monkeypatch.chdir(tmp_path)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_archive_holds_no_times_and_no_owners(paint: Bundle, files) -> None:
    assert pack(paint) == files
    with tarfile.open(fileobj=io.BytesIO(files[0])) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(["README.md", "bundle.json", *paint.manifest.files])
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_it_is_unpacked_once(package, paint: Bundle, tmp_path, monkeypatch) -> None:
    folder = find_bundle("demo")
    assert folder.is_relative_to(tmp_path / "cache" / "bundles")
    assert contents(folder) == contents(paint.path)
    before = {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()}
    (package / "demo.tar.xz").unlink()
    monkeypatch.setattr(packed, "_right", {})
    assert find_bundle("demo") == folder
    assert {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()} == before


def test_a_session_takes_the_name(package, paint: Bundle) -> None:
    with Session("demo") as session:
        assert session.bundle.manifest == paint.manifest


@pytest.mark.parametrize("damage", ["other", "short", "gone"])
def test_a_damaged_copy_is_replaced(package, paint: Bundle, damage: str) -> None:
    folder = find_bundle("demo")
    graph = folder / "click.fp32.onnx"
    content = graph.read_bytes()
    if damage == "gone":
        graph.unlink()
    else:
        graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage == "other" else content[:100])
    assert contents(find_bundle("demo")) == contents(paint.path)
    Bundle("demo")


def test_several_at_once_leave_each_other_alone(package, paint: Bundle) -> None:
    """Each opens the bundle and then sees it unchanged, however many unpack beside it."""
    start, failures = threading.Barrier(8), []

    def open_it() -> None:
        start.wait()
        try:
            opened = Bundle("demo")
            for _ in range(20):
                opened.file("click.fp32.onnx")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert contents(find_bundle("demo")) == contents(paint.path)


@pytest.mark.parametrize("cache", ["off", "file/cache"])
def test_without_a_cache_a_temporary_folder_serves_this_process(package, tmp_path, monkeypatch, cache: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", cache if cache == "off" else str(tmp_path / cache))
    monkeypatch.setattr(packed.tempfile, "tempdir", str(tmp_path))
    folder = find_bundle("demo")
    assert folder.parent == tmp_path
    assert find_bundle("demo") == folder
    shutil.rmtree(folder)
    assert find_bundle("demo") != folder


ENDS = """
import multiprocessing, os, sys
from mmms_deploy.bundle import find_bundle
folder = find_bundle("demo")
print(folder)
child = os.fork()
if not child:
    assert find_bundle("demo") == folder
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert folder.is_dir(), "a forked process removed what its parent uses"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_temporary_folder_ends_with_the_process_that_made_it(tmp_path) -> None:
    environment = {**os.environ, "MMMS_DEPLOY_CACHE": "off", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", ENDS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def spoiled(files: tuple[bytes, bytes], kind: str) -> bytes:
    """An archive that is not the one that was packed."""
    if kind == "cut off":
        return files[0][: len(files[0]) // 2]
    if kind == "no archive":
        return b"<html>"
    made = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(files[0])) as archive,
        tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as out,
    ):
        for member in archive.getmembers():
            content = archive.extractfile(member).read()
            if kind == "lacks one" and member.name == "golden.npz":
                continue
            if kind == "other content" and member.name == "golden.npz":
                content = content[::-1]
            if kind == "twice" and member.name == "golden.npz":
                out.addfile(member, io.BytesIO(content))
            if kind == "outside" and member.name == "golden.npz":
                member.name = "../golden.npz"
            if kind == "link" and member.name == "golden.npz":
                member.type, member.linkname, member.size, content = tarfile.SYMTYPE, "/etc/passwd", 0, b""
            out.addfile(member, io.BytesIO(content))
    return lzma.compress(made.getvalue())


@pytest.mark.parametrize(
    "kind", ["cut off", "no archive", "lacks one", "other content", "twice", "outside", "link", "absent"]
)
def test_a_damaged_package_is_refused(package, files, paint: Bundle, tmp_path, kind: str) -> None:
    archive = package / "demo.tar.xz"
    archive.unlink()
    if kind != "absent":
        archive.write_bytes(spoiled(files, kind))
    with pytest.raises(BundleCorruptError, match="'demo' that ships with mmms-deploy is damaged"):
        find_bundle("demo")
    right = contents(paint.path)
    for written in (path for path in (tmp_path / "cache").rglob("*") if path.is_file()):
        assert written.read_bytes() == right[written.name], "what was not listed was written"
        assert written.parent.name.startswith("demo-")


@pytest.mark.parametrize("text", ["", "nothing\n", "../x\n", "0" * 64 + "  ../bundle.json\n", "\xff"])
def test_a_damaged_list_is_refused(package, text: str) -> None:
    (package / "demo.sha256").write_text(text, encoding="latin-1")
    with pytest.raises(BundleCorruptError, match="damaged"):
        find_bundle("demo")


def test_a_python_without_lzma_says_so(package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(BundleError, match="built without lzma") as caught:
        find_bundle("demo")
    assert "mmms-export --ckpt demo" in str(caught.value)

"""A packed bundle is made once, whole or not at all, and nothing but its own files is ever used."""

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

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle, find_bundle, packed
from mmms_deploy.bundle.packed import Kind, Packed, checkpoint_tensors, packed_checkpoint
from mmms_deploy.bundle.pieces import Source
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleError,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointNotFoundError,
    MMMSDeployWarning,
    WeightsError,
)
from mmms_deploy.files import kept
from mmms_deploy.weights import find
from mmms_deploy.weights.safetensors_file import safetensors_bytes
from tests.support.paths import ROOT
from tools.pack_demo import archive_of, bundles_in, packed_weights, write
from tools.pack_demo import packed as pack


@pytest.fixture(scope="module")
def files(paint: Bundle) -> tuple[bytes, bytes]:
    """The archive with ``paint`` as the demo, and the list of its files."""
    members, sums = pack(paint, {})
    return archive_of({"demo": members}), sums


@pytest.fixture
def package(files, tmp_path, monkeypatch) -> Path:
    """A package that ships ``paint`` as its demo, and an empty cache."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "bundles.tar.xz").write_bytes(files[0])
    (folder / "demo.sha256").write_bytes(files[1])
    monkeypatch.setattr(packed.resources, "files", lambda name: folder)
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_right", {})
    monkeypatch.setattr(kept, "_temporary", {})
    monkeypatch.chdir(tmp_path)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_archive_holds_no_times_and_no_owners(paint: Bundle, files) -> None:
    members, sums = pack(paint, {})
    assert (archive_of({"demo": members}), sums) == files
    with tarfile.open(fileobj=io.BytesIO(files[0])) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [
        f"demo/{name}" for name in sorted(["README.md", "bundle.json", *paint.manifest.files])
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_it_is_unpacked_once(package, paint: Bundle, tmp_path, monkeypatch) -> None:
    folder = find_bundle("demo")
    assert folder.is_relative_to(tmp_path / "cache" / "bundles")
    assert contents(folder) == contents(paint.path)
    before = {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()}
    (package / "bundles.tar.xz").unlink()
    monkeypatch.setattr(kept, "_right", {})
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
    monkeypatch.setattr(kept.tempfile, "tempdir", str(tmp_path))
    folder = find_bundle("demo")
    assert folder.parent == tmp_path
    assert find_bundle("demo") == folder
    shutil.rmtree(folder)
    assert find_bundle("demo") != folder


ENDS = """
import multiprocessing, os, sys
from mmms_deploy.bundle import find_bundle
folder = find_bundle("demo-small")
print(folder)
child = os.fork()
if not child:
    assert find_bundle("demo-small") == folder
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
            if kind == "lacks one" and member.name == "demo/golden.npz":
                continue
            if kind == "other content" and member.name == "demo/golden.npz":
                content = content[::-1]
            if kind == "twice" and member.name == "demo/golden.npz":
                out.addfile(member, io.BytesIO(content))
            if kind == "outside" and member.name == "demo/golden.npz":
                member.name = "demo/../golden.npz"
            if kind == "link" and member.name == "demo/golden.npz":
                member.type, member.linkname, member.size, content = tarfile.SYMTYPE, "/etc/passwd", 0, b""
            if kind == "unlisted" and member.name == "demo/golden.npz":
                out.addfile(tarfile.TarInfo("demo/more.npz"))
            if kind == "another" and member.name == "demo/golden.npz":
                member.name = "other/golden.npz"
            out.addfile(member, io.BytesIO(content))
    return lzma.compress(made.getvalue())


@pytest.mark.parametrize(
    "kind",
    [
        "cut off",
        "no archive",
        "lacks one",
        "other content",
        "twice",
        "outside",
        "link",
        "unlisted",
        "another",
        "absent",
    ],
)
def test_a_damaged_package_is_refused(package, files, paint: Bundle, tmp_path, kind: str) -> None:
    archive = package / "bundles.tar.xz"
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


# --- pieces -----------------------------------------------------------------------------------------------------------


def ship(package: Path, name: str, tensors: dict[str, np.ndarray], *before: str) -> bytes:
    """Pack a checkpoint into a package, without what earlier ones have; returns the bytes of its file."""
    file = package.parent / f"{name}.safetensors"
    file.write_bytes(safetensors_bytes(tensors))
    members, sums = packed_weights(file, {one: checkpoint_tensors(one, package) for one in before})
    write(package, Packed(Kind.CHECKPOINT, name), members, sums)
    return file.read_bytes()


@pytest.fixture
def lean(paint: Bundle, package: Path, monkeypatch) -> Path:
    """The same package without two tensors of the click stage, of a checkpoint and of a backbone; and a smaller one."""
    onnx = pytest.importorskip("onnx")
    made = onnx.load(paint.path / "click.fp32.onnx").graph.initializer
    rows, columns = (onnx.numpy_helper.to_array(one).astype(np.float16) for one in made[:2])
    ship(package, "demo", {"rows": rows})
    (package.parent / "backbone.safetensors").write_bytes(safetensors_bytes({"columns": columns}))
    sources = {
        "checkpoint": (Source(file="demo.safetensors"), {"rows": rows}),
        "backbone": (Source(backbone="narrow"), {"columns": columns}),
    }
    members, sums = pack(paint, sources)
    small, _ = pack(paint, {})
    assert len(small["click.fp32.onnx"]) - len(members["click.fp32.onnx"]) == 4 * (rows.size + columns.size)
    (package / "bundles.tar.xz").write_bytes(archive_of({"demo": members, "demo-small": small}))
    for name in ("demo", "demo-small"):
        (package / f"{name}.sha256").write_bytes(sums)

    def find_weights(name: str, on_progress: object) -> Path:
        assert name == "narrow"
        return package.parent / "backbone.safetensors"

    monkeypatch.setattr(find, "find_weights", find_weights)
    return package


def no_weights(*_: object, **__: object) -> Path:
    raise WeightsError("no source has the weights", fix="run mmms-weights narrow", command_fix="mmms-weights narrow")


def test_tensors_come_from_files_that_are_there_anyway(lean: Path, paint: Bundle) -> None:
    assert contents(find_bundle("demo")) == contents(paint.path)


def test_what_was_made_needs_no_weights_again(lean: Path, monkeypatch) -> None:
    folder = find_bundle("demo")
    monkeypatch.setattr(find, "find_weights", no_weights)
    assert find_bundle("demo") == folder
    (folder / "golden.npz").unlink()
    assert find_bundle("demo") == folder
    assert (folder / "golden.npz").is_file()


def test_without_the_weights_the_smaller_one_is_taken(lean: Path, monkeypatch) -> None:
    monkeypatch.setattr(find, "find_weights", no_weights)
    with pytest.warns(MMMSDeployWarning, match="'demo-small' takes the place of 'demo'.*mmms-weights narrow"):
        bundle = Bundle("demo")
    assert bundle.reference == "demo-small"
    assert bundle.path.name.startswith("demo-small-")
    with pytest.warns(MMMSDeployWarning, match="'demo-small'"), Session("demo", engine="onnxruntime") as session:
        assert session.bundle.reference == "demo-small"


def test_a_command_says_it_once(lean: Path, monkeypatch, capfd) -> None:
    from click.testing import CliRunner

    from mmms_deploy.commands.verify import main

    monkeypatch.setattr(find, "find_weights", no_weights)
    done = CliRunner().invoke(main, ["demo", "--engine", "onnxruntime"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("warning:") == 1
    assert "mmms-weights narrow" in done.stderr


@pytest.mark.parametrize("damage", ["other numbers", "another file", "gone"])
def test_other_weights_are_refused(lean: Path, damage: str) -> None:
    checkpoint = lean / "demo-checkpoint.tar.xz"
    if damage == "other numbers":
        rows = checkpoint_tensors("demo", lean)["rows"].copy()
        rows.flat[-1] += 1
        ship(lean, "demo", {"rows": rows})
    elif damage == "another file":
        checkpoint.write_bytes(b"no archive")
    else:
        checkpoint.unlink()
    with pytest.raises(BundleCorruptError, match="the bundle 'demo' that ships with mmms-deploy is damaged"):
        find_bundle("demo")


@pytest.mark.parametrize("recipe", [b"{", b"[]", b'{"sources": {}, "files": {"click.fp32.onnx": []}}'])
def test_a_damaged_recipe_is_refused(lean: Path, recipe: bytes) -> None:
    bundles = bundles_in(lean / "bundles.tar.xz")
    bundles["demo"]["pieces.json"] = recipe
    (lean / "bundles.tar.xz").write_bytes(archive_of(bundles))
    with pytest.raises(BundleCorruptError, match="damaged"):
        find_bundle("demo")


# --- checkpoints ------------------------------------------------------------------------------------------------------

NUMBERS = {"head": np.arange(600, dtype=np.float16).reshape(20, 30), "bias": np.ones(30, np.float16)}


def test_a_checkpoint_is_unpacked_once_and_beside_the_bundle_of_its_name(package, tmp_path, monkeypatch) -> None:
    content = ship(package, "demo", NUMBERS)
    file = packed_checkpoint("demo")
    assert file.is_relative_to(tmp_path / "cache" / "checkpoints")
    assert contents(file.parent) == {"demo.safetensors": content}
    assert "demo.safetensors" not in contents(find_bundle("demo"))
    (package / "demo-checkpoint.tar.xz").unlink()
    monkeypatch.setattr(kept, "_right", {})
    assert packed_checkpoint("demo") == file


def test_a_damaged_copy_of_a_checkpoint_is_replaced(package) -> None:
    content = ship(package, "demo", NUMBERS)
    file = packed_checkpoint("demo")
    file.write_bytes(content[:-1])
    assert packed_checkpoint("demo").read_bytes() == content


def test_a_bundle_takes_tensors_of_a_checkpoint_without_a_file(lean: Path, tmp_path) -> None:
    find_bundle("demo")
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == ["bundles"]


@pytest.mark.parametrize("cache", ["off", "file/cache"])
def test_without_a_cache_a_checkpoint_has_a_temporary_folder_of_its_own(
    package, tmp_path, monkeypatch, cache: str
) -> None:
    content = ship(package, "demo", NUMBERS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", cache if cache == "off" else str(tmp_path / cache))
    monkeypatch.setattr(kept.tempfile, "tempdir", str(tmp_path))
    file = packed_checkpoint("demo")
    assert file.parent.parent == tmp_path
    assert find_bundle("demo") != file.parent
    assert contents(file.parent) == {"demo.safetensors": content}


def test_processes_that_ask_for_a_checkpoint_at_once(tmp_path) -> None:
    """The checkpoint that really ships, in a cache that is not there yet."""
    ask = "from mmms_deploy.bundle.packed import packed_checkpoint\n"
    ask += "file = packed_checkpoint('demo-small')\nprint(file, len(file.read_bytes()))"
    environment = {**os.environ, "MMMS_DEPLOY_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", ask]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = {one.communicate(timeout=120)[0] for one in running}
    assert [one.returncode for one in running] == [0] * 4
    (line,) = said
    file, size = line.rsplit(" ", 1)
    assert Path(file).stat().st_size == int(size)
    assert list(contents(Path(file).parent)) == ["demo-small.safetensors"]


def test_a_checkpoint_takes_tensors_of_those_before_it(package) -> None:
    ship(package, "demo", NUMBERS)
    content = ship(package, "demo-thermal", {**NUMBERS, "fuser": NUMBERS["head"] + 1}, "demo")
    held = bundles_in(package / "demo-thermal-checkpoint.tar.xz")["demo-thermal"]["demo-thermal.safetensors"]
    assert len(content) - len(held) == NUMBERS["head"].nbytes
    assert packed_checkpoint("demo-thermal").read_bytes() == content


def test_two_checkpoints_never_wait_for_each_other(package) -> None:
    ship(package, "demo", NUMBERS)
    ship(package, "demo-small", NUMBERS, "demo")
    ship(package, "demo", NUMBERS, "demo-small")
    with pytest.raises(CheckpointCorruptError, match="no checkpoint that it may take tensors from"):
        packed_checkpoint("demo")


@pytest.mark.parametrize("damage", ["cut off", "absent", "other numbers", "no list", "another list", "another name"])
def test_a_damaged_packed_checkpoint_is_refused(package, tmp_path, damage: str) -> None:
    ship(package, "demo", NUMBERS)
    archive, sums = package / "demo-checkpoint.tar.xz", package / "demo-checkpoint.sha256"
    if damage == "cut off":
        archive.write_bytes(archive.read_bytes()[:100])
    elif damage == "absent":
        archive.unlink()
    elif damage == "no list":
        sums.unlink()
    elif damage == "another list":
        sums.write_text(sums.read_text().replace("demo.safetensors", "bundle.json"))
    else:
        (members,) = bundles_in(archive).values()
        if damage == "other numbers":
            members["demo.safetensors"] = members["demo.safetensors"][:-1] + b"!"
        archive.write_bytes(archive_of({"demo-small" if damage == "another name" else "demo": members}))
    with pytest.raises(CheckpointCorruptError, match="the checkpoint 'demo' that ships with mmms-deploy is damaged"):
        packed_checkpoint("demo")
    with pytest.raises(CheckpointCorruptError, match="damaged"):
        checkpoint_tensors("demo")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_checkpoint_that_does_not_ship_is_named(package) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint 'dmeo' ships") as caught:
        packed_checkpoint("dmeo")
    assert "'demo-small'" in str(caught.value)


def test_a_python_without_lzma_says_so_of_a_checkpoint(package, monkeypatch) -> None:
    ship(package, "demo", NUMBERS)
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(CheckpointError, match=r"cannot unpack the checkpoint 'demo'.*built without lzma"):
        packed_checkpoint("demo")

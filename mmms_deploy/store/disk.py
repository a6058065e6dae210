"""A folder of encoded images: one file an image, by its key, for all processes and machines that share the folder.

An entry is the file that ``Features.save`` writes, without the picture and the name of its file. It is written beside
its place and put there whole, and never changes: the first writer's numbers stay. What is damaged, cut off or under
another entry's name is taken out when it is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from mmms_deploy.errors import (
    FeatureError,
    FileReadError,
    MMMSDeployError,
    OutputExistsError,
    OutputWriteError,
    StoreError,
)
from mmms_deploy.files import GIB, as_path, open_regular, write_file
from mmms_deploy.files.leftovers import sweep_once
from mmms_deploy.files.output import writing
from mmms_deploy.files.reading import read_stream
from mmms_deploy.session.features import FeatureKey, Features
from mmms_deploy.session.features_file import SUFFIX
from mmms_deploy.store.disk_budget import DiskBudget, entries

_MOST_BYTES = 4 * GIB


class Disk:
    """The entries in a folder.

    Args:
        folder: The folder; it is made when the first entry is written.
        budget: The most bytes of all entries together; None for no limit.
        on_failure: Receives why the folder cannot be read or written.
        on_damage: Receives why an entry was taken out.

    Attributes:
        folder: The folder.
        hits: How often an entry was found.
        budget: What counts the folder's bytes.
    """

    def __init__(
        self,
        folder: Path,
        budget: int | None,
        on_failure: Callable[[MMMSDeployError], None],
        on_damage: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.hits = 0
        self.budget = DiskBudget(folder, budget)
        self._on_failure = on_failure
        self._on_damage = on_damage

    def path(self, key: FeatureKey) -> Path:
        """Return where an entry lies: in a folder of the first two digits of its name."""
        name = key.name
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def find(self, key: FeatureKey) -> Features | None:
        """Return an entry, which is now the most recently used; None where there is none that is whole."""
        path = self.path(key)
        try:
            with open_regular(path) as stream:
                status = os.fstat(stream.fileno())
                content = read_stream(stream, path, _MOST_BYTES)
        except FileReadError as error:
            if not error.missing:
                self._on_failure(error)
            return None
        try:
            features = _entry(content, key, str(path))
        except FeatureError as error:
            self._take_out(path, status)
            self._on_damage(error.given)
            return None
        self.touch(key)
        return features

    def has(self, key: FeatureKey) -> bool:
        """Whether there is a file in the place of an entry; it is not read."""
        try:
            return self.path(key).is_file()
        except OSError:
            return False

    def touch(self, key: FeatureKey) -> None:
        """Let an entry be the most recently used one."""
        with contextlib.suppress(OSError):
            os.utime(self.path(key))

    def write(self, features: Features) -> Features | None:
        """Write an entry, unless there is one.

        Args:
            features: What to write.

        Returns:
            None where it was written, or could not be; else what another writer wrote before.
        """
        path = self.path(features.key)
        for _ in range(2):
            try:
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                sweep_once(path.parent)
                content = features.to_bytes()
                write_file(path, content, overwrite=False)
            except OutputExistsError:
                found = self.find(features.key)
                if found is not None:
                    return found
                continue  # it was damaged, and is gone
            except OutputWriteError as error:
                self._on_failure(error)
                return None
            self.budget.wrote(len(content))
            return None
        return None

    def forget(self, key: FeatureKey) -> None:
        """Remove an entry."""
        path = self.path(key)
        try:
            with writing(path):
                path.unlink(missing_ok=True)
        except OutputWriteError as error:
            self._on_failure(error)

    def usage(self) -> tuple[int, int]:
        """Return how many entries there are, and their bytes."""
        sizes = [found.size for found in entries(self.folder)]
        return len(sizes), sum(sizes)

    @staticmethod
    def _take_out(path: Path, read: os.stat_result) -> None:
        """Remove a file that was read, unless another one is in its place now."""
        with contextlib.suppress(OSError):
            there = path.lstat()
            # A number of an inode is given to another file as soon as the first one is gone.
            if os.path.samestat(there, read) and (there.st_size, there.st_mtime_ns) == (read.st_size, read.st_mtime_ns):
                path.unlink()


def checked_folder(folder: object) -> Path:
    """Return the folder that a caller gave.

    Raises:
        StoreError: It is no path.
    """
    try:
        return as_path(folder, "the store's folder").expanduser().absolute()
    except (FileReadError, RuntimeError, OSError) as error:
        given = error.given if isinstance(error, FileReadError) else f"{folder} cannot be found: {error}"
        raise StoreError(given, expected="a path: a text or a pathlib.Path", fix="pass the path of a folder") from None


def _entry(content: bytes, key: FeatureKey, name: str) -> Features:
    """Return the features of an entry.

    Raises:
        FeatureError: They are damaged, belong to another key, or wait for a modality.
    """
    features = Features.from_bytes(content, name)
    if features.key != key or features.awaited:
        raise FeatureError(f"{name} holds the features of another image or bundle, or not all of an image's")
    return features

"""A repository at one commit: what it holds, and its files, from the cache of the hub or from the hub itself.

The cache is that of ``huggingface_hub`` (``HF_HUB_CACHE``), which other software shares: a folder of a commit holds
links to files that are named by their hash. A file is there whole or not at all.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmms_deploy.errors import (
    FileReadError,
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    MMMSDeployWarning,
)
from mmms_deploy.files import read_text
from mmms_deploy.hub.client import IDENTITY, cache_folder, calling, is_offline, without_bars
from mmms_deploy.hub.reference import COMMIT, MAIN, HubReference
from mmms_deploy.progress import OnProgress, Progress

_SHORT = 5.0
"""Seconds that a request may take when there is a copy to go on with."""
_LISTED = 6


class Snapshot:
    """A repository at one commit; :func:`open_snapshot` makes it.

    Args:
        reference: The repository, at the commit.
        branch: The branch or tag that led to the commit, when the cache does not know yet that it does.
        sizes: Bytes of every file; None when the hub was not asked.
        offline: Why the hub is not asked; None when it is.
    """

    def __init__(
        self, reference: HubReference, branch: str | None, sizes: dict[str, int] | None, offline: str | None
    ) -> None:
        self.reference = reference
        self.offline = offline
        self._branch = branch
        self._sizes = sizes

    @property
    def commit(self) -> str:
        """The commit."""
        return self.reference.revision or ""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by its path in the repository; without the hub, of those in the cache.

        Raises:
            HubError: The hub cannot be asked.
        """
        if self._sizes is None:
            with calling(f"{self.reference} cannot be fetched") as hub:
                self._sizes = _cached_sizes(hub, self.reference)
                try:
                    self._sizes = self._sizes if self.offline else _asked(hub, self.reference)[1]
                except HubUnreachableError as error:
                    if not self._sizes:
                        raise
                    self.offline = error.given
        return self._sizes

    def cached(self, path: str) -> Path | None:
        """Return the file of that path in the repository, if the cache has it."""
        with calling(f"{self.reference} cannot be opened") as hub:
            file = _folder(hub, self.reference) / path
        return file if file.is_file() else None

    def file(self, path: str, on_progress: OnProgress | None = None) -> Path:
        """Return a file of the repository; it is fetched where the cache does not have it.

        Args:
            path: Its path in the repository.
            on_progress: Receives how far the download is, in kB; None leaves that to the library's own bars.

        Raises:
            HubError: It is not there, or cannot be fetched.
            OutputWriteError: The cache cannot be written.
        """
        there = self.cached(path)
        if there is not None and (self._branch is None or self.offline):
            return there
        if self.offline:
            raise HubUnreachableError(
                f"{path} of {self.reference} is not in the cache, and {self.offline}",
                expected="a copy that was fetched whole",
                fix="open it once with a network",
            )
        if there is None and path not in self.sizes:
            raise HubNotFoundError(f"{self.reference} has no file {path}", expected=f"one of {listed(self.sizes)}")
        with calling(f"{path} of {self.reference} cannot be fetched") as hub:
            size = self.sizes.get(path)
            with _reporting(hub, path, size, on_progress) as options:
                found = Path(
                    hub.hf_hub_download(
                        self.reference.repository, path, revision=self._branch or self.commit, **IDENTITY, **options
                    )
                )
            expected = _folder(hub, self.reference) / path
        if os.path.normpath(found) != os.path.normpath(expected):
            raise HubError(
                f"{self.reference.repository} has a newer commit since a moment ago",
                expected="one commit while its files are fetched",
                fix="open it again",
            )
        self._branch = None
        return expected


def open_snapshot(reference: HubReference) -> Snapshot:
    """Find the commit of a reference.

    A commit that is named in full, and a cache that is all there may be (``HF_HUB_OFFLINE=1``), need no request; a
    branch or tag needs one.

    Warns:
        MMMSDeployWarning: The hub does not answer, and the newest copy in the cache is taken.

    Raises:
        HubError: There is no such repository or revision, or the hub does not answer and the cache has no copy.
    """
    branch = reference.revision or MAIN
    with calling(f"{reference} cannot be fetched") as hub:
        known = branch if reference.pinned else _known_commit(hub, reference, branch)
        copy = None if known is None else reference.at(known)
        if copy is not None and not _folder(hub, copy).is_dir():
            copy = None
        if is_offline(hub):
            offline = "HF_HUB_OFFLINE=1 forbids to ask the hub"
            if copy is None:
                raise HubUnreachableError(
                    f"{reference} is not in the cache, and {offline}",
                    expected=_cache_says(hub, reference),
                    fix="unset HF_HUB_OFFLINE, or open it once with a network",
                )
            return Snapshot(copy, None, None, offline)
        if copy is not None and reference.pinned:
            return Snapshot(copy, None, None, None)
        try:
            commit, sizes = _asked(hub, reference, _SHORT if copy is not None else None)
        except HubError as error:
            if copy is None:
                if isinstance(error, HubUnreachableError):
                    error = HubUnreachableError(error.given, expected=_cache_says(hub, reference), fix=error.fix)
                raise error from error.__cause__
            warnings.warn(
                f"{error.given}; the copy in the cache is taken, {copy} (name a commit to be sure of the version)",
                MMMSDeployWarning,
                stacklevel=3,
            )
            return Snapshot(copy, None, None, error.given)
    return Snapshot(reference.at(commit), None if known == commit else branch, sizes, None)


def cached_file(reference: HubReference) -> Path | None:
    """Return a file of a repository as the cache has it since the hub was asked last; nothing is asked.

    Args:
        reference: The file.

    Returns:
        The file; None when the cache does not have it.
    """
    with calling(f"{reference} cannot be opened") as hub:
        branch = reference.revision or MAIN
        known = branch if reference.pinned else _known_commit(hub, reference, branch)
        file = None if known is None else _folder(hub, reference.at(known)) / reference.path
    return file if file is not None and file.is_file() else None


def listed(names: object) -> str:
    """Return some names of files as text."""
    every = sorted(str(name) for name in names) if isinstance(names, dict | set | list | tuple) else []
    more = len(every) - _LISTED
    return (", ".join(every[:_LISTED]) or "no file at all") + (f" and {more} more" if more > 0 else "")


def _asked(hub: Any, reference: HubReference, timeout: float | None = None) -> tuple[str, dict[str, int]]:
    """Return the commit of a revision, and the size of every file, from the hub."""
    with calling(f"{reference} cannot be fetched"):
        info = hub.HfApi(**IDENTITY).model_info(
            reference.repository, revision=reference.revision or MAIN, files_metadata=True, timeout=timeout
        )
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise HubError(f"{hub.constants.ENDPOINT} names no commit of {reference}", fix="check HF_ENDPOINT")
    return info.sha, {file.rfilename: int(file.size or 0) for file in info.siblings or ()}


def _repository_folder(hub: Any, reference: HubReference) -> Path:
    return cache_folder(hub) / f"models--{reference.repository.replace('/', '--')}"


def _folder(hub: Any, reference: HubReference) -> Path:
    return _repository_folder(hub, reference) / "snapshots" / (reference.revision or "")


def _known_commit(hub: Any, reference: HubReference, branch: str) -> str | None:
    """Return the commit that a branch or tag led to when the hub was asked last."""
    try:
        text = read_text(_repository_folder(hub, reference) / "refs" / branch, 100).strip()
    except FileReadError:
        return None
    return text if COMMIT.fullmatch(text) else None


def _cached_sizes(hub: Any, reference: HubReference) -> dict[str, int]:
    folder = _folder(hub, reference)
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def _cache_says(hub: Any, reference: HubReference) -> str:
    """Return what the cache has of a repository, as the end of an error's expectation."""
    folder = _repository_folder(hub, reference) / "snapshots"
    try:
        commits = sorted(entry.name for entry in folder.iterdir() if COMMIT.fullmatch(entry.name))
    except OSError:
        commits = []
    place = f"a copy in the cache, {cache_folder(hub)}"
    if not commits:
        return f"{place}, which has nothing of {reference.repository}"
    return f"{place}, which has {', '.join(str(reference.at(commit)) for commit in commits[:_LISTED])}"


@contextmanager
def _reporting(hub: Any, path: str, size: int | None, on_progress: OnProgress | None) -> Iterator[dict[str, Any]]:
    """Give the keywords that let a download say how far it is; without a callback, the library draws its own bars."""
    if on_progress is None:
        yield {}
        return
    task, total = f"fetching {path}, kB", None if size is None else -(-size // 1000)
    on_progress(Progress(task, 0, total))
    try:
        if "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters:
            yield {"tqdm_class": _bar(hub, task, total, on_progress)}
        else:
            with without_bars(hub):
                yield {}
    finally:
        on_progress(Progress(task, total or 0, total, finished=True))


def _bar(hub: Any, task: str, total: int | None, on_progress: OnProgress) -> Any:
    """Return a class of bars that draws nothing and reports."""

    class Bar(hub.utils.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self._bytes = int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self._bytes += int(n or 0)
            done = max(self._bytes, 0) // 1000
            on_progress(Progress(task, done if total is None else min(done, total), total))

        def update_transfer(self, n: float | None = 1) -> None:
            """Do nothing: bytes on the wire; what counts is what is in the file."""

        def set_transfer_postfix_str(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing."""

    return Bar

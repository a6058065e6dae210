"""Puts files into a model repository, in one commit."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mmms_deploy.errors import HubAccessError, HubNotFoundError, HubRepositoryExistsError, MMMSDeployWarning
from mmms_deploy.hub.client import IDENTITY, LOG_IN, calling, without_bars
from mmms_deploy.hub.reference import MAIN, HubReference
from mmms_deploy.hub.snapshot import listed
from mmms_deploy.progress import OnProgress, Progress

_OF_THE_HUB = frozenset({".gitattributes"})
"""Files that the hub itself puts into a new repository."""


@dataclass(frozen=True)
class RepositoryFile:
    """A file that is put into a repository.

    Attributes:
        name: Its name in the destination.
        content: The local file, or the content.
    """

    name: str
    content: Path | bytes


@dataclass(frozen=True)
class Destination:
    """Where files are put; :func:`open_destination` makes it.

    Attributes:
        reference: The repository, and the folder in it.
        private: Whether the repository is made as a private one.
        commit: Its newest commit; None for a repository that has none, or is not there yet.
        files: What lies in the folder, by name.
        user: Who puts them there, as the hub knows the token.
    """

    reference: HubReference
    private: bool
    commit: str | None = None
    files: Collection[str] = field(default_factory=tuple)
    user: str = ""


def open_destination(reference: HubReference, *, private: bool = False, overwrite: bool = False) -> Destination:
    """Check that a repository can be written, before anything long begins; nothing is written.

    Args:
        reference: The repository, and a folder in it where one is named.
        private: Whether a repository that is not there yet is made as a private one.
        overwrite: Whether the folder may hold files already.

    Raises:
        HubAccessError: There is no token, or it is refused.
        HubRepositoryExistsError: The folder holds files, and ``overwrite`` is not set.
        HubError: The hub does not answer.
    """
    what = f"{reference} cannot be written"
    with calling(what) as hub:
        api = hub.HfApi(**IDENTITY)
        if not hub.get_token():
            raise HubAccessError(f"{what}: no token is stored on this machine", expected="a token", fix=LOG_IN)
        user = str(api.whoami().get("name", ""))
        try:
            with calling(what):
                info = api.model_info(reference.repository, revision=MAIN)
        except HubNotFoundError:
            return Destination(reference, private, user=user)
    start = f"{reference.path}/" if reference.path else ""
    names = [file.rfilename for file in info.siblings or () if file.rfilename.startswith(start)]
    files = [name.removeprefix(start) for name in names if name not in _OF_THE_HUB]
    if files and not overwrite:
        raise HubRepositoryExistsError(
            f"{reference} holds files already: {listed(files)}",
            expected="a new or an empty repository, or a folder in one",
            fix="name another, or pass overwrite=True",
            command_fix="name another, or pass --overwrite",
        )
    if private and not info.private:
        warnings.warn(
            f"{reference.repository} is there already and public: it stays so", MMMSDeployWarning, stacklevel=2
        )
    return Destination(reference, private, info.sha, files, user)


def upload(
    destination: Destination,
    files: Sequence[RepositoryFile],
    message: str,
    *,
    obsolete: Collection[str] = (),
    on_progress: OnProgress | None = None,
) -> HubReference:
    """Put files into a repository in one commit; the repository is made where it is not there.

    Either all files are there afterwards or none: files are sent first, and become the repository's with the commit.

    Args:
        destination: Where to.
        files: The files.
        message: The commit's message.
        obsolete: Names of files in the destination that go with the same commit.
        on_progress: Receives that it starts and ends; None leaves how far it is to the library's own bars.

    Returns:
        The destination at the commit.

    Raises:
        HubAccessError: This user may not write there.
        HubError: The hub does not answer, or the repository has changed since :func:`open_destination` looked.
    """
    reference = destination.reference
    start = f"{reference.path}/" if reference.path else ""
    kept = {file.name for file in files}
    task = f"uploading {len(files)} files to {reference}"
    if on_progress is not None:
        on_progress(Progress(task))
    with calling(f"{reference} cannot be written") as hub, ExitStack() as quiet:
        if on_progress is not None:
            quiet.enter_context(without_bars(hub))
        api = hub.HfApi(**IDENTITY)
        if destination.commit is None:
            api.create_repo(reference.repository, private=destination.private, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(
                start + file.name, str(file.content) if isinstance(file.content, Path) else file.content
            )
            for file in files
        ]
        gone = sorted((set(obsolete) & set(destination.files)) - kept)
        operations += [hub.CommitOperationDelete(start + name) for name in gone]
        done = api.create_commit(
            reference.repository, operations, commit_message=message, parent_commit=destination.commit
        )
    if on_progress is not None:
        on_progress(Progress(task, finished=True))
    return reference.at(str(done.oid))

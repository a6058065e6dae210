"""References to a model repository of the Hugging Face hub: ``hf:owner/name[@revision][/path]``.

The grammar is that of the hub's own ``hf://`` addresses. ``hf:`` and ``hf://`` are the same, the revision may also come
last, and the address of a page of the hub is a reference, too.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

from mmms_deploy.errors import HubReferenceError

SCHEME = "hf:"
"""What a reference begins with."""
MAIN = "main"
"""The revision that is taken when none is named."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""The pattern for the full hash of a commit: what it names never changes."""
FORM = "hf:owner/name, hf:owner/name@revision, or hf:owner/name/path"

_SCHEME = re.compile(r"hf:/{0,2}", re.IGNORECASE)
# pathlib makes one slash of two.
_PAGE = re.compile(r"(?:https?:/{1,2})?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
"""An owner or the name of a repository, as the hub allows them; ``--`` and ``..`` are refused beside."""
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+/-]{0,198}[A-Za-z0-9_+-])?")
_SPECIAL = re.compile(r"refs/(?:convert/[\w.-]+|pr/\d+)", re.ASCII)
"""Revisions with a slash that the hub's grammar knows."""
_PAGES = frozenset({"tree", "blob", "resolve", "raw", "blame"})
"""Pages of a repository that show files: ``/tree/REVISION/PATH``."""
_OTHER_KINDS = {"datasets": "a data set", "spaces": "a space", "kernels": "a kernel", "buckets": "a bucket"}
_CACHED = re.compile(
    r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})(?:/(?P<path>.+))?$"
)


@dataclass(frozen=True)
class HubReference:
    """A model repository on the hub, or a file or folder in it.

    Attributes:
        repository: ``owner/name``.
        path: The file or folder in the repository, with slashes; empty for the repository itself.
        revision: A branch, a tag or a commit; None for the main branch.
    """

    repository: str
    path: str = ""
    revision: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, so that it always means the same files."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    @property
    def name(self) -> str:
        """The name of the repository, without its owner."""
        return self.repository.partition("/")[2]

    def at(self, revision: str, path: str | None = None) -> HubReference:
        """Return the same at a revision, and at another path where one is given."""
        return replace(self, revision=revision, path=self.path if path is None else path)

    def __str__(self) -> str:
        revision = self.revision or ""
        if not _SPECIAL.fullmatch(revision):
            revision = quote(revision, safe="")
        return f"{SCHEME}{self.repository}{'@' if revision else ''}{revision}{'/' if self.path else ''}{self.path}"


def is_reference(value: object) -> bool:
    """Return whether a text or a path is meant as a reference to the hub, right or wrong.

    What begins with ``hf:`` always is; a local folder of such a name is named by its absolute path.
    """
    text = _text(value)
    return text is not None and (_SCHEME.match(text) is not None or _PAGE.match(text) is not None)


def parse_reference(value: object) -> HubReference:
    """Read a reference, or the address of a page of the hub.

    Args:
        value: ``hf:owner/name``, with ``@revision`` and ``/path`` after it, in either order; ``hf://`` is the same as
            ``hf:``. A path object of such a text is understood, too.

    Raises:
        HubReferenceError: It is none.
    """
    given = _text(value) or ""
    page = _PAGE.match(given)
    start = page or _SCHEME.match(given)
    if start is None:
        raise HubReferenceError(f"{given[:200]!r} is no reference to the hub", expected=FORM, fix=f"write {FORM}")
    rest = given[start.end() :].partition("?")[0].partition("#")[0] if page else given[start.end() :]
    repository, path, revision = _page_parts(rest, given) if page else _parts(rest, given)
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise _wrong(given, f"{revision!r} is no name of a branch, a tag or a commit")
    for part in path.split("/") if path else ():
        if part in ("", ".", "..") or "\\" in part or "@" in part or not part.isprintable():
            raise _wrong(given, f"{path!r} is no path in a repository")
    return HubReference(repository, path, revision)


def parse_repository(value: object, what: str = "the repository") -> HubReference:
    """Read the name of a repository to write to: ``owner/name[/folder]``, with or without ``hf:``.

    Raises:
        HubReferenceError: It is none, or names a revision.
    """
    text = _text(value) or ""
    try:
        reference = parse_reference(text if is_reference(text) else f"{SCHEME}{text}")
    except HubReferenceError as error:
        raise HubReferenceError(
            f"{what} {text[:200]!r} has no owner and name, or names no model repository",
            expected="owner/name, or owner/name/folder",
            fix="name it as on its page; 'hf auth whoami' says your own name on the hub",
        ) from error
    if reference.revision is not None:
        raise HubReferenceError(
            f"{what} {text} names the revision {reference.revision}",
            expected="owner/name: what is pushed becomes the newest commit of the main branch",
            fix=f"name {reference.repository}",
        )
    return reference


def reference_of(path: Path) -> HubReference | None:
    """Return where a folder or file in the cache of the hub comes from, as its place there says; None elsewhere."""
    found = _CACHED.search(path.absolute().as_posix())
    if found is None:
        return None
    return HubReference(f"{found['owner']}/{found['name']}", found["path"] or "", found["commit"])


def _text(value: object) -> str | None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
        value = value.replace("\\", "/") if isinstance(value, str) and os.sep == "\\" else value
    return value if isinstance(value, str) else None


def _parts(rest: str, given: str) -> tuple[str, str, str | None]:
    """Return repository, path and revision of what follows the scheme."""
    rest = rest.removeprefix("models/").rstrip("/")
    before, at, after = rest.partition("@")
    words = before.split("/")
    repository = _repository(words, given)
    if not at:
        return repository, "/".join(words[2:]), None
    if "@" in after or not after:
        raise _wrong(given, "a revision follows one '@'")
    if len(words) > 2:
        return repository, "/".join(words[2:]), unquote(after)
    special = _SPECIAL.match(after)
    revision, _, path = (special[0], "", after[special.end() :].lstrip("/")) if special else after.partition("/")
    return repository, path, unquote(revision)


def _page_parts(rest: str, given: str) -> tuple[str, str, str | None]:
    """Return repository, path and revision of the rest of a page's address."""
    words = unquote(rest).strip("/").split("/")
    repository = _repository(words, given)
    if len(words) == 2:
        return repository, "", None
    if words[2] not in _PAGES or len(words) < 4:
        raise _wrong(given, f"the page {words[2]!r} shows no files")
    special = _SPECIAL.match("/".join(words[3:]))
    revision = special[0] if special else words[3]
    return repository, "/".join(words[3 + len(revision.split("/")) :]), revision


def _repository(words: list[str], given: str) -> str:
    if words[0] in _OTHER_KINDS:
        raise _wrong(given, f"it names {_OTHER_KINDS[words[0]]} of the hub, not a model repository")
    if len(words) < 2 or not words[1]:
        raise _wrong(given, "it has no owner and name" if words == [""] else f"{words[0]!r} has no owner before it")
    for part in words[:2]:
        if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise _wrong(given, f"{part!r} is no owner and no name of a repository")
    return "/".join(words[:2])


def _wrong(given: str, why: str) -> HubReferenceError:
    return HubReferenceError(
        f"{given[:200]!r} is no reference to the hub: {why}",
        expected=FORM,
        fix="copy the name owner/name from the top of the repository's page",
    )

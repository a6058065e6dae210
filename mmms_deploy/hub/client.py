"""The one place that imports ``huggingface_hub``: without its telemetry, and every failure has a name.

With telemetry, the library adds the version of torch and the surroundings that it detects to every request, for which
it asks the hub for a list. Without, a request says the names and versions of mmms-deploy, huggingface_hub and Python.
Where a token is stored or set, it is sent along, as for every client of the hub.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mmms_deploy import telemetry
from mmms_deploy.errors import (
    HubAccessError,
    HubError,
    HubNotFoundError,
    HubReferenceError,
    HubUnreachableError,
    MMMSDeployError,
    OutputWriteError,
)
from mmms_deploy.installed import pip_install
from mmms_deploy.version import __version__

IDENTITY = {"library_name": "mmms-deploy", "library_version": __version__}
"""What requests say of their sender, as keywords of the library."""
LOG_IN = "log in with 'hf auth login', or set HF_TOKEN to a token"
_UNREACHABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that a later request may not get."""

_SYSTEM = re.compile(r"\[Errno -?\d+\] [\w ,]+")
"""What the system says of a connection."""

_lock = threading.Lock()
_depth = 0
_before: Any = None


def _renew() -> None:
    """Start anew in a forked child, where no thread of the parent goes on."""
    global _lock, _depth
    _lock, _depth = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def calling(what: str) -> Iterator[Any]:
    """Give the library for some calls; what they raise becomes a named error.

    Args:
        what: What cannot be done when a call fails, as the start of a sentence, e.g. ``hf:a/b cannot be fetched``.

    Yields:
        The module ``huggingface_hub``.

    Raises:
        HubError: It is not installed, or a call failed.
        OutputWriteError: Its cache cannot be written.
    """
    hub = _library()
    with _without_telemetry(hub):
        try:
            yield hub
        except MMMSDeployError:
            raise
        except Exception as error:  # the library, its two HTTP clients and its storage raise errors of any class
            raise named(hub, error, what) from error


def cache_folder(hub: Any) -> Path:
    """Return the folder where the library keeps what it fetched."""
    return Path(hub.constants.HF_HUB_CACHE)


def is_offline(hub: Any) -> bool:
    """Return whether the user forbids the library to ask the hub (``HF_HUB_OFFLINE=1``)."""
    return bool(hub.constants.HF_HUB_OFFLINE)


@contextmanager
def without_bars(hub: Any) -> Iterator[None]:
    """Keep the library from drawing bars of its own."""
    shown = not hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            hub.utils.enable_progress_bars()


def named(hub: Any, error: Exception, what: str) -> MMMSDeployError:  # noqa: PLR0911 (one line a kind)
    """Return the named error for what the library raised.

    Args:
        hub: The module ``huggingface_hub``.
        error: What it raised.
        what: What cannot be done, as the start of a sentence.
    """
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = _said(error)
    if isinstance(error, errors.HFValidationError):
        return HubReferenceError(f"{what}: {said}")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachableError(f"{what}: HF_HUB_OFFLINE=1 forbids to ask the hub", fix="unset HF_HUB_OFFLINE")
    if isinstance(error, errors.GatedRepoError):
        return HubAccessError(
            f"{what}: its owner lets in only who asked for it",
            expected="a token of a user who was let in",
            fix=f"ask for access on the repository's page below {endpoint}, then {LOG_IN}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubNotFoundError(f"{what}: the repository has no such revision", fix="look at its branches and tags")
    if isinstance(error, errors.EntryNotFoundError) and status is not None:
        return HubNotFoundError(f"{what}: the repository has no such file", fix="look at its files")
    if isinstance(error, errors.RepositoryNotFoundError) and status == 401:
        # The hub answers the same for repositories that are private and for those that do not exist.
        return HubAccessError(
            f"{what}: {endpoint} has no such repository that everybody may see",
            expected="the name of a public repository, or a token with access to a private one",
            fix=f"check the name; for a private repository, {LOG_IN}",
        )
    if status in (401, 403):
        return HubAccessError(
            f"{what}: {endpoint} refuses the token of this user ({said})" if status == 401 else f"{what}: {said}",
            expected="a token that allows it",
            fix=f"{LOG_IN} that allows it",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubNotFoundError(
            f"{what}: {endpoint} has no such repository, or does not show it to this user",
            expected="owner/name of a model repository",
            fix=f"check the name on its page; for a private one, {LOG_IN} with access to it",
        )
    if isinstance(error, errors.FileMetadataError):
        return HubError(f"{what}: {endpoint} answers otherwise than a hub does ({said})", fix="check HF_ENDPOINT")
    if status is not None and status not in _UNREACHABLE:
        return HubError(f"{what}: {endpoint} answers {status} ({said})", fix="try again later, or report it")
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
        cache = cache_folder(hub)
        file = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else cache
        elsewhere = not (file.is_relative_to(cache) or cache.is_relative_to(file))  # such as the file of the token
        return OutputWriteError(
            f"{what}: {file} cannot be {'used' if elsewhere else 'written'}: {error.strerror}",
            expected=f"folders that this user may read and write; the cache is {cache}",
            fix=f"set {'HF_HOME' if elsewhere else 'HF_HUB_CACHE'} to another folder",
        )
    return HubUnreachableError(
        f"{what}: {endpoint} does not answer ({said})",
        expected="an answer of the hub, or a copy in its cache",
        fix="check the network (HTTPS_PROXY, HF_ENDPOINT) and try again; what was fetched once opens without a network",
    )


def _said(error: BaseException) -> str:
    """Return the first line of what the server or the library says, after the error's type where there is no answer."""
    server = getattr(error, "server_message", None)
    if isinstance(server, str) and server.strip():
        return " ".join(server.split())[:300]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300] if lines else ""
    system = _SYSTEM.search(text)
    if system is not None:  # inside of what one of the HTTP clients wraps around it
        text = system[0]
    if getattr(error, "response", None) is not None:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _library() -> Any:
    try:
        with _lock:
            import huggingface_hub
            import huggingface_hub.constants
            import huggingface_hub.errors
            import huggingface_hub.utils
    except Exception as error:  # a broken installation raises anything
        broken = "" if isinstance(error, ModuleNotFoundError) else f" ({' '.join(str(error).split())[:200]})"
        raise HubError(
            f"references to the hub need a package that cannot be imported: huggingface_hub{broken}",
            expected="the [hub] extra",
            fix=f"{pip_install('hub')}, or download the files yourself and name their folder",
        ) from error
    return huggingface_hub


@contextmanager
def _without_telemetry(hub: ModuleType) -> Iterator[None]:
    """Switch the library's telemetry off, and back when the last of several threads is done."""
    global _depth, _before  # noqa: PLW0603 (one switch of the library for all threads)
    if telemetry.wanted():
        yield
        return
    with _lock:
        if _depth == 0:
            _before = hub.constants.HF_HUB_DISABLE_TELEMETRY
            hub.constants.HF_HUB_DISABLE_TELEMETRY = True
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                hub.constants.HF_HUB_DISABLE_TELEMETRY = _before

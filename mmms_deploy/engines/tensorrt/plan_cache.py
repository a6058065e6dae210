"""Compiled plans on disk. A plan is a program: TensorRT receives only unchanged files that this user wrote.

A file holds the plan, then the facts about it as JSON, then the length of that JSON in eight bytes, then the SHA-256 of
everything before. It is written under a temporary name and renamed, so that a reader sees all of it or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.errors import FileReadError, OutputWriteError, PlanError
from mmms_deploy.files import append_to, open_regular
from mmms_deploy.files.cache import cache_folder, cache_key, store
from mmms_deploy.progress import OnProgress, Progress

FORMAT = 1
_FORGET_AFTER_DAYS = 60
_TAIL = 40
_MOST_FACTS = 16 << 20
_POLL_SECONDS = 0.2
_LOG = logging.getLogger(__name__)
_FIX = "delete the file; the next use compiles it again"
_SEARCH = ("opt_level", "workspace")
"""Options of the search for fast kernels; they change the speed of a plan, not what it computes."""
WAITING = "another process compiles plans; waiting for it"
"""The task that :func:`one_at_a_time` reports."""


class Identity(Struct, frozen=True, kw_only=True):
    """What a plan was compiled from and for. Another value of any of these needs another plan.

    Attributes:
        graph: SHA-256 of the ONNX graph, and of its weights where they are in a separate file.
        precision: The precision of its convolutions and matrix products.
        library: Name and version of the library.
        gpu: Name of the GPU; empty for a plan that was compiled ahead of time.
        compute_capability: Its architecture.
        driver: Version of its driver.
        every_click: Whether it was compiled for a stage that runs at every click.
        options: How it was compiled.
        format: Format of the file in the cache.
    """

    graph: str
    precision: Precision
    library: str
    gpu: str
    compute_capability: str
    driver: str
    every_click: bool
    options: dict[str, object]
    format: int = FORMAT

    def difference(self, other: Identity) -> list[str]:
        """Return, in words, how this identity differs from that of another plan."""
        found = []
        for name in self.__struct_fields__:
            old, new = getattr(other, name), getattr(self, name)
            if name == "options":
                found += [f"{key} was {old.get(key)}, is {new[key]}" for key in new if old.get(key) != new[key]]
            elif old != new:
                found.append(f"{name.replace('_', ' ')} was {old or 'none'}, is {new or 'none'}")
        return found

    def same_but_search(self, other: Identity) -> bool:
        """Return whether another plan differs in nothing but the options of the search for fast kernels."""
        options = {**other.options, **{name: self.options.get(name) for name in _SEARCH}}
        return msgspec.structs.replace(other, options=options) == self


class Facts(Struct, frozen=True, kw_only=True):
    """The facts that are kept with a plan: its identity, its report, and the seconds that compiling it took."""

    identity: Identity
    report: PlanReport
    seconds: float


def plans_folder() -> Path | None:
    """Return the folder of the plans, or None when caching is off."""
    folder = cache_folder()
    return None if folder is None else folder / "tensorrt"


def plan_file(folder: Path, identity: Identity) -> Path:
    """Return the file of a plan."""
    key = cache_key(**msgspec.to_builtins(identity))
    return folder / f"{_prefix(identity.graph, identity.precision)}-{key}.plan"


def _prefix(graph: str, precision: Precision) -> str:
    return hashlib.sha256(f"{graph} {precision}".encode()).hexdigest()[:16]


def keep_plan(file: Path, facts: Facts, plan: bytes) -> bool:
    """Write a plan to its place.

    Returns:
        Whether it was written; an error of the system (no permission, disk full) is logged.
    """
    encoded = msgspec.json.encode(facts)
    digest = hashlib.sha256()
    parts: list[bytes | memoryview] = [plan, encoded, len(encoded).to_bytes(8, "little")]
    for part in parts:
        digest.update(part)
    kept = store(file, [*parts, digest.digest()])
    _forget_old(file.parent)
    return kept


def read_plan(file: Path, identity: Identity) -> tuple[bytes, Facts]:
    """Read a plan and check that it is unchanged and was compiled for this use.

    Raises:
        FileNotFoundError: There is no such file.
        PlanError: It is damaged, cut off, was not written by this user, or was compiled from or for something else.
    """
    with _opened(file) as stream:
        size, length, encoded, digest = _tail(file, stream)
        plan = stream.read(size)
        hashed = hashlib.sha256(plan)
        hashed.update(encoded)
        hashed.update(length.to_bytes(8, "little"))
        if len(plan) != size or hashed.digest() != digest:
            raise PlanError(f"{file} is damaged: its checksum does not fit", expected="an unchanged plan", fix=_FIX)
    facts = _facts(file, encoded)
    _check_identity(file, facts, identity)
    with contextlib.suppress(OSError):
        file.touch()
    return plan, facts


def check_plan(file: Path, identity: Identity) -> Facts:
    """Return the facts about a plan, read from its end. This is cheap at any size: the checksum is not compared.

    Raises:
        FileNotFoundError: There is no such file.
        PlanError: It is cut off, was not written by this user, or was compiled from or for something else.
    """
    with _opened(file) as stream:
        encoded = _tail(file, stream)[2]
    facts = _facts(file, encoded)
    _check_identity(file, facts, identity)
    return facts


def _check_identity(file: Path, facts: Facts, identity: Identity) -> None:
    if facts.identity != identity:
        raise PlanError(
            f"{file} was made for something else: {'; '.join(identity.difference(facts.identity))}",
            expected="the plan that its name stands for",
            fix=_FIX,
        )


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file of the cache; refuse it where a user other than this one and root could have written it."""
    try:
        stream = open_regular(file)
    except FileReadError as error:
        if error.missing:
            raise FileNotFoundError(str(file)) from None
        raise PlanError(f"{file} cannot be read: {error.reason}", expected="a plan of this user", fix=_FIX) from error
    with stream:
        if hasattr(os, "geteuid"):
            status = os.fstat(stream.fileno())
            if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
                raise PlanError(
                    f"{file} belongs to user {status.st_uid} and has mode {status.st_mode & 0o777:o}",
                    expected="a plan that only this user can have written, because a plan is a program",
                    fix="delete the file, or set MMMS_DEPLOY_CACHE to a folder of your own",
                )
        try:
            yield stream
        except OSError as error:
            raise PlanError(f"{file} cannot be read: {error}", expected="a readable plan", fix=_FIX) from error


def _tail(file: Path, stream: BinaryIO) -> tuple[int, int, bytes, bytes]:
    """Return the size of the plan, the length of the facts, the facts and the checksum; seek back to the start."""
    total = stream.seek(0, os.SEEK_END)
    if total >= _TAIL:
        stream.seek(total - _TAIL)
        end = stream.read(_TAIL)
        length = int.from_bytes(end[:8], "little")
        if length <= min(total - _TAIL, _MOST_FACTS):
            stream.seek(total - _TAIL - length)
            encoded = stream.read(length)
            stream.seek(0)
            return total - _TAIL - length, length, encoded, end[8:]
    raise PlanError(
        f"{file} is no plan of mmms-deploy, or was cut off", expected="a complete plan of mmms-deploy", fix=_FIX
    )


def _facts(file: Path, encoded: bytes) -> Facts:
    try:
        return msgspec.json.decode(encoded, type=Facts)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise PlanError(
            f"{file} is no plan of this version of mmms-deploy: {error}", expected="a plan of this version", fix=_FIX
        ) from error


def why_none(folder: Path, identity: Identity) -> str:
    """Return why there is no plan: the differences to the most similar one of the same graph and precision."""
    differences = (identity.difference(other) for _, other in _relatives(folder, identity))
    closest = min(filter(None, differences), key=len, default=None)
    return "it was never compiled here" if closest is None else "; ".join(closest)


def searched_otherwise(folder: Path, identity: Identity) -> tuple[Path, Identity] | None:
    """Return the file and identity of the newest plan that differs only in ``opt_level`` or ``workspace``, or None."""
    fitting = [(file, other) for file, other in _relatives(folder, identity) if identity.same_but_search(other)]
    return fitting[-1] if fitting else None


def has_relatives(folder: Path, graph: str, precision: Precision) -> bool:
    """Return whether there are plans of a graph in a precision, for any GPU, library or options."""
    return any(folder.glob(f"{_prefix(graph, precision)}-*.plan"))


def _relatives(folder: Path, identity: Identity) -> list[tuple[Path, Identity]]:
    """Return files and identities of the readable plans of the same graph and precision; the newest last."""
    found = []
    with contextlib.suppress(OSError):
        for file in folder.glob(f"{_prefix(identity.graph, identity.precision)}-*.plan"):
            with contextlib.suppress(PlanError, OSError):
                with _opened(file) as stream:
                    encoded = _tail(file, stream)[2]
                found.append((file.stat().st_mtime_ns, file, _facts(file, encoded).identity))
    return [(file, identity) for _, file, identity in sorted(found, key=lambda one: one[:2])]


# --- measurements of kernels (timing caches) --------------------------------------------------------------------------


def timing_file(folder: Path, identity: Identity) -> Path:
    """Return the file of the measurements of a GPU with a library and driver."""
    key = cache_key(
        library=identity.library,
        gpu=identity.gpu,
        compute_capability=identity.compute_capability,
        driver=identity.driver,
    )
    return folder / f"{key}.timing"


def read_timing(file: Path) -> bytes | None:
    """Return kept measurements, or None when there are none; a damaged or foreign file stays, with a warning."""
    try:
        with _opened(file) as stream:
            content = stream.read()
    except FileNotFoundError:
        return None
    except PlanError as error:
        _LOG.warning("%s; everything is measured again", error.given)
        return None
    if hashlib.sha256(content[:-32]).digest() != content[-32:]:
        _LOG.warning("%s is damaged; everything is measured again", file)
        return None
    return content[:-32]


def keep_timing(file: Path, measured: bytes) -> None:
    """Keep measurements for later builds."""
    store(file, [measured, hashlib.sha256(measured).digest()])


# --- processes that share the folder ----------------------------------------------------------------------------------


@contextmanager
def one_at_a_time(folder: Path, on_progress: OnProgress | None = None) -> Iterator[None]:
    """Let one process of this machine build at a time: the next finds the plan, and measurements stay undisturbed.

    Where files cannot be locked (Windows, some network drives, a read-only folder), processes build side by side, and
    the plan of the last one stays.

    Args:
        folder: The folder of the plans.
        on_progress: Receives the task :data:`WAITING` where another process builds: once when it starts, once when it
            ends.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            stream = stack.enter_context(append_to(folder / ".lock"))
        except (OSError, OutputWriteError):
            stream = None
        waited = False
        while stream is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited and on_progress is not None:
                    on_progress(Progress(WAITING, 0, 1))
                waited = True
                time.sleep(_POLL_SECONDS)
            except OSError:
                break
        if waited and on_progress is not None:
            on_progress(Progress(WAITING, 1, 1, finished=True))
        yield


def _forget_old(folder: Path) -> None:
    """Remove files that were not used for a long time, such as plans for another driver."""
    oldest = time.time() - _FORGET_AFTER_DAYS * 86400
    with contextlib.suppress(OSError):
        for file in (*folder.glob("*.plan"), *folder.glob("*.timing"), *folder.glob(".*.partial")):
            if file.stat().st_mtime < oldest:
                file.unlink()

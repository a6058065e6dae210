"""Compiled plans on disk. A plan is a program: only what this user wrote, unchanged, ever reaches TensorRT.

A file is the plan, then what is known about it as JSON, then the length of that in eight bytes, then the SHA-256 of
everything before. It is written beside its place and renamed, so that a reader sees all of it or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.cache import cache_folder, cache_key, store
from mmms_deploy.engines.tensorrt.inspect import PlanReport
from mmms_deploy.errors import PlanError

FORMAT = 1
_FORGET_AFTER_DAYS = 60
_TAIL = 40
_MOST_FACTS = 16 << 20
_POLL_SECONDS = 0.2
_LOG = logging.getLogger(__name__)
_FIX = "delete the file; it is made again"
_SEARCH = ("opt_level", "workspace")
"""Options of how a plan was searched for; they change how fast it is, not what it computes."""


class Identity(Struct, frozen=True, kw_only=True):
    """What a plan was made of and for. Another value of any of these needs another plan.

    Attributes:
        graph: SHA-256 of the ONNX graph, and of its weights where they are in a file of their own.
        precision: What its matrix operations are computed in.
        library: Name and version of the library.
        gpu: Name of the GPU; empty for a plan that was compiled ahead of time.
        compute_capability: Its architecture.
        driver: Version of its driver.
        every_click: Whether it was compiled for a stage that runs at every click.
        options: How it was compiled.
        format: Format of the file.
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
        """Return what differs, in words, from another plan's to this one."""
        found = []
        for name in self.__struct_fields__:
            old, new = getattr(other, name), getattr(self, name)
            if name == "options":
                found += [f"{key} was {old.get(key)}, is {new[key]}" for key in new if old.get(key) != new[key]]
            elif old != new:
                found.append(f"{name.replace('_', ' ')} was {old or 'none'}, is {new or 'none'}")
        return found

    def same_but_search(self, other: Identity) -> bool:
        """Return whether another plan computes the same on the same, and was only searched for otherwise."""
        options = {**other.options, **{name: self.options.get(name) for name in _SEARCH}}
        return msgspec.structs.replace(other, options=options) == self


class Facts(Struct, frozen=True, kw_only=True):
    """What is kept with a plan: what it was made of, what it is, and how long it took to make."""

    identity: Identity
    report: PlanReport
    seconds: float


def plans_folder() -> Path | None:
    """Return where plans are kept, or None when caching is off."""
    folder = cache_folder()
    return None if folder is None else folder / "tensorrt"


def plan_file(folder: Path, identity: Identity) -> Path:
    """Return where a plan is kept."""
    key = cache_key(**msgspec.to_builtins(identity))
    return folder / f"{_prefix(identity.graph, identity.precision)}-{key}.plan"


def _prefix(graph: str, precision: Precision) -> str:
    return hashlib.sha256(f"{graph} {precision}".encode()).hexdigest()[:16]


def keep_plan(file: Path, facts: Facts, plan: bytes) -> bool:
    """Write a plan to its place.

    Returns:
        Whether it was written; a system's refusal (no permission, disk full) is logged.
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
    """Read a plan and prove that it is what was written for this use.

    Raises:
        FileNotFoundError: It is not there.
        PlanError: It is damaged, cut off, was not written by this user, or was made of or for something else.
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


def check_plan(file: Path, identity: Identity) -> None:
    """Check that a plan is there, as far as its end tells: cheap, whatever its size, and its checksum is not compared.

    Raises:
        FileNotFoundError: It is not there.
        PlanError: It is cut off, was not written by this user, or was made of or for something else.
    """
    with _opened(file) as stream:
        encoded = _tail(file, stream)[2]
    _check_identity(file, _facts(file, encoded), identity)


def _check_identity(file: Path, facts: Facts, identity: Identity) -> None:
    if facts.identity != identity:
        raise PlanError(
            f"{file} was made for something else: {'; '.join(identity.difference(facts.identity))}",
            expected="the plan that its name says",
            fix=_FIX,
        )


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file of the cache that nobody but this user and the administrator can have written."""
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PlanError(f"{file} cannot be read: {error}", expected="a plan of this user", fix=_FIX) from error
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
    """Return size of the plan, length of the facts, the facts and the checksum, and go back to the start."""
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
        f"{file} is no plan of mmms-deploy, or was cut off", expected="a file that mmms-deploy wrote", fix=_FIX
    )


def _facts(file: Path, encoded: bytes) -> Facts:
    try:
        return msgspec.json.decode(encoded, type=Facts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(
            f"{file} is no plan of this version of mmms-deploy: {error}", expected="what this version wrote", fix=_FIX
        ) from error


def why_none(folder: Path, identity: Identity) -> str:
    """Say why there is no plan: what differs from the most similar one of the same graph and precision."""
    differences = (identity.difference(other) for _, other in _relatives(folder, identity))
    closest = min(filter(None, differences), key=len, default=None)
    return "it was never compiled here" if closest is None else "; ".join(closest)


def searched_otherwise(folder: Path, identity: Identity) -> tuple[Path, Identity] | None:
    """Return the newest plan that differs in nothing but how it was searched for, and its identity; None for none."""
    fitting = [(file, other) for file, other in _relatives(folder, identity) if identity.same_but_search(other)]
    return fitting[-1] if fitting else None


def has_relatives(folder: Path, graph: str, precision: Precision) -> bool:
    """Return whether there are plans of a graph in a precision, for whatever GPU, library or options."""
    return any(folder.glob(f"{_prefix(graph, precision)}-*.plan"))


def _relatives(folder: Path, identity: Identity) -> list[tuple[Path, Identity]]:
    """Return the plans of the same graph and precision that can be read, and what they are for; the newest last."""
    found = []
    with contextlib.suppress(OSError):
        for file in folder.glob(f"{_prefix(identity.graph, identity.precision)}-*.plan"):
            with contextlib.suppress(PlanError, OSError):
                with _opened(file) as stream:
                    encoded = _tail(file, stream)[2]
                found.append((file.stat().st_mtime_ns, file, _facts(file, encoded).identity))
    return [(file, identity) for _, file, identity in sorted(found, key=lambda one: one[:2])]


# --- what a GPU was measured to be fast at ----------------------------------------------------------------------------


def timing_file(folder: Path, identity: Identity) -> Path:
    """Return where the measurements of a GPU with a library and driver are kept."""
    key = cache_key(
        library=identity.library,
        gpu=identity.gpu,
        compute_capability=identity.compute_capability,
        driver=identity.driver,
    )
    return folder / f"{key}.timing"


def read_timing(file: Path) -> bytes | None:
    """Return kept measurements, or None when there are none; what is damaged or foreign is left alone, and said."""
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
def one_at_a_time(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Let one process of this machine build at a time: the next finds its plan made, and nobody disturbs measurements.

    Where files cannot be locked (Windows, some network drives, a read-only folder) processes build side by side, and
    the last one's plan stays.

    Args:
        folder: The folder of the plans.
        on_wait: Called once when another process builds.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            stream = stack.enter_context((folder / ".lock").open("ab"))
        except OSError:
            stream = None
        waited = False
        while stream is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    on_wait()
                waited = True
                time.sleep(_POLL_SECONDS)
            except OSError:
                break
        yield


def _forget_old(folder: Path) -> None:
    """Remove what was not used for a long time, such as plans for another driver."""
    oldest = time.time() - _FORGET_AFTER_DAYS * 86400
    with contextlib.suppress(OSError):
        for file in (*folder.glob("*.plan"), *folder.glob("*.timing"), *folder.glob(".*.partial")):
            if file.stat().st_mtime < oldest:
                file.unlink()

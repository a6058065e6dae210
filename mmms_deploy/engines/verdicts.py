"""Verdicts on this machine's engines: whether each passed a bundle's golden replay, and how fast.

A verdict holds for one bundle, engine, precision, CPU, and version of everything involved. A replay
(:func:`mmms_deploy.replay.verification.replay_engines`) writes it, and the choice of an engine reads it.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.cpu import cpu_identity
from mmms_deploy.errors import FileReadError
from mmms_deploy.files import MIB, read_bytes
from mmms_deploy.files.cache import cache_folder, cache_key, store
from mmms_deploy.version import __version__


class Verdict(Struct, frozen=True, kw_only=True):
    """How an engine did in a bundle's golden replay.

    Attributes:
        engine: Name of the engine.
        version: Version of its library.
        precision: What it computed in.
        passed: Whether every mask kept the limit.
        iou: The smallest intersection over union with a reference mask.
        limit: The limit of that precision.
        milliseconds: Median time of a click.
        threads: Threads it computed with.
    """

    engine: str
    version: str
    precision: Precision
    passed: bool
    iou: float
    limit: float
    milliseconds: float
    threads: int | None


def read_verdict(bundle: Bundle, engine: str, version: str, precision: Precision) -> Verdict | None:
    """Return the verdict on an engine, or None when there is none or it cannot be read."""
    file = _file(bundle, engine, version, precision)
    if file is None:
        return None
    try:
        verdict = msgspec.json.decode(read_bytes(file, MIB), type=Verdict)
    except (FileReadError, msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return None
    same = (verdict.engine, verdict.version, verdict.precision) == (engine, version, precision)
    return verdict if same and 0 < verdict.milliseconds < math.inf else None


def write_verdict(bundle: Bundle, verdict: Verdict) -> bool:
    """Keep a verdict; it replaces an older one.

    Returns:
        Whether it could be kept; not when caching is off.
    """
    file = _file(bundle, verdict.engine, verdict.version, verdict.precision)
    return file is not None and store(file, [msgspec.json.format(msgspec.json.encode(verdict)) + b"\n"])


def _file(bundle: Bundle, engine: str, version: str, precision: Precision) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    key = cache_key(
        bundle=bundle.manifest.digest,
        engine=engine,
        version=version,
        precision=precision,
        package=__version__,
        numpy=np.__version__,
        cpu=cpu_identity(),
    )
    return folder / "verdicts" / f"{key}.json"

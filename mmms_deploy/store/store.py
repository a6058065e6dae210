"""Keeps the features of images by their content, for every session and model that takes the store.

from mmms_deploy import FeatureStore, Session

store = FeatureStore("features")
with Session("demo", store=store, resume=True) as session:
    session.set_image("one.jpg")
    session.set_image("two.jpg")
    session.set_image("one.jpg")  # no backbone runs, and its objects are there again
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmms_deploy.arguments import shown
from mmms_deploy.bundle import Precision
from mmms_deploy.engines.process import OwnProcess
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import MMMSDeployError, OutputWriteError, StoreError, StoreWarning
from mmms_deploy.files import GIB, write_file
from mmms_deploy.files.cache import cache_folder
from mmms_deploy.files.cache import store as keep_in_cache
from mmms_deploy.files.output import writing
from mmms_deploy.session.features import FeatureKey, Features, Resident
from mmms_deploy.session.model import Model
from mmms_deploy.store.disk import Disk, checked_folder
from mmms_deploy.store.flights import Flights
from mmms_deploy.store.half import Half, HalfVerdict, judge, keep_verdict, read_verdict, verdict_name
from mmms_deploy.store.memory import RecentlyUsed
from mmms_deploy.store.statistics import StoreStats, TierStats

DEVICE_BYTES = HOST_BYTES = GIB
_VERDICTS = "half"
_LOG = logging.getLogger(__name__)


class FeatureStore:
    """Features of images in three places: on the device, on the host, and on the disk.

    An image is found by its content and its modalities', by the bundle's digest and by the precision; names of files do
    not count. What is kept goes to the disk at once, so that a crash loses nothing that was complete; what leaves the
    device for lack of room is on the host, and what leaves the host is on the disk. One store serves any number of
    sessions and threads, and a folder any number of processes and machines.

    A folder that cannot be read or written costs time and never an answer: the store warns of it once.

    Args:
        folder: The folder on the disk; made when it is first needed. None keeps features in memory alone.
        device_bytes: The most bytes that features take on the devices of engines on a GPU. The device of an engine on
            the CPU is the host, and counts there.
        host_bytes: The most bytes that they take in this process.
        disk_bytes: The most bytes that the files of the folder take together, whoever wrote them; the ones whose last
            use is longest ago are removed. None removes none.
        half: ``auto`` rounds features to float16 where the bundle's verdict allows it (:meth:`half_verdict`), before
            they are first used, so that what comes back is what was clicked on. ``off`` rounds none.

    Raises:
        StoreError: The folder is no path, a budget is no number of bytes, or ``half`` is something else.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        device_bytes: int | None = DEVICE_BYTES,
        host_bytes: int | None = HOST_BYTES,
        disk_bytes: int | None = None,
        half: Half | str = Half.AUTO,
    ) -> None:
        self._half = _checked_half(half)
        self._device: RecentlyUsed[tuple[FeatureKey, int], Features] = RecentlyUsed(
            _checked_budget("device_bytes", device_bytes)
        )
        self._host: RecentlyUsed[FeatureKey, Features] = RecentlyUsed(_checked_budget("host_bytes", host_bytes))
        budget = _checked_budget("disk_bytes", disk_bytes)
        self._disk = None if folder is None else Disk(checked_folder(folder), budget, self._failed, self._found_damaged)
        self._verdicts: dict[tuple[str, Precision], HalfVerdict] = {}
        self._misses = self._shared = self._kept = self._rounded = self._damaged = self._failures = 0
        self._said: set[str] = set()
        self._own = OwnProcess("this store", self)
        self.renew_lock()

    def renew_lock(self) -> None:
        """Take new locks; called in a forked child, where the threads that held the old ones do not exist."""
        self._lock = threading.Lock()
        self._flights = Flights()
        if self._disk is not None:
            self._disk.budget.renew_lock()

    @property
    def folder(self) -> Path | None:
        """The folder on the disk; None where there is none."""
        return None if self._disk is None else self._disk.folder

    def find(self, key: FeatureKey, engine: Engine | None = None) -> Features | None:
        """Return features that are kept; None where they are not, or not any more.

        Args:
            key: What they are kept by.
            engine: The engine that they are for: those on its device are taken as they are. None takes them on the
                host.
        """
        found = self._look(key, engine)
        if found is None:
            with self._lock:
                self._misses += 1
        return found

    @contextmanager
    def encoding(self, key: FeatureKey, engine: Engine | None = None) -> Iterator[Features | None]:
        """Enter before an image is encoded, and give features that are kept; None where the block has to encode it.

        One block at a time gets None for a key. Others that enter wait until it ends, and find what it kept; where it
        failed, the next one gets None.

        Args:
            key: As for :meth:`find`.
            engine: As for :meth:`find`.
        """
        waited = False
        flights = self._flights
        while True:
            found = self._look(key, engine)
            if found is not None:
                with self._lock:
                    self._shared += waited
                yield found
                return
            running = flights.begin(key)
            if running is None:
                break
            running.wait()
            waited = True
        try:
            # It may have been kept after the look above.
            found = self.find(key, engine)
            yield found
        finally:
            flights.end(key)

    def keep(self, features: Features) -> Features:
        """Keep features, and return them as they will be found later.

        They are on the disk when this returns, where there is one. Features that wait for a modality are not kept. Of
        two that are kept by one key the first ones stay. Neither the picture nor the name of its file is kept.

        Args:
            features: What a model or session made of an image.

        Returns:
            The same object where its numbers are what is kept; else features with the numbers that are: rounded, or
            those of an earlier writer.

        Raises:
            FeatureError: The features were on the device of a model that is closed.
        """
        if features.awaited:
            return features
        key = features.key
        with self._lock:
            earlier = self._host.find(key)
        if earlier is None:
            given = replace(features.on_host(), picture=None, file_name="")
            stored = self._in_half(given)
            earlier = None if self._disk is None else self._disk.write(stored)
            if earlier is None and stored is given:
                self._to_host(stored, new=True)
                return features
            self._to_host(earlier or stored, new=earlier is None)
            earlier = earlier or stored
        return replace(earlier, picture=features.picture, file_name=features.file_name)

    def hold(self, features: Features) -> None:
        """Keep features on the device where they are, which :meth:`keep` or :meth:`find` returned before.

        Those on the host alone, and on the device of an engine on the CPU, are not held: the host has them.

        Args:
            features: The features.
        """
        resident = features.resident
        if resident is None or resident.engine.info.device == "cpu" or features.awaited or self._own.elsewhere:
            return
        size = _bytes_of(resident)
        with self._lock:
            left = self._device.drop(self._device.keys(lambda _, one: not _is_open(one)))
            left += self._device.keep((features.key, id(resident.engine)), replace(features, picture=None), size)
        del left

    def forget(self, key: FeatureKey) -> None:
        """Remove features from everywhere: memory, devices and the folder.

        Args:
            key: What they are kept by; ``features.key`` says it.
        """
        with self._lock:
            left = self._host.drop([key])
            if not self._own.elsewhere:
                left += self._device.drop(self._device.keys(lambda one, _: one[0] == key))
        del left
        if self._disk is not None:
            self._disk.forget(key)

    def file(self, key: FeatureKey) -> Path | None:
        """Return the file of an entry; None where there is no folder, or the entry is not in it."""
        path = None if self._disk is None else self._disk.path(key)
        return path if path is not None and path.is_file() else None

    def __contains__(self, key: object) -> bool:
        """Whether features are kept by a key; those on the disk are not read, and may turn out to be damaged."""
        if not isinstance(key, FeatureKey):
            return False
        with self._lock:
            if self._host.find(key) is not None:
                return True
        return self._disk is not None and self._disk.has(key)

    def is_encoding(self, key: FeatureKey) -> bool:
        """Whether a block of :meth:`encoding` in this process is at work on a key."""
        return self._flights.is_running(key)

    def half_verdict(self, model: Model, *, again: bool = False) -> HalfVerdict:
        """Return whether the features of a model's bundle may be rounded to float16, and find it out where needed.

        The bundle's golden clicks are replayed on rounded features and on the others, on the model's engine; every
        mask has to keep the limits of FP16 (docs/precision.md). This takes two replays, seconds on a CPU. The verdict
        is kept in the store's folder, or in the cache where there is none, by bundle and precision.

        Args:
            model: The bundle, open on an engine.
            again: Whether to find it out once more, though a verdict is kept.

        Raises:
            BundleError: The bundle has no golden clicks.
            EngineError: A stage failed.
        """
        bundle, precision = model.bundle.manifest.digest, model.engine.precision
        verdict = None if again else self._verdict(bundle, precision)
        if verdict is None:
            verdict = judge(model)
            keep_verdict(verdict, lambda content: self._write_verdict(verdict_name(bundle, precision), content))
            self._verdicts[bundle, precision] = verdict
        return verdict

    def stats(self) -> StoreStats:
        """Return the figures of the store; the folder's are counted now, file by file."""
        usage = None if self._disk is None else self._disk.usage()
        with self._lock:
            left = [] if self._own.elsewhere else self._device.drop(self._device.keys(lambda _, one: not _is_open(one)))
            stats = StoreStats(
                device=_tier(self._device),
                host=_tier(self._host),
                disk=None
                if self._disk is None or usage is None
                else TierStats(*usage, self._disk.budget.budget, self._disk.hits, self._disk.budget.evictions),
                misses=self._misses,
                shared=self._shared,
                kept=self._kept,
                rounded=self._rounded,
                damaged=self._damaged,
                failures=self._failures,
            )
        del left
        return stats

    def _look(self, key: FeatureKey, engine: Engine | None) -> Features | None:
        with self._lock:
            found = self._on_device(key, engine)
            # What is used on the device is used on the host, too: there it goes when it leaves the device.
            host = self._host.find(key)
            if found is not None:
                self._device.hits += 1
            elif host is not None:
                found = host
                self._host.hits += 1
        if self._disk is None:
            return found
        if found is not None:
            self._disk.touch(key)
            return found
        found = self._disk.find(key)
        if found is not None:
            with self._lock:
                self._disk.hits += 1
            self._to_host(found, new=False)
        return found

    def _on_device(self, key: FeatureKey, engine: Engine | None) -> Features | None:
        if engine is None or self._own.elsewhere:
            return None
        found = self._device.find((key, id(engine)))
        # An engine that is gone may have had the same id.
        if found is None or found.resident is None or found.resident.engine is not engine or not _is_open(found):
            return None
        return found

    def _to_host(self, features: Features, *, new: bool) -> None:
        with self._lock:
            self._kept += new
            self._rounded += new and any(array.dtype == "float16" for array in features.arrays.values())
            left = self._host.keep(features.key, features, features.nbytes)
        del left

    def _in_half(self, features: Features) -> Features:
        """Return features as they are stored: rounded, where that is allowed and possible, or as they are."""
        if self._half is Half.OFF or not any(array.dtype == "float32" for array in features.arrays.values()):
            return features
        verdict = self._verdict(features.bundle, features.precision)
        if verdict is None or not verdict.passed:
            return features
        return features.rounded() or features

    def _verdict(self, bundle: str, precision: Precision) -> HalfVerdict | None:
        known = self._verdicts.get((bundle, precision))
        if known is None:
            name = verdict_name(bundle, precision)
            for place in (self.folder, cache_folder()):
                found = None if place is None else read_verdict(place / _VERDICTS / name, bundle, precision)
                if found is not None:
                    known = self._verdicts[bundle, precision] = found
                    break
        return known

    def _write_verdict(self, name: str, content: bytes) -> None:
        if self.folder is not None:
            file = self.folder / _VERDICTS / name
            try:
                with writing(file):
                    file.parent.mkdir(parents=True, exist_ok=True)
                write_file(file, content)
                return
            except OutputWriteError as error:
                self._failed(error)
        cache = cache_folder()
        if cache is not None:
            keep_in_cache(cache / _VERDICTS / name, [content])

    def _failed(self, error: MMMSDeployError) -> None:
        with self._lock:
            self._failures += 1
        self._say(
            "failure",
            f"{error.given}: features are kept in memory, and what leaves it is computed again. {error.fix or ''}",
        )

    def _found_damaged(self, given: str) -> None:
        with self._lock:
            self._damaged += 1
        self._say("damage", f"{given}. The entry was removed, and the image is encoded again")

    def _say(self, kind: str, text: str) -> None:
        """Warn of something once, and write to the log afterwards."""
        with self._lock:
            known = kind in self._said
            self._said.add(kind)
        if known:
            _LOG.info("%s", text)
        else:
            warnings.warn(text.strip(), StoreWarning, stacklevel=2)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process it is another store on the same folder.
        disk = None if self._disk is None else self._disk.budget.budget
        return _reopened, (self.folder, self._device.budget, self._host.budget, disk, self._half, dict(self._verdicts))

    def for_worker(self) -> FeatureStore:
        """Return another store on the same folder, for a process that holds nothing in memory."""
        disk = None if self._disk is None else self._disk.budget.budget
        return _reopened(self.folder, 0, 0, disk, self._half, self._verdicts)

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"FeatureStore({where}, {len(self._host)} images in {self._host.bytes} bytes of memory)"


def _reopened(
    folder: Path | None,
    device_bytes: int | None,
    host_bytes: int | None,
    disk_bytes: int | None,
    half: Half,
    verdicts: dict[tuple[str, Precision], HalfVerdict],
) -> FeatureStore:
    store = FeatureStore(folder, device_bytes=device_bytes, host_bytes=host_bytes, disk_bytes=disk_bytes, half=half)
    store._verdicts.update(verdicts)
    return store


def _tier(kept: RecentlyUsed[Any, Any]) -> TierStats:
    return TierStats(len(kept), kept.bytes, kept.budget, kept.hits, kept.evictions)


def _is_open(features: Features) -> bool:
    return features.resident is not None and features.resident.is_open()


def _bytes_of(resident: Resident) -> int:
    sizes = {
        spec.name: spec.nbytes for graph in resident.engine.graphs.values() for spec in (*graph.inputs, *graph.outputs)
    }
    return sum(sizes.get(name, 0) for name in resident.values)


def _checked_budget(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise StoreError(
        f"{name} is {shown(value, 80)}",
        expected="a number of bytes, or None for no limit",
        fix=f"pass {name}=1 << 30 for 1 GiB",
    )


def _checked_half(value: object) -> Half:
    # Not Half(value): an enum prints what it refuses, and a list may hold itself.
    if isinstance(value, str) and value in list(Half):
        return Half(value)
    raise StoreError(
        f"half is {shown(value, 80)}", expected=f"one of {', '.join(Half)}", fix='pass half="auto" or half="off"'
    )

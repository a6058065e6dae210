"""Actors of a Ray cluster that each hold what a worker needs, fed by Ray Data.

A cluster that exists is joined: the one of ``RAY_ADDRESS``, or the one that runs on this machine. Else one is started
in this process, for as long as the pool is open; it listens on the loopback interface alone. Ray replaces an actor that
is lost and gives its tasks to another one.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import ModuleType, TracebackType
from typing import Any

from mmms_deploy.cluster.pool import MOST_TRIES, Lost, Open
from mmms_deploy.errors import ClusterError, MMMSDeployError
from mmms_deploy.installed import pip_install
from mmms_deploy.telemetry import wanted

_USAGE = "RAY_USAGE_STATS_ENABLED"
_REACHABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch for a node that other machines reach; without it, its servers listen on the loopback interface alone."""
_ANSWER_SECONDS = 10.0
_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_MOST_BLOCK = 8
"""Tasks that are handed out together, and done again together where their actor is lost."""


class RayPool:
    """A pool of actors; a context in which the cluster is joined.

    Args:
        address: Address of the cluster, as ``ray.init`` takes it; None joins the one of ``RAY_ADDRESS`` or of this
            machine, or else starts one here; ``local`` always starts one.
        workers: Actors at a time; None takes as many as the cluster has cores for.
        cores: Cores of each actor.
        memory: Bytes of the object store of a cluster that is started here.

    Raises:
        ClusterError: Ray is not installed, or a number is below 1.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, cores: int = 1, memory: int = 256 << 20
    ) -> None:
        if (workers is not None and workers < 1) or cores < 1:
            raise ClusterError(f"{workers} workers of {cores} cores", expected="1 or more", fix="pass workers=2")
        self._address, self._asked, self._cores, self._memory = address, workers, cores, memory
        self._ray: ModuleType | None = None
        self._started = False

    def __enter__(self) -> RayPool:
        ray = _import_ray(reachable=self._address not in (None, "local"))
        # A program that has joined a cluster already goes on with it.
        if not ray.is_initialized():
            self._join(ray)
        self._ray = ray
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray, self._ray = self._ray, None
        if ray is not None and self._started:
            ray.shutdown()

    def _join(self, ray: ModuleType) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        address = self._address or os.environ.get("RAY_ADDRESS")
        try:
            if address is None:
                try:
                    ray.init(address="auto", **options)
                except ConnectionError:
                    address = "local"
            elif address != "local":
                _check_reachable(address)
            if not ray.is_initialized():
                if address == "local":
                    cores = max(os.cpu_count() or 1, self._cores * (self._asked or 1))
                    options |= {"num_cpus": cores, "object_store_memory": self._memory, "include_dashboard": False}
                ray.init(address=address, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"the Ray cluster {address!r} cannot be joined: {error}",
                expected="a cluster that runs and that this machine reaches, with the same versions of Python and Ray",
                fix="check the address with `ray status`, or pass address='local'",
                command_fix="check the address with `ray status`, or pass --ray local",
            ) from error
        self._started = True

    @property
    def workers(self) -> int:
        """How many actors there are at a time."""
        if self._asked is not None:
            return self._asked
        return max(1, int(self._opened().cluster_resources().get("CPU", 1)) // self._cores)

    def _opened(self) -> ModuleType:
        if self._ray is None:
            raise ClusterError(
                "the cluster is not joined", expected="a pool that is entered", fix="use it in `with RayPool() as pool`"
            )
        return self._ray

    def run(self, open_work: Open, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do all tasks; see :class:`~mmms_deploy.cluster.pool.Pool`."""
        if not tasks:
            return
        ray = self._opened()
        data = ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        workers = min(self.workers, len(tasks))
        begun = ray.remote(_Begun).options(num_cpus=0).remote()
        rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
        blocks = max(-(-len(rows) // _MOST_BLOCK), min(len(rows), 4 * workers))
        results = data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(open_work), begun),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=workers),
            num_cpus=self._cores,
        )
        try:
            for row in results.iter_rows():
                kind, content = pickle.loads(row["result"])
                if kind == "error":
                    raise content
                yield row["number"], content
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"the Ray cluster failed: {str(error).strip().splitlines()[-1]:.300}",
                expected="a cluster that stays up",
                fix="check `ray status`, and begin again: what is done is not done again",
            ) from error


class _Begun:
    """Counts how often tasks were begun and not ended: Ray begins a task again for as long as its actor is lost."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> bool:
        """Note that a task begins; return False where it ended its actor too often."""
        if self._begun.get(number, 0) >= MOST_TRIES:
            return False
        self._begun[number] = self._begun.get(number, 0) + 1
        return True

    def end(self, number: int) -> None:
        """Note that a task ended, whatever became of it."""
        self._begun.pop(number, None)


class _Actor:
    """What Ray makes one of for every worker."""

    def __init__(self, open_work: bytes, begun: Any) -> None:
        self._begun = begun
        self._kept = ExitStack()
        self._error: MMMSDeployError | None = None
        try:
            self._work = self._kept.enter_context(pickle.loads(open_work)())
        except MMMSDeployError as error:
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(batch["number"], batch["task"], strict=True)
        return {"number": batch["number"], "result": [self._answer(int(number), task) for number, task in pairs]}

    def _answer(self, number: int, task: bytes) -> bytes:
        import ray

        if self._error is not None:
            return pickle.dumps(("error", self._error))
        if not ray.get(self._begun.begin.remote(number)):
            return pickle.dumps(("done", Lost(MOST_TRIES, "its Ray actor was lost every time")))
        try:
            answer = pickle.dumps(("done", self._work(pickle.loads(task))))
        except MMMSDeployError as error:
            answer = pickle.dumps(("error", error))
        ray.get(self._begun.end.remote(number))
        return answer


def _check_reachable(address: str) -> None:
    """Check that something answers at an address: Ray itself waits for minutes.

    Raises:
        OSError: Nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


def _import_ray(*, reachable: bool) -> ModuleType:
    """Import Ray without its telemetry, which the user may switch on.

    Args:
        reachable: Whether a node that is started here is to be reached from other machines.

    Raises:
        ClusterError: It is not installed.
    """
    # Ray reads both while it is imported, and so do the processes that it starts.
    if not wanted():
        os.environ.setdefault(_USAGE, "0")
    # Its processes write to this terminal; what matters comes as an error.
    os.environ.setdefault(_LOG_LEVEL, "fatal")
    if not reachable and not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault(_REACHABLE, "0")
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise ClusterError(
            f"Ray is not installed: {error.name or error}",
            expected="the [ray] extra",
            fix=pip_install("ray,cpu"),
        ) from error
    return ray

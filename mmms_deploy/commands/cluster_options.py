"""The option of commands that can give their work to a Ray cluster, and the pool of workers that it leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mmms_deploy.commands import parameters

if TYPE_CHECKING:
    from mmms_deploy.cluster import Pool

AUTO = "auto"
"""``--ray`` without an address."""


def ray_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--ray``: an address, ``auto``, or None."""
    return click.option(
        "--ray",
        type=parameters.Text(),
        is_flag=False,
        flag_value=AUTO,
        default=None,
        metavar="ADDRESS",
        help="Do the work on a Ray cluster: the one at ADDRESS; without ADDRESS the one of RAY_ADDRESS or of this"
        " machine, or else one that is started here; local always starts one.",
    )


@contextmanager
def opened_pool(ray: str | None, workers: int | None, threads: int) -> Iterator[tuple[Pool, str]]:
    """Give workers, and say in words who they are.

    Args:
        ray: What ``--ray`` says; None for processes of this machine.
        workers: How many there are; None takes as many as there are cores for.
        threads: Threads of each.

    Raises:
        ClusterError: The cluster cannot be joined.
    """
    if ray is not None:
        from mmms_deploy.cluster.ray_pool import RayPool

        with RayPool(None if ray == AUTO else ray, workers, cores=threads) as pool:
            yield pool, _counted(pool.workers, "Ray actor", "Ray actors")
        return
    from mmms_deploy.cluster import Processes, here
    from mmms_deploy.engines.cores import available_cores

    number = max(1, available_cores() // threads) if workers is None else workers
    yield here if number == 1 else Processes(number), _counted(number, "process", "processes")


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

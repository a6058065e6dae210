"""Encodes all images of a data set by a pool of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from mmms_deploy.bundle import Precision
from mmms_deploy.cluster import Lost, Pool, here
from mmms_deploy.errors import ClusterError
from mmms_deploy.precompute.encoder import Recipe
from mmms_deploy.precompute.index import IndexRow, add_to_index
from mmms_deploy.precompute.items import Item, Outcome, Status
from mmms_deploy.precompute.sinks import IntoStore
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.session.features_file import read_header

OnOutcome = Callable[[Item, Outcome], None]
"""Receives every image and what became of it, as soon as that is known."""


@dataclass
class Summary:
    """What became of a data set.

    Attributes:
        encoded: Images that were encoded now.
        found: Images that had been encoded before.
        failed: Images that could not be encoded, and why, in the order of the data set.
        nbytes: Bytes of all files of features.
        seconds: How long it took.
    """

    encoded: int = 0
    found: int = 0
    failed: list[tuple[Item, Outcome]] = field(default_factory=list)
    nbytes: int = 0
    seconds: float = 0.0

    def add(self, item: Item, outcome: Outcome) -> None:
        """Count an image."""
        self.encoded += outcome.status is Status.ENCODED
        self.found += outcome.status is Status.FOUND
        self.nbytes += outcome.nbytes
        if outcome.status is Status.FAILED:
            self.failed.append((item, outcome))


def precompute(
    items: Sequence[Item],
    recipe: Recipe,
    pool: Pool = here,
    *,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
) -> Summary:
    """Encode images; those that were encoded before are found.

    A run that is stopped, in whatever way, loses no image that was complete, and the next one goes on. A worker that is
    lost is replaced, and its image is encoded by another one.

    Args:
        items: The images.
        recipe: How they are encoded, and where the features go.
        pool: Who does it: this process, several (:class:`~mmms_deploy.cluster.Processes`), or a Ray cluster
            (:class:`~mmms_deploy.cluster.ray_pool.RayPool`). The files are the same.
        on_progress: Receives every image as a step.
        on_outcome: Receives what became of every image.

    Returns:
        What became of all of them.

    Raises:
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
        SessionError: The bundle encodes no images.
        OutputWriteError: Features cannot be written.
        ClusterError: The workers cannot be started, or do not stay alive.
    """
    summary, start = Summary(), perf_counter()
    with _indexed(recipe) as note:
        for done, (number, result) in enumerate(pool.run(recipe, items), start=1):
            item = items[number]
            outcome = _lost(item, result) if isinstance(result, Lost) else result
            summary.add(item, outcome)
            note(item, outcome)
            if on_outcome is not None:
                on_outcome(item, outcome)
            if on_progress is not None:
                on_progress(Progress("encoding", done, len(items), finished=done == len(items)))
    order = {item.name: number for number, item in enumerate(items)}
    summary.failed.sort(key=lambda failure: order[failure[0].name])
    summary.seconds = perf_counter() - start
    return summary


def _lost(item: Item, lost: Lost) -> Outcome:
    return Outcome(
        Status.FAILED,
        error=ClusterError(
            f"{item.path} was begun {lost.tries} times, and its worker was lost every time: {lost.reason}",
            expected="an image that fits into a worker's memory",
            fix="make the image smaller, or use fewer workers at a time",
            command_fix="make the image smaller, or pass fewer --workers",
        ),
    )


@contextmanager
def _indexed(recipe: Recipe) -> Iterator[Callable[[Item, Outcome], None]]:
    """Write which image has which entry into the store's index, also where the run is stopped."""
    rows: list[IndexRow] = []
    sink = recipe.sink
    facts: tuple[str, Precision] | None = None

    def note(item: Item, outcome: Outcome) -> None:
        nonlocal facts
        if not isinstance(sink, IntoStore) or outcome.status is Status.FAILED:
            return
        if facts is None:  # of all entries of one run
            header = read_header(sink.folder / outcome.file)
            facts = header.bundle, header.precision
        digest, precision = facts
        rows.append(
            IndexRow(name=item.name, content=outcome.content, bundle=digest, precision=precision, file=outcome.file)
        )

    try:
        yield note
    finally:
        add_to_index(sink.folder, rows)

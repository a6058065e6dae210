"""``mmms-eval --ray``: scenes by actors of a Ray cluster, each with the engines of both sides; the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from mmms_deploy.commands.cluster_options import opened_pool
from mmms_deploy.commands.common import console
from mmms_deploy.commands.eval_open import TORCH, Opening, Sides
from mmms_deploy.errors import ClusterError

if TYPE_CHECKING:
    from mmms_deploy.cluster import Pool
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.evaluation.results import SceneResult
    from mmms_deploy.evaluation.run import Entry, RunScenes
    from mmms_deploy.evaluation.settings import Settings


@dataclass(frozen=True)
class SceneRecipe:
    """How scenes are evaluated; it goes to every actor, which opens it.

    Attributes:
        opening: What is opened.
        settings: What to do.
        engines: The engines of both sides in the process that asks, in words: an actor has to have the same.
    """

    opening: Opening
    settings: Settings
    engines: tuple[str, ...]

    @contextmanager
    def __call__(self) -> Iterator[Callable[[tuple[str, int]], SceneResult]]:
        """Open both sides and the data sets, and give the function that evaluates a scene, by data set and index.

        Raises:
            BundleError, EngineError, DatasetError: As in the process that asks.
            ClusterError: The engines are others here.
        """
        from mmms_deploy.evaluation.predictor import close
        from mmms_deploy.evaluation.run import SceneWorker

        with ExitStack() as stack:
            sides = self.opening.open(stack)
            if engines_of(sides) != self.engines:
                raise ClusterError(
                    f"a worker of the cluster computes with {', '.join(engines_of(sides))}",
                    expected=f"the engine that this machine has: {', '.join(self.engines)}",
                    fix="name the same engine, precision and number of threads for all",
                    command_fix="pass --engine, --precision and --threads, which count on every machine",
                )
            datasets = [argument.open() for argument in self.opening.arguments]
            entries = {entry.dataset.name: entry for entry in self.opening.entries(sides, datasets)}
            opened = [None if side is None else side.open() for side in (sides.first, sides.second)]
            for predictor in opened:
                if predictor is not None:
                    stack.callback(close, predictor)
            first, second = opened
            assert first is not None
            worker = SceneWorker(first, second)
            yield lambda task: worker.run(entries[task[0]], task[1], self.settings)


def engines_of(sides: Sides) -> tuple[str, ...]:
    """Return the engines of both sides, in words."""
    return tuple(side.facts.engine for side in (sides.first, sides.second) if side is not None)


@contextmanager
def on_cluster(
    opening: Opening, sides: Sides, settings: Settings, ray: str, workers: int | None
) -> Iterator[RunScenes]:
    """Join a Ray cluster, and give what evaluates scenes there.

    Args:
        opening: What is opened.
        sides: Both sides, as they are opened here.
        settings: What to do.
        ray: What ``--ray`` says.
        workers: Actors; None takes as many as there are cores for.

    Raises:
        ClusterError: The cluster cannot be joined.
    """
    if opening.against is not None and opening.against.startswith(TORCH):
        raise click.UsageError("--ray compares bundles: leave out --against torch:..., or --ray.")
    threads = int(sides.first.facts.options.get("threads") or 1)
    recipe = SceneRecipe(_anywhere(opening, sides), settings, engines_of(sides))
    with opened_pool(ray, workers, threads) as (pool, who):
        console.print(f"cluster  {who} of {threads} thread{'s' if threads != 1 else ''}")
        yield lambda tasks: scenes_by(pool, recipe, tasks)


def scenes_by(pool: Pool, recipe: SceneRecipe, tasks: Sequence[tuple[Entry, int]]) -> Iterator[SceneResult]:
    """Evaluate scenes by a pool of workers; yield each as soon as it is finished.

    Args:
        pool: The workers.
        recipe: How scenes are evaluated.
        tasks: Data sets and indices of their scenes.

    Raises:
        ClusterError: A scene lost its worker every time; the others are finished.
    """
    from mmms_deploy.cluster import Lost

    named = [(entry.dataset.name, index) for entry, index in tasks]
    lost = []
    for number, result in pool.run(recipe, named):
        if isinstance(result, Lost):
            lost.append((named[number], result))
        else:
            yield result
    if lost:
        (dataset, index), one = lost[0]
        raise ClusterError(
            f"{len(lost)} scenes lost their worker {one.tries} times, such as scene {index} of {dataset}: {one.reason}",
            expected="workers with memory enough for every scene",
            fix="begin again with fewer workers: what is finished is kept",
            command_fix="begin again with fewer --workers: what is finished is kept",
        )


def _anywhere(opening: Opening, sides: Sides) -> Opening:
    """Return what is opened, named so that any process finds it, in whatever folder it runs."""
    from mmms_deploy.evaluation.datasets import DATASETS

    arguments = tuple(
        one if DATASETS[one.kind].drawn else replace(one, path=one.path.expanduser().resolve())
        for one in opening.arguments
    )
    opening = replace(
        opening,
        bundle=sides.first.facts.source,
        request=_chosen(opening.request, sides.first.facts.options),
        arguments=arguments,
    )
    if sides.second is None:
        return opening
    return replace(
        opening,
        against=sides.second.facts.source,
        against_request=_chosen(opening.against_request, sides.second.facts.options),
    )


def _chosen(request: EngineRequest, options: Mapping[str, str | None]) -> EngineRequest:
    """Return the request that names what was chosen here: every worker takes the same."""
    threads = options.get("threads")
    return replace(
        request,
        device=options.get("device") or request.device,
        engine=options.get("engine"),
        precision=options.get("precision"),
        threads=None if threads is None else int(threads),
    )

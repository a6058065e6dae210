"""Running an evaluation: every scene of the data sets, by one worker or several; each holds one scene in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter

import msgspec

from mmms_deploy.errors import FileReadError
from mmms_deploy.evaluation.annotator import SimulatedClick
from mmms_deploy.evaluation.clicking import ObjectResult, click_through
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.evaluation.lock import results_lock
from mmms_deploy.evaluation.predictor import Predictor, close, settled, start_over
from mmms_deploy.evaluation.results import (
    SCHEMA,
    DatasetFacts,
    PairedResult,
    PredictorFacts,
    ResultStore,
    RunFacts,
    SceneResult,
    check_own,
    storable,
)
from mmms_deploy.evaluation.scene import Dataset, Scene, Surface
from mmms_deploy.evaluation.settings import Settings
from mmms_deploy.evaluation.surfaces import multi_instance, multi_surface
from mmms_deploy.files import as_path
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.replay.metrics import iou

OpenPredictor = Callable[[], Predictor]
"""Opens a predictor; called once for every worker. The predictor is closed if it has ``close()``."""

RunScenes = Callable[[Sequence[tuple["Entry", int]]], Iterator[SceneResult]]
"""Evaluates scenes, given as a data set and an index in it; yields each as soon as it is finished, in any order."""

OnResult = Callable[[SceneResult], None]
"""Receives the result of every scene as soon as it is finished."""


@dataclass(frozen=True)
class Entry:
    """A data set to evaluate on.

    Attributes:
        dataset: The data set.
        modalities: Those that the predictor is shown; None for all.
        against_modalities: Those that the other predictor is shown; None for all.
        argument: Its argument on the command line; empty from Python.
    """

    dataset: Dataset
    modalities: tuple[str, ...] | None = None
    against_modalities: tuple[str, ...] | None = None
    argument: str = ""

    def facts(self) -> DatasetFacts:
        """Describe the data set, for the results."""
        names: Sequence[str] | None = getattr(self.dataset, "scene_names", None)
        digest = "" if names is None else hashlib.sha256("\n".join(names).encode()).hexdigest()
        shown = self.dataset.modalities if self.modalities is None else self.modalities
        return DatasetFacts(
            name=self.dataset.name,
            argument=self.argument,
            scenes=len(self.dataset),
            names=digest,
            modalities=tuple(shown),
        )


@dataclass(frozen=True)
class Contestant:
    """What is evaluated.

    Attributes:
        open: Opens a predictor.
        facts: What is known about it.
    """

    open: OpenPredictor
    facts: PredictorFacts


def choose_scenes(entries: Sequence[Entry], limit: int | None = None, every: int = 1) -> list[tuple[Entry, int]]:
    """Return the scenes to evaluate: of each data set every n-th, at most ``limit``.

    Raises:
        EvaluationSettingsError: Two data sets have the same name, one is empty, or a number is below 1.
    """
    names = [entry.dataset.name for entry in entries]
    if len(set(names)) < len(names) or not names:
        raise EvaluationSettingsError(
            f"data sets named {', '.join(names) or 'nothing'}",
            expected="one or more, each with a name of its own",
            fix="give them different names; open_dataset() takes one as name",
            command_fix="name them with KIND=PATH:name=NAME",
        )
    empty = [entry.dataset.name for entry in entries if len(entry.dataset) == 0]
    if empty or (limit is not None and not _is_whole(limit)) or not _is_whole(every):
        raise EvaluationSettingsError(
            f"the data set {empty[0]!r} has no scenes" if empty else f"limit {limit!r}, every {every!r}",
            expected="one scene or more",
            fix="check the data set's folder" if empty else "pass 1 or more",
        )
    return [(entry, index) for entry in entries for index in list(range(0, len(entry.dataset), every))[:limit]]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def evaluate_scene(
    scene: Scene,
    predictor: Predictor,
    settings: Settings,
    *,
    dataset: str = "",
    index: int = 0,
    against: Predictor | None = None,
    against_scene: Scene | None = None,
) -> SceneResult:
    """Click through every object of a scene, and through all of them together if the settings request it.

    Args:
        scene: The scene, with the modalities that the predictor is shown.
        predictor: What is evaluated.
        settings: What to do.
        dataset: Name of the data set, for the result.
        index: The scene's index in it, for the result.
        against: The predictor that it is compared with; None for none.
        against_scene: The scene with the modalities that the other predictor is shown; None for the same.
    """
    surfaces, skipped = countable(scene)
    scene = replace(scene, surfaces=surfaces)
    start = perf_counter()
    predictor.set_image(scene.image, **scene.modalities)
    image_seconds = perf_counter() - start
    other = None if against is None else _Other(against, scene if against_scene is None else against_scene)
    objects, paired = [], []
    for number, surface in enumerate(scene.surfaces):
        if number:
            start_over(predictor, scene.image, dict(scene.modalities))
        follow = None if other is None else other.follow(surface)
        result = click_through(predictor, scene, surface, settings.max_clicks, settings.stop_at, follow)
        objects.append(result)
        if other is not None and follow is not None:
            # With equal masks after every click, the other predictor alone would receive the same clicks.
            own = (
                msgspec.structs.replace(result, predict_seconds=tuple(follow.seconds))
                if follow.identical
                else other.alone(surface, settings)
            )
            paired.append(PairedResult(result=own, agreement=tuple(follow.agreement)))
    joint = [(t, a) for t, a in settings.multi_surface if scene.surfaces]
    instances = settings.multi_instance if scene.surfaces else ()
    return SceneResult(
        dataset=dataset,
        index=index,
        scene=scene.name,
        size=(scene.image.shape[0], scene.image.shape[1]),
        image_seconds=round(image_seconds, 6),
        objects=tuple(objects),
        against=tuple(paired),
        multi_surface=tuple(multi_surface(predictor, scene, t, a, settings.max_clicks) for t, a in joint),
        multi_instance=tuple(multi_instance(predictor, scene, t, settings.instance_clicks) for t in instances),
        skipped=skipped,
    )


def countable(scene: Scene) -> tuple[tuple[Surface, ...], tuple[str, ...]]:
    """Return the surfaces of a scene that have a pixel outside of void, and the names of the others."""
    counted = [(s, bool((s.mask if scene.void is None else s.mask & ~scene.void).any())) for s in scene.surfaces]
    return tuple(s for s, there in counted if there), tuple(s.name for s, there in counted if not there)


class _Follow:
    """The other predictor with the first one's clicks on one object."""

    def __init__(self, predictor: Predictor, surface: Surface, void: Mask | None) -> None:
        self._predictor, self._truth, self._void = predictor, surface.mask, void
        self.agreement: list[float] = []
        self.seconds: list[float] = []
        self.identical = True

    def __call__(self, click: SimulatedClick, mask: Mask) -> None:
        start = perf_counter()
        answer = self._predictor.click(click.x, click.y, click.positive)
        self.seconds.append(round(perf_counter() - start, 6))
        answer = settled(self._predictor, answer, self._truth, self._void)
        self.agreement.append(iou(answer, mask))
        self.identical = self.identical and bool((answer == mask).all())


class _Other:
    """The other predictor on a scene."""

    def __init__(self, predictor: Predictor, scene: Scene) -> None:
        self._predictor, self._scene = predictor, scene
        predictor.set_image(scene.image, **scene.modalities)

    def follow(self, surface: Surface) -> _Follow:
        """Start on an object beside the first predictor."""
        start_over(self._predictor, self._scene.image, dict(self._scene.modalities))
        return _Follow(self._predictor, surface, self._scene.void)

    def alone(self, surface: Surface, settings: Settings) -> ObjectResult:
        """Click through an object with the other predictor alone."""
        start_over(self._predictor, self._scene.image, dict(self._scene.modalities))
        return click_through(self._predictor, self._scene, surface, settings.max_clicks, settings.stop_at)


class SceneWorker:
    """A predictor, and the one that it is compared with."""

    def __init__(self, predictor: Predictor, against: Predictor | None) -> None:
        self.predictor, self.against = predictor, against

    def run(self, entry: Entry, index: int, settings: Settings) -> SceneResult:
        """Evaluate a scene of a data set."""
        scene = entry.dataset[index]
        return evaluate_scene(
            shown(scene, entry.modalities),
            self.predictor,
            settings,
            dataset=entry.dataset.name,
            index=index,
            against=self.against,
            against_scene=shown(scene, entry.against_modalities),
        )


def shown(scene: Scene, modalities: tuple[str, ...] | None) -> Scene:
    """Return a scene with these modalities alone; None for all."""
    if modalities is None:
        return scene
    kept = {name: scene.modalities[name] for name in modalities if name in scene.modalities}
    return replace(scene, modalities=kept)


def run_scenes(
    tasks: Iterable[tuple[Entry, int]],
    contestant: Contestant,
    settings: Settings,
    *,
    against: Contestant | None = None,
    workers: int = 1,
) -> Iterator[SceneResult]:
    """Evaluate scenes; yields each as soon as it is finished, in no particular order with several workers.

    The predictors' answers, and so all results but times, do not depend on the number of workers.

    Args:
        tasks: Data sets and indices of their scenes.
        contestant: What is evaluated.
        settings: What to do.
        against: What it is compared with; None for nothing.
        workers: How many scenes are evaluated at a time, each in a thread with predictors of its own.
    """
    waiting = list(tasks)
    with ExitStack() as stack:
        idle: SimpleQueue[SceneWorker] = SimpleQueue()

        def opened(one: Contestant) -> Predictor:
            predictor = one.open()
            stack.callback(close, predictor)
            return predictor

        for _ in range(max(1, min(workers, len(waiting)))):
            idle.put(SceneWorker(opened(contestant), None if against is None else opened(against)))
        if workers == 1:
            worker = idle.get()
            for entry, index in waiting:
                yield worker.run(entry, index, settings)
            return

        def work(entry: Entry, index: int) -> SceneResult:
            worker = idle.get()
            try:
                return worker.run(entry, index, settings)
            finally:
                idle.put(worker)

        pool = stack.enter_context(ThreadPoolExecutor(workers, "mmms-eval"))
        running: set[Future[SceneResult]] = set()
        try:
            waiting.reverse()
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    running.add(pool.submit(work, *waiting.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                # Hand out finished scenes before an error in another one ends the run.
                for future in sorted(done, key=lambda finished: finished.exception() is not None):
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


class Evaluation:
    """The results of an evaluation. Iterate over its scenes as often as you like.

    Attributes:
        facts: What was evaluated, on what and how.
        folder: Where they are kept; None for in memory.
    """

    def __init__(self, facts: RunFacts, results: Iterable[SceneResult], wanted: frozenset[tuple[str, int]]) -> None:
        self.facts = facts
        self.folder: Path | None = results.folder if isinstance(results, ResultStore) else None
        self._results, self._wanted = results, wanted

    def __iter__(self) -> Iterator[SceneResult]:
        """Yield the requested scenes, in the order of the data sets and their scenes."""
        return (result for result in self._results if (result.dataset, result.index) in self._wanted)


def evaluate(
    entries: Sequence[Entry | Dataset] | Entry | Dataset,
    contestant: Contestant | OpenPredictor,
    settings: Settings | None = None,
    *,
    against: Contestant | OpenPredictor | None = None,
    out: Path | str | None = None,
    workers: int = 1,
    limit: int | None = None,
    every: int = 1,
    on_progress: OnProgress | None = None,
    on_result: OnResult | None = None,
    run: RunScenes | None = None,
) -> Evaluation:
    """Evaluate a predictor on data sets.

    Args:
        entries: A data set, or several.
        contestant: What opens a predictor, called once for every worker; ``lambda: Session("bundles/demo")`` is one.
        settings: What to do; None for NoC at the papers' targets with complete curves.
        against: What opens the predictor that it is compared with; None for nothing.
        out: A folder to keep the results in; results that it holds are continued. None keeps them in memory.
        workers: How many scenes are evaluated at a time.
        limit: Scenes of each data set; None for all.
        every: Take every n-th scene of each data set.
        on_progress: Receives every finished scene as a step, those of an earlier run included.
        on_result: Receives the result of each of these scenes, before its step.
        run: Evaluates the scenes elsewhere, with the same predictors and settings, such as on a cluster; None does it
            in this process.

    Returns:
        The results.

    Raises:
        EvaluationSettingsError: ``out`` holds results of another evaluation or other files, or a number is no integer
            or below 1.
        ResultsInUseError: Another evaluation writes into ``out``.
        DatasetError: A scene cannot be read.
        MaskError: A mask of the predictor has another shape than the image.
    """
    settings = settings or Settings()
    if not _is_whole(workers):
        raise EvaluationSettingsError(f"{workers!r} workers", expected="1 or more", fix="pass workers=1")
    given = [entries] if not isinstance(entries, Sequence) else list(entries)
    sets = [entry if isinstance(entry, Entry) else Entry(entry) for entry in given]
    tasks = choose_scenes(sets, limit, every)
    first = contestant if isinstance(contestant, Contestant) else _unnamed(contestant)
    second = against if against is None or isinstance(against, Contestant) else _unnamed(against)
    facts = storable(
        RunFacts(
            schema=SCHEMA,
            settings=settings,
            datasets=tuple(entry.facts() for entry in sets),
            predictor=first.facts,
            against=None if second is None else second.facts,
        )
    )
    wanted = frozenset((entry.dataset.name, index) for entry, index in tasks)
    folder = None if out is None else _folder(out)
    with ExitStack() as locked:
        if folder is not None:
            check_own(folder)
            locked.enter_context(results_lock(folder))
        store = None if folder is None else ResultStore(folder, facts)
        memory: list[SceneResult] = []
        evaluation = Evaluation(facts, memory if store is None else store, wanted)
        finished = frozenset() if store is None else store.done
        count = 0

        def report(result: SceneResult) -> None:
            nonlocal count
            count += 1
            if on_result is not None:
                on_result(result)
            if on_progress is not None:
                on_progress(Progress("evaluating", count, len(tasks), finished=count == len(tasks)))

        if on_progress is not None or on_result is not None:
            for result in evaluation:
                report(result)
        missing = [task for task in tasks if (task[0].dataset.name, task[1]) not in finished]
        if missing:
            run = run or partial(run_scenes, contestant=first, settings=settings, against=second, workers=workers)
            for result in run(missing):
                if store is None:
                    memory.append(result)
                else:
                    store.append(result)
                report(result)
    order = {entry.dataset.name: number for number, entry in enumerate(sets)}
    memory.sort(key=lambda result: (order[result.dataset], result.index))
    return evaluation


def _folder(out: Path | str) -> Path:
    try:
        return as_path(out)
    except FileReadError as error:
        raise EvaluationSettingsError(
            f"out: {error.reason}", expected="the path of a folder", fix="pass its path as text"
        ) from error


def _unnamed(open_predictor: OpenPredictor) -> Contestant:
    return Contestant(open_predictor, PredictorFacts(name=getattr(open_predictor, "__name__", "predictor")))

"""The gate of a pair: the graphs of the stages against the two files, on photographs.

- stages against the files: without ONNX Runtime's optimisations both have the same nodes, so every bit is the same;
- stages as an engine runs them against the files as their users run them;
- a session against the files, closed loop: :func:`mmms_deploy.export.gate.compare_session`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmms_deploy.bundle import GateCheck
from mmms_deploy.bundle.contract import BOX_CORNERS
from mmms_deploy.bundle.names import CANDIDATES, CLICK, LOGITS, POINTS, POINTS_NEXT, PREV, PROB, RGB, SCORES
from mmms_deploy.errors import GateError
from mmms_deploy.export.comparison import Worst, difference
from mmms_deploy.export.cut import StageModel
from mmms_deploy.export.gate import FEATURE_LIMIT, STAGE_LIMIT, Golden, OnnxGraph, Recorded, record
from mmms_deploy.export.pair.files import Array, PairFiles
from mmms_deploy.export.pair.graphs import feature_name
from mmms_deploy.export.pair.reference import PairAnswer, PairReference
from mmms_deploy.export.samples import Sample
from mmms_deploy.export.steps import announce
from mmms_deploy.export.trace import OPEN_LOOP_CLICKS
from mmms_deploy.progress import OnProgress

_FIX = "the bundle would not compute what the files compute, so nothing was written; please report the two files"


def compare_pair(
    files: PairFiles,
    stages: Sequence[tuple[StageModel, Path]],
    sample: Sample,
    on_progress: OnProgress | None = None,
) -> list[GateCheck]:
    """Compare the stages with the files on one picture; a stage gets what the files computed before it.

    Args:
        files: The two files.
        stages: The image stage and the click stage, and their files.
        sample: The picture; its first clicks are used.
        on_progress: Receives every step as it starts.

    Returns:
        What was measured.

    Raises:
        GateError: Something differs.
    """
    checks = []
    for optimised, limit, name in (
        (False, STAGE_LIMIT, "stages against the files"),
        (True, FEATURE_LIMIT, "stages, optimised, against the files"),
    ):
        announce(on_progress, f"gate: {name}")
        paths = files.paths
        encoder, decoder = paths["encoder"], paths["decoder"]
        opened = files if optimised else PairFiles(files.description, encoder, decoder, tried=files, optimised=False)
        worst = Worst(name, "largest relative difference of any output", limit, fix=_FIX)
        _compare(opened, stages, sample, optimised, worst)
        checks.append(worst.check())
    return checks


def _compare(
    files: PairFiles, stages: Sequence[tuple[StageModel, Path]], sample: Sample, optimised: bool, worst: Worst
) -> None:
    (_, image_file), (click_stage, click_file) = stages
    reference = PairReference(files)
    reference.set_image(sample.image)
    features = OnnxGraph(image_file, optimised=optimised).run({RGB: reference.prepared})
    for name, expected in reference.features.items():
        where = f"stage image, tensor {name}, image {sample.name}"
        worst.see(difference(features[feature_name(name)], expected, relative=True), where)
    graph = OnnxGraph(click_file, optimised=optimised)
    feed: dict[str, Array] = {feature_name(name): array for name, array in reference.features.items()}
    points = np.zeros((1, files.description.decoder.most_points, 4), dtype=np.float32)
    _, rows, columns = files.answers
    previous = np.zeros((1, 1, rows, columns), dtype=np.float32)
    empty = points
    for number, (x, y, positive) in enumerate(sample.clicks[:OPEN_LOOP_CLICKS].tolist()):
        click = np.array([[*reference.to_network(x, y), positive, 1.0]], dtype=np.float32)
        given = {**feed, POINTS: points, PREV: previous, CLICK: click}
        found = graph.run({name: given[name] for name in click_stage.inputs})
        answer = reference.click(x, y, positive > 0.5)
        points = points.copy()
        points[0, number] = click[0]
        _see(worst, click_stage, found, answer, points, f"image {sample.name}, click {number + 1}")
        previous = answer.numbers[None, None]
    if files.description.decoder.box:
        height, width, _ = sample.image.shape
        box = (0.2 * width, 0.3 * height, 0.7 * width, 0.9 * height)
        reference.set_image(sample.image)
        points = empty.copy()
        for row, (place, kind) in enumerate(zip((box[:2], box[2:]), BOX_CORNERS, strict=True)):
            points[0, row] = (*reference.to_network(*place), kind, 1.0)
        given = {**feed, POINTS: points, PREV: np.zeros_like(previous), CLICK: np.zeros((1, 4), dtype=np.float32)}
        found = graph.run({name: given[name] for name in click_stage.inputs})
        _see(worst, click_stage, found, reference.box(*box), points, f"image {sample.name}, a box")


def _see(
    worst: Worst, stage: StageModel, found: Mapping[str, Array], answer: PairAnswer, points: Array, where: str
) -> None:
    """Compare the click stage's outputs with the files' answer."""
    answers: dict[str, Array] = {POINTS_NEXT: points, CANDIDATES: answer.answers[None]}
    answers |= dict.fromkeys((LOGITS, PROB), answer.numbers[None, None])
    if answer.scores is not None:
        answers[SCORES] = answer.scores[None]
    for name in (name for name in stage.outputs if name in answers):
        worst.see(difference(found[name], answers[name], relative=True), f"stage click, tensor {name}, {where}")


def record_pair(files: PairFiles, samples: Sequence[Sample], on_progress: OnProgress | None = None) -> Golden:
    """Click through every sample with the files, closed loop.

    Args:
        files: The two files.
        samples: Pictures and clicks.
        on_progress: Receives a step for every picture, as it starts.

    Returns:
        The files' answers.

    Raises:
        GateError: They answer NaN.
    """
    reference = PairReference(files)

    def answers(sample: Sample) -> Iterator[Recorded]:
        announce(on_progress, f"gate: the two files on {sample.name}")
        reference.set_image(sample.image)
        for number, (x, y, positive) in enumerate(sample.clicks.tolist(), start=1):
            answer = reference.click(x, y, positive > 0.5)
            if not np.isfinite(answer.numbers).all():
                raise GateError(
                    f"the files themselves answer NaN on image {sample.name}, click {number}",
                    expected="finite answers",
                    fix="check the files and their description; nothing was written",
                )
            scale = max(1.0, float(np.abs(answer.logits).max()))
            yield Recorded(answer.mask, answer.certain, answer.probability, scale)

    return record(samples, answers)

"""``mmms-eval``: the files and tables of an evaluation, and the pictures of one of its cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from mmms_deploy.commands.common import console, warn
from mmms_deploy.commands.display import waiting
from mmms_deploy.commands.eval_open import open_contestant
from mmms_deploy.commands.tables import print_tables

if TYPE_CHECKING:
    from mmms_deploy.evaluation.results import RunFacts
    from mmms_deploy.evaluation.run import Contestant, Entry, Evaluation
    from mmms_deploy.evaluation.summary import DatasetSummary


def write_report(
    evaluation: Evaluation,
    entries: Sequence[Entry],
    contestant: Contestant,
    folder: Path,
    *,
    worst: int,
    parquet: bool,
    notes: Sequence[str],
) -> None:
    """Print the measures and write the files."""
    import msgspec

    from mmms_deploy.engines.machine import describe_machine, machine_lines
    from mmms_deploy.evaluation.replay import worst_cases
    from mmms_deploy.evaluation.report.cases import draw_cases
    from mmms_deploy.evaluation.report.console_table import render
    from mmms_deploy.evaluation.report.csv_parquet import rows_of, write_csv, write_parquet
    from mmms_deploy.evaluation.report.page import render_page
    from mmms_deploy.evaluation.report.published import published_rows
    from mmms_deploy.evaluation.results import PAGE_FILE, PARQUET_FILE, SUMMARY_FILE, TABLE_FILE
    from mmms_deploy.evaluation.summary import summarise_run
    from mmms_deploy.reporting.files import write_text

    facts = evaluation.facts
    with waiting("writing the report"):
        summaries = summarise_run(facts, evaluation)
        _check_any(summaries, entries)
        paired = facts.against is not None
        write_csv(folder / TABLE_FILE, rows_of(evaluation, facts.settings, paired=paired))
        if parquet:
            write_parquet(folder / PARQUET_FILE, rows_of(evaluation, facts.settings, paired=paired))
        published = {summary.name: rows for summary in summaries if (rows := published_rows(facts, summary))}
        content = msgspec.json.encode({"run": facts, "datasets": summaries, "published": published})
        write_text(folder / SUMMARY_FILE, msgspec.json.format(content, indent=1) + b"\n")
        chosen = worst_cases(evaluation, worst, facts.settings.max_clicks)
        page = render_page(
            facts,
            summaries,
            cases=draw_cases(chosen, entries, contestant, str(folder)),
            machine=machine_lines(describe_machine()),
            notes=notes,
            created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )
        write_text(folder / PAGE_FILE, page.encode())
    print_tables(render(summaries, facts))
    console.print(f"\n[bold green]{escape(str(folder / PAGE_FILE))}[/]", soft_wrap=True)


def _check_any(summaries: Sequence[DatasetSummary], entries: Sequence[Entry]) -> None:
    if not summaries:
        from mmms_deploy.evaluation.errors import EvaluationSettingsError

        raise EvaluationSettingsError(
            f"no object in {', '.join(entry.dataset.name for entry in entries)}",
            expected="an object with a pixel that is not void",
            fix="check the data set's folder, or its option that chooses surfaces",
        )


def write_replay(folder: Path, name: str, bundle: Path | None) -> None:
    """Write a picture of every click of a case."""
    from mmms_deploy.commands.output import write_atomically
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.evaluation.answering import recorded_answering
    from mmms_deploy.evaluation.datasets import parse_dataset_argument
    from mmms_deploy.evaluation.errors import CaseError
    from mmms_deploy.evaluation.replay import draw_frame, draw_truth, find_case, replay, surface_of
    from mmms_deploy.evaluation.results import REPLAY_FOLDER, read_facts, read_scenes
    from mmms_deploy.evaluation.run import shown

    facts: RunFacts = read_facts(folder)
    case = find_case(read_scenes(folder), name)
    dataset = next(entry for entry in facts.datasets if entry.name == case.scene.dataset)
    if not dataset.argument:
        raise CaseError(
            f"the results in {folder} were made from Python",
            expected="results of mmms-eval, which say where their data set is",
            fix="use mmms_deploy.evaluation.replay.replay with the data set",
        )
    scene = shown(parse_dataset_argument(dataset.argument).open()[case.scene.index], dataset.modalities)
    options = facts.predictor.options
    request = EngineRequest(
        device=options["device"] or "auto",
        engine=options["engine"],
        precision=options["precision"],
        threads=None if options["threads"] is None else int(options["threads"]),
    )
    pictures = folder / REPLAY_FOLDER / re.sub(r"[^\w.-]+", "_", case.name)
    pictures.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        how = recorded_answering(options)
        contestant, *_ = open_contestant(stack, str(bundle or facts.predictor.source), request, lambda _: how, ())
        if contestant.facts.identity != facts.predictor.identity:
            warn("this is another bundle than the one that was evaluated: its masks may differ")
        predictor: Any = contestant.open()
        stack.callback(predictor.close)
        console.print(f"{escape(case.name)}: {case.result.pixels:,} pixels", soft_wrap=True)
        surface = surface_of(scene, case.result.name)
        write_atomically(pictures / "00-object.png", draw_truth(scene, surface), overwrite=True)
        for number, frame in enumerate(replay(predictor, scene, case.result), start=1):
            newest, recorded = frame.clicks[-1], case.result.ious[number - 1]
            differs = "" if abs(frame.iou - recorded) < 1e-9 else f"   (was {100 * recorded:.2f} %)"
            sign = "+" if newest.positive else "-"
            place = f"({newest.x:.0f}, {newest.y:.0f})"
            console.print(f"click {number:>2} {sign} {place:<13} IoU {100 * frame.iou:6.2f} %{differs}")
            write_atomically(pictures / f"{number:02}.png", draw_frame(scene, frame), overwrite=True)
    console.print(f"[bold green]{escape(str(pictures))}[/]", soft_wrap=True)

"""Published figures beside ours, in every form of the report."""

from __future__ import annotations

import msgspec
from rich.console import Console

from mmms_deploy.evaluation import (
    Contestant,
    Entry,
    FunctionPredictor,
    PredictorFacts,
    Protocol,
    Settings,
    evaluate,
    render_page,
    summarise_run,
)
from mmms_deploy.evaluation.report.console_table import render
from mmms_deploy.evaluation.report.published import differences, published_rows
from tests.support.scenes import Scenes, disks

FACTS = PredictorFacts(name="net", network="SimpleClick, ViT-B", parameters=98_026_000)


def _evaluated(facts: PredictorFacts, **options: object):
    entry = Entry(Scenes(2, name="mine"), argument="davis=DAVIS:name=mine")
    contestant = Contestant(lambda: FunctionPredictor(disks(5)), facts)
    evaluation = evaluate(entry, contestant, Settings(max_clicks=5, targets=(0.85, 0.9)), **options)
    return evaluation.facts, summarise_run(evaluation.facts, evaluation)


def test_a_row_for_each_published_figure() -> None:
    facts, (summary,) = _evaluated(FACTS)
    rows = {row.measure: row for row in published_rows(facts, summary)}
    assert (rows["NoC@90"].here, rows["NoC@90"].theirs) == (f"{summary.target(0.9).noc:.2f}", "5.06")
    assert rows["NoC@95"].here == "-"
    assert rows["ms a click"].theirs == "1510 (CPU, as published)"
    assert "this machine" in rows["ms a click"].here
    assert "MFP" in rows["NoC@90"].source
    line = differences(facts, summary)
    assert "others' figures" in line
    assert "not by --protocol published, with 5 clicks at most" in line
    settings = msgspec.structs.replace(facts.settings, protocol=Protocol.PUBLISHED, max_clicks=20)
    assert "ours" not in differences(msgspec.structs.replace(facts, settings=settings), summary)


def test_they_are_marked_as_theirs_on_the_page_and_the_console() -> None:
    facts, summaries = _evaluated(FACTS, limit=1)
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(render(summaries, facts))
    for text in (render_page(facts, summaries), shown.get()):
        for part in ("what papers published about SimpleClick, ViT-B", "theirs, as published", "5.06", "1 of 2 images"):
            assert part in text, part


def test_a_network_that_no_paper_has_shows_none() -> None:
    facts, (summary,) = _evaluated(PredictorFacts(name="net"))
    assert published_rows(facts, summary) == ()
    assert "papers published" not in render_page(facts, (summary,))


def test_the_multi_instance_task_stands_beside_the_papers() -> None:
    entry = Entry(Scenes(2, name="mine"), argument="davis=DAVIS:name=mine")
    facts = PredictorFacts(name="net", network="DynaMITe, Swin-T")
    settings = Settings(max_clicks=2, multi_instance=(0.85,), instance_clicks=2)
    evaluation = evaluate(entry, Contestant(lambda: FunctionPredictor(disks(5)), facts), settings)
    (summary,) = summarise_run(evaluation.facts, evaluation)
    rows = {row.measure: row for row in published_rows(evaluation.facts, summary)}
    (task,) = summary.multi_instance
    found = [(rows[f"{name}@85"].here, rows[f"{name}@85"].theirs) for name in ("NCI", "NFO", "NFI")]
    assert found == [(f"{task.nci:.2f}", "3.13"), (f"{task.nfo}", "520"), (f"{task.nfi}", "348")]
    assert "DAVIS 2017" in rows["NCI@85"].source
    without = msgspec.structs.replace(summary, multi_instance=())
    assert {row.measure: row.here for row in published_rows(evaluation.facts, without)}["NCI@85"] == "-"

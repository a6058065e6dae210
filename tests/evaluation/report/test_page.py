"""The contents of the report, its plots, its pictures and the files of objects."""

from __future__ import annotations

import base64
import csv
import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.evaluation import (
    Contestant,
    Entry,
    FunctionPredictor,
    PredictorFacts,
    Protocol,
    Settings,
    Surface,
    area_under_curve,
    evaluate,
    render_page,
    summarise_run,
)
from mmms_deploy.evaluation.errors import CaseError, EvaluationLibraryError
from mmms_deploy.evaluation.replay import find_case, replay, window_of, worst_cases
from mmms_deploy.evaluation.report.cases import draw_cases
from mmms_deploy.evaluation.report.csv_parquet import parquet_library, rows_of, write_csv, write_parquet
from mmms_deploy.evaluation.report.plots import Series, by_clicks, histogram
from mmms_deploy.session.result import Click
from tests.support.scenes import Scenes, disks, scene

SETTINGS = Settings(max_clicks=5, targets=(0.6, 0.8), multi_surface=((0.8, 0.7),), multi_instance=(0.85,))


def contestant(radius: float = 5, name: str = "disks <5>") -> Contestant:
    return Contestant(lambda: FunctionPredictor(disks(radius)), PredictorFacts(name=name))


def page_of(evaluation, **options) -> str:
    page = render_page(evaluation.facts, summarise_run(evaluation.facts, evaluation), **options)
    ElementTree.fromstring(page.partition("\n")[2])
    return page


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_every_part_and_is_well_formed() -> None:
    data = Scenes(3, name="ellipses & more")
    evaluation = evaluate(data, contestant(), SETTINGS, against=contestant(7, "others"))
    cases = draw_cases(worst_cases(evaluation, 2, 5), [Entry(data)], contestant(), "some folder")
    page = page_of(evaluation, cases=cases, machine=[("processor", "x")], notes=["a <note>"], created="today")
    for text in (
        "disks &lt;5&gt; on ellipses &amp; more",
        "IoU by clicks",
        "Clicks to reach 80 %",
        "This against the other",
        "visible from",
        "o difference seen; one of",
        "How alike their masks are",
        "NoCMS@(80, 70)",
        "never clicked, (80, 70)",
        "NFI@85",
        "Worst cases",
        "mmms-eval --replay &#x27;some folder&#x27;",
        "a &lt;note&gt;",
        "today",
        "processor",
    ):
        assert text in page, text


def test_without_complete_curves_none_is_shown() -> None:
    settings = Settings(max_clicks=5, targets=(0.6,), protocol=Protocol.NOC)
    page = page_of(evaluate(Scenes(2), contestant(), settings))
    assert "IoU by clicks" not in page
    assert "AuC" not in page
    assert "NoC@60" in page


def test_several_data_sets_share_a_plot_and_have_a_histogram_each() -> None:
    page = page_of(evaluate([Scenes(2, name="one"), Scenes(2, name="two")], contestant(), SETTINGS))
    assert page.count("<h2>IoU by clicks</h2>") == 1
    assert "Clicks to reach 80 % on one" in page
    assert "Clicks to reach 80 % on two" in page


def test_the_page_warns_of_random_weights() -> None:
    facts = PredictorFacts(name="net", trained=False)
    evaluation = evaluate(Scenes(1), Contestant(contestant().open, facts), SETTINGS)
    assert "these measures mean nothing" in page_of(evaluation)


def test_one_click_is_enough_for_a_page() -> None:
    page_of(evaluate(Scenes(1), contestant(), Settings(max_clicks=1, targets=(0.5,))))


# --- plots ------------------------------------------------------------------------------------------------------------


def test_lines_rise_with_their_values_and_end_at_the_last_click() -> None:
    svg = by_clicks([Series("a", (0.0, 0.5, 1.0))], (0.9,), "title")
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', svg)[1].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    (_, low), (_, middle), (_, high) = points
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    assert high < low
    assert svg.count('class="mark"') == 1


def test_labels_of_lines_that_end_together_are_kept_apart() -> None:
    series = [Series(f"line {k}", (0.5, 1.0 - 1e-3 * k)) for k in range(4)]
    svg = by_clicks(series, (), "title")
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="start">line', svg))
    assert min(np.diff(heights)) >= 16.9
    assert 0 < heights[0] < heights[-1] < 340


def test_a_histograms_bars_are_as_high_as_their_counts() -> None:
    svg = histogram((4, 0, 2), 1, "title")
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" rx', svg)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[1] == pytest.approx(2 * heights[2], abs=0.2)
    assert 'class="b"' in svg, "failures have another colour"
    ElementTree.fromstring(histogram((0,), 0, "nothing"))


# --- cases ------------------------------------------------------------------------------------------------------------


def test_the_worst_cases_have_the_least_area_under_their_curve() -> None:
    evaluation = evaluate([Scenes(4), Scenes(2, name="few")], contestant(), SETTINGS)
    chosen = worst_cases(evaluation, 3, 5)
    for name, cases in chosen.items():
        areas = sorted(
            area_under_curve(one.ious, 5) for result in evaluation if result.dataset == name for one in result.objects
        )
        assert [area_under_curve(case.result.ious, 5) for case in cases] == areas[:3]


def test_cases_are_found_by_name_or_by_a_part_that_is_theirs_alone() -> None:
    evaluation = evaluate(Scenes(2), contestant(), SETTINGS)
    assert find_case(evaluation, "ellipses:scene/001:object-2").result.name == "object-2"
    assert find_case(evaluation, "001:object-2").scene.index == 1
    for part, count in (("object-2", 2), ("nothing", 0)):
        with pytest.raises(CaseError, match=f"{count} cases"):
            find_case(evaluation, part)


def test_a_replay_measures_the_same_again() -> None:
    evaluation = evaluate(Scenes(1), contestant(), SETTINGS)
    (result,) = evaluation
    for one in result.objects:
        frames = list(replay(FunctionPredictor(disks(5)), scene(0), one))
        assert tuple(frame.iou for frame in frames) == one.ious
        assert [len(frame.clicks) for frame in frames] == [1, 2, 3, 4, 5]
    with pytest.raises(CaseError, match="no object"):
        list(replay(FunctionPredictor(disks(5)), scene(0, surfaces=1), result.objects[1]))


def test_pictures_show_the_object_the_first_and_the_last_answer() -> None:
    data = Scenes(1)
    evaluation = evaluate(data, contestant(), SETTINGS)
    (case, *_) = draw_cases(worst_cases(evaluation, 1, 5), [Entry(data)], contestant(), "out")
    assert [caption.partition(":")[0] for caption, _ in case.pictures] == ["the object", "1 click", "5 clicks"]
    for _, address in case.pictures:
        content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(content)).format == "JPEG"
    assert case.note == ""
    other = draw_cases(worst_cases(evaluation, 1, 5), [Entry(data)], contestant(9), "out")
    assert "differs by up to" in other[0].note


def test_pictures_of_small_objects_show_a_part_around_all_clicks() -> None:
    mask = np.zeros((1000, 2000), bool)
    mask[400:410, 1900:1920] = True
    left, top, right, bottom = window_of(Surface("small", mask), [Click(1905, 405), Click(1500, 700, False)])
    assert left <= 1500
    assert right == 2000
    assert top <= 400
    assert bottom > 700
    assert (right - left, bottom - top) < (1000, 600)
    mask[:] = True
    assert window_of(Surface("large", mask), []) == (0, 0, 2000, 1000)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_csv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    evaluation = evaluate(Scenes(3), contestant(), SETTINGS, against=contestant(7))
    rows = list(rows_of(evaluation, SETTINGS, paired=True))
    write_csv(tmp_path / "objects.csv", rows)
    write_parquet(tmp_path / "objects.parquet", iter(rows))
    assert parquet.read_table(tmp_path / "objects.parquet").to_pylist() == rows
    with (tmp_path / "objects.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [row["case"] for row in read] == [row["case"] for row in rows]
    assert float(read[0]["auc"]) == rows[0]["auc"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["objects.csv", "objects.parquet"]


def test_no_cell_is_a_formula_and_no_page_holds_control_characters(tmp_path: Path) -> None:
    evil = "=cmd|' /C calc'!A0\x1b[2J"
    evaluation = evaluate(Scenes(2, name=evil), contestant(), SETTINGS)
    write_csv(tmp_path / "objects.csv", rows_of(evaluation, SETTINGS, paired=False))
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert row["dataset"] == "'=cmd|' /C calc'!A0\\x1b[2J"
    assert row["case"].startswith("'=cmd")
    assert float(row["iou_01"]) >= 0
    cases = draw_cases(worst_cases(evaluation, 1, 5), [Entry(Scenes(2, name=evil))], contestant(), "out")
    page = page_of(evaluation, cases=cases, notes=[evil])
    assert "\x1b" not in page
    assert "\\x1b[2J" in page
    assert find_case(evaluation, row["case"].replace("\\x1b", "\x1b")).scene.dataset == evil


def test_cells_after_the_last_click_are_empty() -> None:
    data = scene(0)
    masks = [surface.mask for surface in data.surfaces]

    def perfect(image, clicks, previous):
        return next(mask for mask in masks if mask[clicks[0].y, clicks[0].x])

    evaluation = evaluate(Scenes(1), lambda: FunctionPredictor(perfect), SETTINGS)
    row = next(rows_of(evaluation, SETTINGS, paired=False))
    assert (row["iou_01"], row["iou_02"], row["clicks"], row["noc_80"], row["reached_80"]) == (1.0, None, 1, 1, True)


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EvaluationLibraryError, match=r"mmms-deploy\[parquet\]"):
        parquet_library()

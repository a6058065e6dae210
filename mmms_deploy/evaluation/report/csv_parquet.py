"""The files of objects: a row for each object, as CSV and as Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mmms_deploy.evaluation.clicking import ObjectResult
from mmms_deploy.evaluation.errors import EvaluationLibraryError
from mmms_deploy.evaluation.measures import area_under_curve, clicks_to_reach, noc
from mmms_deploy.evaluation.replay import Case
from mmms_deploy.evaluation.report.text import percent
from mmms_deploy.evaluation.results import SceneResult
from mmms_deploy.evaluation.settings import Protocol, Settings
from mmms_deploy.files import partial_beside, replacing
from mmms_deploy.installed import pip_install
from mmms_deploy.reporting.visible import cell

Row = dict[str, Any]
_BATCH = 1000


def rows_of(results: Iterable[SceneResult], settings: Settings, *, paired: bool) -> Iterator[Row]:
    """Yield one row for each object; all rows have the same columns.

    Columns: ``case``, ``dataset``, ``scene``, ``object``, ``height``, ``width``, ``pixels``, ``clicks``; for every
    target ``noc_90`` and ``reached_90``; ``auc`` (empty where curves are not complete); ``iou_01`` and
    ``boundary_iou_01`` onwards, empty after the last click; ``seconds`` and ``simulation_seconds`` a click; ``points``,
    the clicks as ``x,y,+ x,y,-``. With another predictor: ``other_noc_90``, ``other_iou_01``, ``agreement_01`` onwards.

    Args:
        results: The scenes.
        settings: The settings of the evaluation.
        paired: Whether there is another predictor.
    """
    for scene, number, one in ((found, k, one) for found in results for k, one in enumerate(found.objects)):
        row: Row = {
            "case": Case(scene, one).name,
            "dataset": scene.dataset,
            "scene": scene.scene,
            "object": one.name,
            "height": scene.size[0],
            "width": scene.size[1],
            "pixels": one.pixels,
            "clicks": len(one.clicks),
        }
        for target in settings.targets:
            row[f"noc_{percent(target)}"] = noc(one.ious, target, settings.max_clicks)
            row[f"reached_{percent(target)}"] = clicks_to_reach(one.ious, target, settings.max_clicks) is not None
        complete = settings.protocol is Protocol.CURVE
        row["auc"] = area_under_curve(one.ious, settings.max_clicks) if complete else None
        row |= _column("iou", one.ious, settings.max_clicks)
        row |= _column("boundary_iou", one.boundary_ious, settings.max_clicks)
        row["seconds"] = sum(one.predict_seconds) / len(one.predict_seconds)
        row["simulation_seconds"] = sum(one.simulate_seconds) / len(one.simulate_seconds)
        row["points"] = _points(one)
        if paired:
            pair = scene.against[number]
            for target in settings.targets:
                row[f"other_noc_{percent(target)}"] = noc(pair.result.ious, target, settings.max_clicks)
            row |= _column("other_iou", pair.result.ious, settings.max_clicks)
            row |= _column("agreement", pair.agreement, settings.max_clicks)
        yield row


def _column(name: str, values: tuple[float, ...], count: int) -> Row:
    return {f"{name}_{k + 1:02}": values[k] if k < len(values) else None for k in range(count)}


def _points(one: ObjectResult) -> str:
    return " ".join(f"{x},{y},{'+' if positive else '-'}" for x, y, positive in one.clicks)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV (UTF-8, header, comma). The file appears when it is complete; without rows there is none.

    No cell is a formula (:func:`~mmms_deploy.reporting.visible.cell`).

    Raises:
        OutputWriteError: It cannot be written.
    """
    rest = iter(rows)
    first = next(rest, None)
    if first is None:
        return
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, newline="", encoding="utf-8")
        writer = csv.DictWriter(text, first.keys())
        writer.writeheader()
        for row in chain([first], rest):
            writer.writerow({name: cell(value) for name, value in row.items()})
        text.detach()  # it would close what is not its own


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as Parquet, in batches. The file appears when it is complete; without rows there is none.

    Raises:
        EvaluationLibraryError: pyarrow is not installed.
        OutputWriteError: It cannot be written.
    """
    arrow, parquet = parquet_library()

    batches = _batches(rows)
    first = next(batches, None)
    if first is None:
        return
    schema = _schema(arrow, first[0])
    with partial_beside(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
        for batch in chain([first], batches):
            writer.write_table(arrow.Table.from_pylist(batch, schema))


def parquet_library() -> tuple[Any, Any]:
    """Import pyarrow.

    Raises:
        EvaluationLibraryError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise EvaluationLibraryError(
            "writing Parquet needs pyarrow, which is not installed",
            expected="the package pyarrow",
            fix=f"{pip_install('parquet')}, or write CSV",
            command_fix=f"{pip_install('parquet')}, or take objects.csv, which is always written",
        ) from error
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any, row: Row) -> Any:
    """Return the type of every column by its name, because the first rows may be empty where later ones are not."""
    whole = {"height", "width", "pixels", "clicks"}
    text = {"case", "dataset", "scene", "object", "points"}

    def kind(name: str) -> Any:
        if name in text:
            return arrow.string()
        if name in whole or name.startswith(("noc_", "other_noc_")):
            return arrow.int64()
        return arrow.bool_() if name.startswith("reached_") else arrow.float64()

    return arrow.schema([(name, kind(name)) for name in row])


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

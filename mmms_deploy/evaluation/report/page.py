"""An evaluation as one self-contained HTML page: no script, nothing to load, pictures included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmms_deploy.evaluation.comparison import CONFIDENCE, RESAMPLES, Comparison
from mmms_deploy.evaluation.measures import noc
from mmms_deploy.evaluation.report.cases import CasePictures
from mmms_deploy.evaluation.report.plots import CLASSES, STYLE, Series, by_clicks, histogram, sparkline
from mmms_deploy.evaluation.report.published import HEADS, differences, published_heading, published_rows
from mmms_deploy.evaluation.report.text import (
    clicks_shown,
    difference_heads,
    difference_row,
    measure_rows,
    milliseconds,
    percent,
    predictor_line,
    seen_line,
    settings_line,
    surface_rows,
    time_line,
    visible_line,
)
from mmms_deploy.evaluation.results import RunFacts
from mmms_deploy.evaluation.settings import Protocol, Settings
from mmms_deploy.evaluation.summary import DatasetSummary
from mmms_deploy.reporting.html import document
from mmms_deploy.reporting.visible import escape

_STYLE = """
.heads { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.6rem, 1fr)); }
.head { padding: .6rem .7rem; font-size: .92rem; } .head b { font-size: 1.4rem; white-space: nowrap; }
.case { border-top: 1px solid var(--rule); padding: .9rem 0 1rem; }
.case h3 { font-size: 1rem; margin: 0 0 .1rem; font-weight: 600; overflow-wrap: anywhere; }
.case .line { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: center; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin: .6rem 0 .5rem; }
figure { margin: 0; } figure img { display: block; border-radius: 5px; max-width: 100%; height: auto; }
figcaption { font-size: .85rem; color: var(--faint); margin-top: .2rem; }
code { font: .82rem ui-monospace, monospace; background: color-mix(in srgb, var(--rule) 45%, transparent);
  padding: .1rem .35rem; border-radius: 4px; overflow-wrap: anywhere; }
.spark { margin: 0; flex: none; } .sure { font-weight: 600; } h2 + .faint { margin-top: -.3rem; }
.measures td:nth-child(3) { text-align: left; color: var(--faint); } .measures td:first-child { width: 26%; }
.measures td:nth-child(2) { width: 20%; }
"""


def render_page(
    facts: RunFacts,
    summaries: Sequence[DatasetSummary],
    *,
    cases: Sequence[CasePictures] = (),
    machine: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    created: str = "",
) -> str:
    """Return an evaluation as an HTML page that is also well-formed XML.

    Args:
        facts: What was evaluated, on what, and how.
        summaries: The measures of each data set; at least one.
        cases: The worst cases, with pictures.
        machine: The machine, as pairs of a heading and a text.
        notes: Remarks on this run.
        created: When, as text.
    """
    settings = facts.settings
    if not facts.predictor.trained:
        notes = ("The weights are random: these measures mean nothing.", *notes)
    names = ", ".join(summary.name for summary in summaries)
    parts = [
        f"<h1>{escape(facts.predictor.name)} on {escape(names)}</h1>",
        f"<p>{escape(predictor_line(facts.predictor))}</p>",
        *([] if facts.against is None else [f"<p>against {escape(predictor_line(facts.against))}</p>"]),
        f"<p>{escape(settings_line(settings))}.</p>",
        *([f'<p class="faint">{escape(created)}</p>'] if created else []),
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        _heads(summaries, settings),
        *_quality(summaries, settings),
        *_histograms(summaries, settings),
    ]
    for summary in summaries:
        if summary.comparison is not None:
            parts += _compared(summary, summary.comparison, len(summaries) > 1)
    for summary in summaries:
        parts += _measures(summary)
        parts += _published(facts, summary)
    parts += _cases(cases, settings)
    if machine:
        parts.append(_machine(machine))
    return document(f"{facts.predictor.name} on {names}: mmms-eval", parts, STYLE + _STYLE)


def _heads(summaries: Sequence[DatasetSummary], settings: Settings) -> str:
    """Return the main numbers, large."""
    boxes: list[tuple[str, str]] = []
    if len(summaries) == 1:
        (summary,) = summaries
        target = summary.targets[-1]
        boxes = [
            (f"{target.noc:.2f}", f"NoC@{percent(target.target)}, clicks an object"),
            (f"{100 * target.failure_rate:.1f} %", f"not at {percent(target.target)} % after {summary.max_clicks}"),
        ]
        if summary.curve is not None:
            shown = clicks_shown(summary.max_clicks)
            for k in dict.fromkeys((shown[0], 5 if 5 in shown else shown[-1])):
                clicks = "1 click" if k == 1 else f"{k} clicks"
                boxes.append((f"{100 * summary.curve.iou[k - 1]:.1f} %", f"mean IoU after {clicks}"))
        boxes.append((milliseconds(summary.time.click), "a click"))
        boxes.append((f"{summary.objects:,}", f"objects in {summary.scenes:,} images"))
    else:
        for summary in summaries:
            target = summary.targets[-1]
            boxes.append((f"{target.noc:.2f}", f"NoC@{percent(target.target)} on {summary.name}"))
    inside = "".join(f'<div class="head"><b>{escape(big)}</b>{escape(small)}</div>' for big, small in boxes)
    return f'<div class="heads">{inside}</div>'


def _quality(summaries: Sequence[DatasetSummary], settings: Settings) -> Iterator[str]:
    curves = [(summary.name, summary.curve) for summary in summaries if summary.curve is not None]
    if not curves:
        return
    if len(curves) == 1:
        (_, curve) = curves[0]
        series = [
            Series("IoU, mean", curve.iou, "a", low=curve.low, high=curve.high),
            Series("boundary IoU, mean", curve.boundary_iou, "b", dashed=True),
        ]
        note = "The band holds the middle half of the objects. Dashed lines: the targets."
    else:
        series = [Series(name, c.iou, CLASSES[k % 4], dashed=k >= 4) for k, (name, c) in enumerate(curves)]
        note = "Mean over the objects of each data set. Dashed lines: the targets."
    drawn = by_clicks(series, settings.targets, "Mean IoU by number of clicks")
    yield f'<h2>IoU by clicks</h2><p class="faint">{note}</p><div class="scroll">{drawn}</div>'


def _histograms(summaries: Sequence[DatasetSummary], settings: Settings) -> Iterator[str]:
    t = percent(settings.targets[-1])
    for summary in summaries:
        target = summary.targets[-1]
        where = f" on {summary.name}" if len(summaries) > 1 else ""
        heading = f"Clicks to reach {t} %{where}"
        yield (
            f'<h2>{escape(heading)}</h2><div class="scroll">{histogram(target.clicks, target.failed, heading)}</div>'
        )


def _measures(summary: DatasetSummary) -> Iterator[str]:
    rows = [*measure_rows(summary), *surface_rows(summary)]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    counts = f"{summary.objects:,} objects in {summary.scenes:,} images"
    skipped = f"; {summary.skipped} left out, all void" if summary.skipped else ""
    yield (
        f"<h2>{escape(summary.name)}: all measures</h2>"
        f'<p class="faint">{counts}{skipped}. {time_line(summary.time)}.</p>'
        f'<div class="scroll"><table class="measures"><tbody>{body}</tbody></table></div>'
    )


def _published(facts: RunFacts, summary: DatasetSummary) -> Iterator[str]:
    rows = published_rows(facts, summary)
    if rows:
        heads = "".join(f"<th>{escape(head)}</th>" for head in HEADS)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row.cells)}</tr>" for row in rows)
        yield (
            f"<h2>{escape(published_heading(facts, summary))}</h2>"
            f'<p class="faint">{escape(differences(facts, summary))}</p>'
            f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        )


def _compared(summary: DatasetSummary, comparison: Comparison, named: bool) -> Iterator[str]:
    where = f" on {summary.name}" if named else ""
    heads = "".join(f"<th>{escape(head)}</th>" for head in difference_heads())
    rows = []
    for difference in comparison.differences:
        cells = [escape(cell) for cell in difference_row(difference)]
        if difference.certain:
            cells[3] = f'<span class="sure">{cells[3]}</span>'
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    yield (
        f"<h2>This against the other{escape(where)}</h2>"
        f'<p class="faint">Clicks an object; below 0, this one needs fewer. {100 * CONFIDENCE:.0f} % interval by'
        f" {RESAMPLES:,} paired resamples of the images; bold where it leaves out 0. {_sentence(visible_line())}</p>"
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"<p>{_sentence(seen_line(comparison))}</p>"
        f"<p>{comparison.identical:,} of {comparison.objects:,} objects have the same masks to the last pixel after"
        f" every click. The other takes {milliseconds(comparison.other_click_seconds)} a click, this one"
        f" {milliseconds(summary.time.click)}.</p>"
    )
    least = min(comparison.worst_agreement)
    floor = next((edge for edge in (0.99, 0.9, 0.5) if least > edge + 0.05 * (1 - edge)), 0.0)
    drawn = by_clicks(
        [
            Series("mean object", comparison.agreement, "a"),
            Series("worst object", comparison.worst_agreement, "b", dashed=True),
        ],
        (),
        "IoU of the two masks by number of clicks",
        floor,
    )
    yield (
        f"<h2>How alike their masks are{escape(where)}</h2>"
        '<p class="faint">IoU of the two masks, both given the clicks of this one.</p>'
        f'<div class="scroll">{drawn}</div>'
    )
    if comparison.most:
        t = percent(comparison.differences[-1].target)
        body = "".join(
            f"<tr><td>{escape(one.scene)}: {escape(one.name)}</td><td>{one.noc}</td><td>{one.other}</td>"
            f"<td>{100 * one.agreement:.3f} %</td><td>{one.click}</td></tr>"
            for one in comparison.most
        )
        yield (
            f"<h2>Objects that differ most{escape(where)}</h2>"
            f'<div class="scroll"><table><thead><tr><th></th><th>NoC@{t}</th><th>other</th>'
            f"<th>masks agree at least</th><th>after clicks</th></tr></thead><tbody>{body}</tbody></table></div>"
        )


def _sentence(text: str) -> str:
    return f"{escape(text[:1].upper() + text[1:])}."


def _cases(cases: Sequence[CasePictures], settings: Settings) -> Iterator[str]:
    if not cases:
        return
    yield '<h2>Worst cases</h2><p class="faint">The objects with the least area under their curve of IoU by clicks.</p>'
    target = settings.targets[-1]
    for shown in cases:
        result = shown.case.result
        width, height = shown.size
        figures = "".join(
            f'<figure><img src="{address}" alt="{escape(caption)}" width="{width}" height="{height}"/>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, address in shown.pictures
        )
        reached = max(result.ious) >= target
        clicks = noc(result.ious, target, settings.max_clicks)
        verdict = f"{percent(target)} % after {clicks}" if reached else f"never at {percent(target)} %"
        spark = sparkline(result.ious, target) if settings.protocol is Protocol.CURVE and len(result.ious) > 1 else ""
        note = f'<p class="note">{escape(shown.note)}</p>' if shown.note else ""
        yield (
            f'<div class="case"><div class="line"><h3>{escape(shown.case.name)}</h3>{spark}'
            f'<span class="faint">{result.pixels:,} pixels, {verdict}</span></div>'
            f'<div class="pictures">{figures}</div>{note}<code>{escape(shown.command)}</code></div>'
        )


def _machine(lines: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><td>{escape(head)}</td><td class="text">{escape(text)}</td></tr>' for head, text in lines)
    return f'<h2>Machine</h2><table class="plain"><tbody>{rows}</tbody></table>'

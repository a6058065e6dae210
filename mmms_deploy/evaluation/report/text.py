"""The numbers of an evaluation as text, the same on the console and in the HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from mmms_deploy.evaluation.comparison import CONFIDENCE, POWER, Comparison, Difference
from mmms_deploy.evaluation.results import PredictorFacts
from mmms_deploy.evaluation.settings import Protocol, Settings
from mmms_deploy.evaluation.summary import DatasetSummary, TimeSummary

IOU_AFTER = (1, 3, 5, 10)
"""Numbers of clicks after which tables show the mean IoU."""
VISIBLE = "visible from"
"""Heading of the smallest visible difference."""


def percent(value: float) -> str:
    """A target as papers write it: 90 for 0.9, 97.5 for 0.975."""
    return f"{100 * value:.4g}"


def predictor_line(facts: PredictorFacts) -> str:
    """What was evaluated, in one line."""
    options = ", ".join(
        name if value in (None, "") else f"{name} {value}"
        for name, value in facts.options.items()
        if value is not None and name in ("zoom", "flip", "threshold", "choose", "without")
    )
    return "; ".join(part for part in (facts.name, facts.engine, options) if part)


def settings_line(settings: Settings) -> str:
    """The settings, in one line."""
    published = settings.protocol is Protocol.PUBLISHED
    answered = ", answered as for the published figures" if published else ""
    stop = "or no error is left" if settings.protocol is Protocol.CURVE else "or the highest target is reached"
    return f"Simulated clicks by RITM's protocol{answered}, until {settings.max_clicks} clicks {stop}"


def measure_rows(summary: DatasetSummary) -> list[tuple[str, str, str]]:
    """The measures of a data set: a name, a value and an explanation each."""
    rows = []
    for target in summary.targets:
        t = percent(target.target)
        rows.append((f"NoC@{t}", f"{target.noc:.2f}", f"clicks until IoU {t} %; a failure counts {summary.max_clicks}"))
        rows.append(
            (
                f"failures@{t}",
                f"{target.failed} ({100 * target.failure_rate:.1f} %)",
                f"objects that never reach it; {target.at_limit} when reaching it with the last click counts as one",
            )
        )
    if summary.curve is not None:
        for k in clicks_shown(summary.max_clicks):
            clicks = "1 click" if k == 1 else f"{k} clicks"
            rows.append((f"IoU@{k}", f"{100 * summary.curve.iou[k - 1]:.2f} %", f"mean after {clicks}"))
        for k in clicks_shown(summary.max_clicks):
            shown = f"{100 * summary.curve.boundary_iou[k - 1]:.2f} %"
            rows.append((f"boundary IoU@{k}", shown, "in a band of 2 % of the diagonal"))
        rows.append(("AuC", f"{summary.curve.auc:.4f}", "mean height of an object's IoU curve, 0 to 1"))
    return rows


def clicks_shown(max_clicks: int) -> tuple[int, ...]:
    """Numbers of clicks that tables show."""
    return tuple(k for k in IOU_AFTER if k <= max_clicks)


def surface_rows(summary: DatasetSummary) -> list[tuple[str, str, str]]:
    """The measures of several surfaces in one image: a name, a value and an explanation each."""
    rows = []
    for joint in summary.multi_surface:
        pair = f"({percent(joint.target)}, {percent(joint.average)})"
        share = f"{joint.failed} of {joint.surfaces} surfaces"
        rows.append((f"NoCMS@{pair}", f"{joint.nocms:.2f}", "clicks per surface, all surfaces in one joint mask"))
        never = f"{joint.untouched} ({100 * joint.untouched / joint.surfaces:.1f} %)"
        why = f"of {joint.surfaces} surfaces; the mean was reached without them, and each counts 0 clicks in NoCMS"
        rows.append((f"never clicked, {pair}", never, why))
        rows.append((f"FRMS@{pair}", f"{100 * joint.frms:.1f} %", f"{share} not segmented within the limit"))
        rows.append((f"mean IoU, {pair}", f"{100 * joint.mean_iou:.2f} %", "over surfaces, then images, in the end"))
    for task in summary.multi_instance:
        t = percent(task.target)
        rows.append((f"NCI@{t}", f"{task.nci:.2f}", "clicks on an image over its objects, mean over images"))
        rows.append((f"NFO@{t}", f"{task.nfo}", f"failed objects, of {task.objects}"))
        rows.append((f"NFI@{t}", f"{task.nfi}", f"images with a failed object, of {task.images}"))
    return rows


def difference_row(difference: Difference) -> tuple[str, ...]:
    """A comparison's line: target, both NoC, difference, interval, smallest visible difference, differing objects."""
    return (
        f"NoC@{percent(difference.target)}",
        f"{difference.noc:.3f}",
        f"{difference.other:.3f}",
        _signed(difference.difference),
        f"{_signed(difference.low)} to {_signed(difference.high)}",
        "" if difference.visible is None else f"{difference.visible:.3f}",
        f"{difference.better} fewer, {difference.worse} more",
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}" if value else "0"


def difference_heads(first: str = "this", other: str = "other") -> Sequence[str]:
    """Headings of :func:`difference_row`."""
    return ("", first, other, "difference", f"{100 * CONFIDENCE:.0f} % interval", VISIBLE, "objects")


def seen_line(comparison: Comparison) -> str:
    """Whether a difference of the mean NoC is seen, and which one would have been, in a sentence."""
    differences = comparison.differences
    seen = [one for one in differences if one.certain]
    if seen:
        where = " and ".join(f"NoC@{percent(one.target)}" for one in seen)
        return f"a difference is seen at {where}"
    if not any(one.better or one.worse for one in differences):
        return "no difference seen: both need the same number of clicks on every object"
    known = [one.visible for one in differences if one.visible is not None]
    if not known:
        return "no difference seen, and one image alone does not tell which one would have been"
    return f"no difference seen; one of {max(known):.2g} clicks or more would have been"


def visible_line() -> str:
    """What the smallest visible difference is, in a sentence."""
    level, power = f"{100 * (1 - CONFIDENCE):.0f} %", f"{100 * POWER:.0f} %"
    return f"{VISIBLE}: the least true difference that a test at the level of {level} finds with {power} probability"


def time_line(time: TimeSummary) -> str:
    """Times in one line."""
    return (
        f"{milliseconds(time.click)} a click (median {milliseconds(time.click_median)}),"
        f" {milliseconds(time.click_with_simulation)} with the simulated annotator,"
        f" {milliseconds(time.image)} an image; {time.clicks:,} clicks"
    )


def milliseconds(seconds: float) -> str:
    """A time in ms with two or three digits."""
    value = 1e3 * seconds
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"

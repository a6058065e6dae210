"""The results of ``benchmarks/families.py``: a row for each network, and their tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import msgspec
from variants import Row

from mmms_deploy.bench.report import summarise
from mmms_deploy.bench.text import number
from mmms_deploy.engines.machine import MachineFacts, machine_lines


@dataclass
class Replay:
    """The golden replay of a bundle on one engine, as ``mmms-verify`` judges it.

    Attributes:
        passed: Whether every mask kept the limit, and one of them tells something.
        iou: The smallest intersection over union with a reference mask.
        limit: The limit of that precision.
        telling: Whether some reference mask is neither empty nor full.
    """

    passed: bool
    iou: float
    limit: float
    telling: bool

    def __str__(self) -> str:
        if self.iou >= self.limit and not self.telling:
            return "not judged: all golden masks are empty or full"
        return f"{'passed' if self.passed else '**failed**'}: {self.iou:.3f} of at least {self.limit:g}"


@dataclass
class FamilyRow:
    """The measurements of one network.

    Attributes:
        key: The network.
        name: For people.
        whole: Whether eager PyTorch runs the whole network at every click.
        parameters: Of the network, in millions; None when they are unknown.
        image: 10^9 operations once an image; None when they were not counted.
        click: 10^9 operations a click.
        gain: How many times the operations of a click the whole network has.
        variants: PyTorch and the engines, with all times in ms.
        replays: Golden replays in reduced precision, by the variant's key.
        others: CPUs that other programs kept busy meanwhile; None where the system does not say.
        seconds: How long the measurement took.
        why: Why nothing was measured; empty when something was.
    """

    key: str
    name: str
    whole: bool = False
    parameters: float | None = None
    image: float | None = None
    click: float | None = None
    gain: float | None = None
    variants: list[Row] = field(default_factory=list)
    replays: dict[str, Replay] = field(default_factory=dict)
    others: float | None = None
    seconds: float | None = None
    why: str = ""

    @property
    def eager(self) -> Row | None:
        """PyTorch; None where it was not measured."""
        return next((row for row in self.variants if not row.ours and row.click), None)

    @property
    def best(self) -> Row | None:
        """The engine with the fastest click, in float32 or in a precision that passed the golden replay."""
        fit = [
            row
            for row in self.variants
            if row.ours and row.click and (row.precision == "fp32" or self._passed(row.key))
        ]
        return min(fit, key=lambda row: median(row.click), default=None)

    def _passed(self, key: str) -> bool:
        return key in self.replays and self.replays[key].passed

    @property
    def ratio(self) -> float | None:
        """The best engine's click through PyTorch's; None when one of them is unknown."""
        if self.best is None or self.eager is None:
            return None
        return median(self.best.click) / median(self.eager.click)


@dataclass
class Part:
    """What was measured on one machine, with one set of libraries and settings.

    Attributes:
        machine: The machine, as JSON has it.
        settings: ``threads`` of every variant, ``images`` and ``clicks`` on each.
        created: When the newest row was measured, in ISO 8601.
        rows: The networks.
    """

    machine: dict[str, Any]
    settings: dict[str, int]
    created: str
    rows: list[FamilyRow]


def row_of(raw: dict[str, Any]) -> FamilyRow:
    """Return the row that was written as JSON."""
    variants = [Row(**variant | {"rewrites": tuple(variant["rewrites"])}) for variant in raw["variants"]]
    replays = {key: Replay(**replay) for key, replay in raw["replays"].items()}
    return FamilyRow(**raw | {"variants": variants, "replays": replays})


def joined(rows: Sequence[FamilyRow], earlier: Sequence[FamilyRow], order: Sequence[str]) -> list[FamilyRow]:
    """Return the rows of an earlier run with new ones in their place.

    Args:
        rows: The new rows.
        earlier: The earlier ones.
        order: Keys of the networks, in the order of the table; others come last.
    """
    found = {row.key: row for row in (*earlier, *rows)}
    return sorted(found.values(), key=lambda row: order.index(row.key) if row.key in order else len(order))


def markdown(parts: Sequence[Part], size: tuple[int, int], clicks: Sequence[str]) -> str:
    """Return the page with the tables, in Markdown.

    Args:
        parts: What was measured on each machine; the first ones come first.
        size: (H, W) of the images.
        clicks: Lines about the clicks that SAM 2 tiny needs.
    """
    lines = [
        "# Families",
        "",
        "Every family at full size, 448 x 448 where nothing else is said, RGB, random weights (SAM 2: the published"
        " ones); PyTorch and the engines in turns in one run. A click is the whole `Session.click`, with the mask at"
        " the image's size; an image is the whole `Session.set_image`. Each machine has its own tables: compare the"
        " ratios between them, not the times.",
        "",
        "*eager*: the same network in PyTorch, float32. Where it says *whole*, each click runs all of it, as the"
        " published code of SimpleClick, MFP and iCMFormer does; elsewhere what depends on the image alone runs once an"
        " image, as in the bundle. *best engine*: the fastest click; BF16 counts where it passes the bundle's golden"
        " replay there, as `mmms-verify` judges it. *off by*: largest difference of a probability from eager PyTorch's"
        " after the last click; where there is no PyTorch, from ONNX Runtime's. *gain*: how many times a click's"
        " operations the whole network has. *host*: what a click costs beside its stage. *golden replay*: least IoU of"
        " a mask, of reduced precision only.",
        "",
    ]
    for place, part in enumerate(parts, start=1):
        lines += _part(part, size, f" {place}" if len(parts) > 1 else "")
    return "\n".join([*lines, *clicks]) + "\n"


def _part(part: Part, size: tuple[int, int], place: str) -> list[str]:
    """Return the section of one machine."""
    threads, images, clicks = (part.settings[name] for name in ("threads", "images", "clicks"))
    lines = [
        f"## Machine{place}",
        "",
        f"On {threads} threads; {images} images of {size[1]} x {size[0]}, {clicks} clicks on each.",
        "",
        "| network | weights, M | GFLOP an image | GFLOP a click | gain | best engine | image p50, ms | click p50, ms |"
        " eager image, ms | eager click, ms | click, best / eager | off by |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|",
        *(f"| {row.name} | {' | '.join(_cells(row))} |" for row in part.rows),
        "",
        f"### Every engine{place and f' of machine{place}'}",
        "",
        "| network | how | image p50, ms | click p50, ms | p95 | host, ms | off by | golden replay |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in part.rows:
        lines += [f"| {row.name} | {_engine_cells(row, variant)} |" for variant in row.variants]
    lines += ["", "| | |", "|---|---|"]
    machine = msgspec.convert(part.machine, MachineFacts)
    lines += [f"| {heading} | {text} |" for heading, text in machine_lines(machine)]
    busy = [row for row in part.rows if row.others is not None]
    if busy:
        most = max(busy, key=lambda row: row.others or 0.0)
        lines.append(f"| beside it | other programs kept at most {most.others:.2f} CPUs busy ({most.name}) |")
    return [*lines, ""]


def _shown(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _middle(samples: Sequence[float]) -> str:
    return number(median(samples), "ms") if samples else ""


def _first_line(text: str) -> str:
    return text.splitlines()[0].replace("|", "/")


def _cells(row: FamilyRow) -> list[str]:
    """Return the cells of a network in the first table."""
    counted = [_shown(row.parameters), _shown(row.image), _shown(row.click)]
    counted.append("" if row.gain is None else f"{row.gain:.2f}x")
    if row.why:
        return [*counted, f"not measured: {_first_line(row.why)}", *[""] * 6]
    best, eager = row.best, row.eager
    off = "" if best is None or best.difference is None else f"{best.difference:.0e}"
    return [
        *counted,
        "none" if best is None else best.label,
        "" if best is None else _middle(best.image),
        "" if best is None else _middle(best.click),
        "" if eager is None else "whole" if row.whole else _middle(eager.image),
        "" if eager is None else _middle(eager.click),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        off,
    ]


def _engine_cells(row: FamilyRow, variant: Row) -> str:
    """Return the cells of one way to run a network in the second table."""
    if variant.why:
        return f"{variant.label} | not measured: {_first_line(variant.why)} | | | | | "
    click = summarise(variant.click)
    replay = row.replays.get(variant.key)
    cells = [
        variant.label + (", **best**" if variant is row.best else ""),
        "" if row.whole and not variant.ours else _middle(variant.image),
        number(click.p50, "ms"),
        number(click.p95, "ms"),
        _shown(median(variant.host), 2) if variant.host else "",
        "" if variant.difference is None else f"{variant.difference:.0e}",
        "" if replay is None else str(replay),
    ]
    return " | ".join(cells)

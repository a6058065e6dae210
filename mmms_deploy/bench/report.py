"""The results of one run, as a file for machines: every raw sample, and a reason for every number that is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from mmms_deploy.bench.errors import ReportError
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.machine import MachineFacts
from mmms_deploy.errors import FileReadError
from mmms_deploy.files import MIB, read_bytes

SCHEMA = 1
KIND = "mmms-bench"
_MOST_BYTES = 64 * MIB

# --- statistics -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Robust statistics of repeated measurements, in their own unit.

    Attributes:
        count: How many there are, at least 1.
        mean: Their mean.
        p50: Their median.
        p95: 95 % of them are not above this.
        p99: 99 % of them are not above this; with fewer than 100 it lies near the largest.
        low: The smallest.
        high: The largest.
        spread: Median distance to the median, times 1.4826, so that it estimates a standard deviation without being
            moved by outliers.
    """

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    low: float
    high: float
    spread: float


def summarise(samples: Sequence[float]) -> Summary:
    """Return the statistics of measurements.

    Args:
        samples: At least one finite number, in any unit.

    Raises:
        ValueError: There is none, or one is not finite.
    """
    if not samples or not all(math.isfinite(value) for value in samples):
        raise ValueError(f"expected finite measurements, got {list(samples)[:5]}")
    ordered = sorted(samples)
    middle = percentile(ordered, 50)
    return Summary(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=middle,
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        low=ordered[0],
        high=ordered[-1],
        spread=1.4826 * percentile(sorted(abs(value - middle) for value in ordered), 50),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile, linear between neighbours (NumPy's default rule).

    Args:
        ordered: At least one number, ascending.
        percent: 0 to 100.
    """
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


# --- metrics ----------------------------------------------------------------------------------------------------------


class Better(StrEnum):
    """Which direction of a metric is an improvement."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


class Headline(StrEnum):
    """Which statistic of its samples a metric is shown and compared by."""

    P50 = "p50"
    MEAN = "mean"
    HIGH = "high"


class Metric(Struct, frozen=True, kw_only=True):
    """One measured quantity.

    Attributes:
        key: Unique name; the part before the first dot is its group.
        title: What it is, for people.
        unit: ``ms``, ``MiB``, ``B``, ``1/s``, ``GFLOP``, ``GFLOP/s``, ``M`` or ``ratio``.
        samples: Every measurement, in the order in which it was made; empty when there is none.
        headline: The statistic that it is shown and compared by.
        better: Which direction is an improvement.
        gated: Whether it is measured often enough for ``--compare`` to fail on it.
        why: Why there is no measurement; empty when there is one.
    """

    key: str
    title: str
    unit: str
    samples: tuple[float, ...] = ()
    headline: Headline = Headline.P50
    better: Better = Better.LOWER
    gated: bool = False
    why: str = ""

    def __post_init__(self) -> None:
        if bool(self.samples) == bool(self.why):
            raise ValueError(f"metric {self.key}: expected samples or a reason why there are none")

    @property
    def group(self) -> str:
        """The part of the key before the first dot."""
        return self.key.partition(".")[0]

    @property
    def summary(self) -> Summary | None:
        """Statistics of the samples; None when nothing was measured."""
        return summarise(self.samples) if self.samples else None

    @property
    def value(self) -> float | None:
        """The headline; None when nothing was measured."""
        summary = self.summary
        return None if summary is None else float(getattr(summary, self.headline.value))


# --- the report -------------------------------------------------------------------------------------------------------


class BundleFacts(Struct, frozen=True, kw_only=True):
    """The deployed network.

    Attributes:
        name: Name of the bundle.
        digest: Hash of its manifest; another export has another one.
        network: Hash of the network's description and of where its weights come from; the same for every export.
        size: Network size (H, W) in pixels.
        modalities: Names of the extra modalities.
        trained: False for random weights.
        rewrites: The exact rewrites that it was exported with.
        megabytes: Size of its files in 10^6 bytes.
        published: What papers call the network; empty where none has it.
    """

    name: str
    digest: str
    network: str
    size: tuple[int, int]
    modalities: tuple[str, ...]
    trained: bool
    rewrites: tuple[str, ...]
    megabytes: float
    published: str = ""


class EngineFacts(Struct, frozen=True, kw_only=True):
    """The engine's own description: :class:`~mmms_deploy.engines.protocol.EngineInfo` without the reason of its choice.

    The reason may name folders of this machine.
    """

    name: str
    device: str
    precision: str
    library: str
    version: str
    threads: int | None
    providers: tuple[str, ...]
    evidence: str

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.library} {self.version} on {self.device}, {self.precision}{threads}"


class WorkloadFacts(Struct, frozen=True, kw_only=True):
    """The images and clicks that were measured.

    Attributes:
        images: Number of images, without the first one.
        clicks: Clicks on each.
        image_size: (H0, W0) of the images in pixels.
        warm_up: Clicks before the measured ones.
    """

    images: int
    clicks: int
    image_size: tuple[int, int]
    warm_up: int


class Report(Struct, frozen=True, kw_only=True):
    """Everything one run of ``mmms-bench`` measured.

    Attributes:
        schema: Version of this format.
        kind: ``mmms-bench``.
        created: UTC time in ISO 8601.
        machine: The machine, without names of hosts, users or folders.
        bundle: The deployed network.
        engine: The engine that executed it.
        workload: The images and clicks.
        stages: Names of the stages in order.
        metrics: The numbers, in the order in which they are shown.
        notes: What a reader should know about this run.
    """

    schema: int
    kind: str
    created: str
    machine: MachineFacts
    bundle: BundleFacts
    engine: EngineFacts
    workload: WorkloadFacts
    stages: tuple[str, ...]
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()

    def metric(self, key: str) -> Metric | None:
        """Return the metric of that key, or None."""
        return next((metric for metric in self.metrics if metric.key == key), None)

    def value(self, key: str) -> float | None:
        """Return the headline of a metric; None when it is unknown or was not measured."""
        metric = self.metric(key)
        return None if metric is None else metric.value

    def group(self, name: str) -> Iterator[Metric]:
        """Yield the metrics of a group, in order."""
        return (metric for metric in self.metrics if metric.group == name)


class _Header(msgspec.Struct):
    schema: int
    kind: str


def encode(report: Report) -> bytes:
    """Return a report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def read_report(path: Path) -> Report:
    """Read a report that :func:`encode` returned.

    Args:
        path: The file.

    Raises:
        ReportError: It is missing, was written in another schema, or is something else.
    """
    fix = "name a file of results that mmms-bench wrote"
    expected = f"results of schema {SCHEMA}"
    try:
        raw = read_bytes(path, _MOST_BYTES)
    except FileReadError as error:
        raise ReportError(f"{path!s:.200} cannot be read: {error.reason}", expected=expected, fix=fix) from error
    try:
        header = msgspec.json.decode(raw, type=_Header)
        if (header.kind, header.schema) != (KIND, SCHEMA):
            raise ReportError(
                f"{path} holds {header.kind!r} of schema {header.schema}",
                expected=f"{KIND!r} of schema {SCHEMA}",
                fix="measure again with this version of mmms-deploy",
            )
        return msgspec.json.decode(raw, type=Report)
    # The last three: values that are no UTF-8, too large or nested too deeply.
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise ReportError(f"{path} holds no results: {error}", expected=expected, fix=fix) from error

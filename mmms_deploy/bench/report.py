"""The results of one run, as a file for machines: every raw sample, and a reason for every number that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from mmms_deploy.bench.errors import ReportError
from mmms_deploy.bench.summary import Summary, summarise
from mmms_deploy.bundle.contract import Struct

SCHEMA = 1
KIND = "mmms-bench"


class Better(StrEnum):
    """Which direction of a metric is an improvement."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


class Headline(StrEnum):
    """Which statistic of its samples speaks for a metric."""

    P50 = "p50"
    MEAN = "mean"
    HIGH = "high"


class Metric(Struct, frozen=True, kw_only=True):
    """One measured quantity.

    Attributes:
        key: Unique name; what stands before the first dot is its group.
        title: What it is, for people.
        unit: ``ms``, ``MiB``, ``B``, ``1/s``, ``GFLOP``, ``GFLOP/s``, ``M`` or ``ratio``.
        samples: Every measurement, in the order in which it was made; empty when there is none.
        headline: The statistic that speaks for it.
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
        """What stands before the first dot of the key."""
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


class GpuFacts(Struct, frozen=True, kw_only=True):
    """The GPU that was measured.

    Attributes:
        name: Its name.
        capability: Its compute capability, e.g. ``9.0``.
        memory_gib: Its memory in GiB.
        driver: Release of its driver; empty where the system does not say.
        cuda: The newest CUDA version that the driver runs.
    """

    name: str
    capability: str
    memory_gib: float
    driver: str
    cuda: str

    def __str__(self) -> str:
        driver = f"driver {self.driver or 'unknown'} for CUDA {self.cuda}"
        return f"{self.name}, compute capability {self.capability}, {self.memory_gib:.1f} GiB, {driver}"


class MachineFacts(Struct, frozen=True, kw_only=True):
    """The machine, without names of hosts, users or folders.

    Attributes:
        cpu: Model name of the processor.
        flags: Instruction sets of interest that it has.
        logical_cpus: Logical CPUs that this process may use.
        cores: Physical cores that it may use, within the container's quota.
        memory_gib: Main memory in GiB.
        system: Operating system.
        python: Version of Python.
        packages: Versions of the libraries of interest that are installed.
        blas: Name and version of NumPy's BLAS.
        others: CPUs that other programs kept busy during the run, on average; None where the system does not say.
        gpu: The GPU; left out when a CPU was measured.
    """

    cpu: str
    flags: tuple[str, ...]
    logical_cpus: int
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    blas: str
    others: float | None
    gpu: GpuFacts | msgspec.UnsetType = msgspec.UNSET


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
    """

    name: str
    digest: str
    network: str
    size: tuple[int, int]
    modalities: tuple[str, ...]
    trained: bool
    rewrites: tuple[str, ...]
    megabytes: float


class EngineFacts(Struct, frozen=True, kw_only=True):
    """What executed, as the engine itself says. See :class:`~mmms_deploy.engines.protocol.EngineInfo`.

    Why the engine was chosen is left out: it may name folders of this machine.
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
    """What was done.

    Attributes:
        images: Images measured, after the first one.
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
        machine: Where.
        bundle: Of what.
        engine: With what.
        workload: How.
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
    """Read what ``--json`` wrote.

    Args:
        path: The file.

    Raises:
        ReportError: It is missing, was written in another schema, or is something else.
    """
    fix = "name a file that mmms-bench --json wrote"
    expected = f"results of schema {SCHEMA}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror or error}", expected=expected, fix=fix) from error
    try:
        header = msgspec.json.decode(raw, type=_Header)
        if (header.kind, header.schema) != (KIND, SCHEMA):
            raise ReportError(
                f"{path} holds {header.kind!r} of schema {header.schema}",
                expected=f"{KIND!r} of schema {SCHEMA}",
                fix="measure again with this version of mmms-deploy",
            )
        return msgspec.json.decode(raw, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{path} holds no results: {error}", expected=expected, fix=fix) from error

"""Numbers as people read them, the same on the terminal and in the HTML page."""

from __future__ import annotations

from mmms_deploy.bench.papers import VRAM, VRAM_METRIC
from mmms_deploy.bench.report import BundleFacts, EngineFacts, MachineFacts, Metric, Report, WorkloadFacts

GROUPS = {
    "start": "Start",
    "image": "Once an image",
    "click": "Every click",
    "graph": "A click as one CUDA graph, in the same run, in turns",
    "moved": "Between host and GPU",
    "throughput": "Several sessions on one engine",
    "memory": "Most memory held (RAM) while",
    "vram": "Memory on the GPU",
    "work": "Work",
    "eager": "Beside eager PyTorch, in the same run, in turns",
    "sweep": "Threads",
}
"""Titles of the groups of metrics, in the order in which they are shown."""


def number(value: float, unit: str) -> str:
    """Return a value with three significant digits or more, and no more than its unit bears."""
    if unit == "ratio":
        return f"{value:.3f}"
    if unit == "B":
        return f"{value:,.0f}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 3
    return f"{value:,.{digits}f}"


def with_unit(value: float, unit: str) -> str:
    """Return a value with its unit."""
    shown = {"1/s": " clicks/s", "ratio": "", "M": " M"}.get(unit, f" {unit}")
    return f"{number(value, unit)}{shown}"


def missing(metric: Metric) -> str:
    """Return what stands where a number is missing."""
    return f"not measured: {metric.why}"


def machine_lines(machine: MachineFacts) -> list[tuple[str, str]]:
    """Return the machine as pairs of a heading and a text."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    pairs = [
        ("processor", machine.cpu),
        ("instructions", ", ".join(machine.flags) or "none of interest"),
        ("cores", f"{machine.cores} physical, {machine.logical_cpus} logical, as this process may use them"),
        ("memory", f"{machine.memory_gib:.1f} GiB"),
        ("system", machine.system),
        ("software", f"Python {machine.python}, {packages}; NumPy's BLAS is {machine.blas}"),
    ]
    if machine.gpu:
        pairs.insert(4, ("GPU", str(machine.gpu)))
    if machine.others is not None:
        pairs.append(("beside it", f"other programs kept {machine.others:.2f} CPUs busy during the run, on average"))
    return pairs


def memory_rows(report: Report) -> list[tuple[str, str, str]]:
    """Return the paper's memory beside ours: inputs, MiB there, MiB here. Empty for a run on a CPU."""
    if report.metric(VRAM_METRIC) is None:
        return []
    ours = report.value(VRAM_METRIC)
    rows = []
    for figure in VRAM:
        fits = figure.modalities == len(report.bundle.modalities) and ours is not None
        here = number(ours or 0.0, "MiB") if fits else "-"
        rows.append((figure.inputs, number(figure.mebibytes, "MiB"), here))
    return rows


def bundle_line(bundle: BundleFacts) -> str:
    """Return the network in one line."""
    height, width = bundle.size
    inputs = " + ".join(("RGB", *bundle.modalities))
    weights = "trained" if bundle.trained else "random weights"
    rewrites = f"{len(bundle.rewrites)} exact rewrites" if bundle.rewrites else "no rewrites"
    return f"{bundle.name}: {inputs}, {width} x {height}, {weights}, {rewrites}, {bundle.megabytes:,.0f} MB"


def engine_line(engine: EngineFacts) -> str:
    """Return what executed in one line."""
    return f"{engine} ({engine.evidence})" if engine.evidence else str(engine)


def workload_line(workload: WorkloadFacts) -> str:
    """Return what was done in one line."""
    height, width = workload.image_size
    return (
        f"{workload.images} images of {width} x {height}, {workload.clicks} clicks on each,"
        f" after {workload.warm_up} clicks of warm-up"
    )

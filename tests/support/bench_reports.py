"""Reports made by hand."""

from __future__ import annotations

from mmms_deploy.bench.report import (
    KIND,
    SCHEMA,
    Better,
    BundleFacts,
    EngineFacts,
    Headline,
    Metric,
    Report,
    WorkloadFacts,
)
from mmms_deploy.engines.machine import MachineFacts

MACHINE = MachineFacts(
    cpu="Test CPU <1>",
    flags=("avx2",),
    logical_cpus=4,
    cores=2,
    memory_gib=16.0,
    system="Linux 6.1, x86_64",
    python="3.12.0",
    packages={"numpy": "2.0", "onnxruntime": "1.20"},
    blas="openblas 0.3",
    others=0.25,
)


def metrics(**values: float) -> tuple[Metric, ...]:
    """The usual metrics; a keyword replaces the samples of one (underscores for dots)."""
    known = [
        Metric(key="start.load", title="loading", unit="ms", samples=(100.0,)),
        Metric(key="image.total", title="image & more", unit="ms", samples=(200.0, 210.0, 190.0), gated=True),
        Metric(key="click.total", title="click", unit="ms", samples=(10.0, 12.0, 11.0), gated=True),
        Metric(key="click.engine", title="  engine", unit="ms", samples=(8.0, 9.0, 8.5)),
        Metric(key="click.mean", title="mean", unit="ms", samples=(11.0,), headline=Headline.MEAN),
        Metric(key="throughput.2", title="2 sessions", unit="1/s", samples=(80.0,), better=Better.HIGHER, gated=True),
        Metric(key="memory.clicks", title="clicks", unit="MiB", samples=(500.0,), gated=True),
        Metric(key="work.parameters", title="parameters", unit="M", samples=(125.0,), better=Better.NEITHER),
        Metric(key="work.fraction.click", title="of the peak", unit="ratio", samples=(0.4,), better=Better.HIGHER),
        Metric(key="eager.click_ratio", title="to eager", unit="ratio", why="torch <is> not installed"),
        Metric(key="sweep.1", title="1 thread", unit="ms", samples=(20.0,)),
        Metric(key="sweep.2", title="2 threads", unit="ms", samples=(11.0,)),
    ]
    return tuple(
        Metric(
            key=m.key,
            title=m.title,
            unit=m.unit,
            samples=(values[m.key.replace(".", "_")],),
            headline=m.headline,
            better=m.better,
            gated=m.gated,
        )
        if m.key.replace(".", "_") in values
        else m
        for m in known
    )


def report(**fields) -> Report:
    settings = {
        "schema": SCHEMA,
        "kind": KIND,
        "created": "2026-01-02T03:04:05+00:00",
        "machine": MACHINE,
        "bundle": BundleFacts(
            name="net<work>",
            digest="d" * 64,
            network="n" * 64,
            size=(448, 448),
            modalities=("depth",),
            trained=False,
            rewrites=("fold_head",),
            megabytes=512.0,
        ),
        "engine": EngineFacts(
            name="onnxruntime",
            device="cpu",
            precision="fp32",
            library="ONNX Runtime",
            version="1.20",
            threads=2,
            providers=("CPUExecutionProvider",),
            evidence="67 of 67 matrix operations in fp32",
        ),
        "workload": WorkloadFacts(images=1, clicks=3, image_size=(1080, 1920), warm_up=5),
        "stages": ("image", "click"),
        "metrics": metrics(),
        "notes": ("a note & a half",),
    }
    return Report(**(settings | fields))

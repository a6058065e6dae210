"""Where a stage's time goes, by kind of operator, as the library itself measures it.

    python benchmarks/operators.py bundles/NAME --engine openvino --precision bf16
    python benchmarks/operators.py bundles/NAME --stage image --nodes 20

Measuring every operator costs time, so the sum is more than a stage takes otherwise. Read the shares.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mmms_deploy.bundle import Bundle, Precision, Rate, StageGraph
from mmms_deploy.engines.cores import available_cores
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.openvino.library import import_openvino

RUNS = 20
WARM_UP = 3
_HINTS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True)
class Node:
    """One operator of a compiled graph.

    Attributes:
        name: Its name in the compiled graph.
        kind: What it computes, and with which kernel where the library says.
        milliseconds: Median time of a run.
    """

    name: str
    kind: str
    milliseconds: float


def main() -> int:
    """Run the command; return its exit code."""
    options = _options().parse_args()
    bundle = Bundle(options.bundle, verify=False)
    stage = next((s for s in bundle.manifest.stages if options.stage in (s.name, None) and _wanted(s, options)), None)
    if stage is None:
        print(f"{options.bundle} has the stages {', '.join(s.name for s in bundle.manifest.stages)}", file=sys.stderr)
        return 1
    graph = stage.graphs[Precision.FP32]
    threads = options.threads or available_cores()
    profile = _openvino if options.engine == "openvino" else _onnxruntime
    nodes = profile(bundle.file(graph.file), graph, options.precision, threads)
    print(f"{bundle.manifest.name}, stage {stage.name}, {options.engine} {options.precision}, {threads} threads\n")
    print(table(nodes, options.nodes))
    return 0


def _wanted(stage: Any, options: argparse.Namespace) -> bool:
    return options.stage is not None or stage.rate is Rate.CLICK


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--stage", help="name of the stage (default: the click stage)")
    parser.add_argument("--engine", choices=["openvino", "onnxruntime"], default="openvino")
    parser.add_argument("--precision", choices=list(_HINTS), default="fp32", help="of OpenVINO")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--nodes", type=int, default=12, help="slowest operators to list (default 12)")
    return parser


def table(nodes: Sequence[Node], slowest: int) -> str:
    """Return the time by kind, and the slowest operators, as Markdown.

    Args:
        nodes: All operators.
        slowest: How many of them to list.
    """
    total = sum(node.milliseconds for node in nodes)
    kinds: dict[str, list[float]] = defaultdict(list)
    for node in nodes:
        kinds[node.kind].append(node.milliseconds)
    lines = ["| kind | operators | ms | share |", "|---|---:|---:|---:|"]
    for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        if sum(times) >= 0.001 * total:
            lines.append(f"| {kind} | {len(times)} | {sum(times):.2f} | {100 * sum(times) / total:.1f} % |")
    lines += [f"| all | {len(nodes)} | {total:.2f} | |", "", "| operator | kind | ms |", "|---|---|---:|"]
    for node in sorted(nodes, key=lambda node: -node.milliseconds)[:slowest]:
        lines.append(f"| {node.name} | {node.kind} | {node.milliseconds:.2f} |")
    return "\n".join(lines)


def _inputs(graph: StageGraph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {spec.name: rng.random(spec.shape, dtype=np.float32).astype(spec.dtype) for spec in graph.inputs}


def _openvino(file: Path, graph: StageGraph, precision: str, threads: int) -> list[Node]:
    openvino = import_openvino()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERF_COUNT": True,
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(str(file)), "CPU", config).create_infer_request()
    inputs = _inputs(graph)
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in range(WARM_UP + RUNS):
        request.infer(inputs)
        if run >= WARM_UP:
            for info in request.get_profiling_info():
                kind = f"{info.node_type}, {info.exec_type}"
                spent[info.node_name, kind].append(1e3 * info.real_time.total_seconds())
    return [Node(name, kind, median(times)) for (name, kind), times in spent.items() if any(times)]


def _onnxruntime(file: Path, graph: StageGraph, precision: str, threads: int) -> list[Node]:
    onnxruntime = import_onnxruntime()
    if precision != "fp32":
        raise SystemExit(f"ONNX Runtime does not compute in {precision} on a CPU")
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        inputs = _inputs(graph)
        for _ in range(WARM_UP + RUNS):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            spent[event["name"].removesuffix("_kernel_time"), kind].append(1e-3 * event["dur"])
    return [Node(name, kind, median(times[-RUNS:])) for (name, kind), times in spent.items()]


if __name__ == "__main__":
    sys.exit(main())

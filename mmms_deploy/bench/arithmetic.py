"""The arithmetic of a network: parameters, floating-point operations, and the share of this machine's matrix peak.

Operations are counted from the shapes in the ONNX graph, which needs the onnx package. A multiply-add counts 2.
Convolutions and matrix products are counted. What is linear in the number of elements (norms, activations, resizing,
softmax) is not, as in the field's other counters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.peak import SIZE, measure_peak
from mmms_deploy.bench.report import Better, Headline, Metric
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.protocol import Engine

# --- counting operations ----------------------------------------------------------------------------------------------

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

_UNCOUNTED = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "LSTM", "GRU", "RNN", "DeformConv"})
"""Operators that multiply matrices inside and are not counted; for a graph with one of them there is no sum."""
_SMALL = 1024
"""Bytes up to which a constant is kept, because other shapes may be computed from it."""


def count_flops(path: Path) -> float:
    """Return the floating-point operations of one run of a graph.

    Args:
        path: An ONNX file with static shapes. Weights in a file beside it are not read.

    Raises:
        NotMeasuredError: The onnx package is not installed, a shape is unknown, or an operator cannot be counted.
    """
    try:
        import onnx
    except ImportError as error:
        raise NotMeasuredError("the onnx package is not installed (pip install onnx)") from error
    model = onnx.load(str(path), load_external_data=False)
    return count_model(_without_weights(model))


def count_model(model: Any) -> float:
    """Return the floating-point operations of one run of an ``onnx.ModelProto`` with static shapes.

    Raises:
        NotMeasuredError: A shape is unknown, or an operator cannot be counted.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise NotMeasuredError(f"the shapes of the graph cannot be inferred: {error}") from error
    shapes = _shapes(inferred.graph)
    total = 0.0
    for node in inferred.graph.node:
        name = node.op_type
        if name in _UNCOUNTED or any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
            raise NotMeasuredError(f"the graph has the operator {name}, whose operations are not counted")
        rule = _RULES.get(name)
        if rule is not None:
            total += rule(node, partial(_known, shapes, node))
    return total


def _without_weights(model: Any) -> Any:
    """Replace large constants by inputs of the same shape, so that inferring shapes does not copy the weights."""
    from onnx import helper

    kept = []
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _SMALL:
            kept.append(tensor)
        else:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _shapes(graph: Any) -> Shapes:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in sizes):
            shapes[value.name] = tuple(size.dim_value for size in sizes)
    return shapes


def _known(shapes: Shapes, node: Any, tensor: str) -> Shape:
    if tensor not in shapes:
        raise NotMeasuredError(f"the shape of {tensor!r} at the operator {node.op_type} is unknown")
    return shapes[tensor]


Look = Callable[[str], Shape]


def _matmul(node: Any, look: Look) -> float:
    return 2.0 * math.prod(look(node.output[0])) * look(node.input[0])[-1]


def _gemm(node: Any, look: Look) -> float:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2.0 * math.prod(look(node.output[0])) * look(node.input[0])[0 if transposed else 1]


def _conv(node: Any, look: Look) -> float:
    weight = look(node.input[1])  # (out, in / groups, *kernel)
    return 2.0 * math.prod(look(node.output[0])) * math.prod(weight[1:])


def _conv_transpose(node: Any, look: Look) -> float:
    weight = look(node.input[1])  # (in, out / groups, *kernel)
    return 2.0 * math.prod(look(node.input[0])) * math.prod(weight[1:])


def _einsum(node: Any, look: Look) -> float:
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != 2:
        raise NotMeasuredError(f"the operations of Einsum {equation!r} are not counted")
    sizes = {
        letter: size
        for term, tensor in zip(terms, node.input, strict=True)
        for letter, size in zip(term, look(tensor), strict=True)
    }
    return 2.0 * math.prod(sizes.values())


_RULES: dict[str, Callable[[Any, Look], float]] = {
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "FusedConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
}


# --- metrics ----------------------------------------------------------------------------------------------------------


def size_metrics(bundle: Bundle, engine: Engine) -> list[Metric]:
    """Return parameters, and the floating-point operations of every stage.

    Args:
        bundle: The bundle.
        engine: The engine that executes it, open.
    """
    parameters = bundle.manifest.provenance.parameters
    said = parameters / 1e6 if parameters else NotMeasuredError("the bundle does not say")
    metrics = [_number("work.parameters", "parameters", "M", said)]
    for name, graph in engine.graphs.items():
        try:
            found: float | NotMeasuredError = count_flops(bundle.file(graph.file)) / 1e9
        except NotMeasuredError as error:
            found = error
        metrics.append(_number(f"work.gflop.{name}", f"stage {name}, once", "GFLOP", found))
    return metrics


def peak_metrics(engine: Engine, *, with_torch: bool, size: int = SIZE) -> list[Metric]:
    """Measure how fast this machine multiplies matrices on the engine's threads.

    Args:
        engine: The engine.
        with_torch: Whether PyTorch's products are tried too.
        size: Rows and columns of the matrices.
    """
    info = engine.info
    metrics = []
    for precision in dict.fromkeys((Precision.FP32, Precision.BF16, info.precision)):
        key = f"work.peak.{precision}"
        title = f"matrix peak of this machine, {precision}"
        try:
            if info.device != "cpu" or info.threads is None:
                raise NotMeasuredError(f"only CPUs are measured, and this engine computes on {info.device}")
            peak = measure_peak(precision, info.threads, size=size, with_torch=with_torch)
        except NotMeasuredError as error:
            metrics.append(_number(key, title, "GFLOP/s", error))
            continue
        metrics.append(
            Metric(
                key=key,
                title=f"{title} ({peak.library})",
                unit="GFLOP/s",
                samples=peak.rates,
                headline=Headline.HIGH,
                better=Better.NEITHER,
            )
        )
    return metrics


def fraction_metrics(engine: Engine, known: Sequence[Metric], stages: Mapping[str, str]) -> list[Metric]:
    """Return the rate of every stage, and its share of the machine's peak in the engine's precision.

    Args:
        engine: The engine.
        known: All metrics so far.
        stages: The key of the metric that has a stage's time, by the stage's name.
    """
    by_key = {metric.key: metric for metric in known}
    precision = engine.info.precision
    peak = by_key[f"work.peak.{precision}"]
    metrics = []
    for name, key in stages.items():
        rate = _rate(by_key[f"work.gflop.{name}"], by_key.get(key))
        share = _share(rate, peak)
        higher = Better.HIGHER
        metrics.append(_number(f"work.rate.{name}", f"stage {name} computes", "GFLOP/s", rate, higher))
        metrics.append(
            _number(f"work.fraction.{name}", f"stage {name} of the {precision} peak", "ratio", share, higher)
        )
    return metrics


def _rate(gflop: Metric, time: Metric | None) -> float | NotMeasuredError:
    if gflop.value is None:
        return NotMeasuredError(gflop.why)
    if time is None or time.value is None:
        return NotMeasuredError("the stage's time was not measured")
    return gflop.value / (1e-3 * time.value)


def _share(rate: float | NotMeasuredError, peak: Metric) -> float | NotMeasuredError:
    if isinstance(rate, NotMeasuredError):
        return rate
    return NotMeasuredError(peak.why) if peak.value is None else rate / peak.value


def _number(
    key: str, title: str, unit: str, value: float | NotMeasuredError, better: Better = Better.NEITHER
) -> Metric:
    """Return a metric of one number, or of the reason why there is none."""
    if isinstance(value, NotMeasuredError):
        return Metric(key=key, title=title, unit=unit, better=better, why=value.given)
    return Metric(key=key, title=title, unit=unit, better=better, samples=(value,))

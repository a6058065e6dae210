"""How fast this machine multiplies matrices, measured; a stage's own rate is compared with it.

Every installed library is tried on the same threads, and the fastest run of all counts. A slow library would make a
stage's share of the peak look better than it is.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bundle import Precision
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.openvino.library import import_openvino
from mmms_deploy.errors import EngineError

SIZE = 2048
"""Rows and columns of the square matrices: 17 GFLOP a product, 50 MB in float32."""
_ROUNDS = 3
_SECONDS = 1.0

Multiply = Callable[[], object]


@dataclass(frozen=True)
class Peak:
    """The fastest matrix product that was measured.

    Attributes:
        precision: Number format of the matrices.
        library: The library that computed it.
        rates: GFLOP/s of every run of that library.
        tried: The best GFLOP/s of each library, by its name.
    """

    precision: Precision
    library: str
    rates: tuple[float, ...]
    tried: dict[str, float]


def measure_peak(precision: Precision, threads: int, *, size: int = SIZE, with_torch: bool = False) -> Peak:
    """Measure the rate of square matrix products on the CPU.

    Args:
        precision: Number format of the matrices.
        threads: Threads that each library computes with.
        size: Rows and columns of the matrices.
        with_torch: Whether PyTorch is one of the libraries (importing it takes seconds and memory).

    Raises:
        NotMeasuredError: No installed library multiplies in this precision on so many threads.
    """
    reasons = []
    rates: dict[str, list[float]] = {}
    for library, open_library in _LIBRARIES:
        if library == "PyTorch" and not with_torch:
            continue
        try:
            with open_library(precision, threads, size) as multiply:
                rates[library] = _rates(multiply, size)
        except NotMeasuredError as error:
            reasons.append(f"{library}: {error.given}")
    if not rates:
        raise NotMeasuredError("; ".join(reasons))
    best = max(rates, key=lambda name: max(rates[name]))
    return Peak(precision, best, tuple(rates[best]), {name: max(values) for name, values in rates.items()})


def _rates(multiply: Multiply, size: int) -> list[float]:
    multiply()
    found = []
    for _ in range(_ROUNDS):
        end = perf_counter() + _SECONDS / _ROUNDS
        while True:
            start = perf_counter()
            multiply()
            now = perf_counter()
            found.append(2e-9 * size**3 / (now - start))
            if now > end:
                break
    return found


def _matrices(size: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((size, size), dtype=np.float32), rng.random((size, size), dtype=np.float32)


# --- NumPy ------------------------------------------------------------------------------------------------------------


@contextmanager
def _numpy(precision: Precision, threads: int, size: int) -> Iterator[Multiply]:
    if precision is not Precision.FP32:
        raise NotMeasuredError(f"its BLAS does not multiply in {precision}")
    a, b = _matrices(size)
    out = np.empty_like(a)
    with _blas_threads(threads):
        yield lambda: np.matmul(a, b, out=out)


@contextmanager
def _blas_threads(threads: int) -> Iterator[None]:
    """Set the number of threads of the OpenBLAS in NumPy's wheels, and restore it afterwards.

    NumPy has no call for it, but the library that it has loaded does.
    """
    pair = _openblas()
    if pair is None:
        if threads != _affinity():
            raise NotMeasuredError(f"the number of threads of its BLAS cannot be set to {threads}")
        yield
        return
    read, write = pair
    before = read()
    write(threads)
    try:
        if read() != threads:
            raise NotMeasuredError(f"its BLAS uses {read()} threads instead of {threads}")
        yield
    finally:
        write(before)


def _openblas() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".libs", root / ".dylibs"):
        for file in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(file))
            except OSError:
                continue
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                read = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
                write = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
                if read is not None and write is not None:
                    return read, write
    return None


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- OpenVINO ---------------------------------------------------------------------------------------------------------

_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}


@contextmanager
def _openvino(precision: Precision, threads: int, size: int) -> Iterator[Multiply]:
    try:
        openvino = import_openvino()
    except EngineError as error:
        raise NotMeasuredError(error.given) from error
    opset13 = openvino.opset13
    a, b = _matrices(size)
    left = opset13.parameter([size, size], np.float32)
    # The right matrix is a constant, as a layer's weights are, so that the library may choose its memory layout.
    model = openvino.Model([opset13.matmul(left, opset13.constant(b), False, False)], [left])
    hint = _HINTS[precision]
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    try:
        compiled = openvino.Core().compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise NotMeasuredError(f"it does not multiply in {precision} here") from error
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    used = compiled.get_property("INFERENCE_NUM_THREADS")
    if (taken, used) != (hint, threads):
        raise NotMeasuredError(f"it takes {taken} on {used} threads instead of {hint} on {threads}")
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(a))
    yield request.infer


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


@contextmanager
def _onnxruntime(precision: Precision, threads: int, size: int) -> Iterator[Multiply]:
    if precision is not Precision.FP32:
        raise NotMeasuredError(f"it does not multiply in {precision} on a CPU")
    try:
        onnxruntime = import_onnxruntime()
        from onnx import TensorProto, helper, numpy_helper
    except EngineError as error:
        raise NotMeasuredError(error.given) from error
    except ImportError as error:
        raise NotMeasuredError(f"{error.name} is not installed") from error
    a, b = _matrices(size)
    shape = [size, size]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    value = onnxruntime.OrtValue.ortvalue_from_numpy(a)
    yield lambda: session.run_with_ort_values(["c"], {"a": value})


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@contextmanager
def _torch(precision: Precision, threads: int, size: int) -> Iterator[Multiply]:
    try:
        import torch
    except ImportError as error:
        raise NotMeasuredError("not installed") from error
    types = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}
    if precision not in types:
        raise NotMeasuredError(f"it only imitates {precision} on a CPU")
    a, b = (torch.from_numpy(matrix).to(types[precision]) for matrix in _matrices(size))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield lambda: torch.mm(a, b)
    finally:
        torch.set_num_threads(before)


_LIBRARIES: Sequence[tuple[str, Callable[[Precision, int, int], Any]]] = (
    ("NumPy", _numpy),
    ("OpenVINO", _openvino),
    ("ONNX Runtime", _onnxruntime),
    ("PyTorch", _torch),
)

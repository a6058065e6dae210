"""Compiling a stage with OpenVINO, or loading it compiled from the cache, and checking the result either way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mmms_deploy.bundle import Bundle, Precision, StageGraph, TensorSpec
from mmms_deploy.engines.cpu import cpu_identity
from mmms_deploy.engines.openvino.amx import faulty_convolutions, one_column_convolutions, widen, without_stride
from mmms_deploy.engines.openvino.inspect import (
    compiled_nodes,
    exact_comparisons,
    matrix_precisions,
    names_after_import,
    narrow_nodes,
    not_exact,
)
from mmms_deploy.engines.openvino.library import bf16_capable, import_openvino
from mmms_deploy.errors import BundleCorruptError, EngineError, EngineUnavailableError, FileReadError
from mmms_deploy.files import open_regular
from mmms_deploy.files.cache import cache_folder, cache_key, store

CACHE_ABOVE_SECONDS = 0.3
"""A stage that is compiled faster than this is not cached."""
_FORGET_AFTER_DAYS = 60
_FORMAT = 5
_LOG = logging.getLogger(__name__)
_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "uint8": "u8"}
_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}
"""OpenVINO's names of what a graph computes in where it is not quantised."""


@dataclass(frozen=True)
class Compiled:
    """A stage, compiled and checked.

    Attributes:
        model: The ``openvino.CompiledModel``.
        matrix: How many of its matrix operations run in the requested precision, and how many it has.
        threads: Threads it computes with, as OpenVINO says.
        devices: Devices it runs on, as OpenVINO says.
        cached: Whether it came from the cache.
        memory: What the model may still read its weights from.
    """

    model: Any
    matrix: tuple[int, int]
    threads: int
    devices: tuple[str, ...]
    cached: bool = False
    memory: object = None


def compile_stage(
    core: Any, bundle: Bundle, stage: str, graph: StageGraph, precision: Precision, threads: int
) -> Compiled:
    """Compile a stage for low latency, or fetch it from the cache.

    Args:
        core: The ``openvino.Core``.
        bundle: The bundle.
        stage: Name of the stage.
        graph: Its graph.
        precision: What to compute in.
        threads: How many threads.

    Raises:
        BundleCorruptError: The graph cannot be loaded, or has other inputs and outputs than the manifest says.
        EngineUnavailableError: It is not computed in the requested precision, or clicks would not be exact.
    """
    settings = latency_settings(unquantised(bundle, precision), threads)
    file = _cache_file(core, bundle, graph, precision)
    if file is not None:
        compiled = _fetch(core, file, bundle, stage, graph, precision, settings)
        if compiled is not None:
            return compiled
    start = time.perf_counter()
    model, comparisons = _compile(core, bundle, stage, graph, precision, settings)
    compiled = _checked(model, bundle, stage, graph, precision, comparisons)
    if file is not None and time.perf_counter() - start >= CACHE_ABOVE_SECONDS:
        _keep(file, model, names_after_import(compiled_nodes(model), comparisons))
    return compiled


def unquantised(bundle: Bundle, precision: Precision) -> Precision:
    """Return what is computed in where a graph is not quantised.

    Args:
        bundle: The bundle; graphs in 8 bits say whether BF16 was seen to keep their masks.
        precision: The engine's precision.
    """
    if precision is not Precision.INT8:
        return precision
    made = bundle.manifest.provenance.quantisation
    allowed = made and made.others is Precision.BF16
    return Precision.BF16 if allowed and bf16_capable() else Precision.FP32


def latency_settings(precision: Precision, threads: int) -> dict[str, Any]:
    """Return OpenVINO's properties for one inference at a time, as fast as possible.

    Args:
        precision: What to compute in.
        threads: How many threads.
    """
    ov = import_openvino()
    properties, hint = ov.properties, ov.properties.hint
    return {
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
        # Always set: by default OpenVINO takes BF16 where the CPU has it.
        hint.inference_precision(): getattr(ov.Type, _HINTS[precision]),
        hint.execution_mode(): hint.ExecutionMode.PERFORMANCE,
        properties.inference_num_threads(): threads,
        properties.num_streams(): 1,
        # The stages of a bundle, and the bundles of a process, would pin their threads to the same cores.
        hint.enable_cpu_pinning(): False,
    }


def _compile(
    core: Any, bundle: Bundle, stage: str, graph: StageGraph, precision: Precision, settings: Mapping[str, Any]
) -> tuple[Any, dict[str, frozenset[str]]]:
    file = bundle.file(graph.file)
    try:
        model = core.read_model(str(file))
        compiled, comparisons = compile_model(core, model, unquantised(bundle, precision), settings)
    except EngineUnavailableError:
        raise
    # OpenVINO raises RuntimeError, and others from its bindings.
    except Exception as error:
        raise BundleCorruptError(
            f"stage {stage!r} of {bundle.path} cannot be loaded: {_brief(error)}",
            expected=f"an ONNX graph that OpenVINO {_version()} can run",
            fix='upgrade openvino, pass engine="onnxruntime", or export the checkpoint again',
            command_fix="upgrade openvino, pass --engine onnxruntime, or export the checkpoint again",
        ) from error
    return compiled, comparisons


def compile_model(
    core: Any, model: Any, precision: Precision, settings: Mapping[str, Any]
) -> tuple[Any, dict[str, frozenset[str]]]:
    """Compile a model so that clicks are exact and every convolution is right.

    Args:
        core: The ``openvino.Core``.
        model: The ``openvino.Model``; it is changed where OpenVINO would compute it wrongly.
        precision: What to compute in; of a quantised graph what is not quantised.
        settings: OpenVINO's properties, with the hint for that precision.

    Returns:
        The ``openvino.CompiledModel``, and the names of each comparison that must be exact, by the first of them.
    """
    for convolution in one_column_convolutions(model):
        without_stride(convolution)
    found = {} if precision is Precision.FP32 else exact_comparisons(model)
    comparisons = {name: comparison.names for name, comparison in found.items()}
    compiled = core.compile_model(model, "CPU", settings)
    if precision is Precision.FP32:
        return compiled, comparisons
    faulty = faulty_convolutions(model, compiled_nodes(compiled))
    for convolution in faulty:
        widen(convolution)
    if faulty:
        compiled = core.compile_model(model, "CPU", settings)
    nodes = compiled_nodes(compiled)
    lost = not_exact(nodes, comparisons)
    if lost:
        # Whatever leads to an output stays in float32.
        model.add_outputs([found[name].output for name in sorted(lost)])
        compiled = core.compile_model(model, "CPU", settings)
    return compiled, comparisons


def _checked(
    model: Any,
    bundle: Bundle,
    stage: str,
    graph: StageGraph,
    precision: Precision,
    comparisons: Mapping[str, frozenset[str]],
) -> Compiled:
    """Read back from a compiled model what it is, and refuse it when that was not requested."""
    _check_border(bundle, stage, graph.inputs, model.inputs, "inputs")
    _check_border(bundle, stage, graph.outputs, model.outputs[: len(graph.outputs)], "outputs")
    nodes = compiled_nodes(model)
    hint = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    wide = unquantised(bundle, precision)
    if hint != _HINTS[wide] or (wide is Precision.FP32 and narrow_nodes(nodes)):
        raise EngineUnavailableError(
            f"OpenVINO runs stage {stage!r} with the precision {hint}, {narrow_nodes(nodes)} nodes in 16 bits",
            expected=str(precision),
            fix="pass precision=None, or another engine",
            command_fix="leave --precision out, or pass another --engine",
        )
    lost = not_exact(nodes, comparisons)
    if lost:
        raise EngineUnavailableError(
            f"OpenVINO does not compute {', '.join(sorted(lost))} of stage {stage!r} in float32",
            expected="exact click coordinates and distances in every precision",
            fix='pass precision="fp32", or engine="onnxruntime"',
            command_fix="pass --precision fp32, or --engine onnxruntime",
        )
    return Compiled(
        model=model,
        matrix=matrix_precisions(nodes, precision),
        threads=int(model.get_property("INFERENCE_NUM_THREADS")),
        devices=tuple(model.get_property("EXECUTION_DEVICES")),
    )


def _check_border(bundle: Bundle, stage: str, specs: tuple[TensorSpec, ...], ports: Any, side: str) -> None:
    promised = [(spec.name, _TYPES.get(spec.dtype, spec.dtype), spec.shape) for spec in specs]
    found = []
    for i, port in enumerate(ports):
        known = set(port.get_names())
        # A tensor can have several names when the nodes between them do nothing.
        name = specs[i].name if i < len(specs) and specs[i].name in known else " = ".join(sorted(known))
        shape = port.get_partial_shape()
        sizes = tuple(shape.to_shape()) if shape.is_static else str(shape)
        found.append((name, port.get_element_type().get_type_name(), sizes))
    if promised != found:
        raise BundleCorruptError(
            f"stage {stage!r} of {bundle.path} has the {side} {found}",
            expected=f"what its manifest says: {promised}",
            fix="export the checkpoint again",
        )


# --- the cache --------------------------------------------------------------------------------------------------------
# A file holds the compiled graph, facts about it as JSON, the length of the JSON in eight bytes, and the SHA-256 of
# everything before. OpenVINO's own CACHE_DIR has no checksum, and a damaged file there can crash it.


def _cache_file(core: Any, bundle: Bundle, graph: StageGraph, precision: Precision) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    files = bundle.manifest.files
    hashes = [files[name].sha256 for name in bundle.files_of(graph) if name in files]
    if not hashes:
        return None
    key = cache_key(
        format=_FORMAT,
        hashes=hashes,
        precision=precision,
        unquantised=unquantised(bundle, precision),
        openvino=_version(),
        device=core.get_property("CPU", "FULL_DEVICE_NAME"),
        cpu=cpu_identity(),
    )
    return folder / "openvino" / f"{key}.blob"


def _fetch(
    core: Any,
    file: Path,
    bundle: Bundle,
    stage: str,
    graph: StageGraph,
    precision: Precision,
    settings: Mapping[str, Any],
) -> Compiled | None:
    """Return a stage from the cache, or None when it is not there or cannot be used."""
    try:
        with open_regular(file) as stream:
            # Private: openvino.Tensor needs writable memory, and no write may reach the file.
            memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        view = memoryview(memory)
        if len(view) < 40 or hashlib.sha256(view[:-32]).digest() != bytes(view[-32:]):
            raise ValueError("its checksum does not fit")
        length = int.from_bytes(view[-40:-32], "little")
        facts = json.loads(bytes(view[-40 - length : -40]))
        blob = import_openvino().Tensor(
            np.frombuffer(memory, dtype=np.uint8, count=len(view) - 40 - length), shared_memory=True
        )
        model = core.import_model(blob, "CPU", settings)
        comparisons = {str(name): frozenset(names) for name, names in facts["comparisons"].items()}
        compiled = _checked(model, bundle, stage, graph, precision, comparisons)
    except FileReadError as error:
        if not error.missing:
            _LOG.warning("%s cannot be used (%s) and is made again", file, error.reason)
        return None
    except (BundleCorruptError, EngineError) as error:
        # Compiling anew raises the same error, or removes it.
        _LOG.info("%s is not used: %s", file, error)
        return None
    except Exception as error:  # a damaged file makes OpenVINO raise anything
        _LOG.warning("%s cannot be used (%s) and is made again", file, error)
        return None
    with contextlib.suppress(OSError):
        file.touch()
    return Compiled(
        model=model,
        matrix=compiled.matrix,
        threads=compiled.threads,
        devices=compiled.devices,
        cached=True,
        memory=(memory, blob),
    )


def _keep(file: Path, model: Any, comparisons: Mapping[str, frozenset[str]]) -> None:
    """Write a compiled stage to the cache; a failure only costs time."""
    stream = BytesIO()
    try:
        model.export_model(stream)
    except Exception as error:  # of no consequence for the answer
        _LOG.warning("OpenVINO cannot export a compiled stage: %s", error)
        return
    facts = json.dumps({"comparisons": {name: sorted(names) for name, names in comparisons.items()}}).encode()
    digest = hashlib.sha256()
    parts: list[bytes | memoryview] = [stream.getbuffer(), facts, len(facts).to_bytes(8, "little")]
    for part in parts:
        digest.update(part)
    store(file, [*parts, digest.digest()])
    _forget_old(file.parent)


def _forget_old(folder: Path) -> None:
    """Remove what was not used for a long time, such as graphs of another version of OpenVINO."""
    oldest = time.time() - _FORGET_AFTER_DAYS * 86400
    with contextlib.suppress(OSError):
        for file in folder.glob("*.blob"):
            if file.stat().st_mtime < oldest:
                file.unlink()


def _brief(error: Exception, most: int = 400) -> str:
    """Return the beginning of an error's text; OpenVINO's can list every node of a graph."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]} ..."


def _version() -> str:
    return str(import_openvino().__version__)

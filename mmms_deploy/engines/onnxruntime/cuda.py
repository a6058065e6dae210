"""ONNX Runtime on CUDA: IO bindings to fixed addresses, and its own CUDA graphs, one for each stage of a session.

ONNX Runtime silently takes the CPU when a CUDA library is missing, even with its fallback disabled
(https://github.com/microsoft/onnxruntime/issues/23647). So this module checks the session's providers afterwards, and
the provider of every node. The CPU cannot be forbidden altogether: a function that ONNX Runtime expands
(GroupNormalization) leaves arithmetic of shapes there. But ONNX Runtime refuses a session that may capture CUDA graphs
when anything is copied to the CPU and back. So every stage enables CUDA graphs, whether or not its runs are captured.

With CUDA graphs, ``Run`` must not be called from several threads, and a CUDA graph belongs to the thread that captured
it (https://github.com/microsoft/onnxruntime/pull/9978). So all runs of an engine are made by one thread, on one stream.
A captured CUDA graph keeps its addresses as long as the ONNX Runtime session lives. So the resources of a closed
session are kept for the next one. ONNX Runtime captures in CUDA's global mode: during a capture (when a session is
opened), no other thread may allocate on the GPU. The image stage is captured too: in ONNX Runtime it has a thousand
kernels, more than the processor can enqueue in time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmms_deploy.bundle import Bundle, Precision, Rate, StageGraph
from mmms_deploy.engines.cuda.devices import require_gpu
from mmms_deploy.engines.cuda.engine import CudaEngine, unavailable
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda
from mmms_deploy.engines.onnxruntime.binding import CUDA, OnnxRuntimeProgram, Place
from mmms_deploy.engines.onnxruntime.cpu import PROVIDER as CPU_PROVIDER
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.onnxruntime.libraries import INSTALL, plain, preload, why_not_loaded
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.engines.wheels import require_onnxruntime_cuda
from mmms_deploy.errors import BundleCorruptError, EngineUnavailableError
from mmms_deploy.installed import pip_install

NAME = "onnxruntime-cuda"
SOURCES: Mapping[Precision, Precision] = {Precision.FP32: Precision.FP32, Precision.FP16: Precision.FP16}
"""What this engine computes in, and which of a bundle's graphs it loads for that."""
_SUMS_IN_HALF = (1, 26)
"""The last release that sums float16 numbers and their squares in float16, where an addition comes before a
LayerNormalization and both become one node (SkipLayerNormalization), unless that node is strict. Later releases always
sum in float32, and ignore the setting."""
_BROKEN = frozenset({"InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile"})
"""ONNX Runtime's exceptions for a broken graph."""
_FIX = f"{INSTALL}; mmms-doctor lists what is there"


class OnnxRuntimeOnStream(CudaEngine):
    """Executes the stages of a bundle with ONNX Runtime in one place, on one stream and in one thread.

    Args:
        ort: The module.
        place: Where it executes.
        cuda: The GPU.
        bundle: The bundle.
        precision: Which of its graphs to load.
        reason: Why this engine was chosen, for its ``info``.
        options: How to work on the GPU.
        missing: Libraries that are known to be missing, for messages.

    Raises:
        EngineUnavailableError: ONNX Runtime cannot execute a stage in that place alone.
        BundleCorruptError: A graph cannot be loaded, or its inputs and outputs differ from the manifest.
    """

    def __init__(
        self,
        ort: Any,
        place: Place,
        cuda: Cuda,
        bundle: Bundle,
        precision: Precision,
        reason: str,
        options: CudaOptions,
        missing: str = "",
    ) -> None:
        graphs = {stage.name: stage.graphs[SOURCES[precision]] for stage in bundle.manifest.stages}
        with unavailable():
            cuda.activate()
            stream = cuda.create_stream()
        # Not for speed: its one thread makes every run.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        try:
            loader = _Loader(ort, place, bundle, options, int(stream), self._worker, missing)
            programs = {name: loader.load(name, graph) for name, graph in graphs.items()}
            super().__init__(
                bundle=bundle,
                graphs=graphs,
                programs=programs,
                info=EngineInfo(
                    name=NAME,
                    device="cuda",
                    precision=precision,
                    library="ONNX Runtime",
                    version=str(ort.__version__),
                    threads=None,
                    providers=(place.provider,),
                    evidence=_evidence(precision, place, programs),
                    reason=reason,
                ),
                cuda=cuda,
                options=options,
                stream=stream,
                keep_resources=True,
                capture=False,
            )
        except BaseException:
            self._worker.shutdown()
            cuda.destroy_stream(stream)
            raise

    def _finish(self) -> None:
        super()._finish()
        if self._closed and not self._open:
            self._worker.shutdown(wait=False)


class OnnxRuntimeCuda(OnnxRuntimeOnStream):
    """Executes the stages of a bundle with ONNX Runtime's CUDA provider, every node of them.

    Args:
        bundle: The bundle.
        precision: Which of its graphs to load. In ``fp32``, TF32 is off.
        threads: Has no meaning on a GPU.
        reason: Why this engine was chosen, for its ``info``.
        options: How to work on the GPU; None for the defaults.

    Raises:
        EngineUnavailableError: There is no usable GPU, or ONNX Runtime is not installed, is a wheel without CUDA, or
            cannot execute a stage on CUDA alone.
        EngineConflictError: Two distributions of ONNX Runtime are installed together.
        BundleCorruptError: A graph cannot be loaded, or its inputs and outputs differ from the manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        threads: int | None = None,
        reason: str = "",
        *,
        options: CudaOptions | None = None,
    ) -> None:
        options = CudaOptions() if options is None else options
        require_gpu(options.ordinal)
        require_onnxruntime_cuda()
        ort = import_onnxruntime()
        missing = preload(ort)
        if CUDA.provider not in ort.get_available_providers():
            raise EngineUnavailableError(
                f"ONNX Runtime {ort.__version__} has no {CUDA.provider}",
                expected="the package onnxruntime-gpu",
                fix=f"pip uninstall -y onnxruntime onnxruntime-gpu, then {pip_install('cuda')}",
            )
        cuda = Cuda(import_cuda(), options.ordinal)
        super().__init__(ort, CUDA, cuda, bundle, precision, reason, options, missing)


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _evidence(precision: Precision, place: Place, programs: Mapping[str, OnnxRuntimeProgram]) -> str:
    placed: Counter[str] = Counter()
    for program in programs.values():
        placed.update(program.placed)
    rounding = ", without TF32" if precision is Precision.FP32 and place.cuda_graphs else ""
    done, total = placed[place.provider], placed.total()
    rest = f" (the other {total - done} compute shapes; nothing is copied)" if done < total else ""
    return f"graphs in {precision}{rounding}, {done} of {total} nodes on {place.provider}{rest}"


@dataclass(frozen=True)
class _Loader:
    """Loads graphs on one stream."""

    ort: Any
    place: Place
    bundle: Bundle
    options: CudaOptions
    stream: int
    worker: ThreadPoolExecutor
    missing: str

    def load(self, stage: str, graph: StageGraph) -> OnnxRuntimeProgram:
        """Load a stage; its runs are captured as CUDA graphs if the options say so."""
        file = self.bundle.file(graph.file)
        weights = sum(self.bundle.file(name).stat().st_size for name in self.bundle.files_of(graph))
        try:
            session = self._session(file, click=self._is_click(stage))
        # ONNX Runtime raises its own exception types, which derive from RuntimeError or straight from Exception.
        except Exception as error:
            raise self._refused(stage, error) from error
        placed = self._placed(stage, session)
        return OnnxRuntimeProgram(
            self.ort,
            session,
            stage=stage,
            place=self.place,
            run=self._run,
            stream=self.stream,
            capture=self.options.cuda_graph and self.place.cuda_graphs,
            weights=weights,
            placed=placed,
            ordinal=self.options.ordinal,
            strict=self.options.strict,
        )

    def _is_click(self, stage: str) -> bool:
        return any(
            one.name == stage and one.rate in (Rate.FIRST_CLICK, Rate.CLICK) for one in self.bundle.manifest.stages
        )

    def _session(self, file: Path, *, click: bool) -> Any:
        options = self.ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # nothing but shapes is computed on the CPU
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        settings: dict[str, str] = {}
        if self.place.cuda_graphs:
            settings = {
                "device_id": str(self.options.ordinal),
                "user_compute_stream": str(self.stream),
                # Makes ONNX Runtime check that every stage stays on the GPU; the run's options choose what to capture.
                "enable_cuda_graph": "1",
                "use_tf32": "0",
                # The memory that one image needs is enough for the next.
                "arena_extend_strategy": "kSameAsRequested",
            }
            if _release(self.ort.__version__) <= _SUMS_IN_HALF:
                settings["enable_skip_layer_norm_strict_mode"] = "1"
            # In NHWC the image stage has nodes for the CPU, and so no CUDA graph.
            if self.options.prefer_nhwc and click:
                settings["prefer_nhwc"] = "1"
        return self.ort.InferenceSession(
            file,
            sess_options=options,
            providers=[(self.place.provider, settings)],
            # With the fallback it prints the reason, tries the CPU, and raises an error of the CPU.
            enable_fallback=0,
        )

    def _refused(self, stage: str, error: Exception) -> EngineUnavailableError | BundleCorruptError:
        text = f"stage {stage!r} of {self.bundle.path} cannot be loaded on {self.place.provider}: {plain(error)}"
        if type(error).__name__ in _BROKEN:
            return BundleCorruptError(
                text,
                expected=f"an ONNX graph that ONNX Runtime {self.ort.__version__} can run",
                fix="upgrade onnxruntime-gpu, or export the checkpoint again",
            )
        return EngineUnavailableError(
            text + (f" ({self.missing})" if self.missing else ""),
            expected="CUDA and cuDNN as onnxruntime-gpu was built for, and kernels for every node",
            fix=_FIX,
        )

    def _placed(self, stage: str, session: Any) -> Counter[str]:
        """Return the number of nodes on each provider, after checking that the providers are the right ones."""
        providers = list(session.get_providers())
        placed: Counter[str] = Counter()
        for part in session.get_provider_graph_assignment_info():
            placed[part.ep_name] += len(part.get_nodes())
        if providers[:1] != [self.place.provider] or set(placed) - {self.place.provider, CPU_PROVIDER}:
            listed = ", ".join(f"{count} nodes on {name}" for name, count in placed.items()) or ", ".join(providers)
            missing = self.missing or (why_not_loaded(self.ort) if self.place.cuda_graphs else "")
            raise EngineUnavailableError(
                f"ONNX Runtime runs stage {stage!r} on something else: {listed}" + (f" ({missing})" if missing else ""),
                expected=f"every node on {self.place.provider}",
                fix=_FIX,
            )
        return placed

    def _run(self, call: Callable[[], object]) -> None:
        """Make a run in the one thread for runs."""
        future = self.worker.submit(call)
        try:
            future.result()
        except KeyboardInterrupt:
            # Operations that are enqueued next must not overtake the run.
            wait([future])
            raise

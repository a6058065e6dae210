"""ONNX Runtime with a CUDA provider that computes on the CPU, in stream order, on the fake CUDA runtime."""

from __future__ import annotations

import threading
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.standins.gpu import FAILS, GPU

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
OPTIONS = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "default_memory_arena_cfg",
        "device_id",
        "do_copy_in_default_stream",
        "enable_cuda_graph",
        "enable_skip_layer_norm_strict_mode",
        "fuse_conv_bias",
        "gpu_external_alloc",
        "gpu_external_empty_cache",
        "gpu_external_free",
        "gpu_mem_limit",
        "has_user_compute_stream",
        "prefer_nhwc",
        "sdpa_kernel",
        "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms",
        "tunable_op_tuning_enable",
        "use_ep_level_unified_stream",
        "use_tf32",
        "user_compute_stream",
    }
)
"""The options that the CUDA provider knows; it fails on any other."""
NO_FALLBACK, RECORD = "session.disable_cpu_ep_fallback", "session.record_ep_graph_assignment_info"
NO_GRAPH = "-1"


def give_cuda(ort: Any) -> None:
    """Make a module ``onnxruntime`` that of a wheel with CUDA."""
    real = ort.InferenceSession

    class InferenceSession:
        def __new__(cls, path: Any, sess_options: Any = None, providers: Any = None, **others: Any) -> Any:
            given = list(providers or [])
            first = given[0] if given else CUDA
            name, options = first if isinstance(first, tuple) else (first, {})
            if name != CUDA:
                return real(path, sess_options=sess_options, providers=providers, **others)
            return CudaSession(ort, real, path, sess_options, options)

    def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None) -> None:
        pass

    ort.InferenceSession = InferenceSession
    ort.preload_dlls = preload_dlls
    ort.get_available_providers = lambda: ["TensorrtExecutionProvider", CUDA, CPU]
    ort.get_device = lambda: "GPU"


class CudaSession:
    """An ``InferenceSession`` on the CUDA provider alone."""

    def __init__(self, ort: ModuleType, real: Any, path: Any, asked: Any, options: dict[str, str]) -> None:
        unknown = sorted(set(options) - OPTIONS)
        if unknown or not all(isinstance(value, str) for value in options.values()):
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : Unknown provider option: {unknown or options}.")
        self.stream = int(options.get("user_compute_stream", "0"))
        self.records = options.get("enable_cuda_graph", "0") == "1"
        self.lists = asked is not None and _entry(asked, RECORD) == "1"
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        settings.add_session_config_entry(RECORD, "1")
        self._real = real(path, sess_options=settings, providers=[CPU])
        self._graphs: dict[str, tuple[int, Any]] = {}

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def get_provider_graph_assignment_info(self) -> list[Any]:
        if not self.lists:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {RECORD} is not set")
        parts = self._real.get_provider_graph_assignment_info()
        return [SimpleNamespace(ep_name=CUDA, get_nodes=part.get_nodes) for part in parts]

    def io_binding(self) -> CudaBinding:
        return CudaBinding(self, self._real)

    def run_with_iobinding(self, binding: CudaBinding, options: Any = None) -> None:
        if binding.session is not self:
            raise ValueError("IOBinding must be used with the session that created it.")
        wait = options is None or _entry(options, "disable_synchronize_execution_providers") != "1"
        number = NO_GRAPH if options is None else _entry(options, "gpu_graph_id") or "0"
        if self.records and number != NO_GRAPH and "onnxruntime-graph" in FAILS:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 900: operation not permitted")
        if self.records and number != NO_GRAPH:
            # What was recorded keeps its addresses and belongs to the thread that recorded it, whatever is bound now.
            here = threading.get_ident()
            thread, binding = self._graphs.setdefault(number, (here, binding.frozen()))
            if thread != here:
                raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : a graph is replayed by another thread")
        GPU.submit(self.stream, binding.run)
        if wait:
            GPU.cudaStreamSynchronize(self.stream)


class CudaBinding:
    """An ``IOBinding`` whose addresses have to be the GPU's when it runs."""

    def __init__(self, session: CudaSession, real: Any) -> None:
        self.session = session
        self._real = real
        self._bound: dict[str, tuple[bool, Any, tuple[int, ...], int]] = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Any, buffer_ptr: int
    ) -> None:
        self._bind(True, name, device_type, device_id, element_type, shape, buffer_ptr)

    def bind_output(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Any, buffer_ptr: int
    ) -> None:
        self._bind(False, name, device_type, device_id, element_type, shape, buffer_ptr)

    def _bind(
        self, is_input: bool, name: str, device_type: str, device_id: int, element: Any, shape: Any, address: int
    ) -> None:
        if (device_type, device_id) != ("cuda", 0) or not GPU.on_device(address, 1):
            raise RuntimeError(f"{name}: {address} is not on {device_type} {device_id}")
        self._bound[name] = is_input, element, tuple(shape), address

    def frozen(self) -> CudaBinding:
        other = CudaBinding(self.session, self._real)
        other._bound = dict(self._bound)
        return other

    def run(self) -> None:
        binding = self._real.io_binding()
        for name, (is_input, element, shape, address) in self._bound.items():
            if not GPU.on_device(address, 1):
                raise MemoryError(f"{name} is gone")
            bind = binding.bind_input if is_input else binding.bind_output
            bind(name, "cpu", 0, element, shape, address)
        self._real.run_with_iobinding(binding)


def _entry(options: Any, key: str) -> str:
    get = getattr(options, "get_session_config_entry", None) or options.get_run_config_entry
    try:
        return str(get(key))
    except RuntimeError:  # it was not set
        return ""

"""A stand-in of ONNX Runtime with a CUDA provider, which computes on the CPU, in stream order, on the CUDA stand-in."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from tests.standins.cuda import FAILS, GPU, CudaStandIn

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


class OnnxRuntimeStandIn:
    """Stands in for the module ``onnxruntime`` of a wheel with CUDA.

    Args:
        ort: The real module, whose CPU provider computes.
        cuda: The GPU.
        refuse: Why no session on CUDA can be made; empty when it can.
        providers: What a session on CUDA says its providers are.

    Attributes:
        settings: Options of the CUDA provider, for every session.
        runs: Entries of all run options that were made.
        capture_error: Why a run cannot be captured as a CUDA graph; empty when it can.
        nodes: How many nodes a session on CUDA says lie where; None for all of its graph on CUDA.
    """

    __version__ = "1.31.1"

    def __init__(
        self, ort: Any, cuda: CudaStandIn = GPU, refuse: str = "", providers: tuple[str, ...] = (CUDA, CPU)
    ) -> None:
        self.cuda = cuda
        self.refuse = refuse
        self.providers = providers
        self.settings: list[dict[str, str]] = []
        self.runs: list[dict[str, str]] = []
        self.capture_error = ""
        self.nodes: dict[str, int] | None = None
        self.real = ort.InferenceSession
        self.SessionOptions = ort.SessionOptions
        if "onnxruntime-graph" in FAILS:
            self.capture_error = "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 900: operation not permitted"
        standin = self

        class InferenceSession:
            def __new__(cls, path: Any, sess_options: Any = None, providers: Any = None, **others: Any) -> Any:
                given = list(providers or [])
                first = given[0] if given else CUDA
                name, options = first if isinstance(first, tuple) else (first, {})
                if name != CUDA:
                    return standin.real(path, sess_options=sess_options, providers=providers, **others)
                assert len(given) == 1, "another provider would take what CUDA cannot"
                assert others.get("enable_fallback") == 0, "it would print, take the CPU, and hide the reason"
                return CudaSession(standin, path, sess_options, options)

        class RunOptions(ort.RunOptions):
            def __init__(self) -> None:
                super().__init__()
                self.entries: dict[str, str] = {}
                standin.runs.append(self.entries)

            def add_run_config_entry(self, key: str, value: str) -> None:
                super().add_run_config_entry(key, value)
                self.entries[key] = value

        self.InferenceSession = InferenceSession
        self.RunOptions = RunOptions

    def preload_dlls(
        self, cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None
    ) -> None:
        pass

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", CUDA, CPU]

    def get_device(self) -> str:
        return "GPU"


def give_cuda(ort: Any) -> None:
    """Make a module ``onnxruntime`` that of a wheel with CUDA, for a process of its own."""
    standin = OnnxRuntimeStandIn(ort)
    for name in ("InferenceSession", "preload_dlls", "get_available_providers", "get_device"):
        setattr(ort, name, getattr(standin, name))


class CudaSession:
    """An ``InferenceSession`` on the CUDA provider alone."""

    def __init__(self, standin: OnnxRuntimeStandIn, path: Any, given: Any, options: dict[str, str]) -> None:
        standin.settings.append(options)
        if standin.refuse:
            raise RuntimeError(standin.refuse)
        unknown = sorted(set(options) - OPTIONS)
        if unknown or not all(isinstance(value, str) for value in options.values()):
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : Unknown provider option: {unknown or options}.")
        self.standin = standin
        self.stream = int(options.get("user_compute_stream", "0"))
        self.captures = options.get("enable_cuda_graph", "0") == "1"
        self.lists = given is not None and _entry(given, RECORD) == "1"
        settings = standin.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        settings.add_session_config_entry(RECORD, "1")
        self._real = standin.real(path, sess_options=settings, providers=[CPU])
        self._cuda_graphs: dict[str, tuple[int, Any]] = {}

    def get_providers(self) -> list[str]:
        return list(self.standin.providers)

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def get_provider_graph_assignment_info(self) -> list[Any]:
        if not self.lists:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {RECORD} is not set")
        if self.standin.nodes is not None:
            counts = self.standin.nodes.items()
            return [SimpleNamespace(ep_name=name, get_nodes=lambda n=n: [None] * n) for name, n in counts]
        nodes = [node for part in self._real.get_provider_graph_assignment_info() for node in part.get_nodes()]
        # Of the operations that GroupNormalization is expanded to, the real provider leaves two to the CPU. Our graphs
        # compute no shapes, and the expansion takes four.
        groups = sum(node.op_type == "Shape" for node in nodes) // 4
        left = dict.fromkeys(("Concat", "Div"), groups)
        places: list[Any] = []
        for node in nodes:
            on_cpu = left.get(node.op_type, 0) > 0
            left[node.op_type] = left.get(node.op_type, 0) - on_cpu
            places.append(SimpleNamespace(ep_name=CPU if on_cpu else CUDA, get_nodes=lambda node=node: [node]))
        return places

    def io_binding(self) -> CudaBinding:
        return CudaBinding(self, self._real)

    def run_with_iobinding(self, binding: CudaBinding, options: Any = None) -> None:
        if binding.session is not self:
            raise ValueError("IOBinding must be used with the session that created it.")
        wait = options is None or _entry(options, "disable_synchronize_execution_providers") != "1"
        number = NO_GRAPH if options is None else _entry(options, "gpu_graph_id") or "0"
        if self.captures and number != NO_GRAPH:
            if self.standin.capture_error:
                raise RuntimeError(self.standin.capture_error)
            if number not in self._cuda_graphs:
                # https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/providers/cuda/cuda_graph.cc
                with self.standin.cuda.global_capture() as capture:
                    pass
                if capture.spoiled:
                    raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 901: capture invalidated")
            # A CUDA graph keeps the addresses of its capture, whatever is bound now, and belongs to its thread.
            here = threading.get_ident()
            thread, binding = self._cuda_graphs.setdefault(number, (here, binding.frozen()))
            if thread != here:
                raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : a CUDA graph is replayed by another thread")
        self.standin.cuda.submit(self.stream, binding.run)
        if wait:
            self.standin.cuda.cudaStreamSynchronize(self.stream)


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
        if (device_type, device_id) != ("cuda", 0) or not self._on_gpu(address):
            raise RuntimeError(f"{name}: {address} is not on {device_type} {device_id}")
        self._bound[name] = is_input, element, tuple(shape), address

    def _on_gpu(self, address: int) -> bool:
        return bool(self.session.standin.cuda.on_device(address, 1))

    def frozen(self) -> CudaBinding:
        other = CudaBinding(self.session, self._real)
        other._bound = dict(self._bound)
        return other

    def run(self) -> None:
        binding = self._real.io_binding()
        for name, (is_input, element, shape, address) in self._bound.items():
            if not self._on_gpu(address):
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

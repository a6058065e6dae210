"""Settings of the CUDA engines."""

from __future__ import annotations

from dataclasses import dataclass

from mmms_deploy.engines.checks import checked_flag, checked_whole


@dataclass(frozen=True)
class CudaOptions:
    """How a CUDA engine works.

    ``strict`` and ``ordinal`` are for an engine that is opened directly. When an ``EngineRequest`` opens it, the
    request decides whether its own ``strict`` and ``device`` or these two win.

    Attributes:
        cuda_graph: Whether a click is one CUDA graph. Without it, the operations of a click are enqueued one by one,
            which costs the processor some microseconds each.
        prepare_images: Whether the GPU resizes and normalises images and modalities. Without it, the processor does.
        strict: Whether to refuse a session whose click cannot be captured as a CUDA graph, instead of warning.
        resident_images: How many sessions may be open at once; None for as many as there is memory for.
        memory_limit: The most bytes that the engine and its sessions may hold on the GPU, weights included; None for
            no limit.
        history_block: Number of clicks. A session allocates the memory for the history of that many clicks when it is
            opened, and again whenever it is used up.
        ordinal: Number of the GPU among those that CUDA_VISIBLE_DEVICES leaves.
        prefer_nhwc: Whether ONNX Runtime computes the convolutions of a click with channels last, for which the GPU's
            tensor cores are made, and transposes before and after them. mmms-bench measures both. TensorRT chooses
            layouts itself and ignores it.
        allow_unproven: Whether to run a plan of TensorRT whose kernels show another type than the requested precision,
            with a warning that lists them, instead of refusing it. It is for a first look on a GPU whose kernels were
            never listed; ``strict`` does not undo it.

    Raises:
        EngineError: A setting has a wrong type or is out of range.
    """

    cuda_graph: bool = True
    prepare_images: bool = True
    strict: bool = False
    resident_images: int | None = None
    memory_limit: int | None = None
    history_block: int = 16
    ordinal: int = 0
    prefer_nhwc: bool = False
    allow_unproven: bool = False

    def __post_init__(self) -> None:
        for name in ("cuda_graph", "prepare_images", "strict", "prefer_nhwc", "allow_unproven"):
            flag = checked_flag(f"CudaOptions: {name}", getattr(self, name), fix=f"leave {name} out")
            object.__setattr__(self, name, flag)
        for name, least in (("resident_images", 1), ("memory_limit", 1), ("history_block", 1), ("ordinal", 0)):
            value = getattr(self, name)
            if value is not None or name in ("history_block", "ordinal"):
                number = checked_whole(f"CudaOptions: {name}", value, least=least, fix=f"leave {name} out")
                object.__setattr__(self, name, number)

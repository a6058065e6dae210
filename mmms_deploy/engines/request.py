"""What a caller requests: device, engine, precision, threads, and how strictly."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmms_deploy.engines.cuda.devices import split_device
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import EngineError


@dataclass(frozen=True)
class EngineRequest:
    """Which engine is requested; what is None or ``auto`` is left to what was measured on this machine.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.
        engine: Name of an engine; None takes the fastest that passed on this machine, or else the first.
        precision: ``fp32``, ``fp16`` or ``bf16``; None takes ``fp32``, or a faster one that passed on this machine.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use.
        strict: Whether to refuse another engine, precision or number of threads than requested instead of warning,
            and to take ``fp32`` when no precision was requested.
        cuda_options: How an engine works on a GPU; None takes the defaults. An engine on the CPU ignores them.

    Raises:
        EngineError: ``threads`` is not positive, or device and options name different GPUs.
    """

    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    strict: bool = False
    cuda_options: CudaOptions | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise EngineError(
                f"{self.threads} threads were requested",
                expected="1 or more",
                fix="pass threads=None",
                command_fix="leave --threads out",
            )
        named = 0 if self.cuda_options is None else self.cuda_options.ordinal
        if named and self.device not in ("auto", "cpu", "cuda", f"cuda:{named}"):
            raise EngineError(
                f"device {self.device!r} and CudaOptions(ordinal={named}) name different GPUs",
                expected="one GPU",
                fix="leave ordinal out of the options",
            )

    @property
    def ordinal(self) -> int:
        """Number of the GPU, among those that CUDA_VISIBLE_DEVICES leaves."""
        number = split_device(self.device)[1]
        return number or (0 if self.cuda_options is None else self.cuda_options.ordinal)

    def on_gpu(self) -> CudaOptions:
        """Return the options of an engine on a GPU: the requested ones, with this request's GPU and strictness."""
        options = self.cuda_options or CudaOptions()
        return replace(options, ordinal=self.ordinal, strict=options.strict or self.strict)

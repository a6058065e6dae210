"""What a caller wants executed with: device, engine, precision, threads, and how strictly."""

from __future__ import annotations

from dataclasses import dataclass

from mmms_deploy.engines.cuda.options import CudaOptions


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
        cuda_options: How an engine works on a GPU; None takes the defaults.
    """

    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    strict: bool = False
    cuda_options: CudaOptions | None = None

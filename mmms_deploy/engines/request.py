"""What a caller requests: device, engine, precision, threads, and how strictly."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.checks import checked_flag, checked_name, checked_whole, shown
from mmms_deploy.engines.cuda.devices import split_device
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import EngineError

MOST_THREADS = 64
"""More threads than this are refused, unless the machine has more logical CPUs."""


def most_threads() -> int:
    """Return the largest number of threads that can be requested."""
    return max(MOST_THREADS, os.cpu_count() or 1)


@dataclass(frozen=True)
class EngineRequest:
    """Which engine is requested; what is None or ``auto`` is left to what was measured on this machine.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.
        engine: Name of an engine; None takes the fastest that passed on this machine, or else the first.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; None takes ``fp32``, or a faster one that passed here.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use. From 1 to 64, or
            to the number of logical CPUs of the machine where that is larger.
        strict: Whether to refuse another engine, precision or number of threads than requested instead of warning,
            and to take ``fp32`` when no precision was requested.
        cuda_options: How an engine works on a GPU; None takes the defaults. An engine on the CPU ignores them.

    Raises:
        EngineError: Something has a wrong type, ``threads`` is out of range, or device and options name different GPUs.
    """

    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    strict: bool = False
    cuda_options: CudaOptions | None = None

    def __post_init__(self) -> None:
        checked_name(
            "device",
            self.device,
            expected="auto, cpu, cuda, cuda:1, ...",
            fix='pass device="auto"',
            command_fix="leave --device out",
        )
        if self.engine is not None:
            checked_name(
                "engine",
                self.engine,
                expected="the name of an engine",
                fix="pass engine=None",
                command_fix="leave --engine out",
            )
        if self.precision is not None:
            checked_name(
                "precision",
                self.precision,
                expected=", ".join(Precision),
                fix="pass precision=None",
                command_fix="leave --precision out",
            )
        if self.threads is not None:
            words = {"fix": "pass threads=None", "command_fix": "leave --threads out"}
            threads = checked_whole("number of threads", self.threads, least=1, most=most_threads(), **words)
            object.__setattr__(self, "threads", threads)
        strict = checked_flag(
            "strict", self.strict, fix="pass strict=True or strict=False", command_fix="pass --strict"
        )
        object.__setattr__(self, "strict", strict)
        if self.cuda_options is not None and not isinstance(self.cuda_options, CudaOptions):
            raise EngineError(
                f"cuda_options {shown(self.cuda_options)}",
                expected="an mmms_deploy.CudaOptions",
                fix="pass cuda_options=CudaOptions(...), or leave it out",
                command_fix="report it: no option of a command sets this",
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

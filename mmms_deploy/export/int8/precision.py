"""How much a quantised graph may differ from float32, and whether graphs can be quantised here. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mmms_deploy.errors import ExportError
from mmms_deploy.installed import pip_install

LEAST_IOU = 0.995
"""Mean IoU of masks with the checkpoint's own that quantised graphs must reach by default."""
LOWEST_IOU = 0.9
"""The lowest that can be requested."""
LEAST_SHARE = 0.4
"""Share of the layers that must be computed in 8 bits; with fewer, little is gained over float32 and BF16."""


@dataclass(frozen=True)
class Int8Options:
    """How graphs are quantised.

    Attributes:
        iou: Mean IoU of masks with the checkpoint's own that must be reached, from 0.9 to 1. Layers stay in float32
            until it is.
        calibration: A folder of pictures to calibrate on; None for photographs of scikit-image and scikit-learn.

    Raises:
        ExportError: ``iou`` is out of range.
    """

    iou: float = LEAST_IOU
    calibration: Path | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.iou, (int, float)) and not isinstance(self.iou, bool)
        if not number or not LOWEST_IOU <= self.iou <= 1:
            raise ExportError(
                f"a mean IoU of {self.iou!r} for quantised graphs",
                expected=f"a number from {LOWEST_IOU:g} to 1",
                fix=f"pass Int8Options(iou={LEAST_IOU:g})",
                command_fix=f"pass --int8-iou {LEAST_IOU:g}",
            )


def check_nncf() -> None:
    """Check in milliseconds that NNCF is there, before what takes longer is loaded.

    Raises:
        ExportError: It is not installed.
    """
    if find_spec("nncf") is None:
        raise missing_nncf("nncf")


def missing_nncf(name: object) -> ExportError:
    """Return the error for a package that NNCF is or needs and that cannot be imported."""
    return ExportError(
        f"graphs in 8 bits need a package that is not installed: {name}",
        expected="NNCF, which the extra [int8] brings",
        fix=pip_install("export,int8,cpu"),
    )

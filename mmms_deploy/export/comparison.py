"""What all gates share: the worst value of a comparison with its limit, and differences of arrays.

Limits on numbers that have a scale are relative to it, because float32 rounds in proportion to what it adds up. A
trained network's logits reach 20 or 40 where an untrained one's reach 2. A limit on their absolute difference would
refuse sound networks, or pass wrong ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmms_deploy.bundle import GateCheck
from mmms_deploy.errors import GateError

Array = npt.NDArray[Any]

ROW_LIMIT = 5e-4
"""Mean difference of the logits of all rows, divided by the largest logit, of a network whose queries look where their
own masks are above zero. Where that hangs on rounding, single cells are seen or not, and a row moves with them: by
4e-4 of it among 265 rows at full size. One row of these that is wrong is beyond the limit."""


@dataclass
class Worst:
    """The worst value of a comparison so far, and where it was seen.

    Attributes:
        name: What is compared.
        measure: What the value is.
        limit: The largest value that passes.
        fix: What to do when a value is beyond the limit, for a caller in Python.
        command_fix: The same for a user of ``mmms-export``; None where ``fix`` is right for both.
        value: The worst value.
        where: Where it was seen.
        samples: How many values were seen.
    """

    name: str
    measure: str
    limit: float
    fix: str = (
        "this export would not compute what the checkpoint computes, so nothing was written; please report the network"
        " and the versions of torch, onnxscript and onnxruntime"
    )
    command_fix: str | None = None
    value: float = 0.0
    where: str = "-"
    samples: int = 0

    def see(self, value: float, where: str) -> None:
        """Take note of one comparison.

        Raises:
            GateError: The value is beyond the limit, or NaN.
        """
        self.samples += 1
        if not value <= self.value:
            self.value, self.where = value, where
        if not value <= self.limit:
            raise GateError(
                f"{self.name}: {self.measure} is {value:.3g} at {where}",
                expected=f"at most {self.limit:g}",
                fix=self.fix,
                command_fix=self.command_fix,
            )

    def check(self) -> GateCheck:
        """Return the record for the manifest."""
        return GateCheck(
            name=self.name,
            measure=self.measure,
            worst=float(self.value),
            limit=self.limit,
            where=self.where,
            samples=self.samples,
        )


def difference(a: Array, b: Array, *, relative: bool = False) -> float:
    """Return the largest absolute difference of two arrays; NaN where one holds NaN.

    Args:
        a: An array.
        b: An array; the difference is infinite when its shape is another.
        relative: Whether to divide by the largest absolute value of ``b``.
    """
    if a.shape != b.shape:
        return float("inf")
    worst = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))
    scale = float(np.abs(b.astype(np.float64)).max(initial=0.0)) if relative else 1.0
    return worst / scale if scale > 0 else worst


def logit_scale(logits: Iterable[Tensor]) -> float:
    """Return the number that differences of these logits are divided by: the largest absolute one, and at least 1.

    A probability is divided by a quarter of it: the sigmoid's slope is at most 1/4, so an error e of a logit moves its
    probability by e / 4 at most. Logits that all stay below 1 would make the limits arbitrarily strict.
    """
    return max([1.0, *(float(x.abs().max()) for x in logits)])

"""Made-up features for stores, and pictures that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mmms_deploy import Features
from mmms_deploy.bundle import Precision
from tests.support.annotating import GREY

BUNDLE = "b" * 64


def picture(number: int) -> npt.NDArray[np.uint8]:
    """Return a picture that differs from those of other numbers, from 0 to 255."""
    return np.full_like(GREY, number)


def features(number: int, size: int = 1000, bundle: str = BUNDLE) -> Features:
    """Return the features of the image of a number: so many float32 numbers that follow from it."""
    made = np.random.default_rng(number).normal(size=(1, size)).astype(np.float32)
    empty = Features(size=(4, 5), parts={"rgb": f"{number:064x}"}, bundle=bundle, precision=Precision.FP32)
    return empty.with_arrays({"f1": made})


def renamed(given: Features, number: int) -> Features:
    """Return the same numbers as those of another image."""
    return replace(given, parts={"rgb": f"{number:064x}"})

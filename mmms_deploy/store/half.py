"""Features in half precision: which are rounded to float16, and the verdict on a bundle that allows it.

The gate replays the bundle's golden clicks twice on one engine, on its own features and on the rounded ones. The limits
are those of FP16 (docs/precision.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import GOLDEN_NAME, Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import AnswerError, FileReadError
from mmms_deploy.files import read_bytes
from mmms_deploy.replay.golden import load_golden
from mmms_deploy.replay.metrics import iou
from mmms_deploy.replay.verification import LIMITS, ClickCheck, replay
from mmms_deploy.session.features import FeatureKey, Features
from mmms_deploy.session.model import Model
from mmms_deploy.session.result import ClickResult

LAST_LIMIT = 0.99
"""Smallest mean intersection over union after the last clicks, as for FP16: errors add up through the previous mask."""
_MOST_BYTES = 1 << 16
_FORMAT, _VERSION = "mmms-deploy-half-verdict", 1


class Half(StrEnum):
    """Whether a store rounds features to float16."""

    AUTO = "auto"
    """Where the bundle's verdict allows it (:meth:`mmms_deploy.store.FeatureStore.half_verdict`)."""
    OFF = "off"
    """Never. What others rounded is taken as it is."""


class HalfVerdict(Struct, frozen=True, kw_only=True):
    """What the gate found on a bundle in one precision.

    Attributes:
        format: The name of this format.
        version: Its version.
        bundle: Digest of the bundle.
        precision: What its stages compute in.
        engine: The engine that replayed, in words.
        passed: Whether features may be rounded.
        worst: Smallest intersection over union of a mask on rounded features and the mask without rounding, on certain
            pixels, over all clicks; 0 where nothing could be compared.
        limit: The smallest that passes.
        last: The mean of these after the last click of every image.
        last_limit: The smallest that passes.
        clicks: How many clicks were compared.
        largest: Largest absolute value of a feature; float16 ends at 65504.
        nbytes: Bytes of an image's features as the stages compute them.
        rounded_nbytes: The same, rounded.
        reason: Why it did not pass; empty where it did.
    """

    format: Literal["mmms-deploy-half-verdict"] = "mmms-deploy-half-verdict"
    version: Literal[1] = 1
    bundle: str
    precision: Precision
    engine: str
    passed: bool
    worst: float
    limit: float
    last: float
    last_limit: float
    clicks: int
    largest: float
    nbytes: int
    rounded_nbytes: int
    reason: str = ""


@dataclass
class _Rounding:
    """A source of features that keeps none, and has sessions click on the rounded ones.

    Attributes:
        sizes: Bytes of every image's features, as they were and rounded.
        largest: Largest absolute value.
        refused: How many images could not be rounded.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    largest: float = 0.0
    refused: int = 0

    def find(self, key: FeatureKey, engine: Engine | None = None) -> Features | None:
        return None

    def encoding(self, key: FeatureKey, engine: Engine | None = None) -> AbstractContextManager[Features | None]:
        return nullcontext()

    def keep(self, features: Features) -> Features:
        peaks = [float(np.abs(array).max(initial=0.0)) for array in features.arrays.values()]
        self.largest = max(self.largest, *peaks)
        found = features.rounded()
        if found is None:
            self.refused += 1
            return features
        self.sizes.append((features.nbytes, found.nbytes))
        return found

    def hold(self, features: Features) -> None:
        """Do nothing: a replay goes back to no image."""

    def forget(self, key: FeatureKey) -> None:
        """Do nothing: nothing is kept."""


def judge(model: Model) -> HalfVerdict:
    """Replay a bundle's golden clicks on rounded features, and compare the masks with those on the others.

    Args:
        model: The bundle, open on the engine that replays.

    Raises:
        BundleError: The bundle has no golden clicks, or they do not fit it.
        EngineError: A stage failed.
    """
    bundle = model.bundle
    cases = load_golden(bundle.file(GOLDEN_NAME))
    masks: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
    found: dict[tuple[int, int], float] = {}
    telling = False

    def take(check: ClickCheck, result: ClickResult) -> None:
        nonlocal telling
        masks[check.case, check.click] = result.mask
        telling = telling or 0 < result.mask.mean() < 1

    def compare(check: ClickCheck, result: ClickResult) -> None:
        void = ~cases[check.case].certain[check.click]
        found[check.case, check.click] = iou(result.mask, masks[check.case, check.click], void=void)

    rounding = _Rounding()
    failure = ""
    replay(bundle, engine=model.opened, on_result=take)
    try:
        replay(bundle, engine=model.opened, on_result=compare, store=rounding)
    except AnswerError as error:
        failure = error.given
    limit = LIMITS[Precision.FP16]
    worst = 0.0 if failure else min(found.values())
    last = 0.0 if failure else float(np.mean([found[n, len(case.clicks) - 1] for n, case in enumerate(cases)]))
    if rounding.refused:
        failure = f"features of {rounding.refused} of {len(cases)} images are not finite or beyond float16"
    elif not failure and not telling:
        failure = "every golden mask is empty or full, and tells nothing"
    elif not failure and (worst < limit or last < LAST_LIMIT):
        failure = f"a mask has the IoU {worst:.4f}, and those after the last clicks {last:.4f} in the mean"
    return HalfVerdict(
        bundle=bundle.manifest.digest,
        precision=model.engine.precision,
        engine=str(model.engine),
        passed=not failure,
        worst=worst,
        limit=limit,
        last=last,
        last_limit=LAST_LIMIT,
        clicks=len(found),
        largest=rounding.largest if np.isfinite(rounding.largest) else 0.0,
        nbytes=max((before for before, _ in rounding.sizes), default=0),
        rounded_nbytes=max((after for _, after in rounding.sizes), default=0),
        reason=failure,
    )


def verdict_name(bundle: str, precision: Precision) -> str:
    """Return the name of a verdict's file.

    Args:
        bundle: Digest of the bundle.
        precision: What its stages compute in.
    """
    return f"{bundle}-{precision}.json"


def read_verdict(file: Path, bundle: str, precision: Precision) -> HalfVerdict | None:
    """Return a verdict that was kept; None where there is none, or where it is about something else.

    Args:
        file: Its file.
        bundle: Digest of the bundle.
        precision: What its stages compute in.
    """
    try:
        verdict = msgspec.json.decode(read_bytes(file, _MOST_BYTES), type=HalfVerdict)
    except (FileReadError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return verdict if (verdict.bundle, verdict.precision) == (bundle, precision) else None


def keep_verdict(verdict: HalfVerdict, write: Callable[[bytes], None]) -> None:
    """Hand the content of a verdict's file to what writes it."""
    write(msgspec.json.format(msgspec.json.encode(verdict)) + b"\n")

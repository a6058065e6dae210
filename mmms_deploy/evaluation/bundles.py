"""Bundles as predictors: sessions that share an engine, with flips and thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ClickContract
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_request
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.evaluation.predictor import Image
from mmms_deploy.imaging.resize import FloatArray, resize, resize_above
from mmms_deploy.session import Session

if TYPE_CHECKING:
    from mmms_deploy.engines.protocol import EngineInfo
    from mmms_deploy.progress import OnProgress

_LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1, so that their logits are finite; about float32's resolution."""


class BundlePredictor:
    """A session as a predictor.

    Args:
        session: The session; closed with this.
        flipped: A second session on the same engine, for the mirrored image; None for no flip. With it, the answer is
            the mean of both: of their logits at the network's resolution, mirrored back. Both see the mean as their
            previous mask, as in RITM's evaluation.
        threshold: A pixel belongs to the mask when its probability is greater; None takes the bundle's.
    """

    def __init__(self, session: Session, flipped: Session | None = None, threshold: float | None = None) -> None:
        self._session = session
        self._flipped = flipped
        self._rule: ClickContract = session.bundle.manifest.clicks
        self._threshold = checked_threshold(threshold)

    def set_image(self, image: Image, /, **modalities: Any) -> None:
        """Take an image."""
        self._session.set_image(image, **modalities)
        if self._flipped is not None:
            mirrored = {name: array[:, ::-1].copy() for name, array in modalities.items()}  # a masked one stays masked
            self._flipped.set_image(np.ascontiguousarray(image[:, ::-1]), **mirrored)

    def click(self, x: float, y: float, positive: bool, /) -> Mask:
        """Answer a click with a mask (H, W)."""
        answer = self._session.click(x, y, positive)
        if self._flipped is None and self._threshold is None:
            return answer.mask
        size = self._session.image_size
        threshold = self._rule.threshold if self._threshold is None else self._threshold
        if self._flipped is None:
            return resize_above(answer.network_probability, size, self._rule.mask_resize, threshold)
        mirrored = self._flipped.click(size[1] - 1 - x, y, positive).network_probability
        mean = mean_by_logits(answer.network_probability, mirrored[:, ::-1])
        probability = np.clip(resize(mean, size, self._rule.mask_resize), 0.0, 1.0)
        self.set_mask(probability)
        return probability > threshold

    def set_mask(self, mask: npt.NDArray[Any]) -> None:
        """Start the next click from a mask or a probability (H, W)."""
        self._session.set_mask(mask)
        if self._flipped is not None:
            self._flipped.set_mask(mask[:, ::-1])

    def reset(self) -> None:
        """Forget the clicks, keep the image."""
        self._session.reset()
        if self._flipped is not None:
            self._flipped.reset()

    def close(self) -> None:
        """Close the sessions."""
        self._session.close()
        if self._flipped is not None:
            self._flipped.close()


def mean_by_logits(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the probability whose logit is the mean of two probabilities' logits; (H, W) float32 each."""
    total = np.zeros(first.shape, np.float64)
    for probability in (first, second):
        safe = np.clip(probability.astype(np.float64), _LEAST, 1 - _LEAST)
        total += np.log(safe / (1 - safe))
    mean: FloatArray = (1 / (1 + np.exp(-total / 2))).astype(np.float32)
    return mean


def checked_threshold(value: float | None) -> float | None:
    """Return a threshold of probabilities, checked.

    Args:
        value: Above 0 and below 1; None for the bundle's.

    Raises:
        EvaluationSettingsError: It is something else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1):
        raise EvaluationSettingsError(
            f"threshold {value!r}",
            expected="a probability above 0 and below 1",
            fix="pass threshold=0.5, or None for the bundle's",
            command_fix="pass --threshold 0.5, or leave it out for the bundle's",
        )
    return value


class BundleSource:
    """Opens predictors of one bundle. They share one engine, so that their number does not change their answers.

    Args:
        bundle: The bundle.
        request: Which engine executes; None leaves the choice open, as a ``Session`` does.
        flip: Whether to add the mirrored image to every answer.
        threshold: Probability above which a pixel belongs to the mask; None takes the bundle's.
        on_progress: Receives every step of a build by TensorRT.

    Raises:
        EvaluationSettingsError: The threshold is no number between 0 and 1.
        EngineError: There is no usable engine.
    """

    def __init__(
        self,
        bundle: Bundle,
        request: EngineRequest | None = None,
        *,
        flip: bool = False,
        threshold: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.bundle = bundle
        self._flip, self._threshold = flip, checked_threshold(threshold)
        self._engine = open_request(bundle, request or EngineRequest(), on_progress)

    @property
    def info(self) -> EngineInfo:
        """What executes."""
        return self._engine.info

    def open(self) -> BundlePredictor:
        """Open one more predictor."""
        flipped = Session(self.bundle, engine=self._engine, history_limit=0, keep_image=False) if self._flip else None
        return BundlePredictor(
            Session(self.bundle, engine=self._engine, history_limit=0, keep_image=False), flipped, self._threshold
        )

    def close(self) -> None:
        """Close the engine, after all predictors."""
        self._engine.close()

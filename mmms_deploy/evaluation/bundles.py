"""Bundles as predictors: sessions that share an engine, with crops, mirror images, thresholds and choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle, Manifest, ZoomRule
from mmms_deploy.bundle.names import LABELS, LOGITS, PROB
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_request
from mmms_deploy.evaluation.answering import Answering, Choose, check_decision, checked_threshold
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.predictor import Image
from mmms_deploy.replay.metrics import iou
from mmms_deploy.session import Candidate, ClickResult, Session
from mmms_deploy.session.views import mean_by_logits

if TYPE_CHECKING:
    from mmms_deploy.engines.protocol import EngineInfo
    from mmms_deploy.progress import OnProgress

__all__ = [
    "BestPredictor",
    "BundlePredictor",
    "BundleSource",
    "JointBundlePredictor",
    "checked_threshold",
    "mean_by_logits",
]


class BundlePredictor:
    """A session as a predictor.

    Args:
        session: The session; closed with this.
        threshold: A pixel belongs to the mask when its probability is greater; None takes the bundle's.
    """

    def __init__(self, session: Session, threshold: float | None = None) -> None:
        self._session = session
        self._threshold = checked_threshold(threshold)

    def set_image(self, image: Image, /, **modalities: Any) -> None:
        """Take an image."""
        self._session.set_image(image, **modalities)

    def click(self, x: float, y: float, positive: bool, /) -> Mask:
        """Answer a click with a mask (H, W)."""
        return self._mask_of(self._session.click(x, y, positive))

    def _mask_of(self, answer: ClickResult) -> Mask:
        return answer.mask if self._threshold is None else answer.above(self._threshold)

    def set_mask(self, mask: npt.NDArray[Any]) -> None:
        """Start the next click from a mask or a probability (H, W), where the network sees its previous mask."""
        if _sees_masks(self._session.bundle.manifest):
            self._session.set_mask(mask)

    def reset(self) -> None:
        """Forget the clicks, keep the image."""
        self._session.reset()

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def _sees_masks(manifest: Manifest) -> bool:
    """Whether a network takes its previous mask, or the labels that stand for it."""
    return any(link.output in (PROB, LOGITS) or link.input == LABELS for link in manifest.state)


class BestPredictor(BundlePredictor):
    """A session as a predictor that takes the best of several answers, as an annotator does who sees all of them."""

    def take_best(self, truth: Mask, void: Mask | None) -> Mask:
        """Choose the answer of the largest IoU with an object; of equals the one that is taken, or else the first.

        Args:
            truth: (H, W) bool, the object.
            void: (H, W) bool, the pixels that do not count; None for none.

        Returns:
            The mask (H, W) of the answer.
        """
        result = self._session.result
        if not result.candidates:  # networks with proposals give them at the first click alone
            return self._mask_of(result)
        ious = [iou(self._candidate(one), truth, void) for one in result.candidates]
        taken = [one.taken for one in result.candidates].index(True)
        best = ious.index(max(ious))
        return self._mask_of(result if ious[taken] == ious[best] else self._session.choose(best))

    def _candidate(self, one: Candidate) -> Mask:
        height, width = self._session.image_size
        return one.mask if self._threshold is None else one.answer.above((height, width), self._threshold)


class JointBundlePredictor(BundlePredictor):
    """A session that answers for all objects at once, as a predictor.

    Args:
        session: The session; closed with this.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._begin: dict[str, Any] = {}

    @property
    def most_clicks(self) -> int:
        """How many clicks the bundle takes on an image."""
        listed = self._session.bundle.manifest.clicks.listed
        assert listed is not None
        return listed.sizes[-1]

    def set_image(self, image: Image, /, **modalities: Any) -> None:
        """Take an image."""
        super().set_image(image, **modalities)
        self._begin = self._session.to_dict()

    def click_on(self, number: int, x: float, y: float, /) -> npt.NDArray[np.int32]:
        """Answer a click on an object, from 1, or on the background, 0, with the label map (H, W) of all objects."""
        if number:
            self._session.select(str(number))
        self._session.click(x, y, number > 0)
        surfaces = self._session.surfaces
        numbers = np.zeros(max(surfaces.values()) + 1, np.int32)
        for name, label in surfaces.items():
            numbers[label] = int(name)
        return numbers[self._session.labels]

    def reset(self) -> None:
        """Forget the clicks on all objects, keep the image; nothing runs."""
        self._session.restore(self._begin)


class BundleSource:
    """Opens predictors of one bundle. They share one engine, so that their number does not change their answers.

    Args:
        bundle: The bundle.
        request: Which engine executes; None leaves the choice open, as a ``Session`` does.
        flip: Whether to add the mirrored image to every answer: the mean of both, of their logits at the network's
            resolution, mirrored back. Both see the mean as their previous mask, as in RITM's evaluation.
        threshold: Probability above which a pixel belongs to the mask; None takes the bundle's.
        zoom: The rule of the crop in which clicks are answered; None for the whole image.
        choose: Which of several answers to a click is taken.
        on_progress: Receives every step of a build by TensorRT.

    Raises:
        EvaluationSettingsError: The threshold is no number between 0 and 1, or the bundle answers for all objects at
            once, which knows none.
        SessionError: The bundle cannot be shown a part of an image, or its mirror image.
        EngineError: There is no usable engine.
    """

    def __init__(
        self,
        bundle: Bundle,
        request: EngineRequest | None = None,
        *,
        flip: bool = False,
        threshold: float | None = None,
        zoom: ZoomRule | None = None,
        choose: Choose = Choose.SCORE,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.bundle = bundle
        self._answering = Answering(zoom, flip, threshold, choose)
        check_decision(bundle.manifest, threshold)
        self._engine = open_request(bundle, request or EngineRequest(), on_progress)

    @property
    def info(self) -> EngineInfo:
        """What executes."""
        return self._engine.info

    def open(self) -> BundlePredictor:
        """Open one more predictor."""
        how = self._answering
        session = Session(
            self.bundle,
            engine=self._engine,
            history_limit=0,
            keep_image=False,
            zoom=how.crop or False,
            flip=how.flip,
        )
        if self.bundle.manifest.clicks.objects > 1:
            return JointBundlePredictor(session)
        predictor = BestPredictor if how.choose is Choose.BEST else BundlePredictor
        return predictor(session, how.threshold)

    def close(self) -> None:
        """Close the engine, after all predictors."""
        self._engine.close()

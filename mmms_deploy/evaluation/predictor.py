"""What is evaluated: anything that takes an image and answers clicks with masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmms_deploy.errors import MaskError
from mmms_deploy.evaluation.annotator import SimulatedClick
from mmms_deploy.evaluation.depth import Mask
from mmms_deploy.evaluation.errors import PredictorError
from mmms_deploy.replay.metrics import as_mask

Image = NDArray[np.uint8]


@runtime_checkable
class Predictor(Protocol):
    """What is evaluated. A :class:`~mmms_deploy.session.Session` is one.

    More methods are called if a predictor has them:

    - ``reset()`` forgets the clicks and keeps the image. Without it, the image is set again for every object.
    - ``resume(clicks, mask)`` goes back to an object. ``clicks`` were made on it so far
      (:class:`~mmms_deploy.evaluation.annotator.SimulatedClick`), ``mask`` (H, W) bool is what is left of its mask.
      Without it, the clicks are repeated, and ``set_mask(mask)`` replaces the answer with what is left.
    - ``take_best(truth, void)`` is called after every click, with the object (H, W) bool and the pixels that do not
      count, (H, W) bool or None. It returns the answer that is taken, such as the best of several.
    - ``click_on(number, x, y)`` clicks on one of several objects that it answers for at once, from 1, or on the
      background of all of them, 0; it returns the label map (H, W) of whole numbers, 0 for the background.
      ``most_clicks`` says how many clicks it takes on an image. Tasks about several objects use it instead.
    - ``close()`` frees what it holds.
    """

    def set_image(self, image: Image, /, **modalities: Any) -> object:
        """Take an image (H, W, 3) uint8 RGB and its modalities by name; forget all clicks."""
        ...

    def click(self, x: float, y: float, positive: bool, /) -> Any:
        """Answer a click: a mask (H, W), or an object that has it as ``mask``."""
        ...


def mask_of(answer: Any, shape: tuple[int, int]) -> Mask:
    """Return the mask of a predictor's answer.

    Args:
        answer: A mask (H, W) of bools or integers, or an object with such a ``mask``.
        shape: (H, W) of the image.

    Raises:
        MaskError: The mask has another shape, or is no mask.
    """
    return as_mask("the predictor's mask", getattr(answer, "mask", answer), shape)


@runtime_checkable
class JointPredictor(Predictor, Protocol):
    """A predictor that answers for all objects of an image at once."""

    @property
    def most_clicks(self) -> int:
        """How many clicks it takes on an image."""
        ...

    def click_on(self, number: int, x: float, y: float, /) -> Any:
        """Answer a click on an object, from 1, or on the background, 0, with the label map (H, W) of all objects."""
        ...


def labels_of(answer: Any, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return the label map of a predictor's answer for all objects, (H, W) int32.

    Args:
        answer: (H, W) whole numbers from 0.
        shape: (H, W) of the image.

    Raises:
        MaskError: It is something else.
    """
    labels = np.asarray(answer)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise MaskError(
            f"the predictor's label map has shape {labels.shape} and dtype {labels.dtype}",
            expected=f"whole numbers of shape {shape}: 0 for the background, and the number of each pixel's object",
            fix="return the label map at the image's size",
        )
    return labels.astype(np.int32)


class FunctionPredictor:
    """A plain function as a predictor.

    Args:
        function: Called with the image (H, W, 3) uint8, the clicks so far in order, and the previous mask (H, W) bool
            (all false before the first click); returns the mask (H, W). With modalities, they are keyword arguments.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._image: Image | None = None
        self._modalities: dict[str, Any] = {}
        self._clicks: list[SimulatedClick] = []
        self._mask: Mask | None = None

    def set_image(self, image: Image, /, **modalities: Any) -> None:
        """Take an image; forget the clicks."""
        self._image, self._modalities = image, modalities
        self.reset()

    def click(self, x: float, y: float, positive: bool, /) -> Mask:
        """Call the function with one more click."""
        if self._image is None:
            raise PredictorError("a click before an image", expected="an image", fix="call set_image first")
        shape = self._image.shape[:2]
        before = np.zeros(shape, np.bool_) if self._mask is None else self._mask
        self._clicks.append(SimulatedClick(x=int(x), y=int(y), positive=positive))
        answer = self._function(self._image, tuple(self._clicks), before, **self._modalities)
        self._mask = mask_of(answer, (shape[0], shape[1])).copy()
        return self._mask

    def reset(self) -> None:
        """Forget the clicks, keep the image."""
        self._clicks, self._mask = [], None

    def resume(self, clicks: Iterable[SimulatedClick], mask: Mask) -> None:
        """Go back to an object: its clicks so far, and what is left of its mask."""
        self._clicks, self._mask = list(clicks), mask.copy()


def start_over(predictor: Predictor, image: Image, modalities: dict[str, Any]) -> None:
    """Forget a predictor's clicks on its image."""
    reset = getattr(predictor, "reset", None)
    if reset is None:
        predictor.set_image(image, **modalities)
    else:
        reset()


def settled(predictor: Predictor, answer: Any, truth: Mask, void: Mask | None) -> Mask:
    """Return the mask that counts after a click, (H, W) bool.

    Args:
        predictor: The predictor.
        answer: What it returned.
        truth: (H, W) bool, the object.
        void: (H, W) bool, the pixels that do not count; None for none.

    Raises:
        MaskError: It has another shape, or is no mask.
    """
    take_best = getattr(predictor, "take_best", None)
    taken = answer if take_best is None else take_best(truth, void)
    return mask_of(taken, (truth.shape[0], truth.shape[1]))


def return_to(
    predictor: Predictor,
    image: Image,
    modalities: dict[str, Any],
    clicks: Sequence[SimulatedClick],
    mask: Mask,
    truth: Mask,
    void: Mask | None = None,
) -> None:
    """Bring a predictor back to an object that it left; :class:`Predictor` says how.

    Args:
        predictor: The predictor.
        image: (H, W, 3) uint8.
        modalities: By name.
        clicks: The clicks on the object so far.
        mask: (H, W) bool, what is left of its mask.
        truth: (H, W) bool, the object.
        void: (H, W) bool, the pixels that do not count; None for none.
    """
    resume = getattr(predictor, "resume", None)
    if resume is not None:
        resume(clicks, mask)
        return
    start_over(predictor, image, modalities)
    for click in clicks:
        settled(predictor, predictor.click(click.x, click.y, click.positive), truth, void)
    set_mask = getattr(predictor, "set_mask", None)
    if set_mask is not None:
        set_mask(mask)


def close(predictor: object) -> None:
    """Close a predictor if it has ``close()``."""
    closing = getattr(predictor, "close", None)
    if closing is not None:
        closing()

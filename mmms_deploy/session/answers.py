"""A network's answers in the form that its bundle says: probabilities or logits, and several of which one is taken.

Logits are resized as logits and compared with the threshold's own, as networks that answer with logits are used; a
probability is resized as it is. The two give different masks, by parts of a pixel along an outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from mmms_deploy.bundle.contract import AnswerForm, ClickContract
from mmms_deploy.imaging.cleaning import Cleaner
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize, resize_above

GIVEN_LOGITS = 10.0
"""Largest logit of a mask that the caller puts in. SAM 2 shows its memory a mask from outside as -10 and 10
(``SAM2Base._use_mask_as_output``)."""


def log_odds(probability: float) -> float:
    """Return the logit of a probability above 0 and below 1."""
    return math.log(probability) - math.log1p(-probability)


def limit_of(rule: ClickContract, threshold: float | None = None) -> float:
    """Return what an answer's numbers are compared with: a probability or its logit, as the contract's form is.

    Args:
        rule: The contract.
        threshold: A probability above 0 and below 1; None takes the contract's.
    """
    limit = rule.threshold if threshold is None else threshold
    return log_odds(limit) if rule.answer_form is AnswerForm.LOGITS else limit


def as_probability(rule: ClickContract) -> ClickContract:
    """Return a contract for numbers that are probabilities, whatever the network answers with."""
    return rule if rule.answer_form is AnswerForm.PROBABILITY else msgspec.structs.replace(rule, answers=None)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return the probabilities of logits of any shape, float32; the largest and the smallest logits overflow nothing.

    Args:
        logits: Finite numbers.
    """
    shrunk = np.exp(-np.abs(logits))
    probability: FloatArray = np.where(logits >= 0, 1 / (1 + shrunk), shrunk / (1 + shrunk)).astype(np.float32)
    return probability


def given_logits(probability: FloatArray) -> FloatArray:
    """Return the logits of a probability that the caller puts in, of any shape, float32; from -10 to 10.

    Args:
        probability: Numbers from 0 to 1; a resize may have rounded one beyond.
    """
    exact = np.clip(probability.astype(np.float64), 0, 1)
    with np.errstate(divide="ignore"):
        odds = np.log(exact) - np.log1p(-exact)
    logits: FloatArray = np.clip(odds, -GIVEN_LOGITS, GIVEN_LOGITS).astype(np.float32)
    return logits


@dataclass(frozen=True, eq=False)
class NetworkAnswer:
    """An answer at its own resolution.

    Attributes:
        numbers: (h, w) float32, read-only, in the form that the contract says.
        rule: The form, how it is resized, and the threshold.
    """

    numbers: FloatArray
    rule: ClickContract

    @cached_property
    def probability(self) -> FloatArray:
        """(h, w) float32, read-only, in [0, 1]."""
        if self.rule.answer_form is AnswerForm.PROBABILITY:
            return self.numbers
        return _read_only(sigmoid(self.numbers))

    @cached_property
    def logits(self) -> FloatArray | None:
        """(h, w) float32, read-only; None where the network answers with a probability."""
        return None if self.rule.answer_form is AnswerForm.PROBABILITY else self.numbers

    def resized(self, size: tuple[int, int]) -> FloatArray:
        """Return the numbers at another size, in the form that the contract says: (H0, W0) float32, a new array."""
        return resize(self.numbers, size, self.rule.mask_resize)

    def at(self, size: tuple[int, int]) -> FloatArray:
        """Return the probability at another size, (H0, W0) float32, read-only."""
        resized = self.resized(size)
        return _read_only(resized if self.rule.answer_form is AnswerForm.PROBABILITY else sigmoid(resized))

    def above(self, size: tuple[int, int], threshold: float | None = None) -> BoolArray:
        """Return where the probability at another size is above a threshold, (H0, W0) bool.

        Args:
            size: (H0, W0).
            threshold: A probability above 0 and below 1; None takes the bundle's.
        """
        return resize_above(self.numbers, size, self.rule.mask_resize, limit_of(self.rule, threshold))


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of a network's answers to the same clicks.

    Attributes:
        score: The network's own score of it; of SAM's networks the intersection over union that they expect.
        taken: Whether it is the one that the result's mask is.
        answer: It at the network's own resolution.
    """

    score: float
    taken: bool
    answer: NetworkAnswer
    _size: tuple[int, int]
    _cleaner: Cleaner | None = None

    @cached_property
    def mask(self) -> BoolArray:
        """(H0, W0) bool, read-only, at the image's own resolution; computed on first use.

        It is cleaned where the session cleans masks.
        """
        mask = self.answer.above(self._size)
        if self._cleaner is not None:
            mask = self._cleaner(mask)
        mask.setflags(write=False)
        return mask

    @cached_property
    def probability(self) -> FloatArray:
        """(H0, W0) float32, read-only, in [0, 1]: the probability of every pixel; computed on first use."""
        return self.answer.at(self._size)

    @cached_property
    def area(self) -> int:
        """How many pixels the object has."""
        return int(np.count_nonzero(self.mask))

    def __repr__(self) -> str:
        return f"Candidate(score {self.score:.3f}{', taken' if self.taken else ''})"


@dataclass(frozen=True, eq=False)
class Candidates:
    """All answers of a network to the same clicks, on the host.

    Attributes:
        numbers: (K, h, w) float32, read-only, in the form that the contract says, in the network's order.
        scores: One for each.
        taken: Which one is the answer, from 0: the one that the network's graph took, or the user chose.
    """

    numbers: FloatArray
    scores: tuple[float, ...]
    taken: int

    @property
    def answer(self) -> FloatArray:
        """(h, w) float32, read-only: the one that is taken."""
        numbers: FloatArray = self.numbers[self.taken]
        return numbers

    def listed(
        self, rule: ClickContract, size: tuple[int, int], cleaner: Cleaner | None = None
    ) -> tuple[Candidate, ...]:
        """Return them in the network's order.

        Args:
            rule: The bundle's click contract.
            size: (H0, W0) of the image.
            cleaner: What cleans their masks; None for masks as they are.
        """
        return tuple(
            Candidate(score, place == self.taken, NetworkAnswer(numbers, rule), size, cleaner)
            for place, (numbers, score) in enumerate(zip(self.numbers, self.scores, strict=True))
        )


def _read_only(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array

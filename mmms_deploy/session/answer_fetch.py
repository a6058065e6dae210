"""An answer of the network, fetched to the host and checked."""

from __future__ import annotations

import numpy as np

from mmms_deploy.bundle import AnswerForm, Manifest
from mmms_deploy.engines.protocol import Engine, Runner, Value
from mmms_deploy.errors import AnswerError
from mmms_deploy.imaging.resize import FloatArray

_FINITE = float(np.finfo(np.float32).max)


class AnswerFetch:
    """Fetches answers. It knows no session, so that what holds it does not keep one in memory.

    Args:
        manifest: The bundle's manifest.
        engine: The engine, for messages.
        runner: What computed the answers.
    """

    def __init__(self, manifest: Manifest, engine: Engine, runner: Runner) -> None:
        self._manifest, self._engine, self._runner = manifest, engine, runner

    def __call__(self, answer: Value) -> FloatArray:
        """Return an answer on the host, (h, w) float32, in the form that the click contract says.

        Raises:
            AnswerError: It has values that are no probabilities, or logits that are not finite.
        """
        return self.checked(self._runner.download_float32(answer)[0, 0])

    def checked(self, numbers: FloatArray) -> FloatArray:
        """Return an answer that is on the host already, (h, w) float32, checked.

        Raises:
            AnswerError: As above.
        """
        logits = self._manifest.clicks.answer_form is AnswerForm.LOGITS
        # NaN is in the way of both comparisons.
        least, most = (-_FINITE, _FINITE) if logits else (0.0, 1.0)
        if not (numbers.min() >= least and numbers.max() <= most):
            raise AnswerError(
                f"{self._manifest.name} answers with values that are no {'logits' if logits else 'probabilities'} on"
                f" {self._engine.info}",
                expected=f"{'finite numbers' if logits else 'numbers from 0 to 1'} for every pixel",
                fix="pass precision='fp32' to Session, or another engine, and check the image's modalities; where it"
                " stays, the checkpoint itself computes such values",
                command_fix="pass --precision fp32, or another --engine, and check the image's modalities; where it"
                " stays, the checkpoint itself computes such values",
            )
        return numbers

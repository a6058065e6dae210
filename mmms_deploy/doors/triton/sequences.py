"""Triton's sequences as sessions: one annotator, on one picture after the other.

A sequence that goes on without an END is forgotten by Triton after ``max_sequence_idle_microseconds``, without a word
to the model: from then on Triton refuses requests without START by itself. Its session is freed here after the same
time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.requests import Action, Controls, Request, read_request
from mmms_deploy.errors import DoorError, NoImageError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.session import ClickResult, Model, Session

_LONGEST_PAUSE = 5.0
"""Seconds between two looks for idle sequences, at most."""
_GRACE = 1.0
"""Seconds for which a sequence is kept longer than Triton keeps it: a request may have come in the last moment."""


@dataclass
class _Sequence:
    """A sequence that was begun.

    Attributes:
        used: When it was used last, by the idle clock.
        session: Its session; None before its first picture.
    """

    used: float
    session: Session | None = None


class Sequences:
    """The open sequences of one instance of a model.

    Args:
        model: What sessions are opened on; the caller closes it.
        opening: How they are opened.
        idle: Seconds after which a sequence is forgotten that asks for nothing.
        clock: Seconds that pass; for tests.
    """

    def __init__(self, model: Model, opening: Opening, idle: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._model, self._opening, self._idle, self._clock = model, opening, idle, clock
        self._modalities = [spec.name for spec in model.bundle.manifest.modalities]
        self._lock, self._closed = Lock(), Event()
        self._open: dict[int, _Sequence] = {}
        self._busy = 0.0
        self._sweeper = Thread(target=self._sweep_often, name="mmms-deploy-sequences", daemon=True)
        self._sweeper.start()

    def __len__(self) -> int:
        """How many sequences are open."""
        return len(self._open)

    def answer(self, tensors: Mapping[str, npt.NDArray[Any]]) -> UInt8Array:
        """Answer a request; one that is refused leaves its sequence as it was.

        Args:
            tensors: The request's inputs by name, with those that the sequence batcher added.

        Returns:
            (H0, W0) uint8: 1 on the object.

        Raises:
            MMMSDeployError: As the session's calls raise it.
            DoorError: The request asks for something else, or its sequence is not open.
        """
        with self._lock:
            start = self._clock()
            try:
                return self._answer(Controls.of(tensors), tensors)
            finally:
                self._busy += self._clock() - start

    def sweep(self) -> None:
        """Free the sessions of sequences that Triton has forgotten."""
        with self._lock:
            latest = self._now() - self._idle - _GRACE
            for number in [number for number, one in self._open.items() if one.used < latest]:
                self._forget(number)

    def close(self) -> None:
        """Free all sessions."""
        self._closed.set()
        self._sweeper.join()
        with self._lock:
            for number in list(self._open):
                self._forget(number)

    def _now(self) -> float:
        """Return seconds of the idle clock, which stands still while a request is answered.

        Requests of other sequences wait in Triton's queue meanwhile, and Triton counts from when they came. Within an
        answer it is asked at its beginning only.
        """
        return self._clock() - self._busy

    def _answer(self, controls: Controls, tensors: Mapping[str, npt.NDArray[Any]]) -> UInt8Array:
        number = controls.sequence
        if controls.start:
            self._forget(number)
            self._open[number] = _Sequence(0.0)
        sequence = self._open.get(number)
        if sequence is None:
            raise DoorError(
                f"the sequence {number} is not open",
                expected=f"a sequence that was begun, and used within the last {self._idle:g} seconds",
                fix="begin it again, with sequence_start: the picture and all clicks",
            )
        sequence.used = self._now()
        try:
            request = read_request(tensors, self._modalities)
            if request.image is not None:
                result = self._with_image(sequence, request.image, request)
            elif sequence.session is None:
                raise NoImageError(
                    f"the sequence {number} has no picture yet",
                    expected="a picture before the first click, or together with it",
                    fix="send image, uint8 (H, W, 3) in RGB order, or image_file, the bytes of a file",
                )
            else:
                if request.modalities:
                    sequence.session.set_modalities(**request.modalities)
                result = _changed(sequence.session, request)
            return result.mask.view(np.uint8)
        finally:
            if controls.end:
                self._forget(number)

    def _with_image(self, sequence: _Sequence, image: UInt8Array | bytes, request: Request) -> ClickResult:
        """Take another picture in a session of its own: where a click on it is refused, the one before is untouched."""
        session = self._opening.session(self._model)
        try:
            session.set_image(image, **request.modalities)
            result = _changed(session, request)
        except BaseException:
            session.close()
            raise
        before, sequence.session = sequence.session, session
        if before is not None:
            before.close()
        return result

    def _forget(self, number: int) -> None:
        sequence = self._open.pop(number, None)
        if sequence is not None and sequence.session is not None:
            sequence.session.close()

    def _sweep_often(self) -> None:
        while not self._closed.wait(min(max(self._idle / 4, 0.05), _LONGEST_PAUSE)):
            self.sweep()


def _changed(session: Session, request: Request) -> ClickResult:
    """Do what a request asks for beside the picture, and return where the session stands."""
    if request.clicks is not None:
        return session.set_clicks(request.clicks) if request.whole else session.add_clicks(request.clicks)
    if request.action is Action.UNDO:
        return session.undo()
    if request.action is Action.REDO:
        return session.redo()
    if request.action is Action.RESET:
        session.reset()
    return session.result

"""When sequences are forgotten that do not end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.sequences import Sequences
from mmms_deploy.session import Model, Session


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Slow(Opening, frozen=True, kw_only=True):
    """An opening whose sessions take a while to open."""

    def session(self, model: Model) -> Session:
        CLOCK.now += 300.0
        return super().session(model)


CLOCK = Clock()


@pytest.fixture
def model(paint: Bundle) -> Iterator[Model]:
    with Model(paint, engine="onnxruntime") as opened:
        yield opened


def begin(sequences: Sequences, number: int) -> None:
    controls: dict[str, Any] = {"START": np.array([1]), "END": np.array([0]), "CORRID": np.array([number])}
    sequences.answer({**controls, "image": np.zeros((8, 9, 3), np.uint8)})


def test_idle_sequences_are_freed_with_their_sessions(model: Model) -> None:
    clock = Clock()
    sequences = Sequences(model, Opening(), 60.0, clock=clock)
    begin(sequences, 1)
    session = sequences._open[1].session
    clock.now += 50
    begin(sequences, 2)
    clock.now += 10.5
    sequences.sweep()
    assert len(sequences) == 2, "a request may have come in the last moment"
    clock.now += 1
    sequences.sweep()
    assert list(sequences._open) == [2]
    assert session is not None
    with pytest.raises(Exception, match="closed"):
        session.undo()
    sequences.close()
    assert len(sequences) == 0


def test_what_waits_for_others_is_not_idle(model: Model) -> None:
    """A request that came in time may wait in Triton's queue for longer than a sequence may be idle."""
    sequences = Sequences(model, Slow(), 60.0, clock=CLOCK)
    begin(sequences, 1)
    CLOCK.now += 50
    begin(sequences, 2)
    sequences.sweep()
    assert len(sequences) == 2, "300 seconds went by, of which 50 were idle"
    CLOCK.now += 12
    sequences.sweep()
    assert list(sequences._open) == [2]
    sequences.close()


def test_they_are_freed_without_another_request(model: Model) -> None:
    sequences = Sequences(model, Opening(), 0.01, clock=(clock := Clock()))
    begin(sequences, 1)
    clock.now += 5
    sequences._closed.wait(2.0)  # its thread looks every 50 ms
    assert len(sequences) == 0
    sequences.close()

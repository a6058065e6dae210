from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmms_deploy.errors import HistoryError
from mmms_deploy.session.history import History


class Model(RuleBasedStateMachine):
    """A history against a list and a position in it."""

    limit: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.history: History[int] = History(0, self.limit)
        self.line = [0]
        self.at = 0

    @rule(value=st.integers())
    def push(self, value: int) -> None:
        self.history = self.history.push(value)
        self.line = [*self.line[: self.at + 1], value]
        self.at += 1
        if self.limit is not None and self.at > self.limit:
            self.line = self.line[-self.limit - 1 :]
            self.at = self.limit

    @precondition(lambda self: self.at > 0)
    @rule()
    def undo(self) -> None:
        self.at -= 1
        self.history = self.history.undo()

    @precondition(lambda self: self.at + 1 < len(self.line))
    @rule()
    def redo(self) -> None:
        self.at += 1
        self.history = self.history.redo()

    @precondition(lambda self: self.at == 0)
    @rule()
    def nothing_to_undo(self) -> None:
        with pytest.raises(HistoryError, match="nothing to undo"):
            self.history.undo()

    @precondition(lambda self: self.at + 1 == len(self.line))
    @rule()
    def nothing_to_redo(self) -> None:
        with pytest.raises(HistoryError, match="nothing to redo"):
            self.history.redo()

    @invariant()
    def same(self) -> None:
        assert self.history.current == self.line[self.at]
        assert self.history.can_undo == (self.at > 0)
        assert self.history.can_redo == (self.at + 1 < len(self.line))


class LimitedModel(Model):
    limit = 3


class ForgetfulModel(Model):
    limit = 0


TestHistory = Model.TestCase
TestLimitedHistory = LimitedModel.TestCase
TestForgetfulHistory = ForgetfulModel.TestCase


@pytest.mark.parametrize("limit", [-1, "3", 2.0, True, np.float64(3), [3]])
def test_wrong_limits(limit: object) -> None:
    with pytest.raises(HistoryError, match="history_limit is"):
        History(0, limit)  # type: ignore[arg-type]


def test_a_limit_of_numpy() -> None:
    assert History(0, np.int64(1)).push(1).push(2).undo().current == 1


def test_a_history_never_changes() -> None:
    first = History(0)
    second = first.push(1)
    third = second.undo()
    assert (first.current, first.can_undo) == (0, False)
    assert (second.current, second.can_redo) == (1, False)
    assert third.redo().current == 1
    assert third.push(2).can_redo is False
    assert third.can_redo

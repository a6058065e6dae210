"""Sequences that grow at their end, against lists; and what a million items cost."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmms_deploy.session.history import History
from mmms_deploy.session.interactions import Choice, Interaction, Interactions, MaskInput
from mmms_deploy.session.result import Click
from mmms_deploy.session.trail import WIDTH, Trail


class Grown(RuleBasedStateMachine):
    """A trail against a list; earlier trails stay what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.trail: Trail[int] = Trail()
        self.items: list[int] = []
        self.before: list[tuple[Trail[int], list[int]]] = []

    @rule(count=st.integers(1, 3 * WIDTH), start=st.integers(0, 9))
    def push(self, count: int, start: int) -> None:
        self.before.append((self.trail, list(self.items)))
        for number in range(start, start + count):
            self.trail = self.trail.push(number)
            self.items.append(number)

    @precondition(lambda self: self.items)
    @rule(count=st.integers(1, 2 * WIDTH))
    def pop(self, count: int) -> None:
        for _ in range(min(count, len(self.items))):
            self.trail = self.trail.pop()
            self.items.pop()

    @precondition(lambda self: self.before)
    @rule(data=st.data())
    def back(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.before) - 1))
        self.trail, items = self.before[place]
        self.items = list(items)

    @invariant()
    def same(self) -> None:
        assert list(self.trail) == self.items
        assert len(self.trail) == len(self.items)
        assert bool(self.trail) == bool(self.items)
        for place in (-1, 0, len(self.items) // 2, len(self.items) - 1):
            if self.items:
                assert self.trail[place] == self.items[place]
        assert self.trail[3:] == tuple(self.items[3:])
        assert self.trail[-2:] == tuple(self.items[-2:])
        assert self.trail[:-1] == tuple(self.items[:-1])
        assert self.trail == Trail(self.items)
        assert self.trail == tuple(self.items)
        assert tuple(reversed(self.trail)) == tuple(reversed(self.items))

    def teardown(self) -> None:
        for trail, items in self.before:
            assert list(trail) == items


class TestGrown(Grown.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(max_examples=20, stateful_step_count=12, deadline=None)


@pytest.mark.parametrize("length", [0, 1, WIDTH - 1, WIDTH, WIDTH + 1, WIDTH**2 - 1, WIDTH**2, WIDTH**2 + 1, 40_000])
def test_every_length_that_fills_blocks(length: int) -> None:
    trail = Trail(range(length))
    assert list(trail) == list(range(length))
    assert trail.push(length)[length] == length
    if length:
        assert list(trail.pop()) == list(range(length - 1))
        assert [trail[place] for place in (0, length // 2, length - 1)] == [0, length // 2, length - 1]
    with pytest.raises(IndexError):
        trail[length]
    while trail:
        trail = trail.pop()
        length -= 1
        if length % 997 == 0:
            assert list(trail) == list(range(length))
    with pytest.raises(IndexError, match="empty"):
        trail.pop()


def test_a_million_items_need_no_deep_recursion_and_few_bytes() -> None:
    """Freed, compared, copied and pickled; each step held for itself would take the square of this."""
    limit = sys.getrecursionlimit()
    tracemalloc.start()
    try:
        made, held = Interactions(), []
        for number in range(50_000):
            made = made.push(Click(float(number % 700), number / 7, number % 3 > 0))
            if number % 100 == 0:
                held.append(made)
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / 50_000
    finally:
        tracemalloc.stop()
    assert each < 60  # 17 for a click; and for every hundredth the newest ones, which are not packed yet
    sys.setrecursionlimit(200)
    try:
        million = Trail(range(1_000_000))
        assert million == Trail(range(1_000_000))
        assert pickle.loads(pickle.dumps(million))[999_999] == 999_999
        assert len(copy.deepcopy(made)) == 50_000
        assert hash(million) == hash(tuple(range(1_000_000)))
        del million, held
        gc.collect()
    finally:
        sys.setrecursionlimit(limit)
    assert made.clicked == 50_000
    assert made[23_457] == Click(float(23_457 % 700), 23_457 / 7, False)


def test_a_push_looks_at_no_item_before() -> None:
    """However long the trail is: its blocks are taken over as they are."""
    trail = Trail(range(100_000))
    longer = trail.push(0)
    assert all(one is other for one, other in zip(trail._blocks, longer._blocks, strict=True))


finite = st.floats(allow_nan=False, allow_infinity=False)
clicks = st.builds(Click, finite, finite, st.booleans())
masks = st.builds(
    lambda seed: MaskInput(
        np.random.default_rng(seed).integers(0, 255, (5, 2), dtype=np.uint8),
        11,
        np.random.default_rng(seed).random((1, 1, 3, 4), dtype=np.float32),
        bool(seed % 2),
    ),
    st.integers(0, 9),
)


@given(st.lists(st.one_of(clicks, clicks, clicks, masks, st.builds(Choice, st.integers(0, 3))), max_size=5 * WIDTH))
@settings(max_examples=40, deadline=None)
def test_interactions_come_back_exactly(items: list[Interaction]) -> None:
    made = Interactions()
    for item in items:
        made = made.push(item)
    for found in (made, Interactions(items), pickle.loads(pickle.dumps(made))):
        assert len(found) == len(items)
        for one, item in zip(found, items, strict=True):
            if isinstance(item, MaskInput):
                assert isinstance(one, MaskInput)
                np.testing.assert_array_equal(one.mask, item.mask)
                np.testing.assert_array_equal(one.previous, item.previous)
                assert one.binary == item.binary
            else:
                assert one == item
        every = [item for item in items if isinstance(item, Click)]
        assert found.clicks == tuple(every)
        assert found.clicked == len(every)
        assert found.click == (every[-1] if every else None)
        positive = [one for one in every if one.positive]
        assert bool(found.corners) == bool(positive)
        if positive:
            low, high = found.corners
            assert (low.x, high.x) == (min(one.x for one in positive), max(one.x for one in positive))
            assert (low.y, high.y) == (min(one.y for one in positive), max(one.y for one in positive))


def test_a_history_without_a_limit_shares_its_past() -> None:
    history: History[int] = History(0)
    line = [history]
    for number in range(1, 5000):
        history = history.push(number)
        line.append(history)
    tracemalloc.start()
    try:
        for number in range(5000, 6000):
            history = history.push(number)
            line.append(history)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 1000 * 1500  # a tuple of all alone has 40,000 bytes at each
    assert history.limited(3).past == (5996, 5997, 5998)
    assert isinstance(history.limited(3).limited(None).past, Trail)
    for _ in range(5999):
        history = history.undo()
    assert not history.can_undo
    assert history.newest == 5999

"""Sequences of calls on sessions that share a model, against a plain model: lists of clicks by image and surface."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmms_deploy import Click, Model, Session
from mmms_deploy.errors import HistoryError, SurfaceError
from mmms_deploy.imaging.coordinates import to_network
from tests.support.toy import Reference, write_toy

SIZE = (20, 24)
BRIGHTNESS = (40, 90, 140)
NAMES = ("1", "2", "dog", "é")
_FOLDER = TemporaryDirectory()
_KEPT: dict[str, Any] = {}


def model() -> Model:
    if "model" not in _KEPT:
        bundle = write_toy(Path(_FOLDER.name) / "toy", size=(16, 24))
        _KEPT["model"] = Model(bundle, engine="onnxruntime", threads=1)
    found: Model = _KEPT["model"]
    return found


def image(number: int) -> np.ndarray:
    return np.full((*SIZE, 3), BRIGHTNESS[number], dtype=np.uint8)


class Walk(RuleBasedStateMachine):
    """A session, and what it must be: of every surface its clicks, and those that were undone."""

    @initialize(limit=st.sampled_from([None, 0, 1, 3, 100]))
    def start(self, limit: int | None) -> None:
        self.limit = limit
        self.session: Session = model().session(history_limit=limit, keep_image=False)
        self.features = [model().encode(image(number)) for number in range(len(BRIGHTNESS))]
        self.begin(0)
        self.session.set_image(image(0))

    def begin(self, number: int) -> None:
        self.number = number
        self.done: dict[str, list[Click]] = {"1": []}
        self.undone: dict[str, list[Click]] = {"1": []}
        self.room: dict[str, int] = {"1": 0}
        self.current = "1"

    def made(self, clicks: list[Click]) -> None:
        name = self.current
        self.done[name] += clicks
        self.undone[name] = []
        steps = self.room[name] + len(clicks)
        self.room[name] = steps if self.limit is None else min(steps, self.limit)

    @rule(number=st.integers(0, len(BRIGHTNESS) - 1), encoded=st.booleans())
    def go_to(self, number: int, encoded: bool) -> None:
        if encoded:
            self.session.use(self.features[number])
        else:
            self.session.set_image(image(number))
        self.begin(number)

    @rule(x=st.integers(0, SIZE[1] - 1), y=st.integers(0, SIZE[0] - 1), positive=st.booleans())
    def click(self, x: int, y: int, positive: bool) -> None:
        result = self.session.click(x, y, positive)
        self.made([Click(float(x), float(y), positive)])
        assert result.click == self.done[self.current][-1]

    @rule(count=st.integers(1, 70), seed=st.integers(0, 9))
    def clicks(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        new = [Click(float(x), float(y), bool(p)) for x, y, p in rng.integers(0, [SIZE[1], SIZE[0], 2], (count, 3))]
        for one in new:
            self.session.click(one.x, one.y, one.positive)
        self.made(new)

    @rule()
    def undo(self) -> None:
        name = self.current
        if not self.room[name]:
            try:
                self.session.undo()
            except HistoryError:
                return
            raise AssertionError("there was nothing to undo")
        self.session.undo()
        self.undone[name].append(self.done[name].pop())
        self.room[name] -= 1

    @precondition(lambda self: self.undone[self.current])
    @rule()
    def redo(self) -> None:
        name = self.current
        self.session.redo()
        self.done[name].append(self.undone[name].pop())
        self.room[name] += 1

    @rule(name=st.sampled_from(NAMES))
    def rename(self, name: str) -> None:
        if name in self.done and name != self.current:
            try:
                self.session.rename(self.current, name)
            except SurfaceError:
                return
            raise AssertionError("two surfaces have one name")
        self.session.rename(self.current, name)
        for kept in (self.done, self.undone, self.room):
            items = [(name if key == self.current else key, value) for key, value in kept.items()]  # type: ignore[attr-defined]
            kept.clear()  # type: ignore[attr-defined]
            kept.update(items)  # type: ignore[attr-defined]
        self.current = name

    @rule()
    def reset(self) -> None:
        self.session.reset()
        self.done[self.current], self.undone[self.current], self.room[self.current] = [], [], 0

    @rule()
    def saved_and_restored(self) -> None:
        if self.limit is None:
            self.session.restore(self.session.to_dict())
            for name, clicks in self.done.items():
                self.room[name] = len(clicks)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "session"):
            return
        name = self.current
        assert self.session.surface == name
        assert self.session.clicks == tuple(self.done[name])
        assert self.session.result.clicks == tuple(self.done[name])
        assert self.session.result.index == len(self.done[name])
        assert self.session.can_undo == (self.room[name] > 0)
        assert self.session.can_redo == bool(self.undone[name])
        assert dict(self.session.surfaces).keys() == self.done.keys()
        saved = {one["name"]: one for one in self.session.to_dict()["surfaces"]}
        every = [*self.done[name], *reversed(self.undone[name])]
        assert saved[name]["interactions"] == [one.to_list() for one in every]
        assert saved[name]["undone"] == len(self.undone[name])

    @rule()
    def answers_are_those_of_the_network(self) -> None:
        network = Reference(model().bundle.manifest, BRIGHTNESS[self.number] / 255, SIZE)
        expected = network.prob
        rule = model().bundle.manifest.clicks.coordinates
        for one in self.done[self.current]:
            x, y = to_network(one.x, one.y, image=SIZE, network=model().bundle.manifest.size, rule=rule)
            expected = network.click(x, y, one.positive)
        found = self.session.result.network_probability
        if self.done[self.current]:
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()


class TestWalk(Walk.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(
        max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )

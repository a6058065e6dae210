"""A session for each task that is worked on, so that the next click goes on from the ones before.

Every request carries all points. A session goes on from the longest common beginning with what it holds, so that one
more point is one more click; another list begins anew, on features that are there. Sessions are few: the one that was
left longest ago makes room, and its picture's features stay in the model's store as long as there is memory.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mmms_deploy.doors.all_points import answer_all
from mmms_deploy.doors.label_studio.prompts import Prompts
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, ImageError
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.server.errors import FullError
from mmms_deploy.server.uploads import check_picture
from mmms_deploy.session import Model, Session


class Answer(NamedTuple):
    """A mask, and how sure the network is of it.

    Attributes:
        mask: (H0, W0) bool.
        score: From 0 to 1: the network's own score where it gives one, and otherwise how decided the mask is.
    """

    mask: BoolArray
    score: float


class _Open:
    """A session, the address of its picture, and who uses it."""

    def __init__(self, now: float) -> None:
        self.lock = threading.Lock()
        self.session: Session | None = None
        self.address: str | None = None
        self.users = 0
        self.used = now


class Tasks:
    """The sessions of all tasks; several threads may ask, and those about one task wait for each other.

    Args:
        model: The open bundle.
        opening: How sessions are opened.
        fetch: Returns the file of a picture by its address.
        most: How many sessions there may be.
        most_pixels: The most pixels of a picture.
        idle_seconds: A session that was not used for so long is freed.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        model: Model,
        opening: Opening,
        fetch: Callable[[str, str | None], bytes],
        *,
        most: int,
        most_pixels: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._opening, self._fetch, self._clock = model, opening, fetch, clock
        self._most, self._most_pixels, self._idle_seconds = most, most_pixels, idle_seconds
        self._lock = threading.Lock()
        self._open: OrderedDict[Hashable, _Open] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def answer(self, key: Hashable, address: str, token: str | None, prompts: Prompts) -> Answer:
        """Return the mask of an object of a task's picture.

        Args:
            key: What tells the task and its picture from others.
            address: The picture's address.
            token: The token that Label Studio sent, with which it is fetched.
            prompts: What was said about the object.

        Raises:
            DoorError: The picture cannot be fetched, or is of another size than Label Studio shows.
            ImageError: It is no picture.
            TooLargeError: It has too many bytes or pixels.
            FullError: There are as many sessions as there may be, and all are at work.
            ClickError: A click is outside of the picture, or the network takes no boxes.
            EngineError: A stage failed.
        """
        with self._held(key) as one:
            session = self._on_picture(one, address, token)
            if session.image_size != prompts.size:
                height, width = session.image_size
                raise DoorError(
                    f"the picture has {width} x {height} pixels, and Label Studio shows one of"
                    f" {prompts.size[1]} x {prompts.size[0]}",
                    expected="the same picture",
                    fix="reload the page of the task",
                )
            session.select(", ".join(prompts.labels) or prompts.picture)
            result = answer_all(session, prompts.clicks, prompts.box)
            return Answer(result.mask, result.score or 0.0)

    def free_idle(self) -> int:
        """Free the sessions that were idle for too long, and return how many these were."""
        limit = self._clock() - self._idle_seconds
        with self._lock:
            idle = [key for key, one in self._open.items() if not one.users and one.used <= limit]
            freed = [self._open.pop(key) for key in idle]
        for one in freed:
            _close(one)
        return len(freed)

    def close(self) -> None:
        """Free all sessions."""
        with self._lock:
            freed = list(self._open.values())
            self._open.clear()
        for one in freed:
            with one.lock:
                _close(one)

    @contextmanager
    def _held(self, key: Hashable) -> Iterator[_Open]:
        """Hold what is open for a task; it is not freed meanwhile."""
        spare = None
        with self._lock:
            one = self._open.get(key)
            if one is None:
                spare = self._make_room()
                one = self._open[key] = _Open(self._clock())
            self._open.move_to_end(key)
            one.users += 1
        if spare is not None:
            _close(spare)
        try:
            with one.lock:
                yield one
        finally:
            with self._lock:
                one.users -= 1
                one.used = self._clock()
                if one.session is None and not one.users and self._open.get(key) is one:
                    del self._open[key]

    def _make_room(self) -> _Open | None:
        """Take out the session that was left longest ago, where there are as many as there may be."""
        if len(self._open) < self._most:
            return None
        for key, one in self._open.items():
            if not one.users:
                return self._open.pop(key)
        raise FullError(
            f"all of the {self._most} sessions are at work",
            expected="fewer tasks at once",
            fix="click again in a moment, or start with mmms-serve label-studio BUNDLE --sessions N",
        )

    def _on_picture(self, one: _Open, address: str, token: str | None) -> Session:
        if one.session is None:
            one.session = self._opening.session(self._model)
        if one.address != address:
            content = self._fetch(address, token)
            check_picture(content, ImageError, "the task's picture", self._most_pixels)
            one.session.set_image(content)
            one.address = address
        return one.session


def _close(one: _Open) -> None:
    if one.session is not None:
        one.session.close()
        one.session = None

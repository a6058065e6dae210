"""The sessions: one for every tab, the order of their calls, their limits, and the freeing of idle ones.

Calls on one session run one after the other, in the order in which they came. They run in threads, a few of them at
once, so that neither a long call nor a slow client stops the others.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from anyio import CapacityLimiter, to_thread

from mmms_deploy.bundle import Rate
from mmms_deploy.bundle.click_inputs import click_inputs
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.imaging.cleaning import MaskCleaning, checked_cleaning
from mmms_deploy.server.changes import Extents, Seen
from mmms_deploy.server.errors import FullError, TooLargeError, unknown_session
from mmms_deploy.server.settings import MIB, Settings
from mmms_deploy.session import Session

T = TypeVar("T")

Source = bytes | Path
"""A file: what was uploaded, or a file of the command line."""

RESTED_SECONDS = 60.0
"""A session that was not used for so long makes room for another one."""
_LABEL_BYTES = 4


class Tab:
    """A session, and what belongs to it.

    Attributes:
        id: Its name, which callers cannot guess.
        session: The session.
        turns: Held during a call; it serves those who wait in their order.
        used: When it was used last, by the server's clock.
        closed: Whether it was freed.
        picture: Number of the picture of the server that is set; None for one that was uploaded.
        name: What the image is called.
        sources: The files of the image and its modalities, by layer.
        seen: The label map that callers over HTTP saw last.
        watching: Those that clients of live sockets saw last.
        extents: The areas and boxes of its objects.
        nbytes: About how much memory it takes.
    """

    def __init__(self, session: Session, now: float) -> None:
        self.id = secrets.token_urlsafe(16)
        self.session = session
        self.turns = asyncio.Lock()
        self.used = now
        self.closed = False
        self.picture: int | None = None
        self.name = ""
        self.sources: Mapping[str, Source] = {}
        self.seen = Seen()
        self.watching: WeakSet[Seen] = WeakSet()
        self.extents = Extents()
        self.nbytes = 0


class Tabs:
    """All sessions of a server.

    Args:
        engine: The engine that they share.
        settings: Their limits.
        clock: Seconds that only grow.

    Raises:
        SessionError: Masks are to be cleaned, and the library for it is not installed.
    """

    def __init__(self, engine: Engine, settings: Settings, clock: Callable[[], float]) -> None:
        checked_cleaning(settings.cleaning)
        self._engine, self._settings, self._clock = engine, settings, clock
        self._tabs: dict[str, Tab] = {}
        self._opening = 0
        self._limiter = CapacityLimiter(settings.calls_at_once)
        self._features, self._state = _stage_bytes(engine)

    def __len__(self) -> int:
        return len(self._tabs)

    @property
    def nbytes(self) -> int:
        """About how much memory all sessions take."""
        return sum(tab.nbytes for tab in self._tabs.values())

    async def open(self, cleaning: MaskCleaning | None = None) -> Tab:
        """Open a session.

        Args:
            cleaning: What is done to its masks; None for what the settings say.

        Raises:
            SessionError: The library that cleans masks is not installed.
            FullError: There are as many as there may be, and all were used a moment ago.
        """
        while len(self._tabs) + self._opening >= self._settings.most_sessions:
            if not await self._free_rested():
                raise FullError(
                    f"there are {self._settings.most_sessions} sessions",
                    expected="fewer: each holds the features of an image",
                    fix="close one with DELETE sessions/{session}, or try again in a minute",
                )
        chosen = self._settings.cleaning if cleaning is None else cleaning
        self._opening += 1
        try:
            session = await to_thread.run_sync(self._opened, chosen, limiter=self._limiter)
            tab = Tab(session, self._clock())
            self._tabs[tab.id] = tab
        finally:
            self._opening -= 1
        return tab

    def get(self, name: str) -> Tab:
        """Return a session.

        Raises:
            UnknownSessionError: There is none of that name (any more).
        """
        tab = self._tabs.get(name)
        if tab is None:
            raise unknown_session()
        return tab

    async def call(self, tab: Tab, function: Callable[[], T], *, grows: bool = False) -> T:
        """Call a function about a session in a thread, after all calls on it that came before.

        Args:
            tab: The session.
            function: What is called.
            grows: Whether the session takes more memory afterwards.

        Raises:
            UnknownSessionError: The session was freed.
            FullError: It would take more memory, and there is none left.
        """
        async with tab.turns:
            if tab.closed:
                raise unknown_session()
            while grows and self.nbytes > self._settings.most_bytes:
                if not await self._free_rested(tab):
                    raise self._full()
            tab.used = self._clock()
            try:
                return await to_thread.run_sync(function, limiter=self._limiter)
            finally:
                tab.used = self._clock()
                tab.nbytes = self._weight(tab)

    async def compute(self, function: Callable[[], T]) -> T:
        """Call a function that is about no session in a thread."""
        return await to_thread.run_sync(function, limiter=self._limiter)

    async def make_room(self, tab: Tab, nbytes: int) -> None:
        """Free sessions until there is memory for an image.

        Args:
            tab: The session that it is for; its image before goes.
            nbytes: How much memory it takes without the features.

        Raises:
            TooLargeError: It does not fit where there is nothing else.
            FullError: It does not fit, and all other sessions were used a moment ago.
        """
        needed, most = nbytes + self._features, self._settings.most_bytes
        if needed > most:
            raise TooLargeError(
                f"this image takes {-(-needed // MIB)} MiB of memory",
                expected=f"at most {most // MIB} MiB for all sessions",
                fix="make the image smaller",
            )
        while self.nbytes - tab.nbytes + needed > most:
            if not await self._free_rested(tab):
                raise self._full()

    async def close(self, name: str) -> None:
        """Free a session, after its calls are done.

        Raises:
            UnknownSessionError: There is none of that name.
        """
        self.get(name)
        await self._free(name)

    async def sweep(self) -> int:
        """Free the sessions that were idle for too long, and return how many these were."""
        limit = self._clock() - self._settings.idle_seconds
        idle = [tab.id for tab in self._tabs.values() if tab.used <= limit and not tab.turns.locked()]
        for name in idle:
            await self._free(name)
        return len(idle)

    async def sweep_for_ever(self) -> None:
        """Look for idle sessions again and again."""
        while True:
            await asyncio.sleep(min(30.0, max(0.05, self._settings.idle_seconds / 4)))
            await self.sweep()

    async def close_all(self) -> None:
        """Free all sessions."""
        for name in list(self._tabs):
            await self._free(name)

    async def _free(self, name: str) -> None:
        tab = self._tabs.pop(name, None)
        if tab is None:
            return
        async with tab.turns:
            tab.closed = True
            tab.sources = {}
            # The sockets of a freed session may stay open for long: they keep no label map.
            for seen in (tab.seen, *tab.watching):
                seen.forget()
            tab.extents.forget()
            await to_thread.run_sync(tab.session.close)

    async def _free_rested(self, kept: Tab | None = None) -> bool:
        """Free the session that was not used for longest, if it has rested for a while; return whether it was."""
        rested = [tab for tab in self._tabs.values() if tab is not kept and not tab.turns.locked()]
        oldest = min(rested, key=lambda tab: tab.used, default=None)
        if oldest is None or self._clock() - oldest.used < RESTED_SECONDS:
            return False
        await self._free(oldest.id)
        return True

    def _full(self) -> FullError:
        return FullError(
            f"all sessions take {self.nbytes // MIB} of {self._settings.most_bytes // MIB} MiB of memory",
            expected="room for more",
            fix="close a session with DELETE sessions/{session}, or try again in a minute",
        )

    def _opened(self, cleaning: MaskCleaning | None) -> Session:
        # The layers are drawn from the files: a session that kept the pixels would take 3 bytes more for each.
        return Session(self._engine.bundle, engine=self._engine, keep_image=False, cleaning=cleaning)

    def _weight(self, tab: Tab) -> int:
        """Return about how much memory a session takes."""
        if tab.closed or not tab.sources:
            return 0
        height, width = tab.session.image_size
        surfaces, clicks = len(tab.session.surfaces), len(tab.session.all_clicks)
        files = sum(len(source) for source in tab.sources.values() if isinstance(source, bytes))
        return files + self._features + height * width * (_LABEL_BYTES + surfaces) + clicks * self._state


def _stage_bytes(engine: Engine) -> tuple[int, int]:
    """Return how many bytes the features of an image take, and the click stage's state after a click."""
    features, state = 0, 0
    if engine.bundle.manifest.click_only:
        features = sum(spec.nbytes for spec in click_inputs(engine.bundle.manifest).values())
    for stage in engine.bundle.manifest.stages:
        outputs = sum(spec.nbytes for spec in engine.graphs[stage.name].outputs)
        if stage.rate in (Rate.IMAGE, Rate.MODALITY):
            features += outputs
        elif not stage.batch:
            state = max(state, outputs)
    return features, state

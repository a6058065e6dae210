"""A session for asyncio: every call of :class:`~mmms_deploy.Session` as a coroutine.

import asyncio

from mmms_deploy import AsyncSession

async def main():
    async with AsyncSession("demo") as session:
        await session.set_image("photo.jpg")
        result = await session.click(320, 240)

asyncio.run(main())
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import numpy.typing as npt

from mmms_deploy.annotations.detections import Detections
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine, EngineInfo
from mmms_deploy.errors import SessionClosedError, SessionError
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike
from mmms_deploy.imaging.picture import PictureLike
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.progress import OnProgress
from mmms_deploy.session.click_list import ClickLike
from mmms_deploy.session.core import SessionState
from mmms_deploy.session.features import Features, FeatureSource
from mmms_deploy.session.inputs import ModalityLike
from mmms_deploy.session.journal_file import Journal
from mmms_deploy.session.mask_sources import MaskLike
from mmms_deploy.session.model import Model
from mmms_deploy.session.predict import Prediction
from mmms_deploy.session.result import Click, ClickResult, ImageTimings
from mmms_deploy.session.session import HISTORY_LIMIT, Session
from mmms_deploy.session.surfaces import Labels
from mmms_deploy.session.turns import Turns
from mmms_deploy.session.work_calls import LoadedWork
from mmms_deploy.session.workers import Workers, workers_of

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Answered(Generic[T]):
    """What a call answered.

    Attributes:
        value: What it returned.
        before: The session's state before it.
        state: The session's state after it.
        result: The answer to the clicks on the current surface after it; None without an image.
        runs: How often every stage has run after it, by name.
    """

    value: T
    before: SessionState
    state: SessionState
    result: ClickResult | None
    runs: Mapping[str, int]


class AsyncSession:
    """A :class:`~mmms_deploy.Session` whose calls are coroutines; they compute in threads, and the event loop goes on.

    - **Order.** Calls on one session run one after the other, in the order in which they were made: in which their
      coroutines began, as ``await`` or the creation of their tasks begins them. A click that is made while
      ``set_image`` waits is a click on the new image.
    - **Cancelling.** A call whose coroutine is cancelled has not happened. If it waits, it never begins. If it runs,
      ``CancelledError`` comes at once, the call ends unseen in its thread, and the session is taken back to the state
      before it, before the next call begins. Two things stay: files that it wrote, and features that it gave a store.
    - **Superseding.** :meth:`supersede` does the same to every call that has no answer yet; they raise
      ``SupersededError``. With ``latest=True`` a click takes the place of those just before it that wait and were made
      so too: while the mouse drags, only the newest one runs.
    - **What is plain.** :attr:`result`, :attr:`mask`, :attr:`clicks`, :attr:`surfaces` and the other attributes never
      wait. They show the session after the newest call that was answered, and nothing of one that has no answer yet.
      What has to be computed, :meth:`labels` and :meth:`features`, is a coroutine.
    - **Errors.** A call that fails raises the error of :class:`~mmms_deploy.Session`, and changes nothing; calls that
      wait behind it run.

    All calls come from one event loop. Open it with ``async with``, or by its first call; that is when the engine is
    opened, in a thread.

    Args:
        bundle: A bundle, or what names one, as for :class:`~mmms_deploy.Session`; or an open
            :class:`~mmms_deploy.Model`, whose engine and store the session shares.
        device: As for :class:`~mmms_deploy.Session`.
        engine: As for :class:`~mmms_deploy.Session`.
        precision: As for :class:`~mmms_deploy.Session`.
        threads: As for :class:`~mmms_deploy.Session`.
        strict: As for :class:`~mmms_deploy.Session`.
        cuda_options: As for :class:`~mmms_deploy.Session`.
        history_limit: As for :class:`~mmms_deploy.Session`.
        keep_image: As for :class:`~mmms_deploy.Session`.
        on_progress: As for :class:`~mmms_deploy.Session`.
        zoom: As for :class:`~mmms_deploy.Session`.
        flip: As for :class:`~mmms_deploy.Session`.
        store: As for :class:`~mmms_deploy.Session`; None takes that of the model.
        resume: As for :class:`~mmms_deploy.Session`.
        batch: As for :class:`~mmms_deploy.Session`.
        cleaning: As for :class:`~mmms_deploy.Session`.
        journal: As for :class:`~mmms_deploy.Session`. A call that was taken back is there, and so is what the session
            is afterwards.
        workers: The threads in which its calls run; the caller closes them. None takes those that all sessions on an
            open engine or model share, and a thread of its own where it opens an engine.

    Raises:
        SessionError: An engine was named beside a model.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] | Model,
        *,
        device: str = "auto",
        engine: Engine | str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        strict: bool = False,
        cuda_options: CudaOptions | None = None,
        history_limit: int | None = HISTORY_LIMIT,
        keep_image: bool = True,
        on_progress: OnProgress | None = None,
        zoom: ZoomRule | bool = False,
        flip: bool = False,
        store: FeatureSource | None = None,
        resume: bool = False,
        batch: bool | None = None,
        cleaning: MaskCleaning | None = None,
        journal: Journal | PathLike | None = None,
        workers: Workers | None = None,
    ) -> None:
        named = bundle.bundle if isinstance(bundle, Model) else bundle
        if isinstance(bundle, Model):
            if engine is not None:
                raise SessionError(
                    "a model and an engine were given",
                    expected="one of them",
                    fix="leave out engine=...: a model has one",
                )
            store = bundle.store if store is None else store
            engine = bundle.opened
        shared = None if engine is None or isinstance(engine, str) else engine
        opens = partial(
            Session,
            named,
            device=device,
            engine=engine,
            precision=precision,
            threads=threads,
            strict=strict,
            cuda_options=cuda_options,
            history_limit=history_limit,
            keep_image=keep_image,
            on_progress=on_progress,
            zoom=zoom,
            flip=flip,
            store=store,
            resume=resume,
            batch=batch,
            cleaning=cleaning,
            journal=journal,
        )
        self._begin(opens, None, workers, shared)

    @classmethod
    def of(cls, session: Session, *, workers: Workers | None = None) -> AsyncSession:
        """Return a session for asyncio that goes on with an open one, as ``model.session()`` returns it, and closes it.

        Args:
            session: The open session; nothing else calls it from now on.
            workers: As for the class; None takes those that all sessions on its engine share, and a thread of its own
                where the session opened its engine itself.
        """
        made = cls.__new__(cls)
        made._begin(None, session, workers, None if session._owns_engine else session._engine)
        return made

    def _begin(
        self,
        opens: Callable[[], Session] | None,
        session: Session | None,
        workers: Workers | None,
        shared: Engine | None,
    ) -> None:
        self._opens, self._session = opens, session
        self._answered: _Answered[Any] | None = None
        self._own_workers = workers is None and shared is None
        if workers is None:
            workers = Workers(1) if shared is None else workers_of(shared)
        self._workers = workers
        self._turns = Turns(workers, self._go_back)
        self._busy = threading.Lock()
        self._closing: asyncio.Task[None] | None = None

    # --- order --------------------------------------------------------------------------------------------------------

    async def call(self, function: Callable[[Session], T]) -> T:
        """Call a function with the session in a thread, as one call: no other comes in between, and it happens whole.

        Args:
            function: Takes the session, as ``lambda session: (session.undo(), session.click(10, 20))[1]`` does. It must
                neither keep it nor close it. If it fails halfway, everything is as before it.
        """
        return await self._call(function)

    def supersede(self) -> int:
        """Drop every call that has no answer yet: none of them has happened, and each raises ``SupersededError``.

        Call it before an undo or a new image that makes their answers worthless. A call that runs ends unseen in its
        thread, and is taken back before the next one begins.

        Returns:
            How many calls these were.
        """
        return self._turns.supersede()

    @property
    def waiting(self) -> int:
        """How many calls have no answer yet."""
        return len(self._turns)

    # --- the image ----------------------------------------------------------------------------------------------------

    @overload
    async def set_image(self, rgb: ImageLike, **modalities: ModalityLike) -> ImageTimings: ...

    @overload
    async def set_image(
        self,
        rgb: ImageLike | None = None,
        *,
        image: ImageLike | None = None,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> ImageTimings: ...

    async def set_image(  # type: ignore[misc]
        self,
        rgb: ImageLike | None = None,
        *,
        image: ImageLike | None = None,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> ImageTimings:
        """Set a new image and forget the clicks on the previous one.

        As :meth:`Session.set_image`.
        """
        return await self._call(lambda s: s.set_image(rgb, image=image, channel_order=channel_order, **modalities))

    async def set_features(
        self,
        features: Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str],
        image_size: tuple[int, int] | None = None,
        **modalities: ModalityLike,
    ) -> ImageTimings:
        """Set a new image as the backbone's features, which a provider computed (paper appendix B).

        As :meth:`Session.set_features`.
        """
        return await self._call(lambda s: s.set_features(features, image_size, **modalities))

    async def use(self, features: Features) -> ImageTimings:
        """Start on an image that was encoded before, and forget the clicks on the previous one; no backbone runs.

        As :meth:`Session.use`.
        """
        return await self._call(lambda s: s.use(features))

    async def features(self) -> Features:
        """The current image, encoded, as a copy on the host: keep it, save it, and call :meth:`use` with it later.

        As :attr:`Session.features`.
        """
        return await self._call(lambda s: s.features)

    async def set_modalities(self, **modalities: ModalityLike) -> ImageTimings:
        """Set modalities of the current image that arrive later or have changed; the image and the clicks stay.

        As :meth:`Session.set_modalities`.
        """
        return await self._call(lambda s: s.set_modalities(**modalities))

    async def download_features(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Return what the stages before the clicks made of the image, for a click stage that runs elsewhere.

        As :meth:`Session.download_features`.
        """
        return await self._call(lambda s: s.download_features(names))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H0, W0) of the image.

        As :attr:`Session.image_size`.
        """
        return Session._size_of(self._open_state().image)

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities that are present for the current image.

        As :attr:`Session.modalities`.
        """
        image = self._open_state().image
        Session._size_of(image)
        return image.present

    @property
    def keep_image(self) -> bool:
        """Whether the session keeps the pixels of its image for overlays."""
        return self._opened.keep_image

    # --- clicks -------------------------------------------------------------------------------------------------------

    async def click(self, x: float, y: float, positive: bool | int = True, *, latest: bool = False) -> ClickResult:
        """Add a click and return the mask that follows.

        As :meth:`Session.click`. With ``latest``, it takes the place of the clicks just before it that wait and were
        made with ``latest``; these raise ``SupersededError``.
        """
        return await self._call(lambda s: s.click(x, y, positive), "click" if latest else "")

    async def choose(self, index: int) -> ClickResult:
        """Take another of the network's answers to the newest click, where it gives several; the network does not run.

        As :meth:`Session.choose`.
        """
        return await self._call(lambda s: s.choose(index))

    async def add_clicks(self, clicks: Iterable[ClickLike]) -> ClickResult:
        """Add several clicks to the current surface at once, and return the mask after the last one.

        As :meth:`Session.add_clicks`.
        """
        return await self._call(lambda s: s.add_clicks(clicks))

    async def set_box(self, x0: float, y0: float, x1: float, y1: float) -> ClickResult:
        """Start on an object with a box around it, and return the mask that follows; clicks then correct it.

        As :meth:`Session.set_box`.
        """
        return await self._call(lambda s: s.set_box(x0, y0, x1, y1))

    async def click_objects(self, clicks: Mapping[str, ClickLike]) -> dict[str, ClickResult]:
        """Click on several objects at once, one click on each, and return the answer for each of them.

        As :meth:`Session.click_objects`.
        """
        return await self._call(lambda s: s.click_objects(clicks))

    async def set_mask(self, mask: MaskLike) -> ClickResult:
        """Put a mask in the place of the network's answer: one from elsewhere to start from, or one edited by hand.

        As :meth:`Session.set_mask`.
        """
        return await self._call(lambda s: s.set_mask(mask))

    async def set_clicks(self, clicks: Iterable[ClickLike], *, latest: bool = False) -> ClickResult:
        """Make a list the clicks on the current surface, and return the mask that follows.

        As :meth:`Session.set_clicks`. With ``latest``, it takes the place of the lists just before it that wait and
        were given with ``latest``; these raise ``SupersededError``.
        """
        return await self._call(lambda s: s.set_clicks(clicks), "set_clicks" if latest else "")

    async def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        *,
        latest: bool = False,
    ) -> Prediction:
        """Click as code does that was written for SAM: all points at every call; docs/sam.md has the differences.

        As :meth:`Session.predict`. With ``latest``, it takes the place of the predictions just before it that wait and
        were asked for with ``latest``; these raise ``SupersededError``.
        """
        given = (point_coords, point_labels, box, mask_input, multimask_output, return_logits, normalize_coords)
        return await self._call(lambda s: s.predict(*given), "predict" if latest else "")

    async def undo(self) -> ClickResult:
        """Take back the newest click, choice or mask; the network does not run.

        As :meth:`Session.undo`.
        """
        return await self._call(lambda s: s.undo())

    async def redo(self) -> ClickResult:
        """Bring back the click, choice or mask that was undone last; the network does not run, but as for :meth:`undo`.

        As :meth:`Session.redo`.
        """
        return await self._call(lambda s: s.redo())

    async def reset(self) -> None:
        """Forget all clicks and undone clicks on the current surface; the image stays, and the network does not run.

        As :meth:`Session.reset`.
        """
        await self._call(lambda s: s.reset())

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks so far, oldest first."""
        return self._opened._steps.clicks(self._state.surfaces)

    @property
    def all_clicks(self) -> tuple[tuple[str, Click], ...]:
        """The clicks on all surfaces, each with the name of its surface.

        As :attr:`Session.all_clicks`.
        """
        return self._opened._steps.all_clicks(self._state.surfaces)

    @property
    def can_undo(self) -> bool:
        """Whether there is a click to undo."""
        return self._opened._steps.history(self._state.surfaces).can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone click to bring back."""
        return self._opened._steps.history(self._state.surfaces).can_redo

    @property
    def result(self) -> ClickResult:
        """The answer to the clicks so far; an empty mask without clicks.

        As :attr:`Session.result`.
        """
        state = self._open_state()
        Session._size_of(state.image)
        assert self._answered is not None
        assert self._answered.result is not None
        return self._answered.result

    @property
    def mask(self) -> BoolArray:
        """(H0, W0) bool, read-only: the mask after the clicks so far.

        As :attr:`Session.mask`.
        """
        return self.result.mask

    # --- several objects ----------------------------------------------------------------------------------------------

    async def select(self, surface: str) -> ClickResult:
        """Work on another object of the image: a new one, or one that has clicks already.

        As :meth:`Session.select`.
        """
        return await self._call(lambda s: s.select(surface))

    async def remove(self, surface: str) -> None:
        """Forget an object and its clicks. If it was the current one, the object that changed last becomes current.

        As :meth:`Session.remove`.
        """
        await self._call(lambda s: s.remove(surface))

    async def rename(self, surface: str, to: str) -> None:
        """Give an object another name. Its label, clicks, masks, history and place among the others stay.

        As :meth:`Session.rename`.
        """
        await self._call(lambda s: s.rename(surface, to))

    @property
    def surface(self) -> str:
        """Name of the current surface."""
        return self._state.surfaces.name

    @property
    def surfaces(self) -> Mapping[str, int]:
        """The label of every surface by name, oldest first; no label is given twice on an image."""
        return self._state.surfaces.names

    async def labels(self) -> Labels:
        """(H0, W0) int32, read-only: the label of each pixel's surface; 0 is background.

        As :attr:`Session.labels`.
        """
        return await self._call(lambda s: s.labels)

    # --- the annotation as a whole ------------------------------------------------------------------------------------

    async def to_dict(self) -> dict[str, Any]:
        """Return the annotation as plain data, JSON-able: all surfaces with their interactions, also the undone ones.

        As :meth:`Session.to_dict`.
        """
        return await self._call(lambda s: s.to_dict())

    async def restore(self, annotation: Mapping[str, Any]) -> ClickResult:
        """Put back an annotation that :meth:`to_dict` returned, in place of all surfaces; the image stays.

        As :meth:`Session.restore`.
        """
        return await self._call(lambda s: s.restore(annotation))

    async def to_coco(
        self,
        file_name: PathLike | None = None,
        *,
        polygons: bool = False,
        tolerance: float = 0.0,
        categories: Mapping[str, str] | None = None,
        empty: bool = False,
    ) -> dict[str, Any]:
        """Return all objects of the image as a COCO data set, JSON-able.

        As :meth:`Session.to_coco`.
        """
        return await self._call(
            lambda s: s.to_coco(file_name, polygons=polygons, tolerance=tolerance, categories=categories, empty=empty)
        )

    async def detections(self) -> Detections:
        """Return all objects that have pixels as arrays, as supervision and other detection tools take them.

        As :meth:`Session.detections`.
        """
        return await self._call(lambda s: s.detections())

    async def save(self, path: PathLike, overwrite: bool = False) -> None:
        """Write the work to a file, whole or not at all: all objects, their interactions and masks.

        As :meth:`Session.save`.
        """
        await self._call(lambda s: s.save(path, overwrite))

    async def load(
        self,
        path: PathLike,
        image: ImageLike | None = None,
        *,
        features: Features | None = None,
        other_image: bool = False,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> LoadedWork:
        """Take up the work that :meth:`save` kept, in the place of all surfaces.

        As :meth:`Session.load`.
        """
        options: dict[str, Any] = {"features": features, "other_image": other_image, "channel_order": channel_order}
        options.update(modalities)
        return await self._call(lambda s: s.load(path, image, **options))

    async def save_labels(self, path: PathLike, overwrite: bool = False) -> None:
        """Write :attr:`labels` and the names of the surfaces as a PNG file, whole or not at all.

        As :meth:`Session.save_labels`.
        """
        await self._call(lambda s: s.save_labels(path, overwrite))

    async def load_labels(
        self,
        labels: npt.NDArray[Any] | PictureLike,
        names: Mapping[str, int] | None = None,
        *,
        void: int | Iterable[int] | None = None,
    ) -> Mapping[str, int]:
        """Put the objects of a label map in the place of all surfaces; the network does not run.

        As :meth:`Session.load_labels`.
        """
        return await self._call(lambda s: s.load_labels(labels, names, void=void))

    # --- what it is, opening and closing ------------------------------------------------------------------------------

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self._opened.bundle

    @property
    def cleaning(self) -> MaskCleaning | None:
        """What is done to masks after the network has answered; None for nothing."""
        return self._opened.cleaning

    @property
    def engine(self) -> EngineInfo:
        """The engine that really runs, and why it was chosen."""
        return self._opened.engine

    @property
    def runs(self) -> Mapping[str, int]:
        """How often every stage ran since the session was opened, by name.

        As :attr:`Session.runs`, with the runs of calls that were taken back.
        """
        _ = self._opened
        assert self._answered is not None
        return self._answered.runs

    async def close(self) -> None:
        """Free everything the session holds, and its engine unless the caller passed it in. Safe to call twice.

        It waits for the calls that were made before; call :meth:`supersede` first to drop them. Calls that are made
        later raise ``SessionClosedError``. A coroutine that is cancelled here comes back at once, and the session is
        closed all the same.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> AsyncSession:
        try:
            await self._call(lambda session: session._check_open())
        except BaseException:
            # The engine may be open by now, or be about to be: nothing else would close it.
            if self._closing is None:
                self._closing = asyncio.get_running_loop().create_task(self._close())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.supersede()
        await self.close()

    def __repr__(self) -> str:
        if self._session is None:
            return "AsyncSession(not open)"
        state = "closed" if self._closing is not None else str(self._session.engine)
        return f"AsyncSession({self._session.bundle.reference!r}: {state})"

    # --- how --------------------------------------------------------------------------------------------------------

    async def _call(self, function: Callable[[Session], T], kind: str = "") -> T:
        """Run a function with the session in its turn, and show what it left from now on."""
        if self._closing is not None:
            raise _closed()
        answered = await self._turns.take(lambda: self._answer(function), kind)
        self._answered = answered
        return answered.value

    def _answer(self, function: Callable[[Session], T]) -> _Answered[T]:
        """Open the session where it is not yet, and run a function with it; in a thread."""
        with self._busy:
            if self._session is None:
                assert self._opens is not None
                self._session = self._opens()
            return _run(self._session, function)

    def _go_back(self, answered: _Answered[Any]) -> None:
        """Take back what a call did; in a thread."""
        assert self._session is not None
        self._session._go_back(answered.before, answered.state)

    async def _close(self) -> None:
        try:
            await self._turns.take(self._shut)
        except SessionError:
            # Another loop than that of the calls before, or closed workers: there is no turn to wait for.
            await asyncio.to_thread(self._shut)
        except BaseException:
            # The loop ends: the session is closed without its turn, after the call that runs.
            threading.Thread(target=self._shut).start()
            raise
        finally:
            if self._own_workers:
                self._workers.close()

    def _shut(self) -> None:
        """Close the session; in a thread."""
        with self._busy:
            if self._session is not None:
                self._session.close()

    @property
    def _opened(self) -> Session:
        if self._answered is None or self._session is None:
            raise SessionError(
                "this session is not open yet",
                expected="async with, or a call that was awaited",
                fix="write async with AsyncSession(...) as session: and use it there",
            )
        return self._session

    @property
    def _state(self) -> SessionState:
        """The state after the newest call that was answered; the state before the first image, once it is closed."""
        session = self._opened
        assert self._answered is not None
        return session._state if session._closed else self._answered.state

    def _open_state(self) -> SessionState:
        """Return that state.

        Raises:
            SessionClosedError: The session is closed.
        """
        state = self._state
        if self._closing is not None:
            raise _closed()
        return state


def _run(session: Session, function: Callable[[Session], T]) -> _Answered[T]:
    """Run a function with a session; on any error it is as before, also where the function changed something first."""
    with session._lock:
        before = session._state
        try:
            value = function(session)
            there = not session._closed and session._state.image.size is not None
            return _Answered(value, before, session._state, session.result if there else None, session.runs)
        except BaseException:
            session._go_back(before, session._state)
            raise


def _closed() -> SessionClosedError:
    return SessionClosedError(
        "this session is closed", expected="an open session", fix="open a new one with AsyncSession(bundle)"
    )

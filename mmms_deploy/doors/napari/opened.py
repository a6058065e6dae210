"""What lives in the worker's thread: an open model, its session, and how a session stands after a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.napari.plane import Picture
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.session import Click, Model, Session
from mmms_deploy.session.surfaces import Labels

BundleLike: TypeAlias = Bundle | str | Path
"""A bundle, or what names one: ``demo``, a folder, ``hf:owner/name``."""


@dataclass(frozen=True, eq=False)
class Standing:
    """How a session stands after a call.

    Attributes:
        image: Which image it is; every image has another number.
        surface: Name of the current object.
        surfaces: The label of every object by name, oldest first.
        clicks: The clicks on every object by name, oldest first.
        labels: (H0, W0) int32, read-only: the label of each pixel's object; 0 is background.
        can_undo: Whether there is a click to undo.
        can_redo: Whether there is an undone click to bring back.
        milliseconds: How long the call took in the worker's thread.
        error: Why the call was refused, after which the session is as it was; None where it happened.
    """

    image: int
    surface: str
    surfaces: Mapping[str, int]
    clicks: Mapping[str, tuple[Click, ...]]
    labels: Labels
    can_undo: bool
    can_redo: bool
    milliseconds: float
    error: MMMSDeployError | None = None


class Opened:
    """An open bundle with one session. All calls come from the worker's thread."""

    def __init__(self) -> None:
        self._asked: tuple[BundleLike, Opening] | None = None
        self._model: Model | None = None
        self._session: Session | None = None
        self._images = 0

    def open(self, bundle: BundleLike, opening: Opening) -> Model:
        """Open a bundle, and close the one before; the same one with the same settings stays open.

        When that fails, everything stays as it is.

        Args:
            bundle: The bundle.
            opening: How it is opened.

        Raises:
            BundleError: There is no usable bundle.
            EngineError: There is no usable engine.
            MMMSDeployError: Another setting is not possible.
        """
        if self._model is not None and self._asked == (bundle, opening):
            return self._model
        model = opening.model(bundle)
        try:
            session = opening.session(model)
        except BaseException:
            model.close()
            raise
        self.close()
        self._images += 1
        self._asked, self._model, self._session = (bundle, opening), model, session
        return model

    def set_image(
        self, bundle: BundleLike, opening: Opening, image: Picture, modalities: Mapping[str, Picture]
    ) -> Standing | None:
        """Encode an image.

        Args:
            bundle: What :meth:`open` was called with.
            opening: What :meth:`open` was called with.
            image: The image, which is read here.
            modalities: What is there of the modalities, by name, registered to the image.

        Returns:
            None where that bundle could not be opened: the image is not touched.

        Raises:
            MMMSDeployError: As for ``Session.set_image``.
        """
        if self._session is None or self._asked != (bundle, opening):
            return None
        start = perf_counter()
        arrays: dict[str, Any] = {name: picture.read() for name, picture in modalities.items()}
        self._session.set_image(image.read(), **arrays)
        self._images += 1
        return self._standing(self._session, start, None)

    def call(self, image: int, call: Callable[[Session], object]) -> Standing | None:
        """Call a session, and return how it stands afterwards; a call that is refused by name changes nothing.

        Args:
            image: Which image the call is about.
            call: What is called.

        Returns:
            None where the session is on another image by now: the call did not happen.
        """
        session = self._session
        if session is None or image != self._images:
            return None
        start = perf_counter()
        try:
            call(session)
        except MMMSDeployError as error:
            return self._standing(session, start, error)
        return self._standing(session, start, None)

    def close(self) -> None:
        """Free the session and the model. Safe to call twice."""
        session, model = self._session, self._model
        self._asked = self._session = self._model = None
        if session is not None:
            session.close()
        if model is not None:
            model.close()

    def _standing(self, session: Session, start: float, error: MMMSDeployError | None) -> Standing:
        names = session.surfaces
        clicks: dict[str, list[Click]] = {name: [] for name in names}
        for name, click in session.all_clicks:
            clicks[name].append(click)
        return Standing(
            image=self._images,
            surface=session.surface,
            surfaces=dict(names),
            clicks={name: tuple(every) for name, every in clicks.items()},
            labels=session.labels,
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            milliseconds=1e3 * (perf_counter() - start),
            error=error,
        )


def add_clicks(session: Session, name: str, clicks: Sequence[Click]) -> None:
    """Add clicks on an object; the current object stays the current one.

    Args:
        session: The session.
        name: The object.
        clicks: What is new.
    """
    _on(session, name, lambda: session.add_clicks(clicks))


def set_clicks(session: Session, name: str, clicks: Sequence[Click]) -> None:
    """Make a list the clicks on an object; the current object stays the current one.

    Args:
        session: The session.
        name: The object.
        clicks: All of them.
    """
    _on(session, name, lambda: session.set_clicks(clicks))


def _on(session: Session, name: str, call: Callable[[], object]) -> None:
    before = session.surface
    if name == before:
        call()
        return
    session.select(name)
    try:
        call()
    finally:
        session.select(before)


def new_object(session: Session) -> None:
    """Begin another object, named by a number that no object has.

    Args:
        session: The session.
    """
    names = session.surfaces
    number = max(names.values(), default=0) + 1
    while str(number) in names:
        number += 1
    session.select(str(number))

"""The calls of a session about several objects in one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

from mmms_deploy.session.click_list import ClickLike, checked_objects
from mmms_deploy.session.core import SessionCore
from mmms_deploy.session.recorder import recorded
from mmms_deploy.session.result import ClickResult
from mmms_deploy.session.surfaces import Labels, checked_name


class SurfaceCalls(SessionCore):
    """What a session does with several objects.

    Where the network answers for all objects at once (``manifest.clicks.objects`` above 1), a click changes every
    object's mask, and all of them have one history; docs/session.md says what the calls mean then.
    """

    @recorded
    def select(self, surface: str) -> ClickResult:
        """Work on another object of the image: a new one, or one that has clicks already.

        Every surface has its own clicks, history and answer; :meth:`click`, :meth:`undo`, :attr:`mask` and the others
        are about the current one. An image begins with the surface ``"1"``. The network does not run.

        If other surfaces took pixels from it since its last interaction, it continues from the rest of its mask, as in
        the paper's protocol (its mask is read back from the joint mask). This is an interaction like :meth:`set_mask`,
        and :meth:`undo` takes it back. A network that answers for all objects at once has decided whose pixels they
        are: nothing changes then.

        Args:
            surface: Its name.

        Returns:
            The answer to its clicks so far.

        Raises:
            NoImageError: No image was set.
            SurfaceError: The name is no text, or empty.
            EngineError: The rest of its mask could not be uploaded; the previous surface stays the current one.
        """
        with self._lock:
            self._size()
            start = perf_counter()
            step = self._steps.select(self, checked_name(surface), start)
            self._state = replace(self._state, surfaces=step.surfaces)
            return step.result

    @recorded
    def click_objects(self, clicks: Mapping[str, ClickLike]) -> dict[str, ClickResult]:
        """Click on several objects at once, one click on each, and return the answer for each of them.

        It is as if every object were turned to with :meth:`select`, which makes new ones, and then clicked. The masks
        are those of clicks one by one; where objects overlap, the label map gives the pixels to the later one of the
        call. The current object stays the current one, and every object is undone by itself. All clicks are taken, or
        none.

        With a bundle that was exported with ``--batch``, the clicks run together where the session's ``batch`` says so
        (docs/session.md). A network that answers for all objects at once answers all clicks in one run; they are its
        newest clicks then, in this order.

        Args:
            clicks: A click on every object by its name: ``(x, y)``, ``(x, y, 0)``, :class:`Click` and the others that
                :meth:`set_clicks` takes.

        Returns:
            The answers by the objects' names, in the same order.

        Raises:
            NoImageError: No image was set.
            ClickError: One is no click, or is outside of the image; or the network takes no more.
            SurfaceError: A name is no text, or empty; or the network answers for all objects at once, and for no more
                than there are.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed; no click is taken.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            wanted = checked_objects(clicks, size)
            if not wanted:
                return {}
            self._inputs.check_complete(self._state.image)
            clicked = self._steps.click_objects(self, wanted, start)
            self._state = replace(self._state, surfaces=clicked.surfaces)
            return clicked.results

    @recorded
    def remove(self, surface: str) -> None:
        """Forget an object and its clicks. If it was the current one, the object that changed last becomes current.

        A network that answers for all objects at once answers the remaining clicks again; any other does not run.

        Args:
            surface: Its name.

        Raises:
            NoImageError: No image was set.
            SurfaceError: There is none of that name, or it is no text.
            EngineError: The click stage failed; nothing has changed.
        """
        with self._lock:
            self._size()
            self._state = replace(self._state, surfaces=self._steps.remove(self, checked_name(surface)))

    @recorded
    def rename(self, surface: str, to: str) -> None:
        """Give an object another name. Its label, clicks, masks, history and place among the others stay.

        The current object stays the current one. The network does not run, and :meth:`undo` does not take it back.

        Args:
            surface: Its name.
            to: Its new name, which no other object has; its own name again changes nothing.

        Raises:
            NoImageError: No image was set.
            SurfaceError: There is none of that name, another one has the new name, or a name is no text or empty.
        """
        with self._lock:
            self._size()
            surfaces = self._state.surfaces.rename(checked_name(surface), checked_name(to))
            self._state = replace(self._state, surfaces=surfaces)

    @property
    def surface(self) -> str:
        """Name of the current surface."""
        with self._lock:
            return self._state.surfaces.name

    @property
    def surfaces(self) -> Mapping[str, int]:
        """The label of every surface by name, oldest first; no label is given twice on an image."""
        with self._lock:
            return self._state.surfaces.names

    @property
    def labels(self) -> Labels:
        """(H0, W0) int32, read-only: the label of each pixel's surface; 0 is background.

        Where surfaces overlap, the pixel belongs to the one that changed last. Those of a network that answers for all
        objects at once never overlap: this is its own map.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            return self._label_map()

"""The calls of a session about the current surface: clicks, choices, masks put in by hand, undo, redo, its answer."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy.typing as npt

from mmms_deploy.arguments import flag
from mmms_deploy.errors import MMMSDeployError, SessionError
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session.boxes import checked_box, takes_boxes
from mmms_deploy.session.choices import checked_choice
from mmms_deploy.session.click_list import ClickLike, checked_clicks
from mmms_deploy.session.core import SessionCore
from mmms_deploy.session.interactions import BoxInput, Interaction, checked_mask
from mmms_deploy.session.mask_sources import MaskLike
from mmms_deploy.session.predict import (
    Prediction,
    checked_logits,
    checked_points,
    nothing_to_predict,
    prediction,
    refuse_box,
)
from mmms_deploy.session.recorder import recorded
from mmms_deploy.session.result import Click, ClickResult, checked_click
from mmms_deploy.session.saved import SavedInteraction, read_interaction
from mmms_deploy.session.steps import Step


class ClickCalls(SessionCore):
    """What a session does with the clicks on the current surface."""

    @recorded
    def click(self, x: float, y: float, positive: bool | int = True) -> ClickResult:
        """Add a click and return the mask that follows.

        Args:
            x: Column in the image's own pixels, to the right. Pixel centres are at integers, so that the image reaches
                from -0.5 to W0 - 0.5; the far edge is outside.
            y: Row in the image's own pixels, downwards; from -0.5 to H0 - 0.5.
            positive: True or 1 for a click on the object, False or 0 for one on what does not belong to it; also 1.0
                and 0.0, as in a row of floats. With a network that answers for all objects at once, False is the
                background of all of them.

        Returns:
            The mask, the probability and the timings, at the image's own resolution.

        Raises:
            NoImageError: No image was set.
            ClickError: The click is outside of the image, not finite, or no number; or the network takes no more.
            SurfaceError: The network answers for all objects at once, and for no more than there are.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed; the click is not taken.
        """
        with self._lock:
            size = self._size()
            click = checked_click(x, y, positive, size)
            start = perf_counter()
            self._inputs.check_complete(self._state.image)
            return self._take((click,), start)

    @recorded
    def add_clicks(self, clicks: Iterable[ClickLike]) -> ClickResult:
        """Add several clicks to the current surface at once, and return the mask after the last one.

        The masks are those of a :meth:`click` for each, in the order given, and every click can be undone by itself.
        What is saved is one answer: a network that keeps the previous mask runs once a click, as its paper has it, and
        the mask is brought to the image's size once; one that takes all clicks as a list runs once for all of them. On
        any error none of the clicks is taken.

        Args:
            clicks: Oldest first, as for :meth:`set_clicks`, choices included; none leaves everything as it is.

        Returns:
            The answer to all clicks on the surface.

        Raises:
            NoImageError: No image was set.
            ClickError: It is no list of clicks, one is outside of the image, or the network takes no more.
            ChoiceError: A choice has nothing to choose from, as for :meth:`choose`.
            SurfaceError: As for :meth:`click`.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            wanted = checked_clicks(clicks, size)
            if not wanted:
                return self._result_of(self._state.surfaces.current)
            self._check_for_clicks(wanted)
            return self._take(wanted, start)

    @recorded
    def choose(self, index: int) -> ClickResult:
        """Take another of the network's answers to the newest click, where it gives several; the network does not run.

        Mask, probability, labels and what is written follow it, and the next click goes on from it, as if the network
        had taken it. Like a click, it can be undone with :meth:`undo`, also where that answer was taken already.

        Args:
            index: Its place in ``result.candidates``, from 0.

        Returns:
            The answer that was chosen, with all others as its ``candidates``.

        Raises:
            NoImageError: No image was set.
            ChoiceError: It is no place of an answer, or there is nothing to choose from: the network gives one answer,
                there is no click, a mask was put in, or the network gives several to the first click alone and there
                are more.
            AnswerError: The answer has values that are no probabilities, or logits that are not finite.
        """
        with self._lock:
            self._size()
            return self._take((checked_choice(index),), perf_counter())

    @recorded
    def set_mask(self, mask: MaskLike) -> ClickResult:
        """Put a mask in the place of the network's answer: one from elsewhere to start from, or one edited by hand.

        The network sees it as its previous mask at the next click; the clicks so far stay. Like a click, it can be
        undone with :meth:`undo`. The network does not run.

        Args:
            mask: At the image's own size: (H0, W0) bool; whole numbers that are all 0 and 1, or all 0 and 255; or
                probabilities in [0, 1] in a float dtype. Or a picture of 0 and 1 or 0 and 255, as a PIL image, a path,
                bytes or a file object, turned upright as its EXIF orientation says; the path of an ``.npy`` file, or of
                a ``.json`` file of ``ClickResult.save``; COCO's run lengths, or a dict that holds them, such as an
                annotation of COCO or ``ClickResult.to_dict()``; a ``Polygon`` or several, none for an empty mask; or an
                earlier ``ClickResult`` or ``Annotation``.

        Returns:
            The mask as given, and the probability that the network will see.

        Raises:
            NoImageError: No image was set.
            MaskInputError: The mask has another size or type, or numbers that do not say what belongs to the object,
                such as labels.
            SessionError: The network takes no previous mask, as one that answers for all objects at once.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            return self._take((checked_mask(mask, size, self._answer_size, self._manifest.clicks),), start)

    @recorded
    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> ClickResult:
        """Start on an object with a box around it, and return the mask that follows; clicks then correct it.

        Only networks that were made for boxes take one: SAM 2 and decoders like it, as a bundle (docs/foreign.md). It
        comes before the clicks on an object, once. Like a click, it can be undone with :meth:`undo`.

        Args:
            x0: Left edge in the image's own pixels, as SAM takes it; from -0.5.
            y0: Upper edge; from -0.5.
            x1: Right edge; up to W0.
            y1: Lower edge; up to H0.

        Returns:
            The network's answer to the box, with ``click`` as None where there is no click.

        Raises:
            NoImageError: No image was set.
            ClickError: The network takes no boxes; it is no box in the image; or there are clicks or another box on the
                object.
            EngineError: The click stage failed; the box is not taken.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            box = checked_box((x0, y0, x1, y1), size)
            self._check_for_clicks((box,))
            return self._take((box,), start)

    @recorded
    def set_clicks(self, clicks: Iterable[ClickLike]) -> ClickResult:
        """Make a list the clicks on the current surface, and return the mask that follows.

        The network runs only for clicks that the surface does not have yet: it goes on from the longest common
        beginning. The answer is the same as that of :meth:`reset` and a :meth:`click` for each, and every click can be
        undone. The order of clicks matters to the networks, and is the order given. Masks put in by hand are no clicks:
        a surface that began with one begins anew. On any error nothing changes.

        Args:
            clicks: Oldest first: :class:`Click`, ``[x, y, 1 or 0]`` as :meth:`Click.to_list` returns it, or
                ``{"x": ..., "y": ..., "positive": ...}``; none for the surface without clicks. ``{"choice": ...}``
                after a click is what :meth:`choose` does there; without one, the network's own choice counts.

        Returns:
            The answer to all of them.

        Raises:
            NoImageError: No image was set.
            ClickError: It is no list of clicks, or one is outside of the image.
            ChoiceError: A choice has nothing to choose from, as for :meth:`choose`.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            return self._follow(checked_clicks(clicks, size), start)

    @recorded
    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Prediction:
        """Click as code does that was written for SAM: all points at every call; docs/sam.md has the differences.

        A thin face of :meth:`set_clicks` on the current surface, with the arguments of ``SamPredictor.predict`` and
        ``SAM2ImagePredictor.predict``. On any error nothing changes.

        Args:
            point_coords: (N, 2): x and y of every point in image pixels, oldest first. The order matters.
            point_labels: (N,): 1 on the object, 0 off it.
            box: (4,): x0, y0, x1, y1 in image pixels, as :meth:`set_box` puts it in, before all points. Refused by
                networks that take clicks, no boxes.
            mask_input: (1, H, W) logits from an earlier call. If they are the surface's answer to the first of these
                points, the surface goes on from there; if they are another of several answers, that one is chosen, as
                by :meth:`choose`. Otherwise the surface begins with them as :meth:`set_mask` does, and all points
                follow.
            multimask_output: Whether all answers of a network that gives several are returned, in its order, and not
                only the one that the session takes. Without effect for a network that gives one.
            return_logits: Whether logits take the masks' place; they are above 0 where the mask is.
            normalize_coords: False for coordinates from 0 to 1, as parts of the image's width and height.

        Returns:
            Masks (K, H0, W0) bool, or float32 logits; scores (K,) float32; and logits (K, h, w) float32 at the
            network's resolution, for ``mask_input``. K is 1 but for several answers. Scores of several answers are the
            network's own. Of any other network the score says how decided it is, from 0 to 1: the intersection over
            union of its mask with its probability map. That is no predicted IoU.

        Raises:
            NoImageError: No image was set.
            ClickError: A box for a network that takes none, another label than 1 and 0, a point outside of the image,
                or neither points nor box nor mask.
            MaskInputError: ``mask_input`` are no logits.
            SessionError: ``mask_input`` for a network that takes no previous mask.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            rule = self._manifest.clicks
            several = flag("multimask_output", multimask_output, SessionError)
            logits = flag("return_logits", return_logits, SessionError)
            if not takes_boxes(rule):
                refuse_box(box)
            pixels = flag("normalize_coords", normalize_coords, SessionError)
            clicks = checked_points(point_coords, point_labels, size, pixels=pixels)
            boxes = () if box is None else (checked_box(box, size, pixels=pixels),)
            given = None
            if mask_input is None and not clicks and not boxes:
                raise nothing_to_predict()
            if mask_input is not None:
                given = checked_logits(mask_input, size, self._answer_size, rule)
            result = self._follow(self._steps.predicted(self, (*boxes, *clicks), given), start)
            whole = self._steps.whole_answer(self)
            return prediction(result, whole, several=several, logits=logits)

    @recorded
    def undo(self) -> ClickResult:
        """Take back the newest click, choice or mask; the network does not run.

        It is the newest one on the current surface; of a network that answers for all objects at once, the newest one
        on any of them, and the current surface stays the current one. Where several clicks came at once to a network
        that takes them as a list, it was never asked for the answers in between: it runs when undo first comes to one.

        Returns:
            The answer to the clicks that remain; an empty mask when none remains.

        Raises:
            NoImageError: No image was set.
            HistoryError: There is no click to undo.
            EngineError: The click stage had to run, and failed; nothing has changed.
        """
        with self._lock:
            self._size()
            return self._move(self._steps.undo(self, perf_counter()))

    @recorded
    def redo(self) -> ClickResult:
        """Bring back the click, choice or mask that was undone last; the network does not run, but as for :meth:`undo`.

        Returns:
            The answer to the clicks so far.

        Raises:
            NoImageError: No image was set.
            HistoryError: There is no undone click; a new click forgets them.
            EngineError: As for :meth:`undo`.
        """
        with self._lock:
            self._size()
            return self._move(self._steps.redo(self, perf_counter()))

    @recorded
    def reset(self) -> None:
        """Forget all clicks and undone clicks on the current surface; the image stays, and the network does not run.

        A network that answers for all objects at once runs: it answers the clicks on the others again.

        Raises:
            NoImageError: No image was set.
            EngineError: The click stage failed; nothing has changed.
        """
        with self._lock:
            self._size()
            self._state = replace(self._state, surfaces=self._steps.reset(self))

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks so far, oldest first."""
        with self._lock:
            return self._steps.clicks(self._state.surfaces)

    @property
    def all_clicks(self) -> tuple[tuple[str, Click], ...]:
        """The clicks on all surfaces, each with the name of its surface.

        With a network that answers for all objects at once they are in the order in which they were made; with any
        other, surface by surface, oldest first.
        """
        with self._lock:
            return self._steps.all_clicks(self._state.surfaces)

    @property
    def can_undo(self) -> bool:
        """Whether there is a click to undo."""
        with self._lock:
            return self._steps.history(self._state.surfaces).can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone click to bring back."""
        with self._lock:
            return self._steps.history(self._state.surfaces).can_redo

    @property
    def result(self) -> ClickResult:
        """The answer to the clicks so far; an empty mask without clicks.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            return self._result_of(self._state.surfaces.current)

    @property
    def mask(self) -> BoolArray:
        """(H0, W0) bool, read-only: the mask after the clicks so far.

        Raises:
            NoImageError: No image was set.
        """
        return self.result.mask

    @recorded
    def _repeat(self, kept: int, interactions: Sequence[SavedInteraction]) -> ClickResult:
        """Do what a journal says of a call that was several interactions in one.

        Args:
            kept: How many of the surface's first interactions stay.
            interactions: Those that follow them, as an annotation has them.

        Raises:
            SessionError: They cannot be read, or the surface has fewer.
            EngineError: The click stage failed; nothing has changed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            there = self._steps.interactions(self._state.surfaces)
            try:
                if kept > len(there):
                    raise ValueError(f"the first {kept} interactions stay of {len(there)}")
                rule = self._manifest.clicks
                new = [read_interaction(one, size, self._answer_size, rule) for one in interactions]
            except (MMMSDeployError, ValueError, zlib.error) as error:
                reason = error.given if isinstance(error, MMMSDeployError) else error
                raise SessionError(
                    f"interactions cannot be repeated: {reason}",
                    expected="what a journal says",
                    fix="check where it comes from",
                ) from error
            return self._follow([*there[:kept], *new], start)

    def _take(self, interactions: Sequence[Interaction], start: float) -> ClickResult:
        return self._move(self._steps.take(self, interactions, start))

    def _follow(self, wanted: Sequence[Interaction], start: float) -> ClickResult:
        """Make these the interactions with the current surface."""
        self._check_for_clicks(wanted)
        return self._move(self._steps.follow(self, wanted, start))

    def _check_for_clicks(self, wanted: Sequence[Interaction]) -> None:
        if any(isinstance(interaction, Click | BoxInput) for interaction in wanted):
            self._inputs.check_complete(self._state.image)

    def _move(self, step: Step) -> ClickResult:
        self._state = replace(self._state, surfaces=step.surfaces)
        return step.result

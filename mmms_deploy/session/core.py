"""What every call on a session stands on: the engine, the lock, one state that never changes, and its answers.

A call takes the lock, checks that the session is open, builds new values, and assigns ``_state`` once at its end. So
an error, an interrupt or a lack of memory leaves the session as it was.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NoReturn

import numpy as np

from mmms_deploy.arguments import flag
from mmms_deploy.bundle import AnswerForm, Bundle
from mmms_deploy.bundle.contract import ClickMemory
from mmms_deploy.bundle.names import LABELS, POINTS
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.engines.process import OwnProcess
from mmms_deploy.engines.protocol import Engine, Finish, Finisher, Value
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import check_shared, open_request
from mmms_deploy.errors import ClickError, NoImageError, SessionClosedError, SessionError
from mmms_deploy.imaging.cleaning import Cleaner, MaskCleaning, checked_cleaning
from mmms_deploy.imaging.resize import BoolArray, FloatArray, through_image
from mmms_deploy.progress import OnProgress
from mmms_deploy.session.answer_fetch import AnswerFetch
from mmms_deploy.session.answers import Candidates, NetworkAnswer, as_probability, given_logits, limit_of
from mmms_deploy.session.batch_plan import checked_batch
from mmms_deploy.session.boxes import CORNERS, check_for_box, with_corners
from mmms_deploy.session.choices import chosen
from mmms_deploy.session.click_labels import labels_of_mask
from mmms_deploy.session.click_only import shows_no_parts
from mmms_deploy.session.click_run import ClickRun
from mmms_deploy.session.click_stage import find_click_stage
from mmms_deploy.session.features import FeatureSource
from mmms_deploy.session.history import History, checked_limit
from mmms_deploy.session.inputs import ImageInputs, ImageState
from mmms_deploy.session.interactions import (
    BoxInput,
    Choice,
    FirstClick,
    Interaction,
    Interactions,
    MaskInput,
    Snapshot,
)
from mmms_deploy.session.list_run import ListRun
from mmms_deploy.session.outputs import Named
from mmms_deploy.session.pipeline import PipelineState, StagePipeline
from mmms_deploy.session.recorder import Recorder
from mmms_deploy.session.remembered import Remembered
from mmms_deploy.session.result import Click, ClickResult, timings_of
from mmms_deploy.session.saved import checked, interactions_of
from mmms_deploy.session.steps import Step, Steps
from mmms_deploy.session.surfaces import FIRST, Labels, Surface, Surfaces
from mmms_deploy.session.views import Encoded, Views, checked_zoom
from mmms_deploy.session.zoom import click_in, whole


@dataclass(frozen=True, eq=False)
class SessionState:
    """Everything that a session knows of its image and its clicks. It never changes.

    Every call builds a new state and assigns it at its end. So an error, an interrupt or a lack of memory leaves the
    session as it was.

    Attributes:
        image: The image, and what the stages made of it.
        surfaces: The objects in it, their clicks and answers.
    """

    image: ImageState
    surfaces: Surfaces


class SessionCore(ABC):
    """What the calls of a session share; :class:`~mmms_deploy.session.Session` joins them.

    Args:
        bundle: A bundle, or what names one.
        engine: An open engine that several sessions share; None opens one.
        request: What was asked of the engine.
        history_limit: How many interactions with a surface can be undone; None for all of them.
        keep_image: Whether the session keeps the pixels of the image.
        on_progress: Receives every step while an engine opens.
        zoom: Whether a click is answered in the object's crop, or the crop's rule.
        flip: Whether an answer is the mean with that to the mirror image.
        store: Keeps the features of images; None for nothing that does.
        resume: Whether an image that comes back has its objects again.
        batch: Whether clicks on several objects run together; None for where it pays.
        cleaning: What is done to masks after the network has answered; None for nothing.

    Raises:
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
        HistoryError: ``history_limit`` is no number of steps.
        SessionError: ``zoom``, ``flip`` or ``batch`` is not possible with this bundle, or ``cleaning`` not here.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        engine: Engine | None,
        request: EngineRequest,
        history_limit: int | None,
        keep_image: bool,
        on_progress: OnProgress | None,
        zoom: ZoomRule | bool = False,
        flip: bool = False,
        store: FeatureSource | None = None,
        resume: bool = False,
        batch: bool | None = None,
        cleaning: MaskCleaning | None = None,
    ) -> None:
        self._own = OwnProcess("this session", self)
        self.renew_lock()
        self._closed = False
        self._recorder: Recorder | None = None
        self._in_call = False
        self._bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self._manifest = self._bundle.manifest
        self._limit = checked_limit(history_limit)
        published = self._manifest.published
        rule = checked_zoom(zoom, None if published is None else published.zoom)
        self._cleaning = checked_cleaning(cleaning)
        self._keep_image = flag("keep_image", keep_image, SessionError)
        mirrored = flag("flip", flip, SessionError)
        self._store = store
        self._remembered = Remembered() if flag("resume", resume, SessionError) else None
        self._owns_engine = engine is None
        if engine is None:
            self._engine = open_request(self._bundle, request, on_progress)
        else:
            check_shared(engine, self._bundle, request)
            self._engine = engine
        with ExitStack() as on_error:
            if self._owns_engine:
                on_error.callback(self._engine.close)
            self._runner = self._engine.open()
            on_error.callback(self._runner.close)
            self._pipeline = StagePipeline(self._manifest, self._engine.graphs, self._runner)
            self._batch = checked_batch(
                batch, self._manifest, self._engine.info.device, viewed=rule is not None or mirrored
            )
            self._fetched = AnswerFetch(self._manifest, self._engine, self._runner)
            viewed = rule is not None or mirrored
            # Answers for crops and mirror images are put together on the CPU.
            self._finisher = self._runner if isinstance(self._runner, Finisher) and not viewed else None
            asked = "zoom" if rule is not None else "flip" if mirrored else None
            self._steps: Steps[SessionCore] = self._opened_steps(asked)
            self._inputs = ImageInputs(self._manifest, self._pipeline, for_crops=viewed)
            self._views = self._viewing(rule, mirrored) if viewed else None
            self._state = self._empty()
            on_error.pop_all()

    @abstractmethod
    def _opened_steps(self, asked: str | None) -> Steps[SessionCore]:
        """Return what calls do with the network's objects, and find the tensors of its click stage.

        Args:
            asked: ``zoom`` or ``flip``, where one was requested; None for nothing.
        """

    def _find_click_stage(self) -> None:
        """Find the tensors of the click stage of a network that answers for one object at a time."""
        self._tensors = find_click_stage(self._manifest, self._pipeline)
        self._run_click = ClickRun(
            self._manifest,
            self._pipeline,
            self._tensors.click,
            self._previous_input,
            self._tensors.answer,
            self._fetched,
        )
        listed = self._manifest.clicks.listed
        self._run_list = None if listed is None else ListRun(self._manifest, self._pipeline, self._tensors, listed)

    def renew_lock(self) -> None:
        """Take a new lock; called in a forked child, where the thread that held the old one does not exist."""
        self._lock = threading.RLock()

    def close(self) -> None:
        """Free everything the session holds, and its engine unless the caller passed it in. Safe to call twice.

        In a child that was forked after the session had been opened it does nothing.
        """
        if self._own.elsewhere:
            return
        with self._lock:
            recorder, self._recorder = self._recorder, None
            if recorder is not None:
                recorder.closed()
            self._closed = True
            self._state = self._empty()
            try:
                self._runner.close()
            finally:
                if self._owns_engine:
                    self._engine.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise SessionError(
            "a session can be neither pickled nor copied: its image lives in the memory of this process or GPU",
            expected="one session for each annotator, in the process that uses it",
            fix="pass the bundle's path, and open another session there with Session(path)",
        )

    def _check_open(self) -> None:
        self._own.check()
        if self._closed:
            raise SessionClosedError(
                "this session is closed", expected="an open session", fix="open a new one with Session(bundle)"
            )

    def _size(self) -> tuple[int, int]:
        self._check_open()
        return self._size_of(self._state.image)

    @staticmethod
    def _size_of(image: ImageState) -> tuple[int, int]:
        if image.size is None:
            raise NoImageError(
                "no image is set", expected="an image before the first click", fix="call set_image(...) first"
            )
        return image.size

    def _empty(self) -> SessionState:
        """Return the state before the first image."""
        surfaces = self._steps.first(Snapshot(Interactions(), {}, None), self._limit)
        return SessionState(ImageState(self._pipeline.start()), surfaces)

    def _go_back(self, before: SessionState, after: SessionState) -> None:
        """Be as before a call, unless another one came after it; no stage runs.

        Args:
            before: The state before the call.
            after: The state that it left.
        """
        with self._lock:
            if self._state is after and not self._closed:
                self._state = before
                if self._recorder is not None and before is not after:
                    self._recorder.taken_back(before)

    def _remember(self, state: SessionState) -> None:
        """Keep the objects of an image that is left, where the session resumes."""
        content = state.image.content
        if self._remembered is not None and content is not None:
            self._remembered.keep(content.hash, self._steps.save(self) if self._annotated() else None)

    def _recall(self, image: ImageState) -> None:
        """Restore the objects of an image that came back."""
        if self._remembered is None or image.content is None or image.awaited:
            return
        annotation = self._remembered.find(image.content.hash)
        if annotation is not None:
            self._state = replace(self._state, surfaces=self._restored(annotation, perf_counter()).surfaces)

    def _restored(self, annotation: Mapping[str, Any], start: float) -> Step:
        """Repeat a saved annotation on the current image.

        Args:
            annotation: What ``to_dict`` returned.
            start: When the call began, by ``perf_counter``.

        Raises:
            SessionError: It is something else, or belongs to an image of another size.
            ChoiceError: An answer was chosen that this network does not give.
            ModalityError: A modality is not there yet.
            EngineError: The click stage failed.
        """
        size = self._size()
        image, rule = self._state.image, self._manifest.clicks
        found = checked(annotation, size)
        given = {one.name: interactions_of(one, size, self._answer_size, rule) for one in found.surfaces}
        if any(isinstance(one, Click | BoxInput) for interactions in given.values() for one in interactions):
            self._inputs.check_complete(image)
        return self._steps.restore(self, found, given, start)

    def _annotated(self) -> bool:
        """Whether anything was done with the image: a click, a mask, another surface than the first one."""
        surfaces = self._state.surfaces
        # Without a history there is nothing to undo, and clicks all the same.
        made = self._steps.history(surfaces).newest.interactions
        return surfaces.names != {FIRST: 1} or surfaces.given > 1 or len(made) > 0

    def _blank(self) -> Snapshot:
        """Return the snapshot of a surface without interactions."""
        if self._views is not None:
            return Snapshot(Interactions(), {}, None)
        state = {link.input: self._pipeline.filled(link.input, link.start) for link in self._manifest.state}
        return Snapshot(Interactions(), state, None)

    @property
    def _previous_input(self) -> str | None:
        """The input of the click stage that takes the previous mask, or its labels; None when there is none."""
        if self._manifest.clicks.memory is ClickMemory.LABELS:
            return LABELS
        links = (link.input for link in self._manifest.state if link.output == self._tensors.answer)
        return next(links, None)

    @property
    def _answer_size(self) -> tuple[int, int]:
        """(h, w) of the network's answer."""
        return self._manifest.clicks.answer_size(self._manifest.size)

    def _after(
        self, image: ImageState, current: Snapshot, interaction: Interaction, *, wanted: bool = True
    ) -> tuple[Snapshot, FloatArray | None]:
        """Return the snapshot after one more interaction, and what ``_numbers_of`` returns of it.

        Args:
            image: The image.
            current: The snapshot before.
            interaction: The interaction.
            wanted: Whether its answer is wanted now. Otherwise a network that takes all clicks as a list need not run;
                the snapshot is pending then, and there are no numbers.
        """
        if isinstance(interaction, MaskInput):
            return self._after_mask(image, current, interaction), interaction.previous[0, 0]
        if isinstance(interaction, Choice):
            return self._after_choice(image, current, interaction)
        if isinstance(interaction, BoxInput):
            return self._after_box(image, current, interaction)
        if self._run_list is not None:
            return self._after_listed(self._run_list, image, current, interaction, wanted=wanted)
        return self._after_click(image, current, interaction)

    def _after_mask(self, image: ImageState, current: Snapshot, mask: MaskInput) -> Snapshot:
        name = self._previous_input
        if name is None:
            raise SessionError(
                f"a mask was put in, and {self._manifest.name} feeds no previous mask back: its network takes none, or"
                " was exported without it",
                expected="a network that takes its previous mask",
                fix="use clicks alone with this bundle",
            )
        if self._views is not None:
            return self._views.after_mask(current, mask)
        rule = self._manifest.clicks
        if rule.memory is ClickMemory.LABELS:
            labels = labels_of_mask(mask.previous[0, 0], current.clicks, self._size_of(image), rule)
            seen = self._pipeline.upload(name, labels)
        else:
            logits = rule.answer_form is AnswerForm.LOGITS
            seen = self._pipeline.upload(name, given_logits(mask.previous) if logits else mask.previous)
        return Snapshot(current.interactions.push(mask), {**current.state, name: seen}, seen)

    def _after_click(self, image: ImageState, current: Snapshot, click: Click) -> tuple[Snapshot, FloatArray]:
        """Run the click stage on one more click."""
        if self._views is not None:
            snapshot = self._views.after_click(image, current, click)
            return snapshot, self._numbers_of(snapshot)
        rule = self._manifest.clicks
        picture = whole(self._size_of(image))
        self._check_room(current)
        # Only a modulation needs the clicks before: without one, a click costs the same however many there are.
        clicks = (click,) if rule.modulation is None else (*current.clicks, click)
        encoded = [click_in(one, picture, self._manifest.size, rule.coordinates) for one in clicks]
        return self._clicked(image, current, click, self._run_click(image.pipeline, current.state, encoded))

    def _after_clicks(
        self, image: ImageState, given: Sequence[tuple[Snapshot, Interaction]], count: int
    ) -> list[tuple[Snapshot, FloatArray]]:
        """Run the click stage for several objects on one more click on each of them.

        Args:
            image: The image.
            given: The snapshot before and the click, for every object.
            count: How many objects the stage takes.
        """
        rows = [(current, click) for current, click in given if isinstance(click, Click)]
        encoded = [(current.state, self._row(image, click)) for current, click in rows]
        done = self._run_click.together(image.pipeline, encoded, count)
        return [self._clicked(image, *row, one) for row, one in zip(rows, done, strict=True)]

    def _after_box(self, image: ImageState, current: Snapshot, box: BoxInput) -> tuple[Snapshot, FloatArray]:
        """Put the corners of a box into the list of points, and run the click stage without a click."""
        check_for_box(box, current, self._manifest)
        points = with_corners(self._runner.download(current.state[POINTS]), box, self._size_of(image), self._manifest)
        state = {**current.state, POINTS: self._pipeline.upload(POINTS, points)}
        return self._clicked(image, current, box, self._run_click(image.pipeline, state, [(0.0, 0.0, 0.0, 0.0)]))

    def _clicked(
        self, image: ImageState, current: Snapshot, click: Click | BoxInput, done: PipelineState
    ) -> tuple[Snapshot, FloatArray]:
        """Return the snapshot after a click that the click stage has answered, and the answer."""
        size, rule = self._size_of(image), self._manifest.clicks
        answer = done.value(self._tensors.answer)
        numbers = self._fetched(answer)
        state = {link.input: done.value(link.output) for link in self._manifest.state}
        if rule.previous_resize is not None:
            state |= self._fed_back(size, numbers)
        return Snapshot(current.interactions.push(click), state, answer, candidates=self._candidates(done)), numbers

    def _after_listed(
        self, run: ListRun, image: ImageState, current: Snapshot, click: Click, *, wanted: bool
    ) -> tuple[Snapshot, FloatArray | None]:
        """Run the stages of one more click, of which the network takes the list with all others."""
        interactions, first = current.interactions.push(click), current.first
        if self._tensors.proposals is not None and first is None:
            self._check_first(click)
            proposed = run.propose(image.pipeline, self._row(image, click))
            proposals = self._proposals(proposed)
            first = FirstClick(proposed, proposals)
            return Snapshot(interactions, {}, None, candidates=proposals, first=first), proposals.answer
        pending = Snapshot(interactions, {}, None, first=first, pending=True)
        return self._answered(run, image, pending) if wanted else (pending, None)

    def _answered(self, run: ListRun, image: ImageState, pending: Snapshot) -> tuple[Snapshot, FloatArray]:
        """Run the click stage on all clicks of a snapshot, and return it with its answer."""
        rows = [self._row(image, click) for click in pending.clicks]
        if pending.first is None:
            done = run.answer(image.pipeline, rows)
        else:
            done = run.answer(pending.first.pipeline, rows, pending.first.proposals.taken)
        answer = done.value(self._tensors.answer)
        return replace(pending, probability=answer, pending=False), self._fetched(answer)

    def _row(self, image: ImageState, click: Click) -> Encoded:
        """Return a click as the list has it."""
        return click_in(click, whole(self._size_of(image)), self._manifest.size, self._manifest.clicks.coordinates)

    def _settled(self, history: History[Snapshot], image: ImageState | None = None) -> History[Snapshot]:
        """Return a history whose current answer is there; it is the same one where it was.

        Args:
            history: The history.
            image: The image; None for the current one.
        """
        if not history.current.pending:
            return history
        assert self._run_list is not None
        snapshot, _ = self._answered(self._run_list, image or self._state.image, history.current)
        return replace(history, current=snapshot)

    def _compiled_for(self, clicks: int) -> float:
        """Compile the click stage for lists up to so many clicks, and return how many seconds that took."""
        return 0.0 if self._run_list is None else self._run_list.prepare(clicks)

    def _check_first(self, click: Click) -> None:
        """Check that a network can propose objects at a first click.

        Raises:
            ClickError: It is negative.
        """
        if not click.positive:
            raise ClickError(
                f"the first click ({click.x:g}, {click.y:g}) is negative",
                expected=f"a positive one: {self._manifest.name} proposes objects at the first click",
                fix="click on the object first, and off it next",
                command_fix="put --pos X,Y before --neg X,Y",
            )

    def _proposals(self, done: PipelineState) -> Candidates:
        """Return the proposals for a first click, on the host; the one of the largest score is taken."""
        tensors = self._tensors.proposals
        assert tensors is not None
        numbers = self._fetched.checked(self._runner.download_float32(done.value(tensors.candidates))[0])
        scores = self._runner.download_float32(done.value(tensors.scores))[0]
        numbers.setflags(write=False)
        return Candidates(numbers, tuple(scores.tolist()), int(scores.argmax()))

    def _after_choice(self, image: ImageState, current: Snapshot, choice: Choice) -> tuple[Snapshot, FloatArray]:
        """Take another of the newest click's answers: the next click sees it in the place of the one before."""
        candidates = chosen(choice, current, self._manifest)
        numbers = self._fetched.checked(candidates.answer)
        state = {**current.state, **self._fed_back(self._size_of(image), numbers)}
        first = None if current.first is None else replace(current.first, proposals=candidates)
        return Snapshot(current.interactions.push(choice), state, None, candidates=candidates, first=first), numbers

    def _fed_back(self, size: tuple[int, int], numbers: FloatArray) -> dict[str, Value]:
        """Return the state that an answer (h, w) is at the next click; nothing where no answer is fed back."""
        fed, rule = self._previous_input, self._manifest.clicks
        if fed is None:
            return {}
        if rule.previous_resize is not None:
            numbers = through_image(numbers, size, rule.mask_resize, rule.previous_resize)
        return {fed: self._pipeline.upload(fed, numbers[None, None])}

    def _viewing(self, zoom: ZoomRule | None, flip: bool) -> Views:
        """Return what answers clicks in crops or as the mean with the mirror image."""
        asked = "zoom" if zoom is not None else "flip"
        if self._inputs.click_only:
            raise shows_no_parts(self._manifest, asked)
        if self._inputs.backbone:
            raise SessionError(
                f"{asked} was asked of {self._manifest.name}, which was exported without its backbone",
                expected="a bundle that takes the picture, whose parts the network can be shown",
                fix=f"leave out {asked}, or export again without the cut 'black-box'",
                command_fix=f"leave out --{asked}, or export without --cut black-box",
            )
        fetched, answer = self._fetched, self._tensors.answer

        def fetch(done: PipelineState) -> FloatArray:
            return fetched(done.value(answer))

        return Views(self._manifest, self._pipeline, zoom, flip, self._run_click, fetch)

    def _check_room(self, current: Snapshot) -> None:
        """Check that a list of points has a row for one more click.

        Raises:
            ClickError: It has none.
        """
        points = self._manifest.clicks.points
        taken = current.interactions.clicked + CORNERS * current.interactions.boxed
        if points is not None and taken >= points.most:
            raise ClickError(
                f"click {len(current.clicks) + 1} on one object",
                expected=f"at most {points.most}: {self._manifest.name} was exported with a list of so many points",
                fix="undo a click, or export again with more 'most_points' in the description",
            )

    def _candidates(self, done: PipelineState) -> Candidates | None:
        """Return all answers of the network on the host; None where it gives one."""
        if self._tensors.several is None:
            return None
        numbers, scores, taken = (self._runner.download_float32(done.value(name))[0] for name in self._tensors.several)
        numbers.setflags(write=False)
        return Candidates(numbers, tuple(scores.tolist()), int(taken[0]))

    def _numbers_of(self, snapshot: Snapshot) -> FloatArray:
        """Return a snapshot's answer (h, w) on the host.

        After a click or a choice, it is in the form that the click contract says; a mask that was put in is a
        probability, and without interactions there are zeros.
        """
        newest = snapshot.newest
        if isinstance(newest, MaskInput):
            given: FloatArray = newest.previous[0, 0]
            return given
        if snapshot.viewed is not None:
            return snapshot.viewed.newest
        if snapshot.probability is None and snapshot.candidates is not None:
            return snapshot.candidates.answer
        if snapshot.probability is None:
            return np.zeros(self._answer_size, dtype=np.float32)
        return self._fetched(snapshot.probability)

    def _network_answer(self, snapshot: Snapshot, numbers: FloatArray | None = None) -> NetworkAnswer:
        """Return a snapshot's answer at its own resolution.

        Args:
            snapshot: The snapshot.
            numbers: What ``_numbers_of`` returns of it, when it is on the host already.
        """
        numbers = self._numbers_of(snapshot) if numbers is None else numbers
        numbers.setflags(write=False)
        answered = isinstance(snapshot.newest, Click | Choice | BoxInput)
        return NetworkAnswer(numbers, self._manifest.clicks if answered else as_probability(self._manifest.clicks))

    def _whole_answer(self, snapshot: Snapshot) -> NetworkAnswer:
        """Return a snapshot's answer for the whole image, at the answer's own resolution."""
        if self._views is None or snapshot.viewed is None:
            return self._network_answer(snapshot)
        return self._network_answer(snapshot, self._views.whole_answer(snapshot.viewed))

    def _answer(
        self,
        snapshot: Snapshot,
        start: float,
        numbers: FloatArray | None = None,
        compiled: float = 0.0,
        *,
        cleaned: bool = True,
    ) -> ClickResult:
        """Bring a snapshot's answer to the image's size.

        Args:
            snapshot: The snapshot.
            start: When the call began, by ``perf_counter``.
            numbers: What ``_numbers_of`` returns of it, when it is on the host already.
            compiled: Seconds of the call that went into compiling.
            cleaned: Whether the mask is cleaned, where the session cleans masks.
        """
        rule = self._manifest.clicks
        size = self._size()
        newest = snapshot.newest
        answer = self._network_answer(snapshot, numbers)
        fetched = perf_counter()
        device = "cpu"
        if isinstance(newest, MaskInput):
            mask = newest.mask
        elif snapshot.viewed is not None:
            mask = snapshot.viewed.canvas.mask(rule.threshold)
        elif newest is None:
            mask = np.zeros(size, dtype=np.bool_)
        else:
            finished = self._finished(snapshot, size)
            mask, device = (answer.above(size), "cpu") if finished is None else (finished, "cuda")
        interactions = snapshot.interactions
        # A mask that was put in is the annotator's own.
        answered = cleaned and newest is not None and not isinstance(newest, MaskInput)
        cleaner = self._cleaner(snapshot) if answered else None
        if cleaner is not None:
            mask = cleaner(mask)
        mask.setflags(write=False)
        end = perf_counter()
        return ClickResult(
            mask=mask,
            click=interactions.click,
            index=interactions.clicked,
            timings=timings_of(start, fetched, end, compiled),
            answer=answer,
            _interactions=interactions,
            crop=self._crop_of(snapshot),
            candidates=() if snapshot.candidates is None else snapshot.candidates.listed(rule, size, cleaner),
            mask_device=device,
            _picture=self._state.image.picture,
            _canvas=None if snapshot.viewed is None else snapshot.viewed.canvas,
        )

    def _cleaner(self, snapshot: Snapshot) -> Cleaner | None:
        """Return what cleans a mask that answers a snapshot's clicks; None where masks stay as they are."""
        if self._cleaning is None:
            return None
        return Cleaner(self._cleaning, tuple((one.x, one.y, one.positive) for one in snapshot.clicks))

    def _finish_at(self, size: tuple[int, int]) -> Finish:
        """Return how an answer becomes a mask of an image's size."""
        rule = self._manifest.clicks
        return Finish(size, rule.mask_resize, limit_of(rule))

    def _finished(self, snapshot: Snapshot, size: tuple[int, int]) -> BoolArray | None:
        """Return the mask of a snapshot's answer as the engine's device made it; None where the CPU has to make it.

        That is every engine on the CPU, and an answer that is not on the device as it came from the network: a choice
        among several, a proposal.
        """
        if self._finisher is None or snapshot.probability is None:
            return None
        return self._finisher.finished(snapshot.probability, self._finish_at(size))

    def _crop_of(self, snapshot: Snapshot) -> tuple[int, int, int, int] | None:
        """Return the crop in which a snapshot's newest click was answered, as x0, y0, x1, y1 in pixel edges."""
        zoomed = self._views is not None and self._views.zoom is not None
        if not zoomed or snapshot.viewed is None or snapshot.viewed.box is None:
            return None
        return snapshot.viewed.box.xyxy

    def _result_of(self, surface: Surface) -> ClickResult:
        if surface.result is None:
            surface.result = self._steps.answer(self, surface, perf_counter())
        return surface.result

    def _objects(self) -> Iterator[Named]:
        """Yield every surface with its answer, which is not kept where it was not requested before."""
        for name, surface in self._state.surfaces.all.items():
            yield Named(name, surface.label, surface.result or self._steps.answer(self, surface, perf_counter()))

    def _label_map(self) -> Labels:
        """Return the label map; it is kept until a surface changes."""
        surfaces = self._state.surfaces
        if surfaces.labels is None:
            surfaces.labels = self._steps.labels(self)
        return surfaces.labels

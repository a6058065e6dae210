"""A network that answers for all objects of an image at once (DynaMITe): what the calls of a session do then.

One click changes every object's mask. The click stage has no state: it takes the list of all clicks, each with its
object and its running number, so that undo and redo restore a kept answer, and forgetting an object asks the network
again without its clicks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from mmms_deploy.bundle import Manifest
from mmms_deploy.engines.protocol import DecidesLabels, Runner
from mmms_deploy.errors import MMMSDeployError, SessionError, SurfaceError
from mmms_deploy.imaging.cleaning import clean_labels
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.answer_fetch import AnswerFetch
from mmms_deploy.session.answers import NetworkAnswer
from mmms_deploy.session.boxes import no_boxes
from mmms_deploy.session.choices import one_answer
from mmms_deploy.session.click_list import history_of
from mmms_deploy.session.click_stage import find_click_stage
from mmms_deploy.session.core import SessionCore
from mmms_deploy.session.history import History
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.interactions import BoxInput, Choice, Interaction, MaskInput, Snapshot
from mmms_deploy.session.joint_surfaces import (
    BLANK,
    JointSnapshot,
    JointSurfaces,
    OwnedClick,
    ordered_clicks,
    saved_jointly,
)
from mmms_deploy.session.list_run import ListRun
from mmms_deploy.session.pipeline import StagePipeline
from mmms_deploy.session.predict import answer_logits
from mmms_deploy.session.result import Click, ClickResult, timings_of
from mmms_deploy.session.rows import BACKGROUND, Decision, ObjectAnswer, Rows, enlargement, no_answer
from mmms_deploy.session.saved import SavedSession
from mmms_deploy.session.steps import Clicked, Step, Steps
from mmms_deploy.session.surfaces import Labels, Surface, Surfaces
from mmms_deploy.session.zoom import click_in, whole


class JointRun:
    """Runs the click stage on a list of clicks. It knows no session.

    Args:
        manifest: The bundle's manifest; it has a list of clicks on several objects.
        run: Runs the click stage on rows.
        answer: Name of its output.
        runner: Where it runs.
        fetch: Checks what it answers.
    """

    def __init__(self, manifest: Manifest, run: ListRun, answer: str, runner: Runner, fetch: AnswerFetch) -> None:
        self._manifest, self._run, self._answer, self._runner, self._fetch = manifest, run, answer, runner, fetch
        self.prepare = run.prepare

    def __call__(self, image: ImageState, clicks: Sequence[OwnedClick]) -> Rows:
        """Return the network's answer to all clicks.

        Args:
            image: The image, and what the stages made of it.
            clicks: The clicks, oldest first; one or more.

        Raises:
            ClickError: There are more than the longest list holds.
            SurfaceError: They are on more objects than the network answers for.
            EngineError: The click stage failed.
            AnswerError: An answer is not finite.
        """
        listed, rule = self._manifest.clicks.listed, self._manifest.clicks
        assert listed is not None
        assert image.size is not None
        owners = [one.label if one.click.positive else BACKGROUND for one in clicks]
        # The network numbers its objects from 1; labels may have gaps, and are never given twice.
        objects = sorted({label for label in owners if label != BACKGROUND})
        if len(objects) > listed.objects:
            raise SurfaceError(
                f"clicks on {len(objects)} objects",
                expected=f"at most {listed.objects} at once: {self._manifest.name} answers for so many",
                fix="remove an object first with remove(name), or open another session for the others",
                command_fix="name fewer objects",
            )
        numbers = {BACKGROUND: 0, **{label: number for number, label in enumerate(objects, start=1)}}
        picture, rows = whole(image.size), []
        for t, (one, owner) in enumerate(zip(clicks, owners, strict=True)):
            x, y, _, _ = click_in(one.click, picture, self._manifest.size, rule.coordinates)
            rows.append((x, y, t, numbers[owner], 1))
        done = self._run.answer(image.pipeline, rows)
        answered = self._runner.download_float32(done.value(self._answer))[0]
        # Rows without a click mean nothing; the learned ones come after those of the list.
        kept = np.concatenate([answered[: len(clicks)], answered[len(answered) - listed.learned :]])
        self._fetch.checked(kept)
        kept.setflags(write=False)
        learned = [BACKGROUND] * listed.learned
        return Rows(kept, np.array([*owners, *learned], dtype=np.int32), self._manifest.size, rule)


class JointSteps(Steps[SessionCore]):
    """What calls do with objects that are answered at once.

    Args:
        run: Runs the click stage.
        manifest: The bundle's manifest.
        decider: What decides between the objects; None where the CPU does.
    """

    def __init__(self, run: JointRun, manifest: Manifest, decider: DecidesLabels | None) -> None:
        self._run, self._name, self._manifest, self._decider = run, manifest.name, manifest, decider

    def first(self, blank: Snapshot, limit: int | None) -> JointSurfaces:
        """Return one object without clicks."""
        first = Surfaces.first(blank, limit)
        return JointSurfaces(blank, limit, first.all, first.name, first.given, shared=History(BLANK, limit))

    def expect(self, core: SessionCore, size: tuple[int, int]) -> None:
        """Let the device get ready to decide between the rows of the smallest list of clicks."""
        listed, grid = self._manifest.clicks.listed, core._answer_size
        assert listed is not None
        if self._decider is not None:
            how = enlargement(grid, self._manifest.size, size, self._manifest.clicks)
            self._decider.expect_labels(how, (listed.sizes[0] + listed.learned, *grid))

    def take(self, core: SessionCore, interactions: Sequence[Interaction], start: float) -> Step:
        """Answer further clicks, for all objects."""
        surfaces, clicks = self._of(core), []
        for interaction in interactions:
            if not isinstance(interaction, Click):
                raise self._refused(interaction)
            clicks.append(OwnedClick(surfaces.current.label, interaction))
        compiled = self._run.prepare(len(surfaces.now.interactions) + len(clicks))
        shared = self._pushed(core._state.image, surfaces.shared, clicks)
        return self._step(core, surfaces.follow(shared, surfaces.name), start, compiled)

    def click_objects(self, core: SessionCore, clicks: Mapping[str, Click], start: float) -> Clicked:
        """Answer the clicks on all objects in one run."""
        surfaces = self._of(core)
        before, owned = surfaces.name, []
        for name, click in clicks.items():
            surfaces = surfaces.select(name)
            owned.append(OwnedClick(surfaces.current.label, click))
        compiled = self._run.prepare(len(surfaces.now.interactions) + len(owned))
        surfaces = surfaces.follow(self._pushed(core._state.image, surfaces.shared, owned), *clicks).select(before)
        for name in clicks:
            surface = surfaces.all[name]
            surface.result = self._answer_of(core, surfaces, surface, start, compiled)
        return Clicked(surfaces, {name: core._result_of(surfaces.all[name]) for name in clicks})

    def follow(self, core: SessionCore, wanted: Sequence[Interaction], start: float) -> Step:
        """Make these the current object's clicks; those on other objects stay.

        Clicks that it has keep their place among the others, and new ones come last.
        """
        surfaces = self._of(core)
        label, line = surfaces.current.label, []
        clicks = []
        for one in wanted:
            if not isinstance(one, Click):
                raise self._refused(one)
            clicks.append(one)
        own = surfaces.own(label)
        common = next((n for n, pair in enumerate(zip(own, clicks, strict=False)) if pair[0] != pair[1]), None)
        left = min(len(own), len(clicks)) if common is None else common
        seen = 0
        for owned in surfaces.now.interactions:
            seen += owned.label == label
            if owned.label != label or seen <= left:
                line.append(owned)
        line += [OwnedClick(label, click) for click in clicks[left:]]
        compiled = self._run.prepare(len(line))
        shared = self._history(core._state.image, line, surfaces.shared)
        if shared is surfaces.shared:
            return Step(surfaces, core._result_of(surfaces.current))
        return self._step(core, surfaces.follow(shared, surfaces.name), start, compiled)

    def undo(self, core: SessionCore, start: float) -> Step:
        """Take back the newest click, whatever its object was. The current object stays the current one."""
        surfaces = self._of(core)
        return self._step(core, surfaces.follow(self._settled(core._state.image, surfaces.shared.undo())), start)

    def redo(self, core: SessionCore, start: float) -> Step:
        """Bring back the click that was undone last, whatever its object was."""
        surfaces = self._of(core)
        return self._step(core, surfaces.follow(self._settled(core._state.image, surfaces.shared.redo())), start)

    def reset(self, core: SessionCore) -> Surfaces:
        """Forget the current object's clicks; the network answers the others anew."""
        surfaces = self._of(core)
        return self._forgotten(core, surfaces, surfaces.current.label)

    def select(self, core: SessionCore, name: str, start: float) -> Step:
        """Turn to another object; its mask is what it is."""
        surfaces = self._of(core).select(name)
        if surfaces.current.result is None:
            surfaces.current.result = self._answer_of(core, surfaces, surfaces.current, start)
        return Step(surfaces, surfaces.current.result)

    def remove(self, core: SessionCore, name: str) -> Surfaces:
        """Forget an object and its clicks; the network answers the others anew."""
        surfaces = self._of(core)
        rest = surfaces.remove(name)
        return self._forgotten(core, rest, surfaces.all[name].label)

    def rebuilt(self, core: SessionCore, image: ImageState, blank: Snapshot) -> Surfaces:
        """Repeat all clicks."""
        surfaces = self._of(core)
        shared = self._replayed(image, surfaces.shared.newest.interactions, surfaces.now.interactions, surfaces.limit)
        return surfaces.follow(shared)

    def load(self, core: SessionCore, labels: Labels, names: dict[str, int]) -> Surfaces:
        """Refuse the masks.

        Raises:
            SessionError: Always.
        """
        raise self._no_mask()

    def save(self, core: SessionCore) -> dict[str, Any]:
        """Return all objects with their clicks, and the order of these."""
        return saved_jointly(self._of(core), core._size())

    def restore(
        self, core: SessionCore, found: SavedSession, given: dict[str, tuple[Interaction, ...]], start: float
    ) -> Step:
        """Repeat all clicks in their order."""
        before = self._of(core)
        clicks, undone = ordered_clicks(found, given)
        compiled = self._run.prepare(len(clicks))
        shared = self._replayed(core._state.image, clicks, clicks[: len(clicks) - undone], before.limit)
        every = {
            one.name: Surface(one.label, History(before.blank, before.limit), one.changed) for one in found.surfaces
        }
        changes = max(surface.changed for surface in every.values())
        surfaces = JointSurfaces(
            before.blank, before.limit, every, found.surface, found.labels_given, changes, shared=shared
        )
        return self._step(core, surfaces, start, compiled)

    def predicted(
        self, core: SessionCore, prompts: tuple[Click | BoxInput, ...], given: tuple[FloatArray, MaskInput] | None
    ) -> Sequence[Interaction]:
        """Return the clicks; a mask input must be the current object's answer to the first ones of them."""
        if given is None:
            return prompts
        surfaces = self._of(core)
        label = surfaces.current.label
        for held in reversed(surfaces.shared.line):
            own = tuple(one.click for one in held.interactions if one.label == label)
            answer = self._coarse(core, held.rows, label)
            known = bool(own) and not held.pending and own == prompts[: len(own)]
            if known and np.array_equal(answer_logits(answer), given[0]):
                return prompts
        raise SessionError(
            f"predict got a mask_input that is no answer of {self._name} to the first of these points",
            expected="no mask_input: a network that answers for all objects at once takes no mask, only clicks",
            fix="leave out mask_input; pass all points of the object at every call",
        )

    def whole_answer(self, core: SessionCore) -> NetworkAnswer:
        """Return the current object's margin over the others on the network's grid."""
        surfaces = self._of(core)
        return self._coarse(core, surfaces.now.rows, surfaces.current.label)

    def answer(self, core: SessionCore, surface: Surface, start: float) -> ClickResult:
        """Return an object's part of the label map."""
        return self._answer_of(core, self._of(core), surface, start)

    def labels(self, core: SessionCore) -> Labels:
        """Return the network's label map, cleaned where the session cleans masks."""
        return self._decided(core, self._of(core)).labels

    def history(self, surfaces: Surfaces) -> History[Any]:
        """Return that of all objects."""
        assert isinstance(surfaces, JointSurfaces)
        return surfaces.shared

    def clicks(self, surfaces: Surfaces) -> tuple[Click, ...]:
        """Return the clicks that were made while the current object was the current one."""
        assert isinstance(surfaces, JointSurfaces)
        return surfaces.own(surfaces.current.label)

    def interactions(self, surfaces: Surfaces) -> tuple[Interaction, ...]:
        """Return the same: there are clicks alone."""
        return self.clicks(surfaces)

    def all_clicks(self, surfaces: Surfaces) -> tuple[tuple[str, Click], ...]:
        """Return the clicks in the order in which they were made."""
        assert isinstance(surfaces, JointSurfaces)
        names = {label: name for name, label in surfaces.names.items()}
        return tuple((names[one.label], one.click) for one in surfaces.now.interactions)

    # --- parts ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _of(core: SessionCore) -> JointSurfaces:
        surfaces = core._state.surfaces
        assert isinstance(surfaces, JointSurfaces)
        return surfaces

    def _after(self, image: ImageState, current: JointSnapshot, click: OwnedClick, wanted: bool) -> JointSnapshot:
        clicks = (*current.interactions, click)
        return JointSnapshot(clicks, self._run(image, clicks) if wanted else None)

    def _pushed(
        self, image: ImageState, history: History[JointSnapshot], clicks: Sequence[OwnedClick]
    ) -> History[JointSnapshot]:
        """Return a history with further clicks; the network answers all of them in one run."""
        for number, click in enumerate(clicks, start=1):
            history = history.push(self._after(image, history.current, click, number == len(clicks)))
        return history

    def _settled(self, image: ImageState, history: History[JointSnapshot]) -> History[JointSnapshot]:
        """Return a history whose current answer is there; it is the same one where it was."""
        if not history.current.pending:
            return history
        clicks = history.current.interactions
        return replace(history, current=JointSnapshot(clicks, self._run(image, clicks)))

    def _history(
        self, image: ImageState, clicks: Sequence[OwnedClick], held: History[JointSnapshot]
    ) -> History[JointSnapshot]:
        """Return the history of these clicks; the network answers them in one run, where they are not held."""
        found = history_of(clicks, held, BLANK, lambda now, click, last: self._after(image, now, click, last))
        return self._settled(image, found)

    def _replayed(
        self, image: ImageState, clicks: Sequence[OwnedClick], current: Sequence[OwnedClick], limit: int | None
    ) -> History[JointSnapshot]:
        """Return the history of these clicks as if they were made now, with all of them undone but the first ones."""
        blank: History[JointSnapshot] = History(BLANK)
        every = history_of(clicks, blank, BLANK, lambda now, click, _: self._after(image, now, click, wanted=False))
        return self._settled(image, every.at(len(current))).limited(limit)

    def _forgotten(self, core: SessionCore, surfaces: JointSurfaces, label: int) -> JointSurfaces:
        """Return the surfaces without the clicks on an object, done and undone ones."""
        held = surfaces.shared
        if not any(one.label == label for one in held.newest.interactions):
            return surfaces
        left = [one for one in held.current.interactions if one.label != label]
        shared = self._history(core._state.image, left, held)
        name = next((name for name, one in surfaces.all.items() if one.label == label), None)
        return surfaces.follow(History(shared.current, shared.limit, shared.past), name)

    def _step(self, core: SessionCore, surfaces: JointSurfaces, start: float, compiled: float = 0.0) -> Step:
        """Decide between the objects, and return the answer for the current one.

        Args:
            core: The session.
            surfaces: The objects.
            start: When the call began.
            compiled: Seconds of it that went into compiling.
        """
        result = self._answer_of(core, surfaces, surfaces.current, start, compiled)
        surfaces.current.result = result
        return Step(surfaces, result)

    def _decided(self, core: SessionCore, surfaces: JointSurfaces) -> Decision:
        """Return which object has each pixel, cleaned where the session cleans masks."""
        if surfaces.decision is None:
            decision = self._decide(surfaces.now.rows, core._size())
            if core._cleaning is not None:
                clicks = surfaces.now.interactions
                owners = [one.label if one.click.positive else BACKGROUND for one in clicks]
                places = ((one.click.x, one.click.y, owner) for one, owner in zip(clicks, owners, strict=True))
                cleaned = clean_labels(core._cleaning, decision.labels, places)
                cleaned.setflags(write=False)
                decision = Decision(cleaned, device=decision.device)
            surfaces.decision = decision
        return surfaces.decision

    def _decide(self, rows: Rows | None, size: tuple[int, int]) -> Decision:
        """Return which object has each pixel, by the device where it decides."""
        if rows is None:
            blank = np.zeros(size, dtype=np.uint8)
            blank.setflags(write=False)
            return Decision(blank)
        if self._decider is not None:
            owners, table = rows.numbered()
            numbers = self._decider.decided(rows.logits, owners, rows.enlarged(size))
            if numbers is not None:
                numbers.setflags(write=False)
                return Decision(numbers, table, "cuda")
        return Decision(rows.labels(size))

    def _answer_of(
        self, core: SessionCore, surfaces: JointSurfaces, surface: Surface, start: float, compiled: float = 0.0
    ) -> ClickResult:
        size = core._size()
        rows = surfaces.now.rows
        fetched = perf_counter()
        decision = self._decided(core, surfaces)
        mask = decision.mask(surface.label)
        mask.setflags(write=False)
        clicks = surfaces.own(surface.label)
        there = rows is not None and surface.label in rows.objects
        end = perf_counter()
        return ClickResult(
            mask=mask,
            click=clicks[-1] if clicks else None,
            index=len(clicks),
            timings=timings_of(start, fetched, end, compiled),
            answer=self._coarse(core, rows, surface.label),
            mask_device=decision.device,
            _interactions=clicks,
            _picture=core._state.image.picture,
            _canvas=ObjectAnswer(rows, surface.label, size) if rows is not None and there else None,
        )

    @staticmethod
    def _coarse(core: SessionCore, rows: Rows | None, label: int) -> NetworkAnswer:
        if rows is None or label not in rows.objects:
            return no_answer(core._answer_size, core._manifest.clicks)
        return ObjectAnswer(rows, label, core._size()).coarse()

    def _refused(self, interaction: Choice | MaskInput | BoxInput) -> MMMSDeployError:
        if isinstance(interaction, BoxInput):
            return no_boxes(interaction, self._manifest)
        return one_answer(interaction, self._name) if isinstance(interaction, Choice) else self._no_mask()

    def _no_mask(self) -> SessionError:
        return SessionError(
            f"a mask was put in, and {self._name} answers for all objects at once, from clicks alone",
            expected="clicks; or a network that takes its previous mask",
            fix="click on the object, or use a bundle that answers for one object at a time",
        )


def joint_steps(
    manifest: Manifest, pipeline: StagePipeline, runner: Runner, fetch: AnswerFetch, asked: str | None
) -> JointSteps:
    """Return what calls do with the objects of a bundle that answers for all of them at once.

    Args:
        manifest: The bundle's manifest.
        pipeline: Its stages.
        runner: Where they run.
        fetch: Checks what they answer.
        asked: What was asked of the session that it cannot do, ``zoom`` or ``flip``; None for nothing.

    Raises:
        BundleCorruptError: The click stage takes no list of clicks, or gives no logits for its rows.
        SessionError: ``asked`` is something, or the bundle has an input that this version does not know.
    """
    if asked is not None:
        raise SessionError(
            f"{asked} was asked of {manifest.name}, which answers for all objects at once",
            expected="the whole picture: objects have no crop of their own, and their answers no mean",
            fix=f"leave out {asked}",
            command_fix=f"leave out --{asked}",
        )
    listed = manifest.clicks.listed
    assert listed is not None
    tensors = find_click_stage(manifest, pipeline)
    rows = ListRun(manifest, pipeline, tensors, listed)
    decider = runner if isinstance(runner, DecidesLabels) else None
    return JointSteps(JointRun(manifest, rows, tensors.answer, runner, fetch), manifest, decider)

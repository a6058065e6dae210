"""Objects that the network answers for one at a time, each with its own clicks, history and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmms_deploy.imaging.resize import BoolArray, FloatArray
from mmms_deploy.session.answers import NetworkAnswer
from mmms_deploy.session.click_list import history_of
from mmms_deploy.session.core import SessionCore
from mmms_deploy.session.history import History
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.interactions import BoxInput, Interaction, MaskInput, Snapshot, checked_mask
from mmms_deploy.session.predict import answer_logits, interactions_of
from mmms_deploy.session.result import Click, ClickResult
from mmms_deploy.session.rounds import Row, in_rounds
from mmms_deploy.session.saved import SavedSession, restored, saved
from mmms_deploy.session.steps import Clicked, Step, Steps
from mmms_deploy.session.surfaces import Labels, Surface, Surfaces, label_map


class SeparateSteps(Steps[SessionCore]):
    """What calls do with objects that are answered one at a time."""

    def first(self, blank: Snapshot, limit: int | None) -> Surfaces:
        """Return one object without interactions."""
        return Surfaces.first(blank, limit)

    def expect(self, core: SessionCore, size: tuple[int, int]) -> None:
        """Say which mask is wanted of the answers."""
        if core._finisher is not None:
            core._finisher.expect(core._finish_at(size))

    def take(self, core: SessionCore, interactions: Sequence[Interaction], start: float) -> Step:
        """Run the click stage on further clicks, or put a mask in."""
        surfaces = core._state.surfaces
        history, numbers, compiled = surfaces.current.history, None, 0.0
        more = sum(isinstance(interaction, Click) for interaction in interactions)
        if more:
            compiled = core._compiled_for(history.current.interactions.clicked + more)
        for number, interaction in enumerate(interactions, start=1):
            wanted = number == len(interactions)
            snapshot, numbers = core._after(core._state.image, history.current, interaction, wanted=wanted)
            history = history.push(snapshot)
        result = core._answer(history.current, start, numbers, compiled)
        return Step(surfaces.change(history, result), result)

    def click_objects(self, core: SessionCore, clicks: Mapping[str, Click], start: float) -> Clicked:
        """Turn to every object as ``select`` does, and then answer the clicks on all of them."""
        surfaces, before = core._state.surfaces, core._state.surfaces.name
        for name in clicks:
            surfaces = self._selected(core, surfaces, name, start)
        rows = [Row(surfaces.all[name].history, (click,)) for name, click in clicks.items()]
        results = {}
        for name, answered in zip(clicks, in_rounds(core, core._state.image, rows), strict=True):
            results[name] = core._answer(answered.history.current, start, answered.numbers)
            surfaces = surfaces.select(name).change(answered.history, results[name])
        return Clicked(surfaces.select(before), results)

    def follow(self, core: SessionCore, wanted: Sequence[Interaction], start: float) -> Step:
        """Run what the current object does not have yet."""
        image, surfaces = core._state.image, core._state.surfaces
        held = surfaces.current.history
        compiled = core._compiled_for(sum(isinstance(interaction, Click) for interaction in wanted))

        def after(snapshot: Snapshot, interaction: Interaction, last: bool) -> Snapshot:
            return core._after(image, snapshot, interaction, wanted=last)[0]

        history = core._settled(history_of(wanted, held, surfaces.blank, after))
        if history is held:
            return Step(surfaces, core._result_of(surfaces.current))
        return self._changed(core, surfaces, history, start, compiled)

    def undo(self, core: SessionCore, start: float) -> Step:
        """Take back the current object's newest interaction."""
        surfaces = core._state.surfaces
        return self._changed(core, surfaces, core._settled(surfaces.current.history.undo()), start)

    def redo(self, core: SessionCore, start: float) -> Step:
        """Bring back the current object's interaction that was undone last."""
        surfaces = core._state.surfaces
        return self._changed(core, surfaces, core._settled(surfaces.current.history.redo()), start)

    @staticmethod
    def _changed(
        core: SessionCore, surfaces: Surfaces, history: History[Snapshot], start: float, compiled: float = 0.0
    ) -> Step:
        result = core._answer(history.current, start, compiled=compiled)
        return Step(surfaces.change(history, result), result)

    def reset(self, core: SessionCore) -> Surfaces:
        """Forget the current object's interactions; no stage runs."""
        return core._state.surfaces.reset()

    def select(self, core: SessionCore, name: str, start: float) -> Step:
        """Turn to another object. If others took pixels from it, the rest of its mask is put in."""
        surfaces = self._selected(core, core._state.surfaces, name, start)
        return Step(surfaces, core._result_of(surfaces.current))

    @staticmethod
    def _selected(core: SessionCore, surfaces: Surfaces, name: str, start: float) -> Surfaces:
        known, current = surfaces.all.get(name), core._state.surfaces.current
        if known is not None and known is not current and core._previous_input is not None:
            left = core._label_map() == known.label
            if not left[core._result_of(known).mask].all():
                rest = SeparateSteps._rest(core, known, left, start)
                snapshot = core._after_mask(core._state.image, known.history.current, rest)
                result = core._answer(snapshot, start, rest.previous[0, 0])
                surfaces = surfaces.extend(name, known.history.push(snapshot), result)
        return surfaces.select(name)

    @staticmethod
    def _rest(core: SessionCore, known: Surface, left: BoolArray, start: float) -> MaskInput:
        """Return what is left of an object's mask; the network sees what is left of its own, which is not cleaned."""
        size, rule = core._size(), core._manifest.clicks
        rest = checked_mask(left, size, core._answer_size, rule)
        if core._cleaning is None or isinstance(known.history.current.newest, MaskInput):
            return rest
        labels = core._label_map()
        own = core._answer(known.history.current, start, cleaned=False).mask & (left | (labels == 0))
        return replace(rest, previous=checked_mask(own, size, core._answer_size, rule).previous, binary=False)

    def remove(self, core: SessionCore, name: str) -> Surfaces:
        """Forget an object; no stage runs."""
        return core._state.surfaces.remove(name)

    def rebuilt(self, core: SessionCore, image: ImageState, blank: Snapshot) -> Surfaces:
        """Repeat all interactions with every object."""
        surfaces, begin = core._state.surfaces, History(blank, core._limit)
        olds = [surface.history for surface in surfaces.all.values()]
        rows = [Row(begin, tuple(old.newest.interactions), len(old.current.interactions)) for old in olds]
        answered = {id(old): found.history for old, found in zip(olds, in_rounds(core, image, rows), strict=True)}

        def replayed(old: History[Snapshot]) -> History[Snapshot]:
            history = answered[id(old)]
            for _ in range(len(old.newest.interactions) - len(old.current.interactions)):
                history = history.undo()
            return core._settled(history, image)

        return surfaces.rebuild(blank, replayed)

    def load(self, core: SessionCore, labels: Labels, names: dict[str, int]) -> Surfaces:
        """Return the objects of a label map, each with its mask put in."""
        blank = core._blank()
        histories: dict[str, tuple[int, History[Snapshot]]] = {}
        for name, label in names.items():
            history, mask = History(blank, core._limit), labels == label
            if mask.any():
                given = checked_mask(mask, core._size(), core._answer_size, core._manifest.clicks)
                history = history.push(core._after_mask(core._state.image, blank, given))
            histories[name] = label, history
        return Surfaces.loaded(blank, core._limit, histories, labels)

    def save(self, core: SessionCore) -> dict[str, Any]:
        """Return all objects with their interactions."""
        return saved(core._state.surfaces, core._size(), core._answer_size, core._manifest.clicks)

    def restore(
        self, core: SessionCore, found: SavedSession, given: dict[str, tuple[Interaction, ...]], start: float
    ) -> Step:
        """Repeat every object's interactions."""
        blank = core._state.surfaces.blank
        begin: History[Snapshot] = History(blank)
        rows = [Row(begin, given[one.name], len(one.interactions) - one.undone) for one in found.surfaces]
        answered = in_rounds(core, core._state.image, rows)
        lines = {one.name: done.history for one, done in zip(found.surfaces, answered, strict=True)}
        surfaces = restored(found, lines, blank, core._limit)
        result = core._answer(surfaces.current.history.current, start)
        surfaces.current.result = result
        return Step(surfaces, result)

    def predicted(
        self, core: SessionCore, prompts: tuple[Click | BoxInput, ...], given: tuple[FloatArray, MaskInput] | None
    ) -> Sequence[Interaction]:
        """Return the box and the clicks, with what led to the mask input or the mask itself before them."""
        line = core._state.surfaces.current.history.line
        rule = core._manifest.clicks
        return interactions_of(prompts, given, line, lambda held: answer_logits(core._whole_answer(held)), rule)

    def whole_answer(self, core: SessionCore) -> NetworkAnswer:
        """Return the current object's answer for the whole image."""
        return core._whole_answer(core._state.surfaces.current.history.current)

    def answer(self, core: SessionCore, surface: Surface, start: float) -> ClickResult:
        """Bring an object's answer to the image's size."""
        return core._answer(surface.history.current, start)

    def labels(self, core: SessionCore) -> Labels:
        """Lay the masks over each other in the order in which the objects changed."""
        ordered = sorted(core._state.surfaces.all.values(), key=lambda surface: surface.changed)
        return label_map([(s.label, core._result_of(s)) for s in ordered if s.changed], core._size())

    def history(self, surfaces: Surfaces) -> History[Any]:
        """Return the current object's."""
        return surfaces.current.history

    def clicks(self, surfaces: Surfaces) -> tuple[Click, ...]:
        """Return the clicks on the current object."""
        return surfaces.current.history.current.clicks

    def interactions(self, surfaces: Surfaces) -> tuple[Interaction, ...]:
        """Return the interactions with the current object."""
        return tuple(surfaces.current.history.current.interactions)

    def all_clicks(self, surfaces: Surfaces) -> tuple[tuple[str, Click], ...]:
        """Return the clicks object by object, oldest object first."""
        return tuple(
            (name, click) for name, surface in surfaces.all.items() for click in surface.history.current.clicks
        )

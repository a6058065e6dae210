"""The stages of a bundle as a pipeline: a stage runs again only when one of its inputs changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from mmms_deploy.arguments import shown
from mmms_deploy.bundle import Manifest, Rate, Role, StageGraph, TensorSpec
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.bundle.names import of_object
from mmms_deploy.engines.protocol import Array, PreparesImages, Runner, Value
from mmms_deploy.errors import BundleCorruptError, SessionError


@dataclass(frozen=True, eq=False)
class PipelineState:
    """Everything that a pipeline's stages computed at one moment. It never changes: every step returns a new state.

    Attributes:
        values: The tensors on the device, by name.
        stale: Names of the stages that would run.
        bypassed: Names of the stages that are left out.
    """

    values: Mapping[str, Value]
    stale: frozenset[str]
    bypassed: frozenset[str] = frozenset()

    def value(self, name: str) -> Value:
        """Return the current value of a tensor.

        Raises:
            SessionError: It was never set or computed.
        """
        try:
            return self.values[name]
        except (KeyError, TypeError):  # TypeError: it is no text
            raise SessionError(
                f"{shown(name)} was not computed yet", expected="a tensor of a stage that ran", fix="call run() first"
            ) from None


class StagePipeline:
    """The stages in order, and what runs again when an input changes. It holds no values itself: see PipelineState.

    A tensor is known by its name: an output of one stage is the input of that name of the later ones. An input that no
    earlier stage computes comes from outside: images, clicks, the click stage's own previous state, or features that
    are computed elsewhere.

    Stages with ``rows`` are one stage for several sizes of the list of clicks: they share the names of what they read
    and compute, and a run takes one of them.

    Args:
        manifest: The bundle's manifest.
        graphs: The graph that the engine runs for every stage, by name.
        runner: Where they run. The pipeline does not close it.

    Raises:
        BundleCorruptError: Two stages compute a tensor of one name, or a tensor differs between the stages that share
            it or from the tensor that replaces it in a bypass; or stages with ``rows`` read or compute other tensors
            than the smallest of them, or differ in more than their number of rows.
    """

    def __init__(self, manifest: Manifest, graphs: Mapping[str, StageGraph], runner: Runner) -> None:
        self._runner = runner
        self._preparing = runner if isinstance(runner, PreparesImages) and runner.prepares_images else None
        self._rates = {stage.name: stage.rate for stage in manifest.stages}
        self._graphs = {stage.name: graphs[stage.name] for stage in manifest.stages if not stage.batch}
        self.batches = manifest.batches
        self._rows = {stage.name: stage.rows for stage in manifest.stages if stage.rows is not None}
        self._larger = manifest.larger - set(self.batches.values())
        self._smallest = {
            stage.rate: stage.name
            for stage in manifest.stages
            if stage.rows is not None and stage.name not in self._larger
        }
        self._sized: dict[tuple[str, int], TensorSpec] = {}
        self._inputs: dict[str, TensorSpec] = {}
        self._outputs: dict[str, TensorSpec] = {}
        self._bypasses = {stage.name: stage.bypass for stage in manifest.stages if stage.bypass}
        for stage, graph in self._graphs.items():
            if stage in self._bypasses:
                self._check_bypass(stage)
            if stage in self._larger:
                self._connect_larger(stage, graph)
            else:
                self._connect(stage, graph)
        self._batched = {count: graphs[stage] for count, stage in self.batches.items()}
        for count, stage in self.batches.items():
            self._connect_batch(stage, count)
        self._runs = dict.fromkeys((*self._graphs, *self.batches.values()), 0)

    def _connect(self, stage: str, graph: StageGraph) -> None:
        for spec in graph.inputs:
            known = self._outputs.get(spec.name) or self._inputs.setdefault(spec.name, spec)
            if (known.dtype, known.shape) != (spec.dtype, spec.shape):
                raise BundleCorruptError(
                    f"stage {stage!r} wants {spec.name} as {spec.dtype} {spec.shape}",
                    expected=f"{known.dtype} {known.shape}, as in the stages before it",
                    fix="export the checkpoint again",
                )
        for spec in graph.outputs:
            if spec.name in self._outputs or spec.name in self._inputs:
                raise BundleCorruptError(
                    f"stage {stage!r} computes {spec.name}, which exists before it",
                    expected="one origin for every tensor",
                    fix="export the checkpoint again",
                )
            self._outputs[spec.name] = spec

    def _connect_larger(self, stage: str, graph: StageGraph) -> None:
        """Connect a stage that may run in the place of a smaller one, which comes before it."""
        smallest = self._smallest[self._rates[stage]]
        before, rows, least = self._graphs[smallest], self._rows[stage], self._rows[smallest]
        for ours, theirs in ((graph.inputs, before.inputs), (graph.outputs, before.outputs)):
            known = {spec.name: spec for spec in theirs}
            for spec in ours:
                other = known.get(spec.name)
                if other is None or not _same_but_rows(spec, other, rows - least):
                    raise _other_rows(stage, spec, smallest, other)
                if spec.shape != other.shape:
                    self._sized[spec.name, rows] = spec
            # It may compute itself what the smaller one takes of slower stages.
            needed = {spec.name for spec in theirs if theirs is before.outputs or spec.role is not Role.FEATURE}
            missing = needed - {spec.name for spec in ours}
            if missing:
                raise _other_rows(stage, None, smallest, known[min(missing)])

    def _connect_batch(self, stage: str, count: int) -> None:
        """Check a stage that answers clicks on several objects: the click stage, once for each of them."""
        graph, numbers = self._batched[count], range(1, count + 1)
        single = next(self._graphs[name] for name in reversed(self._graphs) if self._rates[name] is Rate.CLICK)
        shared = [spec for spec in single.inputs if _of_image(spec)]
        own = [spec for spec in single.inputs if not _of_image(spec)]
        sides = (
            (graph.inputs, [*shared, *(_of_object(spec, number) for number in numbers for spec in own)]),
            (graph.outputs, [_of_object(spec, number) for number in numbers for spec in single.outputs]),
        )
        for given, wanted in sides:
            odd = set(given) ^ set(wanted)
            if odd:
                name = min(spec.name for spec in odd)
                raise BundleCorruptError(
                    f"stage {stage!r} is no click stage for {count} objects: look at its tensor {name}",
                    expected="the tensors of the click stage, its own ones once for every object",
                    fix="export the checkpoint again",
                )

    def _check_bypass(self, stage: str) -> None:
        sources = self._bypasses[stage]
        outputs = {spec.name: spec for spec in self._graphs[stage].outputs}
        for name in outputs.keys() | sources.keys():
            ours, source = outputs.get(name), self._outputs.get(sources.get(name, ""))
            if ours is None or source is None or (ours.dtype, ours.shape) != (source.dtype, source.shape):
                raise BundleCorruptError(
                    f"stage {stage!r} cannot be bypassed: no tensor like {name} is there to take its place",
                    expected="for each output a tensor of the same type from an earlier stage",
                    fix="export the checkpoint again",
                )

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The inputs that come from outside, by name; of a list of clicks, the smallest size."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that the stages compute, by name; of an answer for every click, the smallest size."""
        return self._outputs

    @property
    def runs(self) -> Mapping[str, int]:
        """How often every stage ran, by name."""
        return dict(self._runs)

    def start(self) -> PipelineState:
        """Return the state before any input is set."""
        return PipelineState({}, frozenset(self._graphs))

    def spec(self, name: str) -> TensorSpec | None:
        """Return what a tensor is, whether it comes from outside or a stage computes it; None for an unknown name."""
        return self._inputs.get(name) or self._outputs.get(name)

    @property
    def bypassable(self) -> frozenset[str]:
        """Names of the stages that can be left out."""
        return frozenset(self._bypasses)

    def needed(self, ran: Rate) -> frozenset[str]:
        """Return the names of the features that the stages read which come after a rate."""
        later = [graph for stage, graph in self._graphs.items() if self._rates[stage] > ran]
        computed = {spec.name for graph in later for spec in graph.outputs}
        read = {spec.name for graph in later for spec in graph.inputs if spec.role is Role.FEATURE}
        return frozenset(read - computed)

    def without_spent(self, state: PipelineState, ran: Rate) -> PipelineState:
        """Return a state without the inputs that no stage after a rate reads, so that the device need not keep them.

        Args:
            state: The state after the stages up to that rate, which will not run again.
            ran: The rate.
        """
        read = {spec.name for stage, graph in self._graphs.items() if self._rates[stage] > ran for spec in graph.inputs}
        read |= {spec.name for graph in self._batched.values() for spec in graph.inputs}
        values = {name: value for name, value in state.values.items() if name not in self._inputs or name in read}
        return replace(state, values=values)

    def given(self, values: Mapping[str, Value], bypassed: frozenset[str], up_to: Rate) -> PipelineState:
        """Return a state whose first stages ran elsewhere.

        Args:
            values: What the later stages read of them, on the device.
            bypassed: Names of the stages that were left out.
            up_to: The stages up to this rate ran.
        """
        stale = frozenset(stage for stage, rate in self._rates.items() if rate > up_to)
        return PipelineState(dict(values), stale, bypassed)

    def prepare(self, rows: int) -> float:
        """Make the stage for a list of so many rows ready to run, and return how many seconds that took.

        Engines compile the smallest size when they are opened, and a larger one when it is first needed.

        Args:
            rows: One of the sizes.

        Raises:
            SessionError: There is no such size.
            BundleCorruptError, EngineError: It cannot be compiled.
        """
        self._check_rows(rows)
        return sum(self._runner.prepare(stage) for stage, size in self._rows.items() if size == rows)

    def upload(self, name: str, array: Array, rows: int | None = None) -> Value:
        """Return an input on the device.

        Args:
            name: Name of the input.
            array: Numbers of its shape; converted to its dtype.
            rows: Rows of the list of clicks that it belongs to; None for the smallest.

        Raises:
            SessionError: There is no such input.
        """
        spec = self._spec(name)
        return self._runner.upload(spec if rows is None else self._sized.get((name, rows), spec), array)

    @property
    def prepares_images(self) -> bool:
        """Whether the engine can resize and normalise images."""
        return self._preparing is not None

    def upload_prepared(
        self, name: str, array: Array, rule: ImageSpec | ModalitySpec, *, mirrored: bool = False
    ) -> Value | None:
        """Return an image or a modality on the device, resized and normalised there.

        Args:
            name: Name of the input.
            array: (H0, W0, C): uint8 of an image, float32 of a modality in the network's unit.
            rule: How it is prepared.
            mirrored: Whether the network sees its mirror image.

        Returns:
            The value; None where the host has to prepare it.

        Raises:
            SessionError: There is no such input.
            EngineError: The engine failed.
        """
        spec = self._spec(name)
        return (
            None if self._preparing is None else self._preparing.upload_prepared(spec, array, rule, mirrored=mirrored)
        )

    def zeros(self, name: str) -> Value:
        """Return zeros for an input, on the device.

        Raises:
            SessionError: There is no such input.
        """
        return self._runner.zeros(self._spec(name))

    def filled(self, name: str, number: int) -> Value:
        """Return an input that has one number everywhere, on the device.

        Args:
            name: Name of the input.
            number: The number; its dtype can hold it.

        Raises:
            SessionError: There is no such input.
        """
        spec = self._spec(name)
        if number == 0:
            return self._runner.zeros(spec)
        return self._runner.upload(spec, np.full(spec.shape, number, dtype=np.dtype(spec.dtype)))

    def set(self, state: PipelineState, values: Mapping[str, Value]) -> PipelineState:
        """Return a state with other inputs; the stages that depend on them are stale.

        Args:
            state: The state before.
            values: Values on the device by the name of their input.

        Raises:
            SessionError: There is no such input.
        """
        for name in values:
            self._spec(name)
        return replace(state, values={**state.values, **values}, stale=state.stale | self._dependents(values.keys()))

    def clear(self, state: PipelineState, names: Set[str]) -> PipelineState:
        """Return a state without some inputs; the stages that read one cannot run before it is set again."""
        values = {name: value for name, value in state.values.items() if name not in names}
        return replace(state, values=values, stale=state.stale | self._dependents(names))

    def reads(self, state: PipelineState, name: str) -> bool:
        """Whether a stage that is not bypassed reads an input of this name."""
        return any(
            spec.name == name
            for stage, graph in self._graphs.items()
            if stage not in state.bypassed
            for spec in graph.inputs
        )

    def bypass(self, state: PipelineState, active: bool) -> PipelineState:
        """Return a state in which the stages that can be bypassed are left out, or run again.

        Args:
            state: The state before.
            active: Whether to leave them out.
        """
        wanted = frozenset(self._bypasses) if active else frozenset()
        changed = wanted ^ state.bypassed
        outputs = {spec.name for stage in changed for spec in self._graphs[stage].outputs}
        return replace(state, bypassed=wanted, stale=state.stale | changed | self._dependents(outputs))

    def _dependents(self, changed: Set[str]) -> frozenset[str]:
        """Return the stages that depend on changed tensors."""
        tensors, stages = set(changed), set()
        for stage, graph in self._graphs.items():
            if any(spec.name in tensors for spec in graph.inputs):
                stages.add(stage)
                tensors |= {spec.name for spec in graph.outputs}
        return frozenset(stages)

    def _spec(self, name: str) -> TensorSpec:
        if name not in self._inputs:
            raise SessionError(
                f"{name!r} is no input of this bundle",
                expected=f"one of {', '.join(self._inputs)}",
                fix="check its name",
            )
        return self._inputs[name]

    def run(self, state: PipelineState, up_to: Rate = Rate.CLICK, rows: int | None = None) -> PipelineState:
        """Run the stages that are stale, in order, and return the state afterwards.

        Args:
            state: The state before. It stays valid: values are never written to.
            up_to: Leave stages of a faster rate than this as they are.
            rows: Rows of the list of clicks that was set. Of the stages with rows, the one of this size runs, and the
                others stay as they are; None for the smallest.

        Raises:
            SessionError: An input was never set, or there is no stage for so many rows.
            EngineError: A stage failed.
        """
        if rows is not None:
            self._check_rows(rows)
        values, stale = dict(state.values), set(state.stale)
        for stage, graph in self._graphs.items():
            if stage not in stale or self._rates[stage] > up_to or not self._fits(stage, rows):
                continue
            sources = self._bypasses[stage] if stage in state.bypassed else {}
            inputs = tuple(sources.values()) if sources else tuple(spec.name for spec in graph.inputs)
            missing = [name for name in inputs if name not in values]
            if missing:
                raise SessionError(
                    f"stage {stage!r} cannot run without {', '.join(missing)}",
                    expected="every input set",
                    fix="set them first",
                )
            if sources:
                values.update({name: values[source] for name, source in sources.items()})
            else:
                values.update(self._runner.run(stage, {name: values[name] for name in inputs}))
                self._runs[stage] += 1
            stale.discard(stage)
        return replace(state, values=values, stale=frozenset(stale))

    def run_batch(
        self, state: PipelineState, count: int, given: Sequence[Mapping[str, Value]], blank: Mapping[str, Value]
    ) -> list[PipelineState]:
        """Answer clicks on several objects in one run.

        Args:
            state: The image's features.
            count: How many objects the stage takes.
            given: For every object that is clicked its state and its click, by the names of the click stage.
            blank: The same without a click, for the rest of the rows.

        Returns:
            For each of the objects that are clicked what :meth:`run` returns after its click alone.

        Raises:
            SessionError: An input was never set.
            EngineError: The stage failed.
        """
        stage, graph = self.batches[count], self._batched[count]
        rows = [*given, *(blank for _ in range(count - len(given)))]
        values = {of_object(name, n): value for n, row in enumerate(rows, start=1) for name, value in row.items()}
        missing = [spec.name for spec in graph.inputs if spec.name not in values and spec.name not in state.values]
        if missing:
            raise SessionError(
                f"stage {stage!r} cannot run without {', '.join(missing)}",
                expected="every input set",
                fix="set them first",
            )
        inputs = {spec.name: values.get(spec.name, state.values.get(spec.name)) for spec in graph.inputs}
        outputs = self._runner.run(stage, inputs)
        self._runs[stage] += 1
        done = []
        for number, row in enumerate(given, start=1):
            own = {
                name.removesuffix(of_object("", number)): value
                for name, value in outputs.items()
                if name.endswith(of_object("", number))
            }
            done.append(replace(self.set(state, row), values={**state.values, **row, **own}))
        return done

    def missing(self, state: PipelineState, up_to: Rate) -> tuple[str, ...]:
        """Return the names of inputs that were never set, of stages up to a rate that would run."""
        computed = {spec.name for stage in state.stale for spec in self._graphs[stage].outputs}
        return tuple(
            spec.name
            for stage, graph in self._graphs.items()
            if stage in state.stale and stage not in state.bypassed and self._rates[stage] <= up_to
            for spec in graph.inputs
            if spec.name not in state.values and spec.name not in computed
        )

    def _fits(self, stage: str, rows: int | None) -> bool:
        """Whether a stage takes a list of so many rows, or no list."""
        if stage not in self._rows:
            return True
        return stage not in self._larger if rows is None else self._rows[stage] == rows

    def _check_rows(self, rows: int) -> None:
        if rows not in self._rows.values():
            raise SessionError(
                f"a list of {rows} rows",
                expected=f"one of the sizes {', '.join(map(str, self._rows.values())) or 'of a list: there is none'}",
                fix="fill the list up to one of them",
            )


def _of_image(spec: TensorSpec) -> bool:
    """Whether the objects of an image share an input of the click stage."""
    return spec.role in (Role.FEATURE, Role.IMAGE)


def _of_object(spec: TensorSpec, number: int) -> TensorSpec:
    return msgspec.structs.replace(spec, name=of_object(spec.name, number))


def _same_but_rows(spec: TensorSpec, other: TensorSpec, more: int) -> bool:
    """Whether two tensors are alike, or the first has more rows, which are the second axis."""
    if spec.dtype != other.dtype or spec.role is not other.role:
        return False
    larger = len(other.shape) > 1 and (other.shape[0], other.shape[1] + more, *other.shape[2:])
    return spec.shape in (other.shape, larger)


def _other_rows(stage: str, spec: TensorSpec | None, smallest: str, other: TensorSpec | None) -> BundleCorruptError:
    named = spec or other
    assert named is not None
    given, wanted = (
        "no such tensor" if one is None else f"{one.role} {one.dtype} {one.shape}" for one in (spec, other)
    )
    return BundleCorruptError(
        f"stage {stage!r} has {given} for {named.name}",
        expected=f"what stage {smallest!r} has, {wanted}, but for the number of rows",
        fix="export the checkpoint again",
    )

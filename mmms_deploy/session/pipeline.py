"""The stages of a bundle as a pipeline: a stage runs again only when one of its inputs changed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import numpy as np

from mmms_deploy.bundle import Manifest, Rate, StageGraph, TensorSpec
from mmms_deploy.engines.protocol import Array, Runner, Value
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
        except KeyError:
            raise SessionError(
                f"{name!r} was not computed yet", expected="a tensor of a stage that ran", fix="call run() first"
            ) from None


class StagePipeline:
    """The stages in order, and what runs again when an input changes. It holds no values itself: see PipelineState.

    A tensor is known by its name: an output of one stage is the input of that name of the later ones. An input that no
    earlier stage computes comes from outside: images, clicks, the click stage's own previous state, or features that
    are computed elsewhere.

    Args:
        manifest: The bundle's manifest.
        graphs: The graph that the engine runs for every stage, by name.
        runner: Where they run. The pipeline does not close it.

    Raises:
        BundleCorruptError: Two stages compute a tensor of one name, or a tensor differs between the stages that share
            it or from the tensor that replaces it in a bypass.
    """

    def __init__(self, manifest: Manifest, graphs: Mapping[str, StageGraph], runner: Runner) -> None:
        self._runner = runner
        self._rates = {stage.name: stage.rate for stage in manifest.stages}
        self._graphs = {stage.name: graphs[stage.name] for stage in manifest.stages}
        self._inputs: dict[str, TensorSpec] = {}
        self._outputs: dict[str, TensorSpec] = {}
        self._bypasses = {stage.name: stage.bypass for stage in manifest.stages if stage.bypass}
        for stage, graph in self._graphs.items():
            if stage in self._bypasses:
                self._check_bypass(stage)
            self._connect(stage, graph)
        self._runs = dict.fromkeys(self._graphs, 0)

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
        """The inputs that come from outside, by name."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that the stages compute, by name."""
        return self._outputs

    @property
    def runs(self) -> Mapping[str, int]:
        """How often every stage ran, by name."""
        return dict(self._runs)

    def start(self) -> PipelineState:
        """Return the state before any input is set."""
        return PipelineState({}, frozenset(self._graphs))

    def upload(self, name: str, array: Array) -> Value:
        """Return an input on the device.

        Args:
            name: Name of the input.
            array: Numbers of its shape; converted to its dtype.

        Raises:
            SessionError: There is no such input.
        """
        return self._runner.upload(self._spec(name), array)

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

    def run(self, state: PipelineState, up_to: Rate = Rate.CLICK) -> PipelineState:
        """Run the stages that are stale, in order, and return the state afterwards.

        Args:
            state: The state before. It stays valid: values are never written to.
            up_to: Leave stages of a faster rate than this as they are.

        Raises:
            SessionError: An input was never set.
            EngineError: A stage failed.
        """
        values, stale = dict(state.values), set(state.stale)
        for stage, graph in self._graphs.items():
            if stage not in stale or self._rates[stage] > up_to:
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

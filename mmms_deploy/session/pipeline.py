"""The stages of a bundle as a pipeline: a stage runs again only when one of its inputs changed."""

from __future__ import annotations

from collections.abc import Mapping, MutableSet
from dataclasses import dataclass

from mmms_deploy.bundle import Manifest, Rate, StageGraph, TensorSpec
from mmms_deploy.engines.protocol import Array, Runner, Value
from mmms_deploy.errors import BundleCorruptError, SessionError


@dataclass(frozen=True)
class PipelineState:
    """Everything a pipeline holds at one moment, to go back to. Values are never written to: a shallow copy is enough.

    Attributes:
        values: The tensors on the device, by name.
        stale: Names of the stages that would run.
        bypassed: Names of the stages that are left out.
    """

    values: Mapping[str, Value]
    stale: frozenset[str]
    bypassed: frozenset[str] = frozenset()


class StagePipeline:
    """The stages in order, the values that stay on the device, and which stages are stale.

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
        self._bypassed: frozenset[str] = frozenset()
        self._values: dict[str, Value] = {}
        self._stale = set(self._graphs)
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

    def set(self, name: str, array: Array) -> None:
        """Upload an input and mark the stages that depend on it as stale.

        Args:
            name: Name of the input.
            array: Numbers of its shape; converted to its dtype.

        Raises:
            SessionError: There is no such input.
        """
        self.put(name, self._runner.upload(self._spec(name), array))

    def set_zeros(self, name: str) -> None:
        """Set an input to zeros and mark the stages that depend on it as stale."""
        self.put(name, self._runner.zeros(self._spec(name)))

    def put(self, name: str, value: Value) -> None:
        """Set an input to a value that is on the device already, and mark the stages that depend on it as stale."""
        self._spec(name)
        self._values[name] = value
        self._mark({name})

    def clear(self, name: str) -> None:
        """Forget an input if it is set; the stages that read it cannot run before it is set again."""
        self._values.pop(name, None)
        self._mark({name})

    def reads(self, name: str) -> bool:
        """Whether a stage that is not bypassed reads an input of this name."""
        return any(
            spec.name == name
            for stage, graph in self._graphs.items()
            if stage not in self._bypassed
            for spec in graph.inputs
        )

    def bypass(self, active: bool) -> None:
        """Leave out the stages that can be bypassed, from the next :meth:`ensure` on, or run them again.

        Args:
            active: Whether to leave them out.
        """
        wanted = frozenset(self._bypasses) if active else frozenset()
        for stage in wanted ^ self._bypassed:
            self._stale.add(stage)
            self._mark({spec.name for spec in self._graphs[stage].outputs})
        self._bypassed = wanted

    def _mark(self, changed: MutableSet[str]) -> None:
        """Mark the stages that depend on changed tensors as stale."""
        for stage, graph in self._graphs.items():
            if any(spec.name in changed for spec in graph.inputs):
                self._stale.add(stage)
                changed |= {spec.name for spec in graph.outputs}

    def _spec(self, name: str) -> TensorSpec:
        if name not in self._inputs:
            raise SessionError(
                f"{name!r} is no input of this bundle",
                expected=f"one of {', '.join(self._inputs)}",
                fix="check its name",
            )
        return self._inputs[name]

    def ensure(self, up_to: Rate = Rate.CLICK) -> None:
        """Run the stages that are stale, in order.

        Args:
            up_to: Leave stages of a faster rate than this as they are.

        Raises:
            SessionError: An input was never set.
            EngineError: A stage failed; it stays stale.
        """
        for stage, graph in self._graphs.items():
            if stage not in self._stale or self._rates[stage] > up_to:
                continue
            if stage in self._bypassed:
                self._values.update({name: self.value(source) for name, source in self._bypasses[stage].items()})
                self._stale.discard(stage)
                continue
            missing = [spec.name for spec in graph.inputs if spec.name not in self._values]
            if missing:
                raise SessionError(
                    f"stage {stage!r} cannot run without {', '.join(missing)}",
                    expected="every input set",
                    fix="set them first",
                )
            outputs = self._runner.run(stage, {spec.name: self._values[spec.name] for spec in graph.inputs})
            self._values.update(outputs)
            self._runs[stage] += 1
            self._stale.discard(stage)

    def value(self, name: str) -> Value:
        """Return the current value of a tensor.

        Raises:
            SessionError: It was never set or computed.
        """
        try:
            return self._values[name]
        except KeyError:
            raise SessionError(
                f"{name!r} was not computed yet", expected="a tensor of a stage that ran", fix="call ensure() first"
            ) from None

    def save(self) -> PipelineState:
        """Return everything the pipeline holds now, for :meth:`restore`."""
        return PipelineState(dict(self._values), frozenset(self._stale), self._bypassed)

    def restore(self, state: PipelineState) -> None:
        """Go back to what :meth:`save` returned. The counts of runs go on."""
        self._values = dict(state.values)
        self._stale = set(state.stale)
        self._bypassed = state.bypassed

"""Which tensors of a bundle's stages need a fixed place on the GPU, what for, and how large a session is with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mmms_deploy.bundle import Bundle, Rate, Role, StageGraph, TensorSpec
from mmms_deploy.engines.cuda.executor import Program, check_program, check_same
from mmms_deploy.engines.cuda.memory import Use, aligned

_USES = {Role.IMAGE: Use.INPUTS, Role.MODALITY: Use.INPUTS, Role.FEATURE: Use.FEATURES}


@dataclass(frozen=True)
class Layout:
    """The tensors at the borders of the stages, by name, and how they hang together.

    An output of one stage and the input of that name of a later one are the same memory, so that the image stage writes
    its features straight to where the click stage reads them.

    Attributes:
        tensors: Every tensor.
        given: Names of those that come from the host.
        answers: Names of the click stage's outputs that go to the host with every click.
        links: Pairs of an output and the input that it becomes at the next click.
        graphs: The graph of every stage, by name.
        clicks: Names of the stages that run at every click.
        activations: Bytes of scratch memory for the stages; they never run at the same time and share it.
        kept: Sizes in bytes of what a step of the history keeps, with how many of each.
        spare: The same of what a click saves beside that, until its run is over.
    """

    tensors: Mapping[str, TensorSpec]
    given: frozenset[str]
    answers: frozenset[str]
    links: tuple[tuple[str, str], ...]
    graphs: Mapping[str, StageGraph]
    clicks: frozenset[str]
    activations: int
    kept: Mapping[int, int]
    spare: Mapping[int, int]

    def nbytes(self, use: Use) -> int:
        """Return the bytes that a session's tensors of a use take on the GPU."""
        return sum(aligned(spec.nbytes) for spec in self.of(use))

    def of(self, use: Use) -> tuple[TensorSpec, ...]:
        """Return the tensors of a use."""
        return tuple(spec for spec in self.tensors.values() if _USES.get(spec.role, Use.STATE) is use)

    def session_bytes(self, history_block: int) -> int:
        """Return the bytes that a session takes on the GPU when it is opened."""
        slots = Counter(self.blocks(history_block)) + Counter(self.spare)
        tensors = sum(aligned(spec.nbytes) for spec in self.tensors.values())
        return tensors + self.activations + sum(count * aligned(nbytes) for nbytes, count in slots.items())

    def blocks(self, history_block: int) -> dict[int, int]:
        """Return how many slots of a size a number of clicks takes, by size in bytes."""
        return {nbytes: count * history_block for nbytes, count in self.kept.items()}


def lay_out(bundle: Bundle, graphs: Mapping[str, StageGraph], programs: Mapping[str, Program]) -> Layout:
    """Return the layout of a bundle's stages, checked against the programs that execute them.

    Args:
        bundle: The bundle.
        graphs: The graph of every stage, by name, in the order of the manifest.
        programs: What executes it.

    Raises:
        BundleCorruptError: A program has other inputs or outputs than the manifest says, or tensors that are to hold
            each other's contents cannot.
    """
    tensors: dict[str, TensorSpec] = {}
    outputs: set[str] = set()
    for stage, graph in graphs.items():
        check_program(bundle, stage, graph, programs[stage])
        for spec in (*graph.inputs, *graph.outputs):
            check_same(bundle, f"stage {stage!r}", spec, tensors.setdefault(spec.name, spec))
        outputs |= {spec.name for spec in graph.outputs}
    # Links to tensors that no stage has are the session's to refuse.
    links = tuple(
        (link.output, link.input)
        for link in bundle.manifest.state
        if link.output in outputs and link.input in tensors and link.input not in outputs
    )
    for source, target in links:
        check_same(bundle, "the state", tensors[target], tensors[source])
    clicks = frozenset(stage.name for stage in bundle.manifest.stages if stage.rate is Rate.CLICK)
    kept = {source for source, _ in links}
    written = {spec.name for stage in clicks for spec in graphs[stage].outputs}
    return Layout(
        tensors=tensors,
        given=frozenset(tensors) - outputs - {target for _, target in links},
        answers=frozenset(name for name in outputs if tensors[name].role is Role.PROBABILITY),
        links=links,
        graphs=graphs,
        clicks=clicks,
        activations=aligned(max(program.device_memory for program in programs.values())),
        kept=Counter(tensors[name].nbytes for name in kept),
        spare=Counter(tensors[name].nbytes for name in written),
    )

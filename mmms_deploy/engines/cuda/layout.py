"""Which tensors of a bundle's stages need a fixed address on the GPU, what for, and how many bytes a session takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

from mmms_deploy.bundle import Bundle, Rate, Role, StageGraph, TensorSpec
from mmms_deploy.engines.cuda.executor import Program, check_program, check_same
from mmms_deploy.engines.cuda.images.preparation import DEVICE_BYTES
from mmms_deploy.engines.cuda.memory import Use, aligned

_USES = {Role.IMAGE: Use.INPUTS, Role.MODALITY: Use.INPUTS, Role.MODULATED: Use.INPUTS, Role.FEATURE: Use.FEATURES}

_PICTURES = frozenset({Role.IMAGE, Role.MODALITY})

_ANSWERS = frozenset({Role.PROBABILITY, Role.LOGITS, Role.CANDIDATES, Role.SCORES, Role.TAKEN, Role.ROWS})


@dataclass(frozen=True)
class Layout:
    """The inputs and outputs of the stages, by name, and how they are joined.

    An output of one stage and the input of the same name of a later stage share one buffer: the image stage writes its
    features to where the click stage reads them.

    A tensor is called by its name. Where a stage comes in several sizes, its list of clicks and its answer have a
    buffer for each, and the larger ones are called ``NAME[ROWS]``.

    Attributes:
        tensors: Every tensor, by what it is called.
        host_inputs: Those of them that come from the host.
        downloaded: Those of the click stage's outputs that go to the host with every click.
        state_links: Pairs of an output and the input that it becomes at the next click.
        graphs: The ONNX graph of every stage, by name.
        click_stages: Names of the stages that run at every click.
        activations: Bytes of scratch memory for the stages; they never run at the same time and share it.
        kept: How many tensors of each size, in bytes, the history keeps of a click.
        temporary: How many of each size a click saves besides, until its run is over.
        pictures: The inputs that are resized and normalised of pictures from the host.
    """

    tensors: Mapping[str, TensorSpec]
    host_inputs: frozenset[str]
    downloaded: frozenset[str]
    state_links: tuple[tuple[str, str], ...]
    graphs: Mapping[str, StageGraph]
    click_stages: frozenset[str]
    activations: int
    kept: Mapping[int, int]
    temporary: Mapping[int, int]

    pictures: tuple[TensorSpec, ...]

    def key(self, spec: TensorSpec) -> str:
        """Return what a tensor is called."""
        known = self.tensors.get(spec.name)
        return spec.name if known is None or known.shape == spec.shape else _larger(spec)

    def nbytes(self, use: Use) -> int:
        """Return the bytes that a session's tensors of a use take on the GPU."""
        return sum(aligned(spec.nbytes) for spec in self.of(use))

    def of(self, use: Use) -> tuple[TensorSpec, ...]:
        """Return the tensors of a use."""
        return tuple(spec for spec in self.tensors.values() if _USES.get(spec.role, Use.STATE) is use)

    def session_bytes(self, history_block: int, *, prepare: bool) -> int:
        """Return the bytes that a session takes on the GPU when it is opened.

        Args:
            history_block: Clicks whose history it has memory for.
            prepare: Whether it prepares its images on the GPU.
        """
        spare = Counter(self.blocks(history_block)) + Counter(self.saved(prepare=prepare))
        tensors = sum(aligned(spec.nbytes) for spec in self.tensors.values())
        bands = DEVICE_BYTES if prepare and self.pictures else 0
        return tensors + self.activations + bands + sum(count * aligned(nbytes) for nbytes, count in spare.items())

    def saved(self, *, prepare: bool) -> Mapping[int, int]:
        """Return how many spare buffers of each size a call needs besides the history, until it is over.

        Args:
            prepare: Whether images are prepared on the GPU. The image before and its modalities stay usable until the
                next ones are there, where a modality may change; an image without modalities is not needed any more.
        """
        kept = self.pictures if prepare and len(self.pictures) > 1 else ()
        return Counter(self.temporary) + Counter(spec.nbytes for spec in kept)

    def blocks(self, history_block: int) -> dict[int, int]:
        """Return how many spare buffers the history of that many clicks takes, by size in bytes."""
        return {nbytes: count * history_block for nbytes, count in self.kept.items()}


def _larger(spec: TensorSpec) -> str:
    return f"{spec.name}[{spec.shape[1] if len(spec.shape) > 1 else spec.shape}]"


def lay_out(bundle: Bundle, graphs: Mapping[str, StageGraph], programs: Mapping[str, Program]) -> Layout:
    """Return the layout of a bundle's stages, checked against the programs that execute them.

    Args:
        bundle: The bundle.
        graphs: The ONNX graph of every stage, by name, in the order of the manifest.
        programs: The programs, by stage.

    Raises:
        BundleCorruptError: A program has other inputs or outputs than the manifest says, or two tensors that share
            their contents differ in dtype or shape.
    """
    tensors: dict[str, TensorSpec] = {}
    outputs: set[str] = set()
    larger = bundle.manifest.larger
    for stage, graph in graphs.items():
        check_program(bundle, stage, graph, programs[stage])
        called = {}
        for spec in (*graph.inputs, *graph.outputs):
            # The session refuses stages that differ in more than their number of rows.
            sized = stage in larger and spec.name in tensors and tensors[spec.name].shape != spec.shape
            called[spec.name] = _larger(spec) if sized else spec.name
            check_same(bundle, f"stage {stage!r}", spec, tensors.setdefault(called[spec.name], spec))
        outputs |= {called[spec.name] for spec in graph.outputs}
    # The session refuses links to tensors that no stage has.
    state_links = tuple(
        (link.output, link.input)
        for link in bundle.manifest.state
        if link.output in outputs and link.input in tensors and link.input not in outputs
    )
    for source, target in state_links:
        check_same(bundle, "the state", tensors[target], tensors[source])
    click_stages = frozenset(stage.name for stage in bundle.manifest.stages if stage.rate is Rate.CLICK)
    kept, linked = {source for source, _ in state_links}, {target for _, target in state_links}
    # Of the sizes of a stage one runs. A session keeps no mask of the network's size: it makes its own of the answer.
    written = {
        spec.name for stage in click_stages - larger for spec in graphs[stage].outputs if spec.role is not Role.MASK
    }
    return Layout(
        tensors=tensors,
        # The states of a stage for several objects have no link: a session gives each object's own, from the GPU.
        host_inputs=frozenset(name for name in set(tensors) - outputs - linked if tensors[name].role is not Role.STATE),
        downloaded=frozenset(name for name in outputs if tensors[name].role in _ANSWERS),
        state_links=state_links,
        graphs=graphs,
        click_stages=click_stages,
        activations=aligned(max(program.device_memory for program in programs.values())),
        kept=Counter(tensors[name].nbytes for name in kept),
        temporary=Counter(tensors[name].nbytes for name in written),
        pictures=() if bundle.manifest.click_only else _pictures(tensors, set(tensors) - outputs),
    )


def _pictures(tensors: Mapping[str, TensorSpec], inputs: Set[str]) -> tuple[TensorSpec, ...]:
    found = (tensors[name] for name in tensors if name in inputs and tensors[name].role in _PICTURES)
    return tuple(spec for spec in found if spec.dtype == "float32" and len(spec.shape) == 4 and spec.shape[0] == 1)

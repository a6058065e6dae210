"""The types of a bundle's manifest, ``bundle.json``."""

from __future__ import annotations

import math
from enum import Enum, StrEnum
from functools import total_ordering
from typing import Annotated

import msgspec

from mmms_deploy.bundle.contract import ClickContract, ImageSpec, ModalitySpec, Struct
from mmms_deploy.bundle.protocol import EvaluationProtocol

SCHEMA = 1
"""Version of the manifest's format."""
MOST_BATCH = 64
"""The most objects that a click stage takes at once."""
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 as 64 hexadecimal digits."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}
"""Element types that stages exchange, and their sizes."""


class Precision(StrEnum):
    """Number format of a stage's graph."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


@total_ordering
class Rate(Enum):
    """How often an input changes; a stage runs at the fastest rate among its inputs.

    Rates are ordered as they stand here, from slow to fast; the numbers are those of the file.
    """

    IMAGE = 0
    MODALITY = 1
    FIRST_CLICK = 3
    CLICK = 2

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Rate):
            return NotImplemented
        order = list(Rate)
        return order.index(self) < order.index(other)


class Role(StrEnum):
    """The purpose of an input or output of a stage."""

    IMAGE = "image"
    MODALITY = "modality"
    CLICK = "click"
    MODULATED = "modulated"
    FEATURE = "feature"
    STATE = "state"
    PROBABILITY = "probability"
    LOGITS = "logits"
    CANDIDATES = "candidates"
    SCORES = "scores"
    TAKEN = "taken"
    CHOICE = "choice"
    ROWS = "rows"
    MASK = "mask"


class TensorSpec(Struct, frozen=True, kw_only=True):
    """An input or output of a stage.

    Attributes:
        name: Its name in the graph.
        role: Its purpose.
        dtype: NumPy name of its element type (``float32``, ``float16``, ``bfloat16``, ``uint8``).
        shape: Static shape; images are (1, C, H, W).
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"tensor {self.name}: dtype {self.dtype!r} is none of {', '.join(ITEM_BYTES)}")


class StageGraph(Struct, frozen=True, kw_only=True):
    """One stage in one precision.

    Attributes:
        file: Name of the ONNX file in the bundle.
        data: Name of its external data file; None when the graph fits in one protobuf message (2 GB).
        inputs: Inputs, in graph order.
        outputs: Outputs, in graph order.
    """

    file: str
    data: str | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Stage(Struct, frozen=True, kw_only=True):
    """A part of the network that runs again only when one of its inputs changed.

    Attributes:
        name: Unique name, e.g. ``image`` or ``click``.
        rate: How often it runs.
        graphs: Its graph in every precision of the bundle.
        bypass: For each of its outputs, the tensor of an earlier stage that replaces it when none of the stage's
            modalities is present; empty for a stage that must run.
        rows: Rows of the list of clicks that it takes; None where it takes none. Of the stages of one rate that have
            rows, the smallest that holds all clicks runs. They give tensors of the same names.
        flops: Floating-point operations of one run of its float32 graph, a multiply-add counts 2; None when they were
            not counted.
        batch: How many objects of one image it answers in one run, each with its own state and click; left out where it
            is one. Its tensors are those of the click stage, once for every object
            (:func:`~mmms_deploy.bundle.names.of_object`), and the image's features, which they share.
    """

    name: str
    rate: Rate
    graphs: dict[Precision, StageGraph]
    bypass: dict[str, str] = msgspec.field(default_factory=dict)
    rows: int | None = None
    flops: float | None = None
    batch: Annotated[int, msgspec.Meta(ge=2, le=MOST_BATCH)] | msgspec.UnsetType = msgspec.UNSET


class StateLink(Struct, frozen=True, kw_only=True):
    """The click stage's output ``output`` becomes its input ``input`` at the next click.

    Attributes:
        input: Name of the input.
        output: Name of the output.
        start: The value of every element after a reset, before the first click.
    """

    input: str
    output: str
    start: int = 0


class Quantisation(Struct, frozen=True, kw_only=True):
    """How the graphs in 8 bits were made.

    Attributes:
        tool: What made them, with its version.
        pictures: Names of the pictures that they were calibrated on.
        iou: The requested mean IoU of masks, 0 to 1.
        layers: How many layers could be in 8 bits.
        share: Share of these layers' multiply-adds that is in 8 bits, by stage, 0 to 1.
        others: What an engine may compute in beside the layers in 8 bits: ``bf16`` where masks were seen to keep their
            limits with it, else ``fp32``.
        float_layers: The layers that stay in float32 because masks need that, by stage, as the checkpoint names their
            weights; those that cost most alone come first.
    """

    tool: str
    pictures: tuple[str, ...]
    iou: float
    layers: int
    share: dict[str, float]
    others: Precision = Precision.FP32
    float_layers: dict[str, tuple[str, ...]]


class Provenance(Struct, frozen=True, kw_only=True):
    """Where a bundle comes from.

    Attributes:
        checkpoint: File name of the checkpoint, or None for random weights.
        checkpoint_sha256: Its hash.
        weights: Where in the checkpoint the weights lie, keys joined by slashes; empty for the outermost dict.
        averaged: Whether they are averaged weights (EMA).
        checkpoint_source: Where the checkpoint was fetched from, ``hf:owner/name@commit/file``; None for a local file.
        backbone_checkpoint: File name of the separate backbone weights, if any.
        backbone_checkpoint_sha256: Its hash.
        backbone_checkpoint_source: Where it was fetched from; None for a local file.
        license: The licence of the weights, as an identifier of the hub such as ``apache-2.0``; None if it is unknown.
        random_seed: Seed of the random weights; None when the weights are trained.
        description: The network's description, as read from the checkpoint.
        parameters: Number of parameters of the network.
        opset: ONNX opset of the float32 graphs.
        half_opsets: ONNX opset of the graphs in each reduced precision.
        rewrites: Names of the exact rewrites that were applied before the export, in order.
        cuts: Cuts of the network beside the default one (``late``, ``black-box``).
        quantisation: How the graphs in 8 bits were made; left out where there are none.
        packages: Versions of the packages that made the bundle.
        created: UTC time in ISO 8601.
    """

    checkpoint: str | None
    checkpoint_sha256: str | None
    weights: str = ""
    averaged: bool = False
    checkpoint_source: str | None = None
    backbone_checkpoint: str | None = None
    backbone_checkpoint_sha256: str | None = None
    backbone_checkpoint_source: str | None = None
    license: str | None = None
    random_seed: int | None = None
    description: dict[str, object]
    parameters: int
    opset: int
    half_opsets: dict[Precision, int] = msgspec.field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    quantisation: Quantisation | msgspec.UnsetType = msgspec.UNSET
    packages: dict[str, str]
    created: str


class GateCheck(Struct, frozen=True, kw_only=True):
    """One comparison of the export gate.

    Attributes:
        name: The two sides, e.g. ``stages against whole``.
        measure: The measured quantity, e.g. ``largest |difference| of prob``.
        worst: The worst measured value.
        limit: The bound that it had to keep.
        where: Stage, tensor, image and click of the worst value.
        samples: Number of comparisons behind it.
    """

    name: str
    measure: str
    worst: float
    limit: float
    where: str
    samples: int


class BlockPeak(Struct, frozen=True, kw_only=True):
    """The largest absolute activations of one block of the backbone, in float32, on the gate's pictures.

    Attributes:
        block: One-based number of the block.
        output: The largest in the block's output, the residual stream.
        inside: The largest in the output of any of its layers.
        layer: The name of that layer in the block.
    """

    block: int
    output: float
    inside: float
    layer: str


class FileEntry(Struct, frozen=True, kw_only=True):
    """Size in bytes and SHA-256 of one file of the bundle."""

    size: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """The contents of ``bundle.json``.

    Attributes:
        schema: Version of this format.
        name: Name of the bundle.
        size: Network size (H, W) in pixels.
        image: How the RGB image is prepared; its graph input is named ``rgb``.
        modalities: How each extra modality is prepared; its graph input has the modality's name.
        clicks: How clicks are encoded and answers are read.
        published: How the figures of the family's paper were counted; None where it is not known.
        stages: The stages, in the order in which they run.
        state: Which outputs of the click stage are its inputs at the next click.
        provenance: Where the bundle comes from.
        gate: The comparisons of the export gate.
        activations: The largest activations of the backbone's blocks; empty when a provider runs the backbone.
        files: Every file beside the manifest and the model card, by name.
        card: SHA-256 of the model card as it was written, which may be edited later; None for a bundle without one.
        features_of: Of a click bundle, the digest of the bundle that it was made of, whose features its stages take;
            None for any other, whose manifest is written without it.
        digest: SHA-256 over the manifest without this field.
    """

    schema: int
    name: str
    size: tuple[int, int]
    image: ImageSpec
    modalities: tuple[ModalitySpec, ...]
    clicks: ClickContract
    published: EvaluationProtocol | None = None
    stages: tuple[Stage, ...]
    state: tuple[StateLink, ...]
    provenance: Provenance
    gate: tuple[GateCheck, ...]
    activations: tuple[BlockPeak, ...] = ()
    files: dict[str, FileEntry] = msgspec.field(default_factory=dict)
    card: str | None = None
    features_of: Digest | None = None
    digest: str = ""

    def stage(self, name: str) -> Stage:
        """Return the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def larger(self) -> frozenset[str]:
        """Names of the stages with rows that are not the smallest of their rate, and of those for several objects.

        A click on one object seldom needs the former and never the latter.
        """
        sized = [stage for stage in self.stages if stage.rows is not None]
        least = {stage.rate: stage.name for stage in sorted(sized, key=lambda stage: -(stage.rows or 0))}
        sizes = {stage.name for stage in sized if stage.name != least[stage.rate]}
        return frozenset(sizes | {stage.name for stage in self.stages if stage.batch})

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the modalities without which a picture is not taken."""
        return tuple(spec.name for spec in self.modalities if not spec.optional)

    @property
    def batches(self) -> dict[int, str]:
        """The stages that answer clicks on several objects in one run, by how many they take, rising."""
        return dict(sorted((stage.batch, stage.name) for stage in self.stages if stage.batch))

    @property
    def click_only(self) -> bool:
        """Whether this is a click bundle: the stages that see clicks, without those that encode an image."""
        return self.features_of is not None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions in which every stage exists."""
        return tuple(p for p in Precision if all(p in stage.graphs for stage in self.stages))

    @property
    def trained(self) -> bool:
        """False when the weights are random, so that the masks mean nothing."""
        return self.provenance.random_seed is None

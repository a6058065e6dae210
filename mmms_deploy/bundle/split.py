"""What the split into stages gains: the operations of each stage, and what a click costs without it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmms_deploy.bundle.manifest import Manifest, Precision, Rate, Role, Stage, TensorSpec

EARLY = 1.1
"""A network that gains less than this is fused early: the image alone decides almost nothing."""


@dataclass(frozen=True)
class Split:
    """The operations of a bundle's stages, in float32; of several sizes of a stage, the smallest.

    Attributes:
        click: Floating-point operations of a click; a multiply-add counts 2.
        before: Those of everything that runs before the clicks.
        boundary: Bytes of the features that stay resident between an image and its clicks.
        first: Those of the first click, where it has a stage of its own; ``click`` is a later one then.
    """

    click: float
    before: float
    boundary: int
    first: float | None = None

    @property
    def whole(self) -> float:
        """Those of the whole network."""
        return self.click + self.before + (self.first or 0.0)

    @property
    def gain(self) -> float:
        """How many times the operations of a click the whole network has; at least 1."""
        return self.whole / self.click

    @property
    def sentence(self) -> str:
        """What the split gains, for people."""
        saved = self.before / self.whole
        numbers = f"a click computes {self.click / 1e9:,.1f} of the network's {self.whole / 1e9:,.1f} GFLOP"
        if self.first is not None:
            first = f"the first click {self.first / 1e9:,.1f}, and the image {self.before / 1e9:,.1f}"
            return f"The split gains {self.gain:.2f}x from the second click on: {numbers}, {first}."
        if self.gain >= EARLY:
            return f"The split gains {self.gain:.2f}x: {numbers}."
        return (
            f"The split gains only {self.gain:.2f}x: {numbers}. The network is fused early, and {saved:.1%} of it"
            " depends on the image alone."
        )


def split_of(manifest: Manifest) -> Split | None:
    """Return what a bundle's split gains.

    None where operations were not counted, where nothing runs at a click, and for a click bundle, which has one side.
    """
    if manifest.click_only:
        return None
    counts = [(stage.rate, stage.flops) for stage in manifest.stages if stage.name not in manifest.larger]
    if any(flops is None for _, flops in counts):
        return None
    click = sum(flops or 0.0 for rate, flops in counts if rate is Rate.CLICK)
    before = sum(flops or 0.0 for rate, flops in counts if rate < Rate.FIRST_CLICK)
    first = [flops or 0.0 for rate, flops in counts if rate is Rate.FIRST_CLICK]
    return Split(click, before, boundary_bytes(manifest), sum(first) if first else None) if click > 0 else None


_RATES = {
    Rate.IMAGE: "once an image",
    Rate.MODALITY: "when a modality arrives or changes",
    Rate.FIRST_CLICK: "at the first click",
    Rate.CLICK: "at every click",
}


def how_often(manifest: Manifest, stage: Stage) -> str:
    """Return how often a stage runs, for people."""
    if stage.batch:
        return f"where up to {stage.batch} objects are clicked at once"
    first = any(one.rate is Rate.FIRST_CLICK for one in manifest.stages)
    rate = "at every later click" if first and stage.rate is Rate.CLICK else _RATES[stage.rate]
    return rate if stage.rows is None else f"{rate}, of up to {stage.rows}"


def boundary_bytes(manifest: Manifest) -> int:
    """Return the bytes of the features that stay resident between an image and its clicks, in float32."""
    click = [stage for stage in manifest.stages if stage.rate is Rate.CLICK and stage.name not in manifest.larger]
    return sum(feature_bytes(stage.graphs[Precision.FP32].inputs) for stage in click if Precision.FP32 in stage.graphs)


def feature_bytes(tensors: Iterable[TensorSpec]) -> int:
    """Return the bytes of those of a stage's inputs or outputs that are features."""
    return sum(spec.nbytes for spec in tensors if spec.role is Role.FEATURE)

"""Figures that papers published, for comparison with ours. All of them come from other hardware."""

from __future__ import annotations

from dataclasses import dataclass

MMMS = "MMMS (arXiv 2509.12963)"


@dataclass(frozen=True)
class PaperFigure:
    """One published latency.

    Attributes:
        network: The network.
        hardware: The hardware.
        milliseconds: The latency.
        metric: The key of our metric that measures the same.
        what: What the figure covers.
        short: The same in two words.
        source: The publication.
    """

    network: str
    hardware: str
    milliseconds: float
    metric: str
    what: str
    short: str
    source: str


_ALONE = "per click, the response alone"
_CPU = "CPU, as published"
_OTHERS = "InterFormer (arXiv 2304.02942)"

FIGURES = (
    PaperFigure("MMMS, DINOv2-B14", "CPU, Xeon E5-2697 v4", 206, "click.mean", _ALONE, "click alone", MMMS),
    PaperFigure("MMMS, DINOv2-B14", "GPU, V100", 12, "click.mean", f"{_ALONE}, mean of 30 clicks", "click alone", MMMS),
    PaperFigure(
        "MMMS, DINOv2-B14",
        "GPU, V100",
        42,
        "click.amortised",
        "per click, the image part spread over the clicks",
        "amortised",
        MMMS,
    ),
    PaperFigure("InterFormer-Light, ViT-B", _CPU, 190, "click.mean", _ALONE, "click alone", _OTHERS),
    PaperFigure("InterFormer-Tiny, ViT-L", _CPU, 320, "click.mean", _ALONE, "click alone", _OTHERS),
    PaperFigure(
        "SimpleClick, ViT-B", _CPU, 1510, "click.mean", "per click, the whole network", "whole network", _OTHERS
    ),
    PaperFigure(
        "SimpleClick, ViT-L", _CPU, 3330, "click.mean", "per click, the whole network", "whole network", _OTHERS
    ),
    PaperFigure(
        "SimpleClick, ViT-H", _CPU, 7760, "click.mean", "per click, the whole network", "whole network", _OTHERS
    ),
)
"""MMMS's own figures, and those of the click networks that its paper compares it with."""


@dataclass(frozen=True)
class PaperMemory:
    """One published figure of memory on the GPU.

    Attributes:
        inputs: The network's inputs.
        modalities: Number of modalities beside RGB.
        mebibytes: Memory in MiB.
    """

    inputs: str
    modalities: int
    mebibytes: float


VRAM = tuple(
    PaperMemory(" + ".join(("RGB", "depth", "lidar", "event")[: 1 + count]), count, mebibytes)
    for count, mebibytes in enumerate((1474, 1582, 1686, 1772))
)
"""MMMS with DINOv2-B14 on a V100 (table VI). The paper does not say how it measured."""
VRAM_METRIC = "vram.taken"
"""Our metric for comparison: what the engine and one session took of the free memory, without the CUDA context."""
VRAM_TITLE = "The paper's memory on a V100 (table VI), in MiB"
VRAM_HERE = "here, without the CUDA context"

_MMMS_PARAMETERS = (125.2, 175.3)
"""Millions, from RGB alone to RGB with three modalities (MMMS, table VI)."""


def papers_heading(parameters: float | None) -> str:
    """Return the heading of the published figures. It says so when they are of another network than the measured one.

    Args:
        parameters: Parameters of the measured network in millions; None when they are not known.
    """
    text = "The papers' figures, on other hardware than this"
    low, high = _MMMS_PARAMETERS
    if parameters is None or 0.95 * low <= parameters <= 1.05 * high:
        return text
    return f"{text}, and of other networks: MMMS has {low:.0f} M parameters, this one {parameters:.3g} M"

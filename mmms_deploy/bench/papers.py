"""Figures that papers published, for comparison with ours. All of them come from other hardware.

Times, parameters and arithmetic are those of :mod:`mmms_deploy.reporting.published`, which evaluations show, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmms_deploy.reporting.published import (
    AMORTISED,
    GFLOP,
    MILLISECONDS,
    PARAMETERS,
    PublishedFigure,
    figures_of,
    published_figures,
)

_SPLIT = ("MMMS", "InterFormer")
"""Methods whose papers time the answer to a click without the image's part; the others run the whole network."""


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


def _latency(figure: PublishedFigure) -> PaperFigure:
    what, short, metric = "per click, the whole network", "whole network", "click.mean"
    if figure.measure == AMORTISED:
        what, short, metric = "per click, the image part spread over the clicks", "amortised", "click.amortised"
    elif figure.method in _SPLIT:
        what, short = "per click, the response alone", "click alone"
    return PaperFigure(figure.network, figure.hardware, figure.value, metric, what, short, figure.source)


FIGURES = tuple(
    _latency(figure)
    for figure in sorted(published_figures(), key=lambda figure: (figure.method not in _SPLIT, figure.method != "MMMS"))
    if figure.measure in (MILLISECONDS, AMORTISED)
)
"""MMMS's own latencies, and those of the click networks that are exported here."""


@dataclass(frozen=True)
class PaperSize:
    """Published parameters or arithmetic of the measured network.

    Attributes:
        what: ``parameters, M`` or ``GFLOP``, of the whole network.
        value: The figure.
        source: The publication.
    """

    what: str
    value: float
    source: str


def sizes_of(network: str) -> tuple[PaperSize, ...]:
    """Return the published parameters and arithmetic of a network; nothing where no paper has it.

    Args:
        network: What papers call it, as :func:`~mmms_deploy.reporting.published.published_network` returns it.
    """
    return tuple(
        PaperSize(figure.measure, figure.value, figure.source)
        for figure in figures_of(network, "")
        if figure.measure in (PARAMETERS, GFLOP)
    )


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

"""Figures that papers published, to be shown beside ours. Others counted and measured them, and reports say so.

The one table is ``published.json``: click counts on data sets, parameters, arithmetic and times of the networks that
this project exports, each with its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

MILLISECONDS = "ms a click"
AMORTISED = "ms a click with its share of the image"
PARAMETERS = "parameters, M"
GFLOP = "GFLOP"

THEIRS = "theirs, as published"
"""What a column of published figures is called."""

_METHODS = {
    "dynamite": "DynaMITe",
    "icmformer": "iCMFormer",
    "interformer": "InterFormer",
    "mfp": "MFP",
    "mmms": "MMMS",
    "simpleclick": "SimpleClick",
    "skipclick": "SkipClick",
}
_VITS: dict[tuple[Any, Any], str] = {(768, 12): "ViT-B", (1024, 24): "ViT-L", (1280, 32): "ViT-H"}
_SWINS: dict[tuple[Any, Any], str] = {(96, 6): "Swin-T", (96, 18): "Swin-S", (128, 18): "Swin-B", (192, 18): "Swin-L"}
_MITS: dict[tuple[Any, Any], str] = {((32, 64, 160, 256), (2, 2, 2, 2)): "SegF-B0"}
_BACKBONES = {"dinov2_b14_reg": "DINOv2-B14"}


@dataclass(frozen=True)
class PublishedFigure:
    """One figure of a paper.

    Attributes:
        method: The network, such as ``SimpleClick``.
        backbone: Its backbone, such as ``ViT-B``.
        trained_on: The data that it was trained on; empty where that does not matter.
        dataset: Kind of the data set that it was counted on; empty where there is none.
        measure: What it is: ``NoC@90``, or one of the measures above.
        value: The figure.
        hardware: What it was measured on; empty where that does not matter.
        source: The paper, and the place in it.
    """

    method: str
    backbone: str
    trained_on: str
    dataset: str
    measure: str
    value: float
    hardware: str
    source: str

    @property
    def network(self) -> str:
        """Method and backbone in one text."""
        return f"{self.method}, {self.backbone}"


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    note: str
    sources: list[str]
    rows: list[tuple[str, str, str, str, str, float, str, int]]


@lru_cache(maxsize=1)
def published_figures() -> tuple[PublishedFigure, ...]:
    """Return all figures."""
    content = files("mmms_deploy.reporting").joinpath("published.json").read_bytes()
    table = msgspec.json.decode(content, type=_Table)
    return tuple(PublishedFigure(*row[:-1], table.sources[row[-1]]) for row in table.rows)


def figures_of(network: str | None, dataset: str | None = None) -> tuple[PublishedFigure, ...]:
    """Return the figures of a network.

    Args:
        network: What :func:`published_network` returned.
        dataset: Kind of a data set, or empty for those that belong to none; None for all.
    """
    return tuple(
        figure
        for figure in published_figures()
        if figure.network == network and (dataset is None or figure.dataset == dataset)
    )


def published_network(description: Mapping[str, Any]) -> str | None:
    """Return what a network is called in the table, from its description; None for one that no paper has.

    Args:
        description: As in a bundle's provenance: the family, and the sizes of its ViT,
            Swin or MiT.
    """
    family = description.get("family", "mmms")
    method = _METHODS.get(family) if isinstance(family, str) else None
    backbone = _backbone(description)
    return None if method is None or backbone is None else f"{method}, {backbone}"


def _backbone(description: Mapping[str, Any]) -> str | None:
    vit, swin, hrnet, mit, frozen = (description.get(name) for name in ("vit", "swin", "hrnet", "mit", "backbone"))
    if isinstance(mit, Mapping):
        sizes = [tuple(kind) for kind in (mit.get("widths"), mit.get("depths")) if isinstance(kind, list | tuple)]
        return _MITS.get((sizes[0], sizes[1])) if len(sizes) == 2 else None
    if isinstance(swin, Mapping):
        depths = swin.get("depths")
        return _SWINS.get((swin.get("width"), depths[2])) if isinstance(depths, list | tuple) and depths[2:] else None
    if isinstance(hrnet, Mapping):
        return f"HRNet-{hrnet.get('width')}"
    if isinstance(vit, Mapping) or "dim" in description:
        dims = vit if isinstance(vit, Mapping) else description
        return _VITS.get((dims.get("dim"), dims.get("depth")))
    if isinstance(frozen, Mapping) and not frozen.get("overrides"):
        return _BACKBONES.get(str(frozen.get("name")))
    return None

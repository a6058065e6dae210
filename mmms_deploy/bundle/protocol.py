"""How a family's published figures are evaluated: crop, mirror image, threshold and sizes.

A checkpoint's family says it, a bundle carries it, and ``mmms-eval --protocol published`` follows it. A session takes
the crop's rule from it (:mod:`mmms_deploy.session.zoom`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mmms_deploy.bundle.contract import Struct


class Outside(StrEnum):
    """What the probability is outside of the crop in which a click was answered."""

    ZEROS = "zeros"
    """Zero: the object ends where the crop ends, as in RITM, SimpleClick and iCMFormer."""
    KEPT = "kept"
    """What it was before the click, as in MFP."""


class ZoomRule(Struct, frozen=True, kw_only=True):
    """Which part of the picture the network sees: ZoomIn of RITM's family, with its published values as defaults.

    Attributes:
        expansion: Sides of the crop over the sides of the object's box; at least 1.
        smallest: The least side of a crop, in image pixels.
        iou: The crop changes when its IoU with the one that the object asks for is below this; from 0 to 1.
        outside: What the probability is outside of the crop.
        threshold: A pixel belongs to the object when its probability is greater; None takes the mask's.
    """

    expansion: float = 1.4
    smallest: float = 200
    iou: float = 0.5
    outside: Outside = Outside.ZEROS
    threshold: float | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "outside", Outside(self.outside))  # also from Python by its name
        # Written so that NaN is refused, too.
        if not 1 <= self.expansion <= 100:
            raise ValueError(f"zoom: expansion must be from 1 to 100, got {self.expansion}")
        if not 1 <= self.smallest <= 1 << 20:
            raise ValueError(f"zoom: smallest must be from 1 to {1 << 20} pixels, got {self.smallest}")
        if not 0 <= self.iou <= 1:
            raise ValueError(f"zoom: iou must be from 0 to 1, got {self.iou}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"zoom: threshold must be in (0, 1), got {self.threshold}")


class EvaluationProtocol(Struct, frozen=True, kw_only=True):
    """How the figures of a family's paper were counted.

    Attributes:
        zoom: The crop around the object; None for the whole picture at every click.
        flip: Whether every answer is the mean of the logits for the picture and for its mirror image.
        threshold: A pixel belongs to the mask when its probability is greater; None takes the contract's.
        size: The network's (H, W) in pixels.
        sizes: The network's (H, W) on data sets that have another one, by kind (``davis``).
        source: The paper or software that says so.
    """

    zoom: ZoomRule | None = None
    flip: bool = False
    threshold: float | None = None
    size: tuple[int, int] = (448, 448)
    sizes: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"protocol: threshold must be in (0, 1), got {self.threshold}")
        if any(side < 1 for size in (self.size, *self.sizes.values()) for side in size):
            raise ValueError("protocol: sizes must be positive")

    def size_on(self, kind: str) -> tuple[int, int]:
        """Return the network's (H, W) on a kind of data sets."""
        return self.sizes.get(kind, self.size)


RITM_FAMILY = EvaluationProtocol(
    zoom=ZoomRule(),
    flip=True,
    threshold=0.49,
    sizes={"davis": (672, 672)},
    source="evaluation code of SimpleClick (Liu et al., ICCV 2023), --eval-mode=cvpr",
)
"""How SimpleClick and iCMFormer evaluate: ZoomIn that leaves zeros outside of the crop, and the mirror image."""

MFP_PROTOCOL = EvaluationProtocol(
    zoom=ZoomRule(outside=Outside.KEPT),
    flip=True,
    threshold=0.5,
    sizes={"davis": (672, 672)},
    source="evaluation code of MFP (Lee et al., CVPR 2024), --eval-mode=cvpr",
)
"""How MFP evaluates: as that, but the probability outside of the crop stays."""

SKIPCLICK_PROTOCOL = EvaluationProtocol(
    flip=True,
    threshold=0.49,
    sizes={"davis": (672, 672), "hqseg": (896, 896)},
    source="evaluation code of SkipClick (Schön et al. 2025), --eval-mode=cvpr --suppress-zoom",
)
"""How SkipClick evaluates: the whole picture at every click, and the mirror image."""

"""Where a network is cut, beside the boundary where clicks come in. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import CutError


class Cut(StrEnum):
    """A further cut.

    ``late``: what depends on the modalities becomes a stage of its own, so that a modality that arrives later or
    changes is fused without running the backbone again. ``black-box``: the backbone is left out; its four feature maps
    are computed by somebody else (paper appendix B).
    """

    LATE = "late"
    BLACK_BOX = "black-box"


def choose_cuts(asked: Collection[Cut], modalities: Collection[ModalitySpec]) -> frozenset[Cut]:
    """Return the cuts to make: those asked for, and ``late`` where a modality is optional.

    Args:
        asked: The cuts asked for.
        modalities: The network's modalities.

    Raises:
        CutError: ``late`` was asked for, and there is no modality.
    """
    if Cut.LATE in asked and not modalities:
        raise CutError(
            "--cut late for a network without extra modalities",
            expected="a network with at least one modality that can come later",
            fix="leave out --cut late",
        )
    optional = any(modality.optional for modality in modalities)
    return frozenset(asked) | ({Cut.LATE} if optional else set())

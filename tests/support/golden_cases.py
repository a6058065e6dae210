"""Golden cases of toy bundles, right ones and wrong ones."""

from __future__ import annotations

import numpy as np

from mmms_deploy.bundle import Bundle
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import resize
from mmms_deploy.replay.golden import GoldenCase
from tests.support.toy import Reference

SIZE = (80, 120)
CLICKS = np.array([[30, 20, 1], [90, 60, 1], [34, 24, 0]], dtype=np.float32)


def golden(bundle: Bundle) -> GoldenCase:
    """A case whose reference is the NumPy network."""
    network = Reference(bundle.manifest, 0.0, SIZE)
    probabilities = []
    for x, y, positive in CLICKS.tolist():
        column, row = to_network(
            x, y, image=SIZE, network=bundle.manifest.size, rule=bundle.manifest.clicks.coordinates
        )
        network.click(column, row, positive > 0.5)
        probabilities.append(resize(network.prob, SIZE, bundle.manifest.clicks.mask_resize))
    stacked = np.stack(probabilities)
    return GoldenCase(
        image=np.zeros((*SIZE, 3), dtype=np.uint8),
        modalities={m.name: np.zeros((*SIZE, m.channels), dtype=np.float32) for m in bundle.manifest.modalities},
        clicks=CLICKS,
        masks=stacked > 0.5,
        certain=np.abs(stacked - 0.5) > 1e-3,
    )


def spoiled(case: GoldenCase, click: int) -> GoldenCase:
    masks = case.masks.copy()
    masks[click] = np.roll(masks[click], 4, axis=-1)
    return GoldenCase(
        image=case.image, modalities=case.modalities, clicks=case.clicks, masks=masks, certain=case.certain
    )

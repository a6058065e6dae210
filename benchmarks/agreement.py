"""Whether an engine keeps the masks: the same clicks on photographs, and the median IoU with a reference's masks.

A fast engine that answers something else is no way to run a network. The clicks are an annotator's: the first one in
the middle of the photograph, the others on the object that the reference found there, and beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from variants import Variant

from mmms_deploy.bench.workload import Picture, Point
from mmms_deploy.bundle import Manifest
from mmms_deploy.replay.metrics import iou

CLICKS = 10
"""On each photograph."""
KEEPS = 0.95
"""Median IoU from which on an engine keeps the masks.

It is generous: a narrower format moves rims, and takes another one of answers whose scores are close now and then. A
median forgives that, and still shows an engine that is wrong."""


def photographs(manifest: Manifest) -> list[Picture]:
    """Return the photographs that the export's gate uses, for a network, without clicks."""
    from mmms_deploy.export.samples import sample_images

    return [Picture(sample.image, sample.modalities, ()) for sample in sample_images(manifest.modalities)]


def measure_agreement(variants: Sequence[Variant], pictures: Sequence[Picture]) -> None:
    """Record in each row that names a reference the median IoU of its masks with the reference's masks.

    Rows whose reference did not run here are not compared.

    Args:
        variants: Open variants; times are not recorded.
        pictures: At least one.
    """
    by_key = {variant.row.key: variant for variant in variants}
    for key in dict.fromkeys(variant.row.reference for variant in variants):
        reference = by_key.get(key)
        if reference is None:
            continue
        others = [variant for variant in variants if variant.row.reference == key and variant is not reference]
        found: dict[str, list[float]] = {variant.row.key: [] for variant in others}
        for seed, picture in enumerate(pictures):
            clicks, expected = _annotate(reference, picture, seed)
            for variant in others:
                masks = _answers(variant, picture, clicks)
                found[variant.row.key] += [iou(mask, right) for mask, right in zip(masks, expected, strict=True)]
        reference.row.iou = 1.0
        for variant in others:
            variant.row.iou = float(np.median(found[variant.row.key]))


def _annotate(reference: Variant, picture: Picture, seed: int) -> tuple[list[Point], list[np.ndarray]]:
    """Return an annotator's clicks on a picture, and the reference's masks after each."""
    rng = np.random.default_rng(seed)
    height, width = picture.rgb.shape[:2]
    clicks: list[Point] = [(width / 2, height / 2, True)]
    masks = _answers(reference, picture, clicks)
    scale = np.array([width, height]) / masks[0].shape[::-1]
    for number in range(1, CLICKS):
        positive = number % 3 != 2
        # Not by the newest mask: it follows the clicks, which then would never contradict it.
        rows, columns = np.nonzero(masks[0] == positive)
        if not rows.size:
            rows, columns = np.nonzero(np.ones_like(masks[0]))
        chosen = int(rng.integers(rows.size))
        x, y = (np.array([columns[chosen], rows[chosen]]) + 0.5) * scale
        clicks.append((float(min(x, width - 1)), float(min(y, height - 1)), positive))
        reference.click(clicks[-1], record=False)
        masks.append(_mask(reference))
    return clicks, masks


def _answers(variant: Variant, picture: Picture, clicks: Sequence[Point]) -> list[np.ndarray]:
    variant.set_image(picture)
    masks = []
    for point in clicks:
        variant.click(point, record=False)
        masks.append(_mask(variant))
    return masks


def _mask(variant: Variant) -> np.ndarray:
    found = variant.mask()
    if found is None:
        raise TypeError(f"{variant.row.key} names a reference, and gives no mask")
    return np.array(found, dtype=np.bool_)

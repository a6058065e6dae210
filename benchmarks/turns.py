"""Measuring variants in turns, so that what a machine does meanwhile falls on all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import sleep

import numpy as np
from variants import Variant

from mmms_deploy.bench.workload import Picture

SETTLE = 0.05
"""Seconds between two variants, so that the threads of the idle one stop spinning."""
BURST = 5
"""Clicks of a variant at a time, as an annotator makes several on an object."""
WARM_UP = 3


def measure_in_turns(
    variants: Sequence[Variant],
    pictures: Sequence[Picture],
    say: Callable[[str], None],
    reference: Sequence[str] = ("eager",),
) -> None:
    """Measure variants in turns, and close them. The one that begins changes from round to round.

    Args:
        variants: At least one; their rows receive the times.
        pictures: At least one image with clicks.
        say: Called with what was done.
        reference: Ends of keys: the last answers are compared with that of the first variant of the same network that
            has one of them.
    """
    try:
        for variant in variants:
            variant.set_image(pictures[0])
            for point in pictures[0].clicks[:WARM_UP]:
                variant.click(point, record=False)
        for number, picture in enumerate(pictures):
            order = [*variants[number % len(variants) :], *variants[: number % len(variants)]]
            for variant in order:
                sleep(SETTLE)
                variant.row.image.append(variant.set_image(picture))
            for start in range(0, len(picture.clicks), BURST):
                for variant in order:
                    sleep(SETTLE)
                    for point in picture.clicks[start : start + BURST]:
                        variant.click(point, record=True)
            say(f"image {number + 1} of {len(pictures)} done")
        _compare(variants, reference)
    finally:
        for variant in variants:
            variant.close()


def _compare(variants: Sequence[Variant], reference: Sequence[str]) -> None:
    """Record how far each last answer is from the reference's: a variant that answers something else is not faster."""
    by_end = {(v.row.inputs, v.row.key.rpartition("/")[2]): v for v in variants}
    for variant in variants:
        found = (by_end.get((variant.row.inputs, end)) for end in reference)
        against = next((other for other in found if other is not None), None)
        if against is None or against is variant:
            continue
        answer, expected = variant.probability(), against.probability()
        if answer is not None and expected is not None:
            variant.row.difference = float(np.abs(answer - expected).max())

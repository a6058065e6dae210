"""The reference's modulation against the session's: two implementations of one specification."""

from __future__ import annotations

import numpy as np
import torch

from mmms_deploy.bundle.contract import Modulation
from mmms_deploy.export.modulation import modulated
from mmms_deploy.imaging.modulation import Point, modulate
from tests.support.families import GoldenFile


def test_both_implementations_answer_the_same() -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        size = (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
        probability = rng.random(size, dtype=np.float32)
        probability = probability.round(1) if number % 3 == 0 else probability
        spread = (1.0, 0.2)[number % 2]
        clicks = [
            (*(float(v) for v in rng.uniform(-0.3, np.array(size[::-1]) * spread - 0.1)), bool(rng.integers(2)))
            for _ in range(int(rng.integers(1, 10)))
        ]
        rule = Modulation(similar_clicks=int(rng.integers(0, 8)), radius=float(rng.integers(5, 60)))
        ours = modulate(probability, [Point(*click) for click in clicks], rule)
        theirs = modulated(torch.from_numpy(probability)[None, None], clicks, rule)[0, 0].numpy()
        # Radii are float32, and an exponent of 200 makes 1e-5 of their last bit.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-5, err_msg=f"case {number}")


def test_official_numbers() -> None:
    golden = GoldenFile("mfp-modulation")
    for number, case in enumerate(golden.meta["cases"]):
        orders = [order for _, _, order in (*case["positive"], *case["negative"])]
        if case["edit"] or sorted(orders) != list(range(len(orders))):
            continue
        clicks = sorted(
            [(order, (x, y, True)) for y, x, order in case["positive"]]
            + [(order, (x, y, False)) for y, x, order in case["negative"]]
        )
        previous = torch.from_numpy(golden.arrays["prob"]).reshape(1, 1, *golden.arrays["prob"].shape[-2:])
        found = modulated(previous, [click for _, click in clicks], Modulation())
        expected = golden.arrays[f"out{number}"].reshape(found.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=case["name"])

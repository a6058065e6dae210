"""MFP's modulation: the official numbers, and what its formulas leave open."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mmms_deploy.bundle.contract import ClickChannel, ClickContract, Modulation, PreviousMask
from mmms_deploy.imaging.modulation import Point, modulate
from tests.support.families import GoldenFile

RULE = Modulation()
ELSEWHERE = 1e6
"""A coordinate that is far from every window: clicks there only count."""


def waves() -> npt.NDArray[np.float32]:
    rows, columns = np.ogrid[:80, :90]
    return (0.5 + 0.4 * np.sin(rows / 9.0) * np.cos(columns / 7.0)).astype(np.float32)


def test_official_numbers() -> None:
    golden = GoldenFile("mfp-modulation")
    rule = Modulation(similar_clicks=golden.meta["N"], radius=golden.meta["R_max"])
    for number, case in enumerate(golden.meta["cases"]):
        probability = golden.arrays["prob"].reshape(golden.arrays["prob"].shape[-2:]).copy()
        if case["edit"]:
            row, column, value = case["edit"]
            probability[row, column] = value
        clicks = sorted(
            [(order, Point(x, y, True)) for y, x, order in case["positive"]]
            + [(order, Point(x, y, False)) for y, x, order in case["negative"]]
        )
        order, newest = clicks[-1]
        before = [Point(ELSEWHERE, ELSEWHERE, newest.positive)] * (order + 1 - len(clicks))
        found = modulate(probability, [*before, *(click for _, click in clicks)], rule)
        np.testing.assert_allclose(
            found, golden.arrays[f"out{number}"].reshape(found.shape), rtol=0, atol=1e-6, err_msg=case["name"]
        )


class TestWindow:
    def test_reaches_the_maximum_without_a_click_of_the_other_kind(self) -> None:
        rule = Modulation(similar_clicks=0, radius=12.0)
        rows, columns = np.nonzero(modulate(waves(), [Point(40, 30, True)], rule) != waves())
        assert 11.0 < np.hypot(rows - 30, columns - 40).max() <= 12.0

    def test_ends_half_way_to_the_nearest_click_of_the_other_kind(self) -> None:
        clicks = [Point(40, 60, False), Point(40, 0, False), Point(40, 30, True)]
        rows, columns = np.nonzero(modulate(waves(), clicks, Modulation(similar_clicks=0)) != waves())
        assert 14.0 < np.hypot(rows - 30, columns - 40).max() <= 15.0

    def test_clicks_of_the_same_kind_do_not_count(self) -> None:
        clicks = [Point(40, 31, True), Point(40, 30, True)]
        alone = modulate(waves(), [Point(ELSEWHERE, 0, True), clicks[-1]], RULE)
        assert np.array_equal(modulate(waves(), clicks, RULE), alone)


class TestWhatTheFormulasLeaveOpen:
    def test_a_constant_map_stays_but_for_the_click(self) -> None:
        flat = np.full((40, 50), 0.3, dtype=np.float32)
        found = modulate(flat, [Point(20, 10, True)], RULE)
        flat[10, 20] = 1.0
        np.testing.assert_array_equal(found, flat)

    def test_a_map_of_which_half_is_alike_stays_but_for_the_click(self) -> None:
        flat = np.full((40, 50), 0.3, dtype=np.float32)
        flat[:5] = 0.9
        found = modulate(flat, [Point(20, 20, False)], RULE)
        flat[20, 20] = 0.0
        np.testing.assert_array_equal(found, flat)

    @pytest.mark.parametrize(("x", "y"), [(89.4, 79.4), (89.9, 79.9), (88.5, 78.5)])
    def test_a_click_at_the_edge_is_rounded_into_the_map(self, x: float, y: float) -> None:
        found = modulate(waves(), [Point(x, y, True)], RULE)
        assert found[min(round(y), 79), min(round(x), 89)] == 1.0
        assert np.isfinite(found).all()

    def test_a_click_left_of_the_map_changes_nothing(self) -> None:
        assert np.array_equal(modulate(waves(), [Point(-0.25, 30, True)], RULE), waves())

    def test_a_window_that_is_cut_away_whole_changes_nothing(self) -> None:
        around = [Point(40 + dx, 30 + dy, False) for dx in (-7, 0, 7) for dy in (-7, 0, 7) if dx or dy]
        found = modulate(waves(), [*around, Point(40, 30, True)], RULE)
        assert np.isfinite(found).all()

    def test_no_answer_leaves_the_range(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(50):
            probability = rng.random((60, 60), dtype=np.float32).round(int(rng.integers(0, 4)))
            clicks = [Point(*rng.uniform(0, 59, 2), bool(rng.integers(2))) for _ in range(int(rng.integers(1, 12)))]
            found = modulate(probability, clicks, RULE)
            assert found.min() >= 0
            assert found.max() <= 1

    def test_the_map_before_is_left_as_it_is(self) -> None:
        before = waves()
        before.setflags(write=False)
        assert modulate(before, [Point(40, 30, True)], RULE)[30, 40] == 1.0
        assert np.array_equal(before, waves())


class TestContract:
    ORDER = (ClickChannel.PREVIOUS, ClickChannel.MODULATED, ClickChannel.POSITIVE, ClickChannel.NEGATIVE)

    def test_a_modulation_has_a_channel(self) -> None:
        made = ClickContract(channels=self.ORDER, previous=PreviousMask.PROBABILITY, modulation=RULE)
        assert made.channels == self.ORDER

    @pytest.mark.parametrize(
        "fields",
        [
            {"channels": ORDER},
            {"modulation": RULE, "previous": PreviousMask.PROBABILITY},
            {"channels": ORDER, "modulation": RULE},
        ],
        ids=["channel alone", "no channel", "of a mask"],
    )
    def test_what_does_not_belong_together_is_refused(self, fields: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"channels|modulation"):
            ClickContract(**fields)  # type: ignore[arg-type]

    @pytest.mark.parametrize("fields", [{"radius": 0.0}, {"radius": float("inf")}, {"similar_clicks": -1}])
    def test_impossible_modulations_are_refused(self, fields: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="modulation"):
            Modulation(**fields)  # type: ignore[arg-type]

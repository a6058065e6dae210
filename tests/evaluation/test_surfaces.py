"""The joint mask, NoCMS, FRMS and the multi-instance task, each rule on a case worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mmms_deploy.errors import MaskError
from mmms_deploy.evaluation.errors import MeasureError
from mmms_deploy.evaluation.predictor import FunctionPredictor
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.evaluation.surfaces import (
    JointMask,
    MultiInstanceResult,
    MultiSurfaceResult,
    SurfaceResult,
    multi_instance,
    multi_surface,
    summarise_instances,
    summarise_surfaces,
)


def row(text: str) -> np.ndarray:
    """One row of pixels, ``#`` inside."""
    return np.array([[c == "#" for c in text]])


def scene_of(*rows: str, void: str | None = None) -> Scene:
    surfaces = tuple(Surface(f"s{number}", row(text)) for number, text in enumerate(rows, start=1))
    image = np.zeros((1, len(rows[0]), 3), np.uint8)
    return Scene("scene", image, surfaces, void=None if void is None else row(void))


class Scripted:
    """Answers from a script: the masks of a surface, one for each click.

    It knows one object at a time, as a session does: the surface that the first click after a reset falls on.
    """

    def __init__(self, scene: Scene, script: dict[str, list[str]]) -> None:
        self.scene, self.script = scene, script
        self.made: list[tuple[str, int, bool]] = []
        self.resets = 0
        self.reset()

    def set_image(self, image, **modalities) -> None:
        self.reset()

    def reset(self) -> None:
        self.resets += 1
        self.active: str | None = None
        self.count = 0

    def click(self, x: float, y: float, positive: bool) -> np.ndarray:
        if self.active is None:
            self.active = next(s.name for s in self.scene.surfaces if s.mask[0, int(x)])
        self.count += 1
        self.made.append((self.active, int(x), positive))
        masks = self.script[self.active]
        return row(masks[min(self.count, len(masks)) - 1])


def by_name(result: MultiSurfaceResult | MultiInstanceResult) -> dict[str, SurfaceResult]:
    return {surface.name: surface for surface in result.surfaces}


# --- the joint mask ---------------------------------------------------------------------------------------------------


def test_a_later_mask_overrides_and_shrinking_returns_pixels_to_the_background() -> None:
    joint = JointMask((1, 6))
    joint.paste(1, row("####.."))
    joint.paste(2, row("..####"))
    assert joint.labels.tolist() == [[1, 1, 2, 2, 2, 2]]
    np.testing.assert_array_equal(joint.read(1), row("##...."))
    joint.paste(2, row("....##"))  # the pixels it gives up do not go back to surface 1
    assert joint.labels.tolist() == [[1, 1, 0, 0, 2, 2]]
    joint.paste(1, row(".###.."))
    assert joint.labels.tolist() == [[0, 1, 1, 1, 2, 2]]


def test_other_surfaces_stay_where_a_mask_is_false() -> None:
    joint = JointMask((1, 4))
    joint.paste(1, row("#..."))
    joint.paste(2, row("...#"))
    joint.paste(3, row("...."))
    assert joint.labels.tolist() == [[1, 0, 0, 2]]


# --- NoCMS and FRMS ---------------------------------------------------------------------------------------------------


def test_each_surface_is_clicked_on_until_t_and_the_smallest_iou_comes_first() -> None:
    scene = scene_of("####....", "....####")
    # Surface 1 needs two clicks (IoU 2/4, then 1), surface 2 one; both start at IoU 0, so the first goes first.
    predictor = Scripted(scene, {"s1": ["##......", "####...."], "s2": ["....####"]})
    result = multi_surface(predictor, scene, 0.8, 0.7)
    assert [name for name, *_ in predictor.made] == ["s1", "s1", "s2"]
    found = by_name(result)
    assert (found["s1"].clicks, found["s2"].clicks) == (2, 1)
    assert (found["s1"].reached, found["s2"].reached) == (True, True)
    assert result.mean_iou == 1.0


def test_the_mean_and_not_every_surface_must_reach_a() -> None:
    scene = scene_of("####......", "....####..", "........##")
    predictor = Scripted(scene, {"s1": ["####......"], "s2": ["....####.."], "s3": ["........##"]})
    result = multi_surface(predictor, scene, 0.8, 0.6)
    # After two surfaces the mean is 2/3, above 0.6: the third is never taken up, and did not fail.
    found = by_name(result)
    assert (found["s3"].clicks, found["s3"].visits, found["s3"].reached) == (0, 0, True)
    assert result.mean_iou == pytest.approx(2 / 3)
    assert summarise_surfaces([result]).frms == 0
    assert summarise_surfaces([result]).nocms == pytest.approx(2 / 3)


def test_an_overridden_surface_is_visited_again_and_its_clicks_add_up() -> None:
    scene = scene_of("####....", "....####")
    # Surface 2's answer takes three pixels of surface 1: IoU of 1 falls to 1/4, of 2 it is 4/7 < 0.8, so it clicks on
    # until its limit of 3. Then surface 1 is taken again: its mask of two clicks is whole, and takes its pixels back.
    predictor = Scripted(scene, {"s1": ["####...."], "s2": [".#######", ".#######", ".#######"]})
    result = multi_surface(predictor, scene, 0.8, 0.7, max_clicks=3)
    found = by_name(result)
    assert found["s1"].clicks == 2
    assert found["s1"].visits == 2
    assert found["s1"].iou == 1.0
    assert found["s2"].clicks == 3
    assert not found["s2"].reached
    assert found["s2"].iou == 1.0  # what is left of it is right in the end, yet it failed when it was worked on
    summary = summarise_surfaces([result], max_clicks=3)
    assert (summary.nocms, summary.failed, summary.frms) == (2.5, 1, 0.5)


def test_on_a_revisit_the_clicks_before_are_made_again_and_the_next_falls_on_what_is_wrong_now() -> None:
    scene = scene_of("####....", "....####")
    predictor = Scripted(scene, {"s1": ["####...."], "s2": [".#######", ".#######"]})
    multi_surface(predictor, scene, 0.8, 0.7, max_clicks=2)
    # s1: its middle (depth 1 everywhere in one row: the first pixel). s2: two clicks. s1 again: the click of before is
    # made again, and the new one falls on the first pixel that surface 2 took.
    assert [(name, x) for name, x, _ in predictor.made] == [("s1", 0), ("s2", 4), ("s2", 1), ("s1", 0), ("s1", 1)]


def test_a_predictor_that_can_resume_is_given_its_clicks_and_what_is_left_of_its_mask() -> None:
    scene = scene_of("####....", "....####")
    seen = []

    def answer(image, clicks, previous):
        seen.append(([c.x for c in clicks], previous.copy()))
        return row("####....") if clicks[0].x < 4 else row(".#######")

    multi_surface(predictor_of(answer, scene), scene, 0.8, 0.7, max_clicks=2)
    clicks, previous = seen[-1]
    assert clicks == [0, 1]
    np.testing.assert_array_equal(previous, row("#......."))


def predictor_of(answer: Callable, scene: Scene) -> FunctionPredictor:
    predictor = FunctionPredictor(answer)
    predictor.set_image(scene.image)
    return predictor


def test_a_surface_that_used_its_clicks_is_not_taken_again() -> None:
    scene = scene_of("####....", "....####")
    # Neither ever gets better: both use their two clicks, then nothing is left to take.
    predictor = Scripted(scene, {"s1": ["#......."], "s2": ["....#..."]})
    result = multi_surface(predictor, scene, 0.8, 0.7, max_clicks=2)
    assert [s.clicks for s in result.surfaces] == [2, 2]
    summary = summarise_surfaces([result], max_clicks=2)
    assert (summary.nocms, summary.frms, summary.mean_iou) == (2, 1, 0.25)


def test_a_surface_at_t_is_not_taken_when_the_others_are_used_up() -> None:
    scene = scene_of("####....", "....####")
    # Surface 1 fails with IoU 1/4 after its 2 clicks; surface 2 is whole. Their mean of 0.625 never reaches 0.7.
    predictor = Scripted(scene, {"s1": ["#......."], "s2": ["....####"]})
    result = multi_surface(predictor, scene, 0.8, 0.7, max_clicks=2)
    assert [s.clicks for s in result.surfaces] == [2, 1]
    assert [s.reached for s in result.surfaces] == [False, True]
    assert result.mean_iou == 0.625


def test_reaching_t_with_the_last_click_is_no_failure() -> None:
    scene = scene_of("####....", "....####")
    predictor = Scripted(scene, {"s1": ["#.......", "####...."], "s2": ["....####"]})
    result = multi_surface(predictor, scene, 0.8, 0.7, max_clicks=2)
    assert summarise_surfaces([result], max_clicks=2).failed == 0


def test_void_counts_for_no_surface() -> None:
    scene = scene_of("####....", "....####", void="...##...")
    predictor = Scripted(scene, {"s1": ["###....."], "s2": [".....###"]})
    result = multi_surface(predictor, scene, 1.0, 1.0)
    assert [s.clicks for s in result.surfaces] == [1, 1]
    assert result.mean_iou == 1.0


def test_errors_that_cannot_be_clicked_end_in_failure_and_count_as_the_limit() -> None:
    scene = scene_of("##......", "......##")
    # Surface 1's answers never change: its 2 wrong pixels are clicked, then nothing is left to click on.
    predictor = Scripted(scene, {"s1": ["........"], "s2": ["......##"]})
    result = multi_surface(predictor, scene, 0.8, 0.7, max_clicks=20)
    assert [s.clicks for s in result.surfaces] == [2, 1]
    summary = summarise_surfaces([result], max_clicks=20)
    assert (summary.failed, summary.nocms) == (1, (20 + 1) / 2)


@pytest.mark.parametrize(("t", "a", "limit"), [(0.7, 0.8, 20), (80, 70, 20), (0.8, 0, 20), (0.8, 0.7, 0)])
def test_nocms_refuses_what_it_is_not_defined_for(t, a, limit) -> None:
    scene = scene_of("##", "..")
    with pytest.raises(MeasureError):
        multi_surface(Scripted(scene, {}), scene, t, a, limit)


def test_surfaces_that_were_never_clicked_are_said_beside_nocms() -> None:
    def surface(name: str, clicks: int) -> SurfaceResult:
        return SurfaceResult(name=name, clicks=clicks, iou=0.9, reached=True, visits=min(clicks, 1))

    surfaces = (surface("road", 2), surface("pole", 0), surface("sky", 1), surface("sign", 0))
    found = summarise_surfaces([MultiSurfaceResult(target=0.8, average=0.7, mean_iou=0.9, surfaces=surfaces)])
    assert (found.untouched, found.surfaces, found.nocms, found.frms) == (2, 4, 0.75, 0)


def test_nocms_averages_over_surfaces_and_not_over_images() -> None:
    def result(*clicks: int) -> MultiSurfaceResult:
        return MultiSurfaceResult(
            target=0.8,
            average=0.7,
            mean_iou=0.9,
            surfaces=tuple(SurfaceResult(name=str(c), clicks=c, iou=1, reached=True, visits=1) for c in clicks),
        )

    assert summarise_surfaces([result(1), result(2, 3, 6)]).nocms == 3
    with pytest.raises(MeasureError):
        summarise_surfaces([])


# --- the multi-instance task ------------------------------------------------------------------------------------------


def test_every_object_gets_a_click_first_then_the_worst_gets_one_at_a_time() -> None:
    scene = scene_of("####....", "....####")
    # After one click each: IoU 1/4 and 2/4. The worst is 1 (then 3/4), then 2 (then whole), then 1 again.
    predictor = Scripted(scene, {"s1": ["#.......", "###.....", "####...."], "s2": ["....##..", "....####"]})
    result = multi_instance(predictor, scene, 0.85, clicks_per_object=10)
    assert [name for name, *_ in _without_repeats(predictor.made)] == ["s1", "s2", "s1", "s2", "s1"]
    assert (result.budget, result.clicks) == (20, 5)
    summary = summarise_instances([result])
    assert (summary.nci, summary.nfo, summary.nfi, summary.mean_iou) == (2.5, 0, 0, 1.0)


def _without_repeats(made: list[tuple[str, int, bool]]) -> list[tuple[str, int, bool]]:
    """Return the clicks without those that were repeated to come back to a surface."""
    return list(dict.fromkeys(made))


def test_the_budget_is_the_images_and_not_the_objects() -> None:
    scene = scene_of("####....", "....####")
    # Surface 2 is done after a click; surface 1 may use what is left of 2 * 2 clicks, and fails.
    predictor = Scripted(scene, {"s1": ["#......."], "s2": ["....####"]})
    result = multi_instance(predictor, scene, 0.85, clicks_per_object=2)
    assert [s.clicks for s in result.surfaces] == [3, 1]
    summary = summarise_instances([result])
    assert (summary.nci, summary.nfo, summary.nfi, summary.images, summary.objects) == (2.0, 1, 1, 1, 2)


def test_nci_is_normalised_by_each_images_objects() -> None:
    def result(*surfaces: tuple[int, bool]) -> MultiInstanceResult:
        return MultiInstanceResult(
            target=0.85,
            budget=10,
            surfaces=tuple(SurfaceResult(name="s", clicks=c, iou=0.5, reached=r, visits=1) for c, r in surfaces),
        )

    summary = summarise_instances([result((4, True)), result((1, True), (1, False), (1, False), (5, True))])
    assert summary.nci == (4 / 1 + 8 / 4) / 2
    assert (summary.nfo, summary.nfi) == (2, 1)
    with pytest.raises(MeasureError):
        summarise_instances([])


def test_an_object_that_lost_its_pixels_to_another_is_below_the_target_again() -> None:
    scene = scene_of("####....", "....####")
    predictor = Scripted(scene, {"s1": ["####...."], "s2": ["..######", "....####"]})
    result = multi_instance(predictor, scene, 0.85, clicks_per_object=10)
    # 1: whole. 2 takes two of its pixels: IoU 1/2 against 4/6, so 1 is next and takes them back: 2 is whole, too.
    assert [s.clicks for s in result.surfaces] == [2, 1]
    assert all(s.reached for s in result.surfaces)


# --- predictors that answer for all objects at once -------------------------------------------------------------------


class AllAtOnce:
    """Answers from a script: a label map for each click on the image."""

    def __init__(self, *answers: str, most_clicks: int = 100) -> None:
        self.answers, self.most_clicks = answers, most_clicks
        self.made: list[tuple[int, int]] = []
        self.resets = 0

    def set_image(self, image, **modalities) -> None:
        self.reset()

    def reset(self) -> None:
        self.made = []
        self.resets += 1

    def click(self, x: float, y: float, positive: bool) -> np.ndarray:
        raise AssertionError("tasks about several objects click on a number")

    def click_on(self, number: int, x: float, y: float) -> np.ndarray:
        self.made.append((number, int(x)))
        return np.array([[int(c) for c in self.answers[min(len(self.made), len(self.answers)) - 1]]])


def test_the_label_map_is_the_joint_mask() -> None:
    scene = scene_of("###############...............", "...............###############")
    predictor = AllAtOnce("1" * 5 + "0" * 25, "1" * 15 + "2" * 15)
    result = multi_instance(predictor, scene, 0.85)
    # An answer is measured for all objects.
    assert predictor.made == [(1, 0), (2, 15)]
    assert [surface.iou for surface in result.surfaces] == [1, 1]
    assert (result.clicks, predictor.resets) == (2, 1)


def test_every_object_gets_its_first_click_also_where_it_is_answered_already() -> None:
    scene = scene_of("###############...............", "...............###############")
    predictor = AllAtOnce("1" * 15 + "2" * 15)
    multi_instance(predictor, scene, 0.85)
    assert predictor.made == [(1, 0), (2, 15)]


def test_a_click_on_the_truth_of_another_object_is_a_click_on_that_object() -> None:
    scene = scene_of("###############...............", "...............##########.....")
    # Object 1 takes all, and object 2 is the worst: the click on what it misses is its own.
    predictor = AllAtOnce("1" * 15 + "2" * 10 + "00000", "1" * 30)
    multi_instance(predictor, scene, 0.85, clicks_per_object=2)
    assert predictor.made[2] == (2, 21)  # no pixel within five of one that was clicked
    # Object 1 is the worst, and has six pixels of object 2.
    scene = scene_of("####" + "." * 26, "...." + "#" * 20 + "." * 6)
    predictor = AllAtOnce("1" * 4 + "2" * 14 + "1" * 6 + "0" * 6)
    multi_instance(predictor, scene, 0.85)
    assert predictor.made[2] == (2, 18)
    # And here what belongs to the background.
    predictor = AllAtOnce("1" * 4 + "2" * 20 + "1" * 6)
    multi_instance(predictor, scene, 0.85)
    assert predictor.made[2] == (0, 24)


def test_pixels_around_a_click_are_not_clicked_on_again_for_any_object() -> None:
    scene = scene_of("######......", "......######")
    predictor = AllAtOnce("0" * 12)
    result = multi_instance(predictor, scene, 0.85)
    # All of an object lies within five pixels of a click on it; then no object has anything left.
    places = [x for _, x in predictor.made]
    assert all(abs(a - b) > 5 for n, a in enumerate(places) for b in places[:n])
    assert result.clicks == len(places)


def test_no_more_clicks_than_the_predictor_takes() -> None:
    scene = scene_of("#" * 30 + "." * 30, "." * 30 + "#" * 30)
    predictor = AllAtOnce("0" * 60, most_clicks=3)
    assert multi_instance(predictor, scene, 0.85).clicks == 3
    assert not any(s.reached for s in multi_surface(predictor, scene, 0.8, 0.7).surfaces)
    assert predictor.resets == 2


def test_nocms_with_all_objects_at_once() -> None:
    scene = scene_of("###############...............", "...............###############")
    predictor = AllAtOnce("1" * 7 + "0" * 23, "1" * 15 + "2" * 15)
    result = multi_surface(predictor, scene, 0.8, 0.7)
    # The second click on object 1 gave object 2 its pixels, too: it is never taken up, and did not fail.
    assert [number for number, _ in predictor.made] == [1, 1]
    assert [(s.clicks, s.visits, s.reached) for s in result.surfaces] == [(2, 1, True), (0, 0, True)]
    assert result.mean_iou == 1


def test_what_is_no_label_map() -> None:
    scene = scene_of("####....")
    predictor = AllAtOnce("1" * 7)
    with pytest.raises(MaskError, match="whole numbers of shape"):
        multi_instance(predictor, scene, 0.85)

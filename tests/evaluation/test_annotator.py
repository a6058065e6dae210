"""The simulated annotator's rules, each worked by hand, and its distances against brute force."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmms_deploy.errors import MaskError
from mmms_deploy.evaluation.annotator import Annotator, SimulatedClick, next_click
from mmms_deploy.evaluation.depth import distance_to_border
from mmms_deploy.evaluation.errors import AnnotatorUnavailableError


def mask(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def blank(shape: tuple[int, int]) -> np.ndarray:
    return np.zeros(shape, bool)


def brute_force(region: np.ndarray) -> np.ndarray:
    """Return distances by comparing with every outside pixel, and with a rim around the image."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    squared = np.zeros(padded.shape, np.int64)
    for y, x in np.argwhere(padded):
        squared[y, x] = ((outside - (y, x)) ** 2).sum(1).min()
    return np.sqrt(squared[1:-1, 1:-1])


# --- distances --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 14))))
def test_distances_equal_brute_force(region: np.ndarray) -> None:
    np.testing.assert_allclose(distance_to_border(region), brute_force(region), rtol=1e-6, atol=0)


def test_distances_equal_brute_force_on_a_large_sparse_region() -> None:
    rng = np.random.default_rng(5)
    region = np.ones((60, 90), bool)
    region[rng.integers(0, 60, 25), rng.integers(0, 90, 25)] = False
    np.testing.assert_allclose(distance_to_border(region), brute_force(region), rtol=1e-6, atol=0)


def test_a_region_on_the_images_border_has_distance_one_there() -> None:
    distances = distance_to_border(np.ones((3, 5), bool))
    np.testing.assert_array_equal(distances, [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]])


def test_distances_keep_the_regions_place_in_the_image() -> None:
    region = blank((20, 30))
    region[7:10, 21:24] = True
    distances = distance_to_border(region)
    assert distances[8, 22] == 2
    assert distances.sum() == 10


# --- the rules --------------------------------------------------------------------------------------------------------


def test_the_first_click_is_positive_and_deepest_in_the_object() -> None:
    truth = blank((20, 30))
    truth[2:9, 4:15] = True  # 7 rows: depth 4 in row 5, columns 7..11
    assert next_click(truth, blank(truth.shape)) == SimulatedClick(x=7, y=5, positive=True)


def test_the_first_of_equally_deep_pixels_in_raster_order_is_taken() -> None:
    truth = mask(
        "......###",
        "###...###",
        "###...###",
        "###......",
    )
    # Both squares are 2 deep, at (1, 2) and (7, 1): the upper one comes first although it lies further right.
    assert next_click(truth, blank(truth.shape)) == SimulatedClick(x=7, y=1, positive=True)


def test_the_image_border_counts_as_border() -> None:
    truth = mask(
        "####...",
        "####...",
        "####...",
        "####...",
    )
    # Without the rule the deepest pixels would be those of column 0.
    assert next_click(truth, blank(truth.shape)) == SimulatedClick(x=1, y=1, positive=True)


def test_a_deeper_false_positive_gets_a_negative_click() -> None:
    truth = mask(
        "#..........",
        "...........",
        "...........",
        "...........",
        "...........",
    )
    prediction = mask(
        "...........",
        "...####....",
        "...####....",
        "...####....",
        "...........",
    )
    assert next_click(truth, prediction) == SimulatedClick(x=4, y=2, positive=False)


def test_equal_depths_give_a_negative_click() -> None:
    truth = mask("###....", "###....", "###....")
    prediction = mask("....###", "....###", "....###")
    assert next_click(truth, prediction) == SimulatedClick(x=5, y=1, positive=False)


def test_a_strictly_deeper_false_negative_gets_a_positive_click() -> None:
    truth = mask("#####....", "#####....", "#####....", "#####....", "#####....")
    prediction = mask(".....####", ".....####", ".....####", ".....####", ".........")
    assert next_click(truth, prediction) == SimulatedClick(x=2, y=2, positive=True)


def test_depth_and_not_area_decides() -> None:
    truth, prediction = blank((9, 60)), blank((9, 60))
    truth[0:2, :] = True  # 120 pixels, 1 deep
    prediction[0:2, :] = False
    prediction[4:9, 10:15] = True  # 25 pixels, 3 deep
    assert next_click(truth, prediction) == SimulatedClick(x=12, y=6, positive=False)


def test_distance_is_euclidean() -> None:
    # A plus sign: its centre is sqrt(2) from the nearest outside pixel (diagonal), its arms are 1.
    truth = mask(
        "..#..",
        ".###.",
        "..#..",
    )
    distances = distance_to_border(truth)
    assert distances[1, 2] == pytest.approx(2**0.5)
    assert next_click(truth, blank(truth.shape)) == SimulatedClick(x=2, y=1, positive=True)


def test_void_pixels_belong_to_no_error_region() -> None:
    truth = mask("#######", "#######", "#######", "#######", "#######")
    void = mask("#####..", "#####..", "#####..", "#####..", "#####..")
    # What is left of the object is two columns wide.
    assert next_click(truth, blank(truth.shape), void=void) == SimulatedClick(x=5, y=0, positive=True)
    assert next_click(truth, blank(truth.shape), void=np.ones_like(truth)) is None


def test_void_splits_false_positives_too() -> None:
    truth = blank((5, 7))
    prediction = np.ones_like(truth)
    void = blank(truth.shape)
    void[:, 3] = True
    assert next_click(truth, prediction, void=void) == SimulatedClick(x=1, y=1, positive=False)


def test_clicked_pixels_are_excluded_but_stay_in_the_region() -> None:
    truth = np.ones((5, 5), bool)
    clicked = blank(truth.shape)
    clicked[2, 2] = True
    # (2, 2) is 3 deep and excluded. Had it left the region, its neighbours would be 1 deep and (1, 1) sqrt(2).
    assert next_click(truth, blank(truth.shape), clicked) == SimulatedClick(x=1, y=1, positive=True)
    clicked[1, 1:4] = True
    assert next_click(truth, blank(truth.shape), clicked) == SimulatedClick(x=1, y=2, positive=True)


def test_an_excluded_pixel_can_turn_the_click_negative() -> None:
    truth = mask("###......", "###......", "###......")
    prediction = mask(".....###.", ".....###.", ".........")
    clicked = blank(truth.shape)
    assert next_click(truth, prediction, clicked) == SimulatedClick(x=1, y=1, positive=True)
    clicked[1, 1] = True  # what is left of the false negatives is 1 deep, as the false positives are
    assert next_click(truth, prediction, clicked) == SimulatedClick(x=5, y=0, positive=False)


def test_no_error_gives_no_click() -> None:
    truth = mask(".##.", ".##.")
    assert next_click(truth, truth) is None
    assert next_click(blank((3, 3)), blank((3, 3))) is None


def test_errors_that_were_all_clicked_give_no_click() -> None:
    truth = mask("#..", "...")
    assert next_click(truth, blank(truth.shape), clicked=truth) is None


def test_integer_masks_mean_nonzero() -> None:
    truth = mask("....", ".##.", ".##.", "....")
    as_bytes = truth.astype(np.uint8) * 255
    assert next_click(as_bytes, np.zeros(truth.shape, np.int64)) == next_click(truth, blank(truth.shape))


def test_arguments_are_left_unchanged() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.random((16, 16)) < 0.5 for _ in range(4)]
    copies = [a.copy() for a in arrays]
    next_click(*arrays)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_ties_do_not_depend_on_the_last_bit_of_the_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's roots differ in their last bit from call to call; equal depths must stay equal all the same."""
    import cv2

    from mmms_deploy.evaluation import depth

    monkeypatch.setattr(depth, "DISK_LIMIT", 0)  # everything through OpenCV
    truth, prediction = blank((40, 90)), blank((40, 90))
    truth[2:17, 3:18] = truth[2:17, 60:75] = True  # two squares, 8 deep at (10, 9) and (67, 9)
    prediction[20:35, 30:45] = True  # a false positive as deep
    expected = SimulatedClick(x=37, y=27, positive=False)
    exact, rng = cv2.distanceTransform, np.random.default_rng(0)

    def blurred(*arguments: object) -> np.ndarray:
        roots = exact(*arguments)
        return np.where(rng.random(roots.shape) < 0.5, np.nextafter(roots, np.float32(np.inf)), roots)

    monkeypatch.setattr(cv2, "distanceTransform", blurred)
    monkeypatch.setattr(depth, "_TRIES", 0)
    for _ in range(20):
        assert next_click(truth, prediction) == expected
        assert next_click(truth, blank(truth.shape)) == SimulatedClick(x=10, y=9, positive=True)


# --- the class --------------------------------------------------------------------------------------------------------


def test_an_annotator_never_clicks_twice_on_a_pixel_and_remembers() -> None:
    truth = np.ones((6, 7), bool)
    annotator = Annotator(truth)
    clicks = [annotator.click(blank(truth.shape)) for _ in range(42)]
    assert None not in clicks
    assert len(set(clicks)) == 42
    assert annotator.clicks == clicks
    assert annotator.click(blank(truth.shape)) is None
    assert len(annotator.clicks) == 42


def test_an_annotator_repeats_itself() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((40, 50)) < 0.7
    predictions = [rng.random(truth.shape) < 0.5 for _ in range(8)]
    runs = [[a.click(p) for p in predictions] for a in (Annotator(truth), Annotator(truth))]
    assert runs[0] == runs[1]


def test_an_annotator_leaves_out_void() -> None:
    truth = np.ones((5, 9), bool)
    void = blank(truth.shape)
    void[:, :6] = True
    assert Annotator(truth, void).click(blank(truth.shape)) == SimulatedClick(x=7, y=1, positive=True)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [np.zeros((3, 4, 1), bool), np.zeros((0, 4), bool), np.zeros((3, 4), np.float32), np.zeros(4, bool), None],
)
def test_what_is_no_mask_is_refused(bad: object) -> None:
    with pytest.raises(MaskError, match="ground_truth"):
        next_click(bad, np.zeros((3, 4), bool))  # type: ignore[arg-type]
    with pytest.raises(MaskError, match="prediction"):
        next_click(np.zeros((3, 4), bool), bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["prediction", "clicked", "void"])
def test_masks_of_another_size_are_refused(name: str) -> None:
    truth = np.ones((3, 4), bool)
    arguments = {"prediction": blank((3, 4)), name: blank((4, 3))}
    with pytest.raises(MaskError, match=f"{name} is 4x3"):
        next_click(truth, **arguments)


def test_without_opencv_the_clicks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep regions, for which OpenCV is faster; and a guess that misses and adds."""
    from mmms_deploy.evaluation import depth

    yy, xx = np.mgrid[:400, :500]
    truth = (xx - 210) ** 2 / 4 + (yy - 190) ** 2 < 95**2
    guess = (xx - 330) ** 2 + (yy - 230) ** 2 < 110**2
    with_it = [next_click(truth, prediction) for prediction in (blank(truth.shape), guess, ~truth)]
    monkeypatch.setitem(sys.modules, "cv2", None)
    depth._has_opencv.cache_clear()
    try:
        assert [next_click(truth, prediction) for prediction in (blank(truth.shape), guess, ~truth)] == with_it
        with pytest.raises(AnnotatorUnavailableError, match=r"mmms-deploy.*\[eval\]"):
            distance_to_border(truth)
    finally:
        depth._has_opencv.cache_clear()


def test_importing_the_evaluation_loads_no_heavy_library() -> None:
    code = (
        "import sys, mmms_deploy.evaluation\n"
        "heavy = {'torch', 'cv2', 'onnx', 'timm', 'mmms_deploy.export', 'mmms_deploy.models'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

from __future__ import annotations

import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.bundle.contract import ImageSpec, ResizeRule
from mmms_deploy.imaging import image_resize, scratch
from mmms_deploy.imaging.image_resize import resize_channels_last
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.imaging.resize_weights import resampling_weights

RULES = (ResizeRule(), ResizeRule(align_corners=True), ResizeRule(antialias=True))
RULE = RULES[2]


def whole(image: np.ndarray, size: tuple[int, int], rule: ResizeRule) -> np.ndarray:
    """The plain form: two products with whole matrices, in float64."""
    matrices = []
    for size_in, size_out in zip(image.shape, size, strict=False):
        first, weight = resampling_weights(size_in, size_out, rule)
        matrix = np.zeros((size_out, size_in + weight.shape[1]))
        np.put_along_axis(matrix, first[:, None] + np.arange(weight.shape[1]), weight, axis=1)
        matrices.append(matrix[:, :size_in])
    down, across = matrices
    return np.stack([down @ image[:, :, i].astype(np.float64) @ across.T for i in range(image.shape[2])])


@st.composite
def sides(draw: st.DrawFn) -> int:
    return draw(st.one_of(st.integers(1, 8), st.integers(1, 400)))


@given(
    size=st.tuples(sides(), sides()),
    target=st.tuples(sides(), sides()),
    channels=st.integers(1, 6),
    dtype=st.sampled_from(["uint8", "bool", "int16", "uint16", "float32", "float64"]),
    rule=st.sampled_from(RULES),
)
@settings(max_examples=200, deadline=None)
def test_equals_whole_matrices(
    size: tuple[int, int], target: tuple[int, int], channels: int, dtype: str, rule: ResizeRule
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, channels)).astype(dtype)
    got = resize_channels_last(image, target, rule)
    assert (got.dtype, got.shape, got.flags.c_contiguous) == (np.float32, (channels, *target), True)
    np.testing.assert_allclose(got, whole(image, target, rule), atol=2e-6 * 255)


@pytest.mark.parametrize(
    ("size", "target", "channels"),
    [
        ((1080, 1920), (448, 448), 3),  # a photograph
        ((1079, 1917), (448, 448), 3),
        ((300, 9001), (64, 96), 3),  # several strips of columns
        ((700, 900), (448, 448), 5),  # the channels part before the columns
        ((40, 30), (448, 448), 3),
        ((3, 5000), (448, 1), 1),
        ((5000, 2), (7, 448), 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("rule", RULES, ids=["half_pixel", "align_corners", "antialias"])
def test_pieces_meet_and_threads_change_no_bit(
    size: tuple[int, int], target: tuple[int, int], channels: int, rule: ResizeRule
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, channels), dtype=np.uint8)
    one = resize_channels_last(image, target, rule, threads=1)
    np.testing.assert_allclose(one, whole(image, target, rule), atol=2e-6 * 255)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(resize_channels_last(image, target, rule, threads=threads), one)
    np.testing.assert_array_equal(resize_channels_last(image, target, rule), one)


def test_numbers_left_in_the_buffers_change_nothing() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    before = resize_channels_last(image, (448, 448), RULE, threads=2)
    with np.errstate(all="ignore"):
        resize_channels_last(np.full((900, 1000, 6), np.nan), (448, 448), RULE, threads=2)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(resize_channels_last(image, (448, 448), RULE, threads=2), before)


def test_views_and_negative_strides() -> None:
    image = np.random.default_rng(3).integers(0, 256, (80, 120, 4), dtype=np.uint8)
    for view in (image[::-1], image[:, ::-1], image[..., 2::-1], image[3:50, ::2], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(
            resize_channels_last(view, (33, 44), RULE), resize_channels_last(view.copy(), (33, 44), RULE)
        )


def test_a_read_only_image_stays_as_it_is() -> None:
    image = np.random.default_rng(4).random((50, 60, 3), dtype=np.float32)
    kept = image.copy()
    image.setflags(write=False)
    resize_channels_last(image, (50, 60), RULE)[:] = 0
    np.testing.assert_array_equal(image, kept)


def test_many_callers_at_once() -> None:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (500 + 40 * i, 700, 3), dtype=np.uint8) for i in range(4)]
    expected = [resize_channels_last(image, (224, 224), RULE, threads=1) for image in images]
    wrong = []

    def call(index: int) -> None:
        for _ in range(5):
            if not np.array_equal(resize_channels_last(images[index], (224, 224), RULE, threads=2), expected[index]):
                wrong.append(index)

    callers = [threading.Thread(target=call, args=(index,)) for index in range(len(images))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_memory_is_that_of_pieces() -> None:
    image = np.zeros((3000, 8000, 3), dtype=np.uint8)
    prepare(image, ImageSpec(), (448, 448))  # the weights are kept
    scratch._spare.clear()
    tracemalloc.start()
    try:
        prepare(image, ImageSpec(), (448, 448))
        assert tracemalloc.get_traced_memory()[1] < 26e6
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs a safe os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other tests' threads may still be there
def test_a_forked_child_prepares_images() -> None:
    image = np.random.default_rng(6).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    expected = resize_channels_last(image, (448, 448), RULE, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(resize_channels_last(image, (448, 448), RULE, threads=2), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_error_in_a_piece_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Iterator[None]:
        raise MemoryError("no memory for a piece")

    monkeypatch.setattr(image_resize._Piece, "compute", fails)
    with pytest.raises(MemoryError, match="for a piece"):
        resize_channels_last(np.zeros((1000, 1000, 3), dtype=np.uint8), (448, 448), RULE, threads=2)

"""Images prepared by the kernels' models on the CUDA stand-in, against the host's preparation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.engines.cuda.images.plan import BAND, NARROWED, TABLES, plan_for
from mmms_deploy.engines.cuda.images.preparation import DEVICE_BYTES, PINNED_BYTES
from mmms_deploy.engines.cuda.memory import Use
from mmms_deploy.errors import CudaError
from mmms_deploy.imaging.preprocess import prepare
from tests.standins.cuda import Error, Kind
from tests.support.image_kernels import ImageGpu

RULES = {
    "antialias": ResizeRule(antialias=True),
    "two pixels": ResizeRule(),
    "align corners": ResizeRule(align_corners=True),
}
SIZES = [
    ((108, 192), (44, 46)),
    ((30, 40), (64, 96)),
    ((200, 20), (48, 56)),
    ((63, 77), (31, 29)),
    ((1, 1), (5, 7)),
    ((1, 300), (40, 40)),
    ((301, 1), (40, 40)),
    ((2, 9000), (24, 32)),
    ((9001, 3), (32, 24)),
    ((20000, 4), (1, 1)),
    ((32, 32), (32, 32)),
]


@pytest.fixture
def gpu() -> Iterator[ImageGpu]:
    gpu = ImageGpu()
    yield gpu
    gpu.close()
    assert not gpu.standin.leaked


def noise(size: tuple[int, int], channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)


# --- the same numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("size", "result"), SIZES)
def test_an_image_is_as_the_host_prepares_it(
    gpu: ImageGpu, size: tuple[int, int], result: tuple[int, int], resize: ResizeRule
) -> None:
    image, rule = noise(size), ImageSpec(resize=resize)
    values = 1.0 / min(rule.std)  # the range of the result
    ours = gpu.prepared(image, gpu.planned(image, rule, result))
    np.testing.assert_allclose(ours, prepare(image, rule, result), rtol=0, atol=1e-5 * values)
    mirrored = gpu.prepared(image, gpu.planned(image, rule, result, mirrored=True))
    np.testing.assert_array_equal(mirrored, ours[..., ::-1])


@pytest.mark.parametrize("brightness", [0, 255])
def test_black_and_white_at_a_huge_ratio(gpu: ImageGpu, brightness: int) -> None:
    """Thousands of equal terms, whose roundings would add up in one direction."""
    image, rule = np.full((30000, 5, 3), brightness, dtype=np.uint8), ImageSpec(mean=(0.0,) * 3, std=(1.0,) * 3)
    ours = gpu.prepared(image, gpu.planned(image, rule, (3, 4)))
    np.testing.assert_allclose(ours, brightness / 255, rtol=0, atol=1e-5)


def test_without_normalisation_the_values_are_those_of_the_pixels(gpu: ImageGpu) -> None:
    """As of a bundle whose first layer normalises."""
    image, rule = noise((40, 50)), ImageSpec(scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    np.testing.assert_array_equal(gpu.prepared(image, gpu.planned(image, rule, (40, 50)))[0], image.transpose(2, 0, 1))
    ours = gpu.prepared(image, gpu.planned(image, rule, (31, 33)))
    np.testing.assert_allclose(ours, prepare(image, rule, (31, 33)), rtol=0, atol=255e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_modality_is_as_the_host_prepares_it(gpu: ImageGpu, channels: int) -> None:
    map_ = np.random.default_rng(1).uniform(-3, 90, (70, 45, channels)).astype(np.float32)
    rule = ModalitySpec(name="depth", channels=channels, mean=(20.0,) * channels, std=(0.5,) * channels)
    for result in ((32, 30), (90, 100)):
        ours = gpu.prepared(map_, gpu.planned(map_, rule, result))
        np.testing.assert_allclose(ours, prepare(map_, rule, result), rtol=0, atol=93 / 0.5 * 1e-5)
        np.testing.assert_array_equal(gpu.prepared(map_.astype(">f4"), gpu.planned(map_, rule, result)), ours)


def test_pixels_anywhere_in_memory(gpu: ImageGpu) -> None:
    image, rule = noise((90, 80)), ImageSpec()
    for part in (image[::2, ::-1], image[10:60, 7:33], image.transpose(1, 0, 2), image[..., ::-1]):
        ours = gpu.prepared(part, gpu.planned(part, rule, (32, 40)))
        np.testing.assert_array_equal(ours, gpu.prepared(part.copy(), gpu.planned(part, rule, (32, 40))))
        np.testing.assert_allclose(ours, prepare(part, rule, (32, 40)), rtol=0, atol=4e-5)


def test_an_image_may_be_changed_once_it_was_handed_over(gpu: ImageGpu) -> None:
    image, rule = noise((90, 80)), ImageSpec()
    plan = gpu.planned(image, rule, (32, 40))
    expected = gpu.prepared(image, plan)
    address = gpu.account.allocate(Use.INPUTS, expected.nbytes)
    gpu.preparation.prepare(image, plan, address)
    image[:] = 0
    out = np.empty_like(expected)
    gpu.cuda.download(out.ctypes.data, address, out.nbytes, gpu.stream)
    gpu.cuda.synchronize(gpu.stream)
    np.testing.assert_array_equal(out, expected)
    gpu.account.free(Use.INPUTS, address, expected.nbytes)


# --- bands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("size", "result"), [((211, 30), (40, 24)), ((23, 30), (60, 24)), ((300, 9), (7, 8))])
def test_the_result_does_not_depend_on_the_bands(
    gpu: ImageGpu, size: tuple[int, int], result: tuple[int, int], resize: ResizeRule
) -> None:
    image = noise(size)
    plan = gpu.planned(image, ImageSpec(resize=resize), result)
    whole = gpu.prepared(image, replace(plan, band=size[0]))
    for band in (1, 2, 7, 64):
        np.testing.assert_array_equal(gpu.prepared(image, replace(plan, band=band)), whole)


def test_a_large_picture_takes_no_more_memory(gpu: ImageGpu) -> None:
    """324 MB of pixels, through a few MiB."""
    row = np.arange(0, 9000, dtype=np.uint16).astype(np.uint8)
    image = np.broadcast_to(row[:, None, None], (9000, 12000, 3))
    rule = ImageSpec(resize=ResizeRule())
    plan = gpu.planned(image, rule, (448, 64))
    assert plan.band * 12000 * 3 <= BAND
    before = gpu.account.held()
    gpu.standin.reset()
    ours = gpu.prepared(image, plan)
    assert gpu.account.held() == before
    assert gpu.standin.count()["cudaMalloc"] == 1, "the result of this test alone"
    assert gpu.standin.count()["cudaHostAlloc"] == 0
    narrow = prepare(np.ascontiguousarray(image[:, :4]), rule, (448, 64))
    np.testing.assert_allclose(ours, narrow, rtol=0, atol=1e-5 / min(rule.std))


def test_rows_that_no_line_takes_stay_where_they_are(gpu: ImageGpu) -> None:
    image = noise((1000, 40))
    plan = gpu.planned(image, ImageSpec(resize=ResizeRule()), (2, 40))
    plan = replace(plan, band=50)
    gpu.standin.reset()
    ours = gpu.prepared(image, plan)
    assert gpu.standin.copied[Kind.cudaMemcpyHostToDevice] <= plan.tables.nbytes + 4 * 50 * 40 * 3
    np.testing.assert_allclose(ours, prepare(image, ImageSpec(resize=ResizeRule()), (2, 40)), rtol=0, atol=4e-5)


def test_tables_go_up_once_for_pictures_of_one_size(gpu: ImageGpu) -> None:
    rule, image = ImageSpec(), noise((30, 40))
    plan = gpu.planned(image, rule, (24, 32))
    for sent in (plan.tables.nbytes, 0, 0):
        gpu.standin.reset()
        gpu.prepared(image, plan)
        assert gpu.standin.copied[Kind.cudaMemcpyHostToDevice] == image.nbytes + sent
    assert gpu.planned(noise((30, 40)), rule, (24, 32)) is plan
    other = noise((31, 40))
    np.testing.assert_allclose(
        gpu.prepared(other, gpu.planned(other, rule, (24, 32))), prepare(other, rule, (24, 32)), rtol=0, atol=4e-5
    )
    np.testing.assert_allclose(gpu.prepared(image, plan), prepare(image, rule, (24, 32)), rtol=0, atol=4e-5)


# --- what the host prepares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "rule", "result"),
    [
        (np.zeros((1, BAND // 3 + 1, 3), np.uint8), ImageSpec(), (8, 8)),
        (np.zeros((TABLES, 1, 3), np.uint8), ImageSpec(), (8, 8)),
        (np.zeros((8, 8, 3), np.float32), ImageSpec(), (8, 8)),
        (np.zeros((8, 8, 4), np.uint8), ImageSpec(), (8, 8)),
        (np.zeros((8, 8, 1), np.float64), ModalitySpec(name="depth"), (8, 8)),
        (np.zeros((8, 8, 1000), np.float32), ModalitySpec(name="bands", channels=1000), (8, NARROWED // 4000 + 1)),
    ],
    ids=["wide", "tall", "float image", "alpha", "float64", "many channels"],
)
def test_what_does_not_fit_is_left_to_the_host(
    array: np.ndarray, rule: ImageSpec | ModalitySpec, result: tuple[int, int]
) -> None:
    assert plan_for(array, rule, result, mirrored=False) is None


# --- memory and failures ----------------------------------------------------------------------------------------------


def test_its_memory_is_in_the_account(gpu: ImageGpu) -> None:
    held = gpu.account.held()
    assert (held[Use.INPUTS], held[Use.PINNED]) == (DEVICE_BYTES, PINNED_BYTES)
    assert gpu.standin.device_bytes() == DEVICE_BYTES


def test_any_call_may_fail_and_the_next_image_is_right(gpu: ImageGpu) -> None:
    image, rule = noise((300, 20)), ImageSpec()
    plan = replace(gpu.planned(image, rule, (24, 32)), band=60)
    other = gpu.planned(image, rule, (16, 16))
    expected = gpu.prepared(image, plan)
    address = gpu.account.allocate(Use.INPUTS, expected.nbytes)

    def step() -> None:
        gpu.preparation.prepare(255 - image, other, address)
        gpu.preparation.prepare(image, plan, address)

    gpu.standin.reset()
    step()
    gpu.cuda.synchronize(gpu.stream)
    calls = list(gpu.standin.calls)
    assert {"cudaMemcpyAsync", "cuLaunchKernel", "cudaEventRecord", "cudaEventSynchronize"} <= set(calls)
    for number, call in enumerate(calls[:-1]):
        gpu.standin.reset()
        gpu.standin.fail_at[number] = Error.cudaErrorUnknown
        assert failure_of(step) == call
        np.testing.assert_array_equal(gpu.prepared(image, plan), expected)
    gpu.account.free(Use.INPUTS, address, expected.nbytes)


def failure_of(step: Callable[[], object]) -> str:
    with pytest.raises(CudaError) as caught:
        step()
    return caught.value.call

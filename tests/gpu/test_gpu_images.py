"""Images prepared by the kernels on a real GPU: the same bits as their models, and what the host prepares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec, ResizeRule
from mmms_deploy.engines.cuda.devices import probe
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runtime import Cuda, import_cuda
from mmms_deploy.engines.registry import Backend
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.session import Session
from tests.support.engines import Open
from tests.support.image_kernels import ImageGpu

RULES = [ResizeRule(antialias=True), ResizeRule(), ResizeRule(align_corners=True)]
CASES = [
    ((540, 960), (224, 224)),
    ((131, 97), (448, 448)),
    ((1, 5000), (64, 96)),
    ((7000, 3), (64, 96)),
]


@pytest.fixture(scope="module")
def gpus() -> Iterator[tuple[ImageGpu, ImageGpu]]:
    """The GPU, and its stand-in with the kernels' models."""
    found = probe()
    if found.problem is not None:
        pytest.skip(found.given)
    real, model = ImageGpu(Cuda(import_cuda())), ImageGpu()
    yield real, model
    real.close()
    model.close()


@pytest.mark.parametrize("resize", RULES, ids=["antialias", "two-pixels", "align-corners"])
@pytest.mark.parametrize(("size", "result"), CASES)
def test_the_kernels_compute_the_bits_of_their_models(
    gpus: tuple[ImageGpu, ImageGpu], size: tuple[int, int], result: tuple[int, int], resize: ResizeRule
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = rng.uniform(0, 50, (*size, 1)).astype(np.float32)
    for array, rule, reach in (
        (pixels, ImageSpec(resize=resize), 1 / 0.225),
        (depth, ModalitySpec(name="depth", resize=resize, mean=(20.0,), std=(5.0,)), 10),
    ):
        ours, models = (gpu.prepared(array, gpu.planned(array, rule, result)) for gpu in gpus)
        np.testing.assert_array_equal(ours, models)
        np.testing.assert_allclose(ours, prepare(array, rule, result), rtol=0, atol=1e-5 * reach)


@pytest.mark.parametrize("precision", [Precision.FP32])
def test_sessions_answer_as_with_images_from_the_host(
    opened: Open, cell448: Bundle, precision: Precision, backend: Backend
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 411, 3), dtype=np.uint8)
    answers = []
    for prepare_images in (True, False):
        engine = opened(cell448, precision, options=CudaOptions(prepare_images=prepare_images, strict=True))
        with Session(cell448, engine=engine) as session:
            assert session._pipeline.prepares_images is prepare_images
            session.set_image(pixels)
            answers.append(session.click(200, 100).network_probability)
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-3)


def test_a_large_picture_takes_no_more_memory(opened: Open, paint: Bundle) -> None:
    engine = opened(paint)
    with Session(paint, engine=engine, keep_image=False) as session:
        session.set_image(np.zeros((100, 100, 3), np.uint8))
        held = engine.memory().inputs
        session.set_image(np.zeros((2000, 3000, 3), np.uint8))
        assert engine.memory().inputs == held

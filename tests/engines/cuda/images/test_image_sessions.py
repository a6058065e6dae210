"""Sessions whose images the GPU prepares, against sessions on the CPU. On the CUDA stand-in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import FeatureStore
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.errors import CudaError, EngineError, MMMSDeployWarning, ModalityError, ResidentBudgetError
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.session import LATER, Session
from tests.standins.cuda import CudaStandIn, Error
from tests.support.image_kernels import bands_of
from tests.support.standin_engine import StandInEngine, tidy
from tests.support.toy import write_toy

DEPTH = ModalitySpec(name="depth", scale={"uint16": 0.01, "float32": 1.0}, mean=(5.0,), std=(3.0,), optional=True)
PIXELS = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)
MAP = np.random.default_rng(1).integers(0, 2000, (150, 211), dtype=np.uint16)
RANGE = 1 / 0.225
"""The range of a prepared image's values."""


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose sessions keep the inputs of the image stage, because a modality may change."""
    return write_toy(tmp_path_factory.mktemp("modal") / "modal", modalities=(DEPTH,))


@pytest.fixture(params=[False, True], ids=["own-stream", "shared-stream"])
def on_gpu(request: pytest.FixtureRequest, modal: Bundle) -> Iterator[StandInEngine]:
    with tidy(modal, shared=request.param) as engine:
        yield engine


def on_cpu(bundle: Bundle, **options: object) -> Session:
    return Session(bundle, engine="onnxruntime", threads=1, **options)  # type: ignore[arg-type]


def network_input(session: Session, name: str) -> np.ndarray:
    return session._runner.download(session._state.image.pipeline.value(name))


def prepared_on_gpu(engine: StandInEngine) -> int:
    """How many bands of rows the kernels have resized since the last reset."""
    return engine.standin.driver_calls.launched.count("image_lines")


def answers(session: Session) -> list[np.ndarray]:
    clicks = ((10, 10, True), (60, 38, False), (100, 20, True))
    return [session.click(*click).network_probability for click in clicks]


def assert_alike(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=0, atol=2e-5)


# --- every kind of picture --------------------------------------------------------------------------------------------


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "picture",
    [
        PIXELS,
        PIXELS[::2, ::-1],
        np.asfortranarray(PIXELS),
        PIXELS[..., 0],
        np.dstack([PIXELS, PIXELS[..., :1]]),
        PIXELS.astype(np.uint16) * 257,
        PIXELS[..., 0] > 100,
        Image.fromarray(PIXELS),
        _png(),
        PIXELS[:1],
        PIXELS[:, :1],
    ],
    ids=["rgb", "view", "fortran", "grey", "alpha", "16 bits", "bool", "pil", "file", "one row", "one column"],
)
def test_the_network_sees_what_it_sees_on_the_cpu(modal: Bundle, picture: object) -> None:
    with tidy(modal) as engine, Session(modal, engine=engine) as session, on_cpu(modal) as other:
        before = prepared_on_gpu(engine)
        for one in (session, other):
            one.set_image(picture)  # type: ignore[arg-type]
        ours, theirs = network_input(session, "rgb"), network_input(other, "rgb")
        assert prepared_on_gpu(engine) == before + 1
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * RANGE)
        assert session.image_size == other.image_size


def test_bgr(on_gpu: StandInEngine) -> None:
    with Session(on_gpu.bundle, engine=on_gpu) as session:
        session.set_image(PIXELS)
        expected = network_input(session, "rgb")
        session.set_image(PIXELS[..., ::-1], channel_order="bgr")
        np.testing.assert_array_equal(network_input(session, "rgb"), expected)


@pytest.mark.parametrize("keep_image", [False, True])
def test_the_callers_array_is_free_afterwards(on_gpu: StandInEngine, keep_image: bool) -> None:
    pixels = PIXELS.copy()
    with Session(on_gpu.bundle, engine=on_gpu, keep_image=keep_image) as session, on_cpu(on_gpu.bundle) as other:
        session.set_image(pixels)
        pixels[:] = 0
        other.set_image(PIXELS)
        assert_alike(answers(session), answers(other))


@pytest.fixture
def small_bands() -> Iterator[None]:
    """Bands of 10 kB; pictures of more than 3333 columns are too wide for the GPU then."""
    with bands_of(10_000):
        yield


@pytest.mark.usefixtures("small_bands")
def test_a_picture_that_is_too_wide_is_prepared_on_the_cpu(on_gpu: StandInEngine) -> None:
    with Session(on_gpu.bundle, engine=on_gpu) as session:
        before = prepared_on_gpu(on_gpu)
        wide = np.full((20, 4000, 3), 77, dtype=np.uint8)
        session.set_image(wide)
        np.testing.assert_array_equal(
            network_input(session, "rgb"), prepare(wide, session.bundle.manifest.image, session.bundle.manifest.size)
        )
        assert prepared_on_gpu(on_gpu) == before
        session.set_image(PIXELS)
        assert prepared_on_gpu(on_gpu) > before


@pytest.mark.usefixtures("small_bands")
def test_images_in_turn(on_gpu: StandInEngine) -> None:
    """Images of several sizes, and one that goes up as it is."""
    with Session(on_gpu.bundle, engine=on_gpu) as session, on_cpu(on_gpu.bundle) as other:
        for picture in (PIXELS, PIXELS[:40], np.zeros((90, 4000, 3), np.uint8), PIXELS, 255 - PIXELS):
            for one in (session, other):
                one.set_image(picture)
            np.testing.assert_allclose(
                network_input(session, "rgb"), network_input(other, "rgb"), rtol=0, atol=1e-5 * RANGE
            )
            assert_alike(answers(session), answers(other))


# --- crops, mirror images, features -----------------------------------------------------------------------------------


def test_crops_and_mirror_images(paint: Bundle) -> None:
    with tidy(paint) as engine:
        views = {"zoom": True, "flip": True}
        with Session(paint, engine=engine, **views) as session, on_cpu(paint, **views) as other:  # type: ignore[arg-type]
            before = prepared_on_gpu(engine)
            for one in (session, other):
                one.set_image(PIXELS)
            assert prepared_on_gpu(engine) == before + 2
            assert_alike(answers(session), answers(other))
            assert session.result.crop == other.result.crop
            assert prepared_on_gpu(engine) > before + 2


def test_features_of_prepared_images(on_gpu: StandInEngine) -> None:
    bundle = on_gpu.bundle
    store = FeatureStore()
    with Session(bundle, engine=on_gpu, store=store) as session, on_cpu(bundle) as other:
        for one in (session, other):
            one.set_image(PIXELS, depth=MAP)
        features = session.features
        expected = answers(other)
        assert_alike(answers(session), expected)
        session.set_image(PIXELS[:90])
        before = prepared_on_gpu(on_gpu)
        assert session.set_image(PIXELS, depth=MAP).found
        assert prepared_on_gpu(on_gpu) == before, "the store had its features"
        assert_alike(answers(session), expected)
        other.use(features)
        assert_alike(answers(other), expected)
        for one in (session, other):
            one.set_image(PIXELS, depth=MAP)
            one.set_modalities(depth=None)
        assert_alike(answers(session), answers(other))


def test_a_downloaded_image_stays_what_it_was(on_gpu: StandInEngine) -> None:
    """The pinned memory that it came down to is also what an array from the host goes up from."""
    rule = on_gpu.bundle.manifest.image
    (spec,) = on_gpu.graphs["image"].inputs
    runner = on_gpu.open()
    prepared = runner.upload_prepared(spec, PIXELS, rule)
    runner.run("image", {"rgb": prepared})
    expected = runner.download(prepared)
    runner.run("image", {"rgb": runner.upload(spec, np.zeros(spec.shape))})
    np.testing.assert_array_equal(runner.download(prepared), expected)
    np.testing.assert_allclose(expected, prepare(PIXELS, rule, spec.shape[2:]), rtol=0, atol=1e-5 * RANGE)  # type: ignore[arg-type]
    del prepared
    runner.close()


# --- modalities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [MAP, MAP.astype(np.float32) / 100], ids=["uint16", "float32"])
def test_modalities_are_prepared_there_too(on_gpu: StandInEngine, given: np.ndarray) -> None:
    with Session(on_gpu.bundle, engine=on_gpu) as session, on_cpu(on_gpu.bundle) as other:
        before = prepared_on_gpu(on_gpu)
        for one in (session, other):
            one.set_image(PIXELS, depth=given)
        ours, theirs = network_input(session, "depth"), network_input(other, "depth")
        assert prepared_on_gpu(on_gpu) == before + 2
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * 20 / 3)
        assert_alike(answers(session), answers(other))
        for one in (session, other):
            one.set_modalities(depth=2 * given)
        assert_alike(answers(session), answers(other))
        for one in (session, other):
            one.set_image(PIXELS, depth=LATER)
            one.set_modalities(depth=given)
        assert_alike(answers(session), answers(other))


def test_numbers_beyond_float32_are_refused_as_on_the_cpu(on_gpu: StandInEngine) -> None:
    huge = np.full((150, 211), 3e38, dtype=np.float32)
    said = []
    with Session(on_gpu.bundle, engine=on_gpu) as session, on_cpu(on_gpu.bundle) as other:
        for one in (session, other):
            one.set_image(PIXELS, depth=MAP)
            expected = answers(one)
            with pytest.raises(ModalityError, match="standard deviations from the mean") as caught:
                one.set_image(PIXELS, depth=huge)
            said.append(str(caught.value))
            np.testing.assert_array_equal(one.result.network_probability, expected[-1])
    assert said[0] == said[1]


# --- memory, failures, settings ---------------------------------------------------------------------------------------


def test_the_image_before_stays_when_the_next_one_fails(on_gpu: StandInEngine) -> None:
    with Session(on_gpu.bundle, engine=on_gpu) as session, on_cpu(on_gpu.bundle) as other:
        for one in (session, other):
            one.set_image(PIXELS, depth=MAP)
        on_gpu.programs["image"].fail = "enqueue"
        with pytest.raises(EngineError, match="the library refuses"):
            session.set_image(PIXELS[:60])
        on_gpu.programs["image"].fail = None
        np.testing.assert_allclose(
            network_input(session, "rgb"), network_input(other, "rgb"), rtol=0, atol=1e-5 * RANGE
        )
        for one in (session, other):
            one.set_modalities(depth=MAP // 2)
        assert_alike(answers(session), answers(other))


def failing_call(session: Session, picture: np.ndarray, depth: np.ndarray) -> str:
    """Set an image and return the call that failed; empty for none."""
    try:
        session.set_image(picture, depth=depth)
    except CudaError as error:
        return error.call
    return ""


@pytest.mark.usefixtures("small_bands")
def test_any_call_may_fail_while_bands_go_up(modal: Bundle) -> None:
    before, after, depth = PIXELS[:60], 255 - PIXELS[:60], MAP[:60]
    with tidy(modal) as engine, Session(modal, engine=engine) as session:
        for picture in (before, after, before):  # what is allocated once
            session.set_image(picture, depth=depth)
        expected, image = answers(session), network_input(session, "rgb")
        for number in count():
            engine.standin.reset()
            engine.standin.fail_at[number] = Error.cudaErrorUnknown
            failed = failing_call(session, after, depth)
            if not failed:
                break
            assert failed == engine.standin.calls[number]
            np.testing.assert_array_equal(session.result.network_probability, expected[-1])
            np.testing.assert_array_equal(network_input(session, "rgb"), image)
        assert number == len(engine.standin.calls)
        assert engine.standin.calls.count("cuLaunchKernel") == 2 * 10, "four bands of the image, six of the map"
        engine.standin.fail_at.clear()
        session.set_image(before, depth=depth)
        np.testing.assert_array_equal(network_input(session, "rgb"), image)


def test_no_memory_for_bands_is_a_session_that_is_refused(paint: Bundle) -> None:
    engine = StandInEngine(paint, options=CudaOptions(memory_limit=3 << 20, history_block=1))
    with pytest.raises(ResidentBudgetError, match=r"3\.5 MiB more are needed on the GPU \(inputs\)"):
        Session(paint, engine=engine)
    engine.close()
    assert not engine.standin.leaked


def test_the_host_prepares_where_it_is_asked_to(modal: Bundle) -> None:
    engine = StandInEngine(modal, options=CudaOptions(prepare_images=False, memory_limit=3 << 20, history_block=1))
    with Session(modal, engine=engine) as session, on_cpu(modal) as other:
        for one in (session, other):
            one.set_image(PIXELS, depth=MAP)
        np.testing.assert_array_equal(network_input(session, "rgb"), network_input(other, "rgb"))
        assert prepared_on_gpu(engine) == 0
    engine.close()
    assert not engine.standin.leaked


@pytest.mark.parametrize("call", ["cuModuleLoadData", "cuModuleGetFunction"])
def test_kernels_that_cannot_be_loaded(modal: Bundle, call: str) -> None:
    standin = CudaStandIn()
    standin.fail_always[call] = Error.cudaErrorUnknown
    engine = StandInEngine(modal, standin=standin)
    with pytest.warns(MMMSDeployWarning) as caught:
        session = Session(modal, engine=engine)
    said = f"images are prepared on the CPU, and not on the GPU: {call} failed"
    assert [str(warning.message).startswith(said) for warning in caught].count(True) == 1
    Session(modal, engine=engine).close()  # says it once
    with session, on_cpu(modal) as other:
        for one in (session, other):
            one.set_image(PIXELS, depth=MAP)
        np.testing.assert_array_equal(answers(session), answers(other))
    engine.close()
    strict = StandInEngine(modal, standin=standin, options=CudaOptions(strict=True))
    with pytest.raises(CudaError, match=f"{call} failed"):
        Session(modal, engine=strict)
    strict.close()
    assert not standin.leaked


def test_threads_prepare_at_once(on_gpu: StandInEngine) -> None:
    def seen(seed: int) -> np.ndarray:
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 8000, 3), dtype=np.uint8)
        with Session(on_gpu.bundle, engine=on_gpu) as session:
            session.set_image(pixels)
            return network_input(session, "rgb")

    alone = [seen(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(seen, range(4))), alone)

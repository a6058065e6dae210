"""``mmms-bench`` on a real GPU, with every engine for it, and PyTorch on the same GPU."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy.bench.eager import EagerMMMS, Form
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.run import Settings, run_bench
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.registry import Backend
from mmms_deploy.engines.request import EngineRequest
from tests.support.engines import Open

PLANE = 4 * 448 * 448


def test_a_run(backend: Backend, cell448: Bundle) -> None:
    request = EngineRequest("cuda", backend.name, strict=True)
    settings = Settings(request, clicks=10, images=2, image_size=(300, 400), eager=False)
    report = run_bench(cell448.path, settings)
    assert report.engine.device == "cuda"
    assert report.machine.gpu
    assert report.machine.gpu.memory_gib > 1

    def samples(key: str) -> np.ndarray:
        metric = report.metric(key)
        assert metric is not None, key
        assert not metric.why, (key, metric.why)
        return np.array(metric.samples)

    for name in report.stages[:-1]:
        assert (samples(f"image.stage.{name}") > 0).all()
        assert (samples(f"image.stage.{name}") < samples("image.total")).all()
    assert (samples("click.engine") > 0).all()
    # The GPU works while the host waits for it.
    assert (samples("click.engine") < samples("click.total")).all()
    assert (samples("moved.click_up") == 16).all()
    mask = 300 * 52  # bits, each row of 400 in whole words of 32
    assert (samples("moved.click_down") == PLANE + mask).all()
    assert (samples("moved.image_up") >= 3 * 300 * 400).all()  # the picture as bytes
    for key in ("click", "click_off", "click_ratio", "device", "device_off", "device_ratio"):
        assert len(samples(f"graph.{key}")) == 10
        assert (samples(f"graph.{key}") > 0).all()
    if backend.name == "onnxruntime-cuda":
        assert (samples("layout.click_ratio") > 0).all()
    for key in ("before", "taken", "session", "weights", "features", "state", "pinned"):
        assert samples(f"vram.{key}")[0] > 0
    assert samples("vram.taken")[0] >= samples("vram.session")[0]


def test_time_on_the_gpu_is_within_that_of_the_host(opened: Open, cell448: Bundle) -> None:
    (picture,) = make_pictures(cell448.manifest, 1, 30, (300, 400))
    with TimedSession(opened(cell448), on_gpu=True) as session:
        image = session.set_image(picture)
        assert 0 < sum(image.stages.values()) < image.total
        for point in picture.clicks:
            sample = session.click(point)
            assert 0 < sample.engine < sample.total


@pytest.fixture
def on_gpu(cell448: Bundle) -> EagerMMMS:
    """PyTorch on this machine's GPU."""
    try:
        return EagerMMMS(cell448.manifest, 1, "cuda")
    except NotMeasuredError as error:
        pytest.skip(error.given)


def answers(eager: EagerMMMS, bundle: Bundle) -> list[np.ndarray]:
    (picture,) = make_pictures(bundle.manifest, 1, 3, (300, 400))
    eager.set_image(picture)
    found = []
    for point in picture.clicks:
        assert eager.click(*point).shape == (300, 400)
        found.append(eager.probability)
    return found


FORMS = (Form(), Form(Precision.FP16), Form(Precision.FP16, weights=True))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_pytorch_answers_as_on_the_cpu(on_gpu: EagerMMMS, cell448: Bundle, form: Form) -> None:
    expected = answers(EagerMMMS(cell448.manifest, 1), cell448)
    for ours, theirs in zip(answers(on_gpu.variant(form), cell448), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-2)
        assert np.mean(np.abs(ours - theirs)) < 5e-3
    on_gpu.close()


def test_pytorch_answers_for_several_objects_as_for_each(on_gpu: EagerMMMS, cell448: Bundle) -> None:
    (picture,) = make_pictures(cell448.manifest, 1, 4, (300, 400))
    on_gpu.set_image(picture)
    masks = on_gpu.click_objects(picture.clicks)
    assert masks.shape == (4, 300, 400)
    for mask, point in zip(masks, picture.clicks, strict=True):
        on_gpu.set_image(picture)
        assert np.mean(mask != on_gpu.click(*point)) < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_pytorch_answers_as_eager(on_gpu: EagerMMMS, cell448: Bundle, graphs: bool) -> None:
    expected = answers(on_gpu, cell448)
    compiled = answers(on_gpu.variant(Form(compiled=True, graphs=graphs)), cell448)
    # TF32 in other kernels, and previous masks that differ where a pixel lies at the threshold.
    np.testing.assert_allclose(compiled, expected, atol=5e-2)
    assert np.mean(np.abs(np.subtract(compiled, expected))) < 5e-3

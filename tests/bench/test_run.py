from __future__ import annotations

import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from mmms_deploy import Bundle
from mmms_deploy.bench import eager as eager_module
from mmms_deploy.bench import memory, peak
from mmms_deploy.bench.eager import EagerMMMS
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.peak import measure_peak
from mmms_deploy.bench.run import Settings, describe_bundle, run_bench, thread_counts
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Precision, sha256_of
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import EngineUnavailableError
from tests.support.paths import ROOT
from tests.support.tiny import DEPTH, described, tiny_config

ENGINE = EngineRequest(engine="onnxruntime", threads=1)
SMALL = Settings(ENGINE, clicks=3, images=2, image_size=(40, 60), matrix=32)


@pytest.fixture(scope="module")
def measured(modal: Bundle):
    seen = []
    settings = replace(SMALL, sweep=True)
    return run_bench(modal.path, settings, seen.append), seen


def test_every_metric_has_its_samples(measured) -> None:
    report, _ = measured
    counts = {metric.key: len(metric.samples) for metric in report.metrics}
    assert len(counts) == len(report.metrics)
    assert counts["click.total"] == counts["click.host"] == 2 * 3
    assert counts["click.mean"] == counts["click.amortised"] == counts["image.total"] == 2
    assert counts["image.stage.image"] == counts["image.stage.modality"] == 2
    assert counts["throughput.1"] == counts["throughput.4"] == 3
    assert counts["sweep.1"] == 3
    for key in ("start.open", "start.load", "start.first_image", "start.first_click", "memory.engine"):
        assert counts[key] == 1
    assert report.stages == ("image", "modality", "click")
    assert (report.engine.name, report.engine.threads) == ("onnxruntime", 1)


def test_every_precision_of_the_matrix_peak_is_announced(measured) -> None:
    _, seen = measured
    said = [(step.task, step.done, step.total) for step in seen if step.task.startswith("multiplying matrices")]
    assert said == [("multiplying matrices in fp32", 0, 2), ("multiplying matrices in bf16", 1, 2)]


def test_what_cannot_be_measured_says_why(measured) -> None:
    report, _ = measured
    reasons = {metric.key: metric.why for metric in report.metrics if metric.why}
    assert reasons["work.parameters"] == "the bundle does not say"
    assert "does not describe its network" in reasons["eager.click_ratio"]


def test_the_parts_of_a_click_add_up(measured) -> None:
    report, _ = measured
    parts = [report.metric(f"click.{name}").samples for name in ("engine", "transfer", "mask", "rest")]
    assert np.allclose(np.sum(parts, axis=0), report.metric("click.total").samples)
    assert np.allclose(np.sum(parts[1:], axis=0), report.metric("click.host").samples)
    image, clicks = report.metric("image.total").samples, report.metric("click.total").samples
    amortised = [(image[i] + sum(clicks[3 * i : 3 * i + 3])) / 3 for i in range(2)]
    assert np.allclose(amortised, report.metric("click.amortised").samples)


def test_progress_never_exceeds_its_total(measured) -> None:
    _, seen = measured
    assert all(0 <= step.done <= step.total for step in seen)
    assert {"loading the engine", "images and clicks", "several sessions at once"} <= {step.task for step in seen}


def test_nothing_names_this_machine(measured) -> None:
    import getpass
    import socket

    report, _ = measured
    text = msgspec.json.encode(report).decode()
    for name in (f'"{socket.gethostname()}"', str(ROOT), f'"{getpass.getuser()}"'):
        assert name not in text


def test_a_timed_session_answers_like_a_session(paint: Bundle) -> None:
    from mmms_deploy import Session

    (picture,) = make_pictures(paint.manifest, 1, 4, (50, 70))
    engine = open_engine(paint, device="cpu", engine="onnxruntime", threads=1)
    with TimedSession(engine) as timed, Session(paint, engine=engine) as session:
        sample = timed.set_image(picture)
        session.set_image(picture.rgb)
        assert set(sample.stages) == {"image"}
        for point in picture.clicks:
            timed.click(point)
            assert np.array_equal(timed.result.mask, session.click(*point).mask)
    engine.close()


def test_pictures_are_the_same_in_every_run(modal: Bundle) -> None:
    first, second = make_pictures(modal.manifest, 2, 5, (33, 50)), make_pictures(modal.manifest, 2, 5, (33, 50))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.rgb, b.rgb)
        assert a.clicks == b.clicks
        assert a.rgb.shape == (33, 50, 3)
        assert a.modalities["event"].shape == (33, 50, 3)
        assert all(0 <= x <= 49 and 0 <= y <= 32 for x, y, _ in a.clicks)
        assert a.clicks[0][2]
    assert not np.array_equal(first[0].rgb, first[1].rgb)


@pytest.mark.parametrize("modalities", [(), (DEPTH,)])
def test_eager_answers_as_the_reference_does(paint: Bundle, modalities) -> None:
    from mmms_deploy.export.reference import TorchReference
    from mmms_deploy.models.checkpoint import random_network

    manifest = described(paint, *modalities)
    (picture,) = make_pictures(manifest, 1, 3, (50, 70))
    eager = EagerMMMS(manifest, 1)
    reference = TorchReference(random_network(tiny_config(*modalities), 3))
    eager.set_image(picture)
    reference.set_image(picture.rgb, picture.modalities)
    for point in picture.clicks:
        mask, answer = eager.click(*point), reference.click(*point)
        near = np.abs(answer.probability - manifest.clicks.threshold) < 1e-3
        assert np.array_equal(mask[~near], answer.mask[~near])
        assert np.allclose(eager.probability, answer.network_probability[0, 0], atol=1e-5)


def test_eager_takes_the_weights_of_a_checkpoint_that_ships_packed(paint: Bundle, tmp_path, monkeypatch) -> None:
    import torch

    from mmms_deploy.models.checkpoint import random_network, save_checkpoint

    trained, path = random_network(tiny_config(), 8), tmp_path / "demo-thermal.safetensors"
    save_checkpoint(path, trained)
    monkeypatch.setattr(eager_module, "packed_checkpoint", lambda name: tmp_path / f"{name}.safetensors")
    manifest = described(paint)
    facts = {"checkpoint": path.name, "checkpoint_sha256": sha256_of(path), "random_seed": None}
    provenance = msgspec.structs.replace(manifest.provenance, **facts)
    eager = EagerMMMS(msgspec.structs.replace(manifest, provenance=provenance), 1)
    own = eager._network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in trained.state_dict().items())
    other = msgspec.structs.replace(provenance, checkpoint_sha256="0" * 64)  # of another version
    eager = EagerMMMS(msgspec.structs.replace(manifest, provenance=other), 1)
    assert any(
        not torch.equal(value, trained.state_dict()[name]) for name, value in eager._network.state_dict().items()
    )


def test_eager_needs_a_description(paint: Bundle, monkeypatch) -> None:
    with pytest.raises(NotMeasuredError, match="does not describe"):
        EagerMMMS(paint.manifest, 1)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotMeasuredError, match="PyTorch cannot be imported"):
        EagerMMMS(described(paint), 1)


def test_the_network_is_the_same_in_every_export(paint: Bundle, modal: Bundle) -> None:
    facts = describe_bundle(paint)
    other = describe_bundle(modal)
    assert facts.digest != other.digest
    assert facts.modalities == ()
    assert other.modalities == ("depth", "event")


def test_matrix_products_on_as_many_threads_as_requested() -> None:
    found = measure_peak(Precision.FP32, 1, size=16)
    assert found.tried[found.library] == max(found.tried.values()) == max(found.rates) > 0
    assert "PyTorch" not in found.tried
    openblas = peak._openblas()
    if openblas is not None:
        read, _ = openblas
        before = read()
        for threads in (1, 2):  # one of them is another number than before
            with peak._blas_threads(threads):
                assert read() == threads
            assert read() == before


def test_a_precision_that_nothing_here_multiplies_in(monkeypatch) -> None:
    monkeypatch.setattr(peak, "_LIBRARIES", [pair for pair in peak._LIBRARIES if pair[0] in ("NumPy", "ONNX Runtime")])
    with pytest.raises(NotMeasuredError, match=r"NumPy.*ONNX Runtime"):
        measure_peak(Precision.BF16, 1, size=16)


def test_memory_of_a_phase(monkeypatch, tmp_path) -> None:
    phases = memory.MemoryPhases()
    with phases.phase("big", "a big array"):
        array = np.ones(256 << 20, dtype=np.uint8)
    del array
    with phases.phase("small", "nothing"):
        pass
    big, small = phases.metrics
    if big.value is not None:
        assert big.value > small.value + 150  # the process may have grown a little meanwhile
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "nowhere" / "clear_refs")
    with phases.phase("odd", "another system"):
        pass
    assert "cannot restart its record" in phases.metrics[-1].why


def test_thread_counts() -> None:
    assert thread_counts(1) == [1]
    assert thread_counts(3) == [1, 2, 3]
    assert thread_counts(24) == [1, 2, 3, 4, 5, 6, 7, 8, 16, 24]


def test_a_device_without_an_engine_is_an_error(paint: Bundle) -> None:
    with pytest.raises(EngineUnavailableError):
        run_bench(paint.path, replace(SMALL, request=replace(ENGINE, device="cuda", engine=None)))

"""What a bench says of a network that takes all clicks as a list."""

from __future__ import annotations

from contextlib import closing

import pytest

from mmms_deploy.bench.lists import OBJECTS, list_metrics, size_key
from mmms_deploy.bench.measure import click_metrics
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.select import open_engine
from tests.support.joint import OBJECTS as MOST
from tests.support.joint import SIZES, write_joint
from tests.support.proposing import write_proposing


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint")


def test_every_size_and_number_of_objects(joint: Bundle) -> None:
    (picture,) = make_pictures(joint.manifest, 1, 4, (48, 80))
    engine = open_engine(joint, device="cpu", engine="onnxruntime", threads=1)
    metrics = {metric.key: metric for metric in list_metrics(engine, picture)}
    sizes = [size_key(rows) for rows in SIZES]
    objects = [f"list.objects.{count}" for count in OBJECTS if count <= MOST]
    assert list(metrics) == [sizes[0], sizes[1], f"list.compile.{SIZES[1]}", *objects]
    assert all(len(metrics[key].samples) == 3 for key in (*sizes, *objects))
    assert "list.compile.8" not in {metric.key for metric in list_metrics(engine, picture)}, "compiled already"
    engine.close()


def test_no_list_no_metrics(paint: Bundle) -> None:
    (picture,) = make_pictures(paint.manifest, 1, 4, (48, 80))
    engine = open_engine(paint, device="cpu", engine="onnxruntime", threads=1)
    assert list_metrics(engine, picture) == []
    engine.close()


def test_a_first_click_with_a_stage_of_its_own_is_measured_apart(tmp_path) -> None:
    """It counts in the means, as on every image, and not among later clicks; no click compiles a longer list."""
    bundle = write_proposing(tmp_path / "proposing", (2, 6))
    pictures = make_pictures(bundle.manifest, 2, 5, (48, 80))
    images, clicks = [], []
    with (
        closing(open_engine(bundle, device="cpu", engine="onnxruntime", threads=1)) as engine,
        TimedSession(engine) as one,
    ):
        one.prepare(5)
        for picture in pictures:
            images.append(one.set_image(picture))
            clicks.append([one.click(point) for point in picture.clicks])
        assert one._session.runs == {"image": 2, "first_click": 2, "click": 2, "click_6": 6}
    metrics = {metric.key: metric for metric in click_metrics(images, clicks, apart=True)}
    assert metrics["click.first.total"].samples == tuple(row[0].total for row in clicks)
    assert metrics["click.first.engine"].samples == tuple(row[0].engine for row in clicks)
    assert metrics["click.total"].samples == tuple(sample.total for row in clicks for sample in row[1:])
    assert metrics["click.mean"].samples == tuple(sum(sample.total for sample in row) / 5 for row in clicks)
    together = {metric.key: metric for metric in click_metrics(images, clicks)}
    assert "click.first.total" not in together
    assert len(together["click.total"].samples) == 10


def test_a_timed_click_never_needs_a_larger_list(joint: Bundle) -> None:
    (picture,) = make_pictures(joint.manifest, 1, 2 * SIZES[0] + 1, (48, 80))
    engine = open_engine(joint, device="cpu", engine="onnxruntime", threads=1)
    with TimedSession(engine) as session:
        session.set_image(picture)
        for point in picture.clicks:
            session.click(point)
        assert session.result.index == 1, "the object started over twice"
        assert session._session.runs[f"click_{SIZES[1]}"] == 0
    engine.close()

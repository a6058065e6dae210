"""Actors of a Ray cluster that is started here, on the loopback interface alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from mmms_deploy import Bundle
from mmms_deploy.cluster import Lost
from mmms_deploy.cluster.ray_pool import RayPool
from mmms_deploy.commands.eval_cluster import SceneRecipe, engines_of, scenes_by
from mmms_deploy.commands.eval_open import Opening
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import ClusterError, FileReadError, SessionError
from mmms_deploy.evaluation import Settings, evaluate, parse_dataset_argument
from mmms_deploy.evaluation.answering import Choose
from mmms_deploy.evaluation.results import SceneResult
from mmms_deploy.precompute import IntoStore, Item, Recipe, precompute
from tests.support.tasks import Doubling

# Not imported: what Ray reads while it is imported is set before.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    with RayPool("local", workers=2) as pool:
        yield pool


def test_actors_do_every_task(pool: RayPool, tmp_path: Path) -> None:
    assert dict(pool.run(Doubling(tmp_path), list(range(20)))) == {n: 2 * n for n in range(20)}


def test_a_lost_actor_loses_nothing(pool: RayPool, tmp_path: Path) -> None:
    done = list(pool.run(Doubling(tmp_path, once=(2,)), list(range(8))))
    assert sorted(done) == [(n, 2 * n) for n in range(8)]


def test_a_task_that_ends_its_actor_every_time_is_given_up(pool: RayPool, tmp_path: Path) -> None:
    done = dict(pool.run(Doubling(tmp_path, deadly=(1,)), list(range(4))))
    assert done.pop(1) == Lost(3, "its Ray actor was lost every time")
    assert done == {0: 0, 2: 4, 3: 6}


def test_errors_come_back_as_they_were(pool: RayPool, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="4 is refused"):
        list(pool.run(Doubling(tmp_path, refused=(4,)), list(range(6))))
    with pytest.raises(FileReadError, match="no bundle here"):
        list(pool.run(Doubling(tmp_path, broken=True), [1, 2]))


def test_a_data_set_is_encoded_to_the_same_bytes(pool: RayPool, paint: Bundle, tmp_path: Path) -> None:
    items = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((30, 40, 3), 40 * number, np.uint8)).save(path)
        items.append(Item(path, path.name))
    request = EngineRequest(device="cpu", engine="onnxruntime", precision="fp32", threads=1)
    alone, cluster = (Recipe(str(paint.path), IntoStore(tmp_path / name), request) for name in ("alone", "cluster"))
    precompute(items, alone)
    assert precompute(items, cluster, pool).encoded == 5
    assert files(tmp_path / "alone") == files(tmp_path / "cluster")


def test_an_evaluation_has_the_same_numbers(pool: RayPool, paint: Bundle) -> None:
    request = EngineRequest(device="cpu", engine="onnxruntime", precision="fp32", threads=1)
    arguments = (parse_dataset_argument("drawn=3"),)
    opening = Opening(
        str(paint.path), None, request, request, arguments, (), False, None, None, None, Choose.SCORE, clicks=3
    )
    settings = Settings(max_clicks=3)
    with ExitStack() as stack:
        sides = opening.open(stack)
        entries = opening.entries(sides, [argument.open() for argument in arguments])
        recipe = SceneRecipe(opening, settings, engines_of(sides))
        alone = evaluate(entries, sides.first, settings)
        cluster = evaluate(entries, sides.first, settings, run=lambda tasks: scenes_by(pool, recipe, tasks))
        assert [untimed(one) for one in alone] == [untimed(one) for one in cluster]
        other = SceneRecipe(opening, settings, ("another engine",))
        with pytest.raises(ClusterError, match="computes with ONNX Runtime"):
            list(scenes_by(pool, other, [(entries[0], 0)]))


def untimed(result: SceneResult) -> SceneResult:
    objects = tuple(replace(one, predict_seconds=(), simulate_seconds=()) for one in result.objects)
    return replace(result, image_seconds=0.0, objects=objects)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_listens_on_the_loopback_interface_alone(pool: RayPool) -> None:
    listening = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True, check=False)
    if listening.returncode or "ray" not in listening.stdout:
        pytest.skip("ss does not say which process listens here")
    places = [line.split()[3] for line in listening.stdout.splitlines() if '"ray' in line or '"gcs' in line]
    assert places
    assert all("127.0.0.1" in place or "[::1]" in place for place in places), places


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    code = "from mmms_deploy.cluster.ray_pool import RayPool\nwith RayPool('127.0.0.1:1'): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "ClusterError: the Ray cluster '127.0.0.1:1' cannot be joined" in done.stderr


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"expected: the \[ray\] extra"), RayPool():
        pass


def test_a_pool_has_to_be_entered() -> None:
    with pytest.raises(ClusterError, match="not joined"):
        list(RayPool().run(Doubling(Path()), [1]))

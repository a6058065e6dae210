"""Actors of a Ray cluster that is started here, on the loopback interface alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmms_deploy.cluster import Lost
from mmms_deploy.cluster.ray_pool import RayPool
from mmms_deploy.errors import ClusterError, FileReadError, SessionError
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

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmms_deploy.engines.cores import available_cores


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight logical CPUs: two packages of two cores of two threads."""
    folder = tmp_path / "cpu"
    for index in range(8):
        topology = folder / f"cpu{index}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{index % 4 // 2}\n")
        (topology / "core_id").write_text(f"{index % 2}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return folder


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


def test_hyper_threads_count_once(cpu: Path, cgroup: Path) -> None:
    assert available_cores(cpu, cgroup, cgroup / "own") == 4


@pytest.mark.parametrize(("allowed", "cores"), [({0, 4}, 1), ({0, 1}, 2), ({0, 2, 3, 7}, 3), ({5}, 1)])
def test_affinity(cpu: Path, cgroup: Path, monkeypatch: pytest.MonkeyPatch, allowed: set[int], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert available_cores(cpu, cgroup, cgroup / "own") == cores


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("odd", 4)]
)
def test_cgroup_v2(cpu: Path, cgroup: Path, limit: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(limit)
    assert available_cores(cpu, cgroup, cgroup / "own") == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("300000", 3)])
def test_cgroup_v1(cpu: Path, cgroup: Path, quota: str, cores: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(cpu, cgroup, cgroup / "own") == cores


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.mark.parametrize("mount", ["", "unified"])
@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({"": "max 100000", "pod": "300000 100000", "pod/app": "200000 100000"}, 2),
        ({"pod": "100000 100000", "pod/app": "max 100000"}, 1),
        ({"pod": "200000 100000", "pod/app": "300000 100000"}, 2),
        ({"other": "100000 100000"}, 4),
        ({}, 4),
    ],
)
def test_quotas_of_nested_groups(
    cpu: Path, cgroup: Path, own: Path, mount: str, limits: dict[str, str], cores: int
) -> None:
    own.write_text("5:memory:/elsewhere\n0::/pod/app\n")
    for group, limit in limits.items():
        folder = cgroup / mount / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(limit)
    assert available_cores(cpu, cgroup, own) == cores


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_nested_groups_of_version_1(cpu: Path, cgroup: Path, own: Path, mount: str) -> None:
    own.write_text("3:cpuset:/\n4:cpu,cpuacct:/docker/abc\n")
    for group, quota in (("", -1), ("docker", 150000), ("docker/abc", 400000)):
        folder = cgroup / mount / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.cfs_quota_us").write_text(str(quota))
        (folder / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(cpu, cgroup, own) == 2


@pytest.mark.parametrize("text", ["0::/../../host/path\n", "0::/not/there\n", "odd\n", ""])
def test_a_group_that_is_not_visible_inside_a_container(cpu: Path, cgroup: Path, own: Path, text: str) -> None:
    own.write_text(text)
    (cgroup / "cpu.max").write_text("300000 100000")
    assert available_cores(cpu, cgroup, own) == 3


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores(tmp_path, tmp_path, tmp_path / "own") == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path, tmp_path, tmp_path / "own") == 1


def test_this_machine() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)

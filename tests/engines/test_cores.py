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
    assert available_cores(cpu, cgroup) == 4


@pytest.mark.parametrize(("allowed", "cores"), [({0, 4}, 1), ({0, 1}, 2), ({0, 2, 3, 7}, 3), ({5}, 1)])
def test_affinity(cpu: Path, cgroup: Path, monkeypatch: pytest.MonkeyPatch, allowed: set[int], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert available_cores(cpu, cgroup) == cores


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("odd", 4)]
)
def test_cgroup_v2(cpu: Path, cgroup: Path, limit: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(limit)
    assert available_cores(cpu, cgroup) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("300000", 3)])
def test_cgroup_v1(cpu: Path, cgroup: Path, quota: str, cores: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(cpu, cgroup) == cores


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores(tmp_path, tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path, tmp_path) == 1


def test_this_machine() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)

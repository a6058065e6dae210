"""What reports say of this machine, read from made-up files of Linux."""

from __future__ import annotations

import os

import numpy as np

from mmms_deploy.engines import machine
from mmms_deploy.engines.machine import OtherPrograms, describe_machine


def test_the_machine(tmp_path) -> None:
    cpuinfo, meminfo = tmp_path / "cpuinfo", tmp_path / "meminfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A CPU: fast\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor\t: 1\n")
    meminfo.write_text("MemTotal:       2097152 kB\n")
    found = describe_machine(cpuinfo, meminfo)
    assert (found.cpu, found.flags, found.memory_gib) == ("A CPU: fast", ("avx2", "amx_bf16"), 2.0)
    assert found.packages["numpy"] == np.__version__
    elsewhere = describe_machine(tmp_path / "nothing", tmp_path / "nothing")
    assert elsewhere.cpu
    assert elsewhere.flags == ()


def test_other_programs(tmp_path, monkeypatch) -> None:
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(machine, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine.os, "times", lambda: (0.0, 0.0, 0.0, 0.0, 0.0))
    stat.write_text(f"cpu  {50 * ticks} 0 0 900 0 0 0 0 7 7\ncpu0 1 2 3\n")
    others = OtherPrograms(stat)
    stat.write_text(f"cpu  {60 * ticks} {2 * ticks} {ticks} 999 99 {ticks} 0 {ticks} 8 8\n")
    assert others.cpus() == 1.5
    monkeypatch.setattr(machine.os, "times", lambda: (9.0, 1.0, 0.5, 0.0, 0.0))
    assert others.cpus() == round((15 - 10.5) / 20, 2)
    assert OtherPrograms(tmp_path / "nothing").cpus() is None
    stat.write_text("nonsense")
    assert OtherPrograms(stat).cpus() is None

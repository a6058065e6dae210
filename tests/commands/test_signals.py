"""Signals, and streams that nobody reads: one line or none, nothing half done, and the exit code of shells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from mmms_deploy.commands import signals, streams
from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console
from mmms_deploy.files import partial_beside
from tests.support.invoke import invoke
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
STOPPED = {"SIGINT": (130, "interrupted"), "SIGTERM": (143, "terminated"), "SIGHUP": (129, "the terminal was closed")}


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """Signals as a shell leaves them: under nohup SIGHUP is ignored, here and in processes that are started."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in STOPPED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def run(work: Callable[[], object]) -> Result:
    @command(epilog="")
    def main() -> None:
        work()

    return invoke(main)


def send(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", STOPPED)
def test_a_signal_unwinds_the_command(name: str, tmp_path: Path) -> None:
    def work() -> None:
        with partial_beside(tmp_path / "file"):
            send(name)

    before = [signal.getsignal(getattr(signal, each)) for each in STOPPED]
    result = run(work)
    code, words = STOPPED[name]
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"error: {words}\n")
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(getattr(signal, each)) for each in STOPPED] == before


def test_a_second_signal_does_not_interrupt_the_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    now = 100.0
    monkeypatch.setattr(signals, "monotonic", lambda: now)

    def work() -> None:
        try:
            send("SIGINT")
        finally:
            send("SIGINT")
            done.append("cleaned up")

    assert run(work).exit_code == 130
    assert done == ["cleaned up"]

    def swallowed() -> None:
        nonlocal now
        try:
            send("SIGINT")
        except BaseException:
            done.append("a library went on")
        now += 10
        send("SIGINT")
        done.append("never")

    assert run(swallowed).exit_code == 130
    assert done == ["cleaned up", "a library went on"]


def test_a_library_that_makes_an_error_of_its_own_of_a_signal() -> None:
    def work() -> None:
        try:
            send("SIGINT")
        except KeyboardInterrupt as error:
            raise ImportError("numpy could not be imported") from error

    result = run(work)
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


def test_what_is_ignored_stays_ignored() -> None:
    """As ``nohup`` starts a command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: send("SIGHUP")).exit_code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_during_the_imports_is_one_line(name: str) -> None:
    """The entry points handle signals before they import anything that takes time."""
    script = (
        "import builtins, os, signal, sys\n"
        "real = builtins.__import__\n"
        "def slow(name, *args, **options):\n"
        "    if name.startswith('rich'):\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "    return real(name, *args, **options)\n"
        "from mmms_deploy.commands import start\n"
        "builtins.__import__ = slow\n"
        "start.verify()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    code, words = STOPPED[name]
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"error: {words}\n")


def test_the_entry_points_start_every_command() -> None:
    import tomllib

    from mmms_deploy.commands import start

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert len(scripts) == 15
    for place in scripts.values():
        module, _, name = place.partition(":")
        assert module == start.__name__
        assert callable(getattr(start, name))


# --- streams ----------------------------------------------------------------------------------------------------------

HELP = [sys.executable, "-m", "mmms_deploy.commands.doctor", "--help"]


def test_a_pipe_that_nobody_reads_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(HELP, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_named() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(HELP, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: No space left on device\n")
    assert "Exception ignored" not in done.stderr


def test_closed_streams_do_no_harm() -> None:
    script = 'exec "$0" -c "from mmms_deploy.commands.doctor import main; main()" --help >&- 2>&-'
    done = subprocess.run(["sh", "-c", script, sys.executable], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_a_pipe_that_is_closed_while_results_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: streams.Output, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(streams.Output, "write", closed)
    monkeypatch.setattr(streams, "abandon", lambda: None)
    other = type(console)(file=streams.Output())  # the command's own keeps what it could not print
    result = run(lambda: other.print("result"))
    assert (result.exit_code, result.stderr) == (141, "")


def test_names_that_are_no_utf_8_are_printed() -> None:
    result = run(lambda: (console.print("a\udcffb"), click.echo("\udcff")))
    assert (result.exit_code, result.stdout) == (0, "a\\udcffb\n\\udcff\n")

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmms_deploy.errors import Door, MMMSDeployWarning
from mmms_deploy.evaluation.errors import ResultsInUseError
from mmms_deploy.evaluation.lock import SCENES_FILE, results_lock
from mmms_deploy.evaluation.results import SETTINGS_FILE, forget
from mmms_deploy.files import locks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lock is asked for as POSIX has it")


def in_a_thread(folder: Path) -> list[BaseException | None]:
    """Take the lock in another thread; return the error."""
    found: list[BaseException | None] = []

    def take() -> None:
        try:
            with results_lock(folder):
                found.append(None)
        except ResultsInUseError as error:
            found.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with results_lock(folder), results_lock(folder):  # the same evaluation may take it twice
        (error,) = in_a_thread(folder)
        assert isinstance(error, ResultsInUseError)
        assert error.given == f"another evaluation writes into {folder}"
        assert "as out" in str(error.fix)
        assert "--out" in error.message(Door.COMMAND_LINE)
        assert in_a_thread(tmp_path / "other") == [None]
    assert in_a_thread(folder) == [None]


def test_a_killed_evaluation_keeps_nobody_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mmms_deploy.evaluation.lock import results_lock\n"
        "with results_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ResultsInUseError, match="another evaluation"), results_lock(tmp_path):
                pass
        finally:
            holder.kill()
    assert [file.name for file in tmp_path.iterdir()] == [SCENES_FILE]
    with results_lock(tmp_path):
        pass


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), results_lock(tmp_path):
        raise KeyboardInterrupt
    assert in_a_thread(tmp_path) == [None]


def test_disks_that_cannot_lock_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stream: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "lock", refuse)
    with pytest.warns(MMMSDeployWarning, match="cannot be locked.*one evaluation at a time"), results_lock(tmp_path):
        pass


def test_forgetting_results_keeps_the_lock(tmp_path: Path) -> None:
    with results_lock(tmp_path):
        (tmp_path / SETTINGS_FILE).write_text("{}")
        (tmp_path / SCENES_FILE).write_text("{}\n")
        forget(tmp_path)
        assert not (tmp_path / SETTINGS_FILE).exists()
        assert (tmp_path / SCENES_FILE).read_text() == ""
        (error,) = in_a_thread(tmp_path)
        assert isinstance(error, ResultsInUseError)

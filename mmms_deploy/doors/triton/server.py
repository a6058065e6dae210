"""The Triton server that nvidia-pytriton carries, on this machine: ``python -m mmms_deploy.doors.triton.server DIR``.

The package's own class ``Triton`` is for functions of its caller's. A model repository is served by its program alone,
which wants three things put together: the Python backend with the stub of this Python's version beside it, the
libraries that came with the wheel, and addresses to listen on. It listens at 127.0.0.1 and nowhere else.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO

from mmms_deploy.errors import DoorError
from mmms_deploy.files import PathLike, as_path
from mmms_deploy.installed import pip_install

HOST = "127.0.0.1"
_PATIENCE = 120.0
"""Seconds until a server has to be ready: it opens the bundle."""
_EXIT_SECONDS = 5
_LAST_LINES = 12
_NOT_LOADED = re.compile(r"failed to load '.*?' version \d+: (.*)\"")


def missing_server() -> str | None:
    """Return why there is no server here, with the command that helps; None where there is one."""
    if find_spec("pytriton") is None:
        return f"nvidia-pytriton, which carries a Triton server, is not installed: {pip_install('cpu,triton')}"
    if not _program().is_file():
        return (
            f"nvidia-pytriton carries no server for {platform.system()} on {platform.machine()}: take Linux on x86-64"
        )
    if not _stub().is_file():
        there = ", ".join(sorted(path.name for path in _stub().parents[1].iterdir()))
        return f"nvidia-pytriton carries no stub for Python {_version()}, but for {there}: take one of these"
    from importlib.metadata import version

    if int(version("numpy").partition(".")[0]) >= 2:
        return f'its Python backend takes NumPy 1 alone, and NumPy {version("numpy")} is here: pip install "numpy<2"'
    return None


def this_python() -> tuple[Path, ...]:
    """Return the folders in which this Python finds packages, for a server on this machine."""
    package = Path(__file__).resolve().parents[3]
    sites = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    return tuple(dict.fromkeys([package, *sites]))


class TritonServer:
    """A server that runs in a process of its own; a ``with`` block ends it.

    Args:
        repository: The folder of a model repository.
        port: The port of HTTP; 0 takes a free one.
        patience: Seconds until it has to be ready.

    Attributes:
        address: Host and port, as tritonclient takes them.

    Raises:
        DoorError: There is no server here, or it does not start; with the last lines that it printed.
    """

    def __init__(self, repository: PathLike, *, port: int = 0, patience: float = _PATIENCE) -> None:
        why = missing_server()
        if why is not None:
            raise DoorError(
                f"there is no Triton server: {why.partition(':')[0]}",
                expected="the server that nvidia-pytriton carries",
                fix=why.partition(": ")[2],
            )
        folder = as_path(repository, "the model repository")
        if not folder.is_dir():
            raise DoorError(
                f"there is no folder {folder}",
                expected="a model repository",
                fix="write one: mmms_deploy.doors.triton.repository.write_repository(...)",
                command_fix=f"write one: mmms-serve triton BUNDLE --out {folder}",
            )
        self.port = port or _free_port()
        self.address = f"{HOST}:{self.port}"
        self._work = Path(tempfile.mkdtemp(prefix="mmms-deploy-triton."))
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        try:
            self._log = (self._work / "log").open("wb")
            self._process = subprocess.Popen(
                self._line(folder), stdout=self._log, stderr=subprocess.STDOUT, env=_environment()
            )
            self._wait(patience)
        except BaseException:
            self.close()
            raise

    def _line(self, repository: Path) -> list[str]:
        backend = self._work / "backends" / "python"
        shutil.copytree(_carried() / "backends" / "python", backend)
        shutil.copy(_stub(), backend / _stub().name)
        return [
            str(_program()),
            f"--model-repository={repository.resolve()}",
            f"--backend-directory={backend.parent}",
            f"--http-address={HOST}",
            f"--http-port={self.port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--log-info=false",
            # It waits so long for sequences that are open at SIGTERM.
            f"--exit-timeout-secs={_EXIT_SECONDS}",
        ]

    def _wait(self, patience: float) -> None:
        assert self._process is not None
        until = monotonic() + patience
        while not self._ready():
            code = self._process.poll()
            if code is not None or monotonic() > until:
                ended = f"ended with code {code}" if code is not None else f"was not ready after {patience:g} seconds"
                raise DoorError(
                    f"the Triton server {ended}:\n{self._reason()}",
                    expected="a server that opens its models",
                    fix="do what it says; each model's config.pbtxt is in the model repository",
                )
            sleep(0.05)

    def _ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self.address}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _reason(self) -> str:
        """Return the error of the first model that did not open, or the last lines that the server printed."""
        found = _NOT_LOADED.search(self.said())
        if found is None:
            return self.said(_LAST_LINES)
        text = found[1].replace("\\n", "\n").replace('\\"', '"')
        return text.partition("\n\nAt:")[0].removeprefix("Internal: ")

    def said(self, lines: int | None = None) -> str:
        """Return what the server printed, or the last lines of it."""
        text = (self._work / "log").read_text(encoding="utf-8", errors="replace")
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    @property
    def process(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        assert self._process is not None
        return self._process.wait()

    def close(self) -> None:
        """End the server, and remove what was put together for it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _carried() -> Path:
    found = find_spec("pytriton")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "tritonserver"


def _program() -> Path:
    return _carried() / "bin" / "tritonserver"


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _stub() -> Path:
    return _carried() / "python_backend_stubs" / _version() / "triton_python_backend_stub"


def _environment() -> dict[str, str]:
    """Return what the server finds its libraries by, and the stub this Python's packages.

    The stub is an isolated Python: it ignores PYTHONPATH, and takes the packages of the first python3 in PATH, NumPy
    among them before model.py is read.
    """
    libraries = [_carried().parents[1] / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR") or "")]
    found = {
        "LD_LIBRARY_PATH": [str(path) for path in libraries if path.is_dir()],
        "PATH": [str(Path(sys.executable).parent)],
    }
    joined = {name: os.pathsep.join(filter(None, [*paths, os.environ.get(name)])) for name, paths in found.items()}
    return {**os.environ, **joined}


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        return int(listening.getsockname()[1])

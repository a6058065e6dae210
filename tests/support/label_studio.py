"""The real Label Studio on this machine (``make test-label-studio``): its server on SQLite, and a client of its API."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.server import form

USER, PASSWORD = "annotator@example.com", "not-a-secret-1"
QUIET = {"COLLECT_ANALYTICS": "0", "LATEST_VERSION_CHECK": "0", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
"""What keeps it from calling others."""
OWN_MACHINE = {"ML_BLOCK_LOCAL_IP": "false", "USE_DEFAULT_BANNED_SUBNETS": "false"}
"""What lets it call models on its own machine."""
_SECONDS = 600


def label_studio_path() -> str | None:
    """Return the program, or None where there is none; ``LABEL_STUDIO`` names another one."""
    named = os.environ.get("LABEL_STUDIO")
    return str(Path(named).absolute()) if named else shutil.which("label-studio")


def python_path() -> str | None:
    """Return the interpreter that has Label Studio's SDK, or None."""
    program = label_studio_path()
    found = None if program is None else Path(program).with_name("python")
    return str(found) if found is not None and found.exists() else None


class LabelStudioClient:
    """A user who is logged in.

    Args:
        url: The server's address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))
        page = self.ask("GET", "/user/login/")[1].decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token is not None, page[:500]
        fields = {"csrfmiddlewaretoken": token[1], "email": USER, "password": PASSWORD}
        self.ask(
            "POST",
            "/user/login/",
            urllib.parse.urlencode(fields).encode(),
            {"Content-Type": "application/x-www-form-urlencoded"},
        )

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        request = urllib.request.Request(self.url + path, body, {"Referer": self.url, **(headers or {})}, method=method)
        token = next((one.value for one in self._cookies if one.name == "csrftoken"), None)
        if token:
            request.add_header("X-CSRFToken", token)
        try:
            with self._opener.open(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status of a call of the API, and its answer as JSON."""
        content = None if body is None else json.dumps(body).encode()
        status, answer = self.ask(method, path, content, {"Content-Type": "application/json"})
        return status, json.loads(answer) if answer else None

    def done(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer of a call that succeeds."""
        status, answer = self.call(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    def project(self, configuration: str, picture: bytes) -> tuple[int, int]:
        """Make a project with one picture, and return the numbers of the project and of its task."""
        project = int(self.done("POST", "/api/projects/", {"title": "clicks", "label_config": configuration})["id"])
        body, kind = form(file=("photo.jpg", picture))
        status, answer = self.ask("POST", f"/api/projects/{project}/import", body, {"Content-Type": kind})
        assert status < 300, answer
        return project, int(self.done("GET", f"/api/tasks/?project={project}")["tasks"][0]["id"])

    def personal_token(self) -> str:
        """Make a personal access token."""
        return str(self.done("POST", "/api/token/", {})["token"])


@contextmanager
def running_label_studio(folder: Path, **environment: str) -> Iterator[str]:
    """Run Label Studio until the end, and give its address.

    Args:
        folder: Where it keeps its data.
        environment: More variables of its environment.
    """
    program = label_studio_path()
    assert program is not None
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    command = [program, "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    command += ["--username", USER, "--password", PASSWORD, "--data-dir", str(folder)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    url = f"http://127.0.0.1:{port}"
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**inherited, **QUIET, **environment},
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait(process, url, folder / "log.txt")
        yield url
    finally:
        # It starts a process that watches another one; both are of its session.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + _SECONDS
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"Label Studio does not start: {log.read_text(errors='replace')[-3000:]}")

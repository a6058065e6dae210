"""``mmms-serve label-studio``: what it takes, what it says, what it serves, and how it ends."""

from __future__ import annotations

import base64
import builtins
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.commands import serve
from mmms_deploy.doors.label_studio import serving
from tests.support.invoke import invoke

LEGACY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command would serve: opening, Label Studio and settings of every run."""
    runs: list[Any] = []
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    monkeypatch.setattr(serving, "serve", lambda model, *given: runs.append(given[:3]))
    return runs


@contextmanager
def running(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the command in a process of its own until it listens; gives the process and what it printed."""
    line = [sys.executable, "-m", "mmms_deploy.commands.serve", "label-studio", *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("LABEL_STUDIO_API_KEY", None)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        found: dict[str, str] = {}
        for printed in process.stdout:
            if (match := re.match(r"(\w+) +(\S.*)", printed)) is not None:
                found[match[1]] = match[2].strip()
            elif "Ctrl-C ends it" in printed:
                yield process, found
                break
        else:
            raise AssertionError(process.communicate()[1])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_answers_until_a_signal_ends_it(paint: Bundle, number: int, code: int) -> None:
    with running(paint.path, "--engine", "onnxruntime") as (process, printed):
        assert printed["pictures"] == "http://localhost:8080"
        assert printed["engine"].startswith("ONNX Runtime")
        with urllib.request.urlopen(f"{printed['address']}/health", timeout=60) as answer:
            assert json.load(answer)["status"] == "UP"
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code
    assert "ML_BLOCK_LOCAL_IP=false and USE_DEFAULT_BANNED_SUBNETS=false" in said
    assert "no access token was given" in said


def test_for_other_machines_it_draws_a_password(paint: Bundle) -> None:
    with running(paint.path, "--engine", "onnxruntime", "--host", "0.0.0.0", "--access-token", LEGACY) as (
        process,
        printed,
    ):
        url = printed["address"].replace("0.0.0.0", "127.0.0.1") + "/health"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, timeout=60)
        basic = base64.b64encode(f"any:{printed['password']}".encode()).decode()
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {basic}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        output = "".join(process.communicate(timeout=60))
    assert LEGACY not in output
    assert "no access token was given" not in output


def test_the_options_reach_the_server(paint: Bundle, served: list[Any]) -> None:
    result = invoke(
        serve.main,
        "label-studio",
        paint.path,
        *("--label-studio", "https://labels.example.com/below", "--access-token", f" {LEGACY}\n"),
        *("--image-host", "images.example.com", "--image-host", "a:81", "--seconds", 5),
        *("--host", "0.0.0.0", "--port", 9191, "--token", "known", "--name", "ml"),
        *("--sessions", 3, "--idle", 2, "--upload", 7, "--engine", "onnxruntime", "--threads", 1),
        *("--set", "flip=true", "--set", "store_mib=10"),
    )
    assert result.exit_code == 0, result.output
    ((opening, chosen, settings),) = served
    assert (opening.engine, opening.threads, opening.flip, opening.store_mib) == ("onnxruntime", 1, True, 10)
    assert (chosen.base, chosen.token, chosen.seconds) == ("https://labels.example.com/below", LEGACY, 5)
    assert chosen.image_hosts == ("images.example.com", "a:81")
    assert (settings.host, settings.port, settings.token, settings.allowed_hosts) == ("0.0.0.0", 9191, "known", ("ml",))
    assert (settings.most_sessions, settings.idle_seconds, settings.upload_bytes) == (3, 120, 7 << 20)


def test_the_token_may_be_in_the_environment(paint: Bundle, served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    assert invoke(serve.main, "label-studio", paint.path, "--engine", "onnxruntime").exit_code == 0
    assert served[0][1].token == LEGACY


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label-studio", "localhost:8080"], "the address of Label Studio is 'localhost:8080'"),
        (["--image-host", "http://a"], "a host for pictures is 'http://a'"),
        (["--set", "zoom"], "NAME=VALUE"),
        (["--set", "zom=true"], "zom"),
        (["--set", "store_mib=many"], "store_mib"),
        (["--port", "70000"], "70000"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_opened(options: list[str], said: str, served: list[Any]) -> None:
    result = invoke(serve.main, "label-studio", "nothing", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not served


def test_what_is_no_bundle_is_refused(served: list[Any]) -> None:
    result = invoke(serve.main, "label-studio", "nothing")
    assert result.exit_code == 1
    assert "no bundle at nothing" in result.stderr


def test_a_missing_package_is_named(paint: Bundle, served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name == "uvicorn":
            raise ImportError("no uvicorn", name="uvicorn")
        return usual(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    result = invoke(serve.main, "label-studio", paint.path)
    assert result.exit_code == 1
    assert "uvicorn is not installed" in result.stderr
    assert 'pip install "mmms-deploy[demo]"' in result.stderr

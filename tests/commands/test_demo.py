"""``mmms-demo``: what it takes, what it says, what it serves, and how it ends."""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Model, server
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.commands import demo
from mmms_deploy.commands.demo import main
from mmms_deploy.page import static
from mmms_deploy.page.runtime import ONNXRUNTIME_WEB
from mmms_deploy.replay import write_click_bundle
from tests.support.invoke import invoke
from tests.support.toy import write_toy

OWN = ["--no-open", "--port", "0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 60 x 80 pixels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("b.png", 200), ("a.png", 51)):
        Image.fromarray(np.full((60, 80, 3), colour, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command would serve: settings and pictures of every run."""
    runs: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda engine, settings, pictures, **more: runs.append((settings, pictures)))
    return runs


@contextmanager
def running(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command in a process of its own until it listens; gives the process and the page's address."""
    line = [sys.executable, "-m", "mmms_deploy.commands.demo", *map(str, arguments), *OWN]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        for printed in process.stdout:
            if (found := re.match(r"page +(\S+)", printed)) is not None:
                yield process, found[1]
                break
        else:
            raise AssertionError(process.communicate()[1])
    finally:
        process.kill()
        process.communicate()


def get(url: str, **headers: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return json.load(answer)


class TestWhatIsServed:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_folder_until_a_signal_ends_it(self, paint: Bundle, folder: Path, number: int, code: int) -> None:
        with running(paint.path, folder) as (process, url):
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/?", url)
            api = url.rstrip("/") + "/api/v1"
            assert [image["name"] for image in get(f"{api}/images")] == ["a.png", "b.png"]
            assert get(f"{api}/model")["engine"]["device"] == "cpu"
            with urllib.request.urlopen(url, timeout=60) as page:
                assert b"<!doctype html>" in page.read(100).lower()
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == code
            assert "Traceback" not in errors

    def test_a_token_is_part_of_the_address_and_needed(self, paint: Bundle) -> None:
        with running(paint.path, "--token", "only-for-you") as (_, url):
            address, token = url.split("#token=")
            assert token == "only-for-you"
            model = address.rstrip("/") + "/api/v1/model"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(model)
            assert get(model, Authorization=f"Bearer {token}")["size"]


class TestTheCommandLine:
    def test_the_demo_alone_and_with_a_picture(
        self, served: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch, paint: Bundle
    ) -> None:
        taken = []
        monkeypatch.setattr(demo, "fetched_bundle", lambda bundle: taken.append(bundle) or paint.path)
        for arguments in ([], [folder / "a.png"], ["demo", folder / "a.png"]):
            result = invoke(main, *arguments, "--no-open")
            assert result.exit_code == 0, result.output
        assert taken == [Path("demo")] * 3
        assert [[picture.name for picture in pictures] for _, pictures in served] == [[], ["a.png"], ["a.png"]]

    def test_a_file_that_is_no_picture_is_refused_before_the_page_opens(
        self, served: list[Any], paint: Bundle, folder: Path
    ) -> None:
        notes = folder / "notes.txt"
        notes.write_text("no picture")
        result = invoke(main, paint.path, folder / "a.png", notes, *OWN)
        assert result.exit_code == 1
        assert f"error: the image: {notes} is a text file" in result.stderr
        assert served == []
        (folder / "c.png").write_text("no picture")
        assert invoke(main, paint.path, folder, *OWN).exit_code == 0
        assert len(served[0][1]) == 3, "of a folder the page says it, when it is opened"

    def test_limits_and_places_reach_the_server(self, served: list[Any], paint: Bundle, folder: Path) -> None:
        out = folder.parent / "out"
        options = ["--sessions", "3", "--idle", "0.5", "--upload", "2", "--memory", "0.5", "--name", "clicks.example"]
        result = invoke(main, paint.path, folder, *options, "--out", out, "--port", "8123", "--no-open")
        assert result.exit_code == 0, result.output
        settings, pictures = served[0]
        assert (settings.most_sessions, settings.idle_seconds, settings.upload_bytes) == (3, 30.0, 2 << 20)
        assert (settings.most_bytes, settings.allowed_hosts, settings.out) == (1 << 29, ("clicks.example",), out)
        assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8123, None)
        assert [picture.key for picture in pictures] == ["a", "b"]

    def test_beyond_this_machine_a_warning_says_who_reaches_it(self, served: list[Any], paint: Bundle) -> None:
        result = invoke(main, paint.path, "--host", "192.0.2.1", "--no-open")
        assert result.exit_code == 0, result.output
        assert "others on the network reach 192.0.2.1; they need the token" in result.stderr

    def test_modalities_belong_to_the_pictures(self, served: list[Any], tmp_path: Path, folder: Path) -> None:
        bundle = write_toy(tmp_path / "bundle", modalities=(ModalitySpec(name="depth"),))
        result = invoke(main, bundle.path, folder, "--modality", f"depth={folder}", "--no-open")
        assert result.exit_code == 0, result.output
        assert [dict(picture.modalities) for picture in served[0][1]] == [
            {"depth": folder / "a.png"},
            {"depth": folder / "b.png"},
        ]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--static", "site"], "--static shows one image, and none is named: pass --image FILE"),
            (["--static", "site", "--image", "a.png", "--port", "80"], "--port is about a server"),
            (["--static", "site", "--image", "a.png", "--no-open"], "--open / --no-open is about a server"),
            (["--static", "site", "--image", "a.png", "--engine", "openvino"], "--engine is about a server"),
            (["--overwrite"], "--overwrite is about the folder of --static"),
            (["--modality", "depth=d.png"], "--modality needs the image"),
            (["--out", "results"], "--out is for the images that the command line names"),
            (["--port", "70000"], "0<=x<=65535"),
        ],
    )
    def test_wrong_usage(self, served: list[Any], arguments: list[str], said: str) -> None:
        result = invoke(main, *arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.stderr.split())
        assert not served

    def test_a_bundle_behind_a_picture_is_the_wrong_order(self, served: list[Any], paint: Bundle, folder: Path) -> None:
        result = invoke(main, folder / "a.png", paint.path)
        assert result.exit_code == 1
        assert f"mmms-demo {paint.path} {folder / 'a.png'} ..." in result.stderr

    def test_a_bundle_without_its_backbone_opens_no_page(self, served: list[Any], tmp_path: Path) -> None:
        bundle = write_toy(tmp_path / "box", black_box=True)
        result = invoke(main, bundle.path)
        assert result.exit_code == 1
        assert "was exported without its backbone, so that it takes no picture" in result.stderr
        assert not served

    def test_packages_that_are_missing_are_named(
        self, served: list[Any], paint: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        result = invoke(main, paint.path)
        assert result.exit_code == 1
        assert "uvicorn is not installed" in result.stderr
        assert 'pip install "mmms-deploy[demo]"' in result.stderr

    def test_the_browser_opens_on_a_terminal_with_a_display_or_when_asked(
        self, paint: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[str] = []
        monkeypatch.setattr("click.launch", shown.append)
        monkeypatch.setattr(demo, "on_terminal", lambda: True)
        monkeypatch.setattr(server, "serve", lambda *given, on_listening, **more: on_listening("http://here"))
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr(sys, "platform", "linux")
        for display, options in ((None, []), (":0", []), (":0", ["--no-open"]), (None, ["--open"])):
            if display is not None:
                monkeypatch.setenv("DISPLAY", display)
            assert invoke(main, paint.path, *options).exit_code == 0
            monkeypatch.delenv("DISPLAY", raising=False)
        assert shown == ["http://here"] * 2


class TestAFolderWithoutAServer:
    def test_it_is_written_replaced_on_request_and_described(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime = tmp_path / "runtime"
        runtime.mkdir()
        for file in ONNXRUNTIME_WEB.files:
            (runtime / file.name).write_bytes(b"stands in")
        monkeypatch.setattr(static, "runtime_files", lambda: runtime)
        arguments = ["demo-small", "--static", tmp_path / "site", "--image", folder / "a.png", "--threads", "1"]
        result = invoke(main, *arguments)
        assert result.exit_code == 0, result.output
        assert f"page     {tmp_path / 'site'}" in result.stdout
        assert json.loads((tmp_path / "site" / "static.json").read_text())["image_size"] == [60, 80]
        again = invoke(main, *arguments)
        assert again.exit_code == 1
        assert "--overwrite" in again.stderr
        assert invoke(main, *arguments, "--overwrite").exit_code == 0

    def test_a_folder_of_pictures_is_refused(self, folder: Path, tmp_path: Path) -> None:
        result = invoke(main, "demo-small", "--static", tmp_path / "site", "--image", folder)
        assert result.exit_code == 1
        assert f"{folder} is a folder" in result.stderr


def test_a_click_bundle_is_served_with_features(tmp_path: Path, folder: Path, served: list[Any], paint: Bundle) -> None:
    write_click_bundle(paint, tmp_path / "clicks")
    (tmp_path / "encoded").mkdir()
    with Model(paint, engine="onnxruntime") as model:
        for name in ("a", "b"):
            model.encode(folder / f"{name}.png").save(tmp_path / "encoded" / f"{name}.features")
    result = invoke(main, tmp_path / "clicks", folder, "--features", tmp_path / "encoded", *OWN)
    assert result.exit_code == 0, result.output
    ((_, pictures),) = served
    assert [one.features.name for one in pictures] == ["a.features", "b.features"]

    np.savez(tmp_path / "backbone.npz", f1=np.zeros(1))
    one = folder / "a.png"
    refused = invoke(main, tmp_path / "clicks", one, "--features", tmp_path / "backbone.npz", *OWN)
    assert (refused.exit_code, "has a backbone's features" in refused.stderr) == (1, True)
    assert invoke(main, tmp_path / "clicks", "--features", tmp_path / "encoded", *OWN).exit_code == 2
    assert len(served) == 1

"""The scripts in ``examples/`` run as a user runs them who has copied them: in an empty folder, with the demo."""

from __future__ import annotations

import json
import re
import runpy
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import read_labels
from mmms_deploy.replay import load_golden
from tests.support.demos import small_as_demo
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing but the demo, in which the scripts run."""
    monkeypatch.chdir(tmp_path)
    small_as_demo(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    """Run a script of the examples."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def cat() -> Any:
    """A photograph, (300, 451, 3) uint8."""
    return load_golden(Bundle("demo-small").file("golden.npz"))[2].image


def test_every_example_is_listed_and_every_script_says_what_to_install() -> None:
    text = (EXAMPLES / "README.md").read_text()
    files = [file for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb")]
    assert len(files) >= 5
    for file in files:
        assert f"({file.name})" in text
        assert re.search(
            r'pip install \\"\.\[cpu(,demo|,triton)?\]\\"', json.dumps(file.read_text()).replace("\\\\", "")
        )


def test_embed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "embed.py")
    cutout = np.asarray(Image.open("cutout.png"))
    assert cutout.shape == (512, 512, 4)
    assert set(np.unique(cutout[..., 3])) == {0, 255}
    assert cutout[130, 225, 3] == 255, "the face that was clicked on"
    assert cutout[480, 480, 3] == 0
    assert "after 2 clicks" in capsys.readouterr().out
    Image.fromarray(cat()).save("photo.jpg")
    run(monkeypatch, "embed.py", "photo.jpg")
    assert Image.open("cutout.png").size == (451, 300)


def test_async_many(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "async_many.py")
    out = capsys.readouterr().out
    areas = re.search(r"8 annotators: \[(\d+)\] pixels", out)
    assert areas, "all of them have the same mask"
    with Session("demo") as session:
        session.set_image(cat())
        for click in ((180, 105, True), (322, 137, True), (260, 200, False)):
            result = session.click(*click)
        assert int(areas[1]) == result.area
    assert "the click is at x = 199" in out


def test_embed_is_as_short_as_it_says() -> None:
    code = (EXAMPLES / "embed.py").read_text().rpartition('"""\n')[2]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 20


def test_several_objects(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "several_objects.py")
    labels, names = read_labels("labels.png")
    assert list(names) == ["left eye", "right eye", "nose"]
    assert set(np.unique(labels)) == {0, *names.values()}
    coco = json.loads(Path("coco.json").read_text())
    assert [one["name"] for one in coco["categories"]] == ["eye", "nose"]
    assert len(coco["annotations"]) == 3
    eye = coco_mask.decode(coco["annotations"][0]["segmentation"]).astype(bool)
    assert (eye == (labels == names["left eye"])).all()
    assert "nose again: " in capsys.readouterr().out


def test_many_images(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "many_images.py")
    coco = json.loads(Path("masks/coco.json").read_text())
    assert [one["file_name"] for one in coco["images"]] == ["demo1.png", "demo2.png", "demo3.png"]
    for image, annotation in zip(coco["images"], coco["annotations"], strict=True):
        written = np.asarray(Image.open(Path("masks") / image["file_name"]))
        assert (coco_mask.decode(annotation["segmentation"]) * 255 == written).all()
    (folder / "photos").mkdir()
    Image.fromarray(cat()).save("photos/cat.jpg")
    (folder / "photos" / "notes.txt").write_text("not a picture")
    run(monkeypatch, "many_images.py", "photos")
    said = capsys.readouterr()
    assert "cat.jpg: " in said.out
    assert "notes.txt is left out" in said.err
    assert Path("masks/cat.png").is_file()


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that runs in a process of its own."""
    folder = tmp_path_factory.mktemp("server")
    small_as_demo(folder)
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "server.py"), "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout.readline().strip()
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
            assert "Traceback" not in said, f"Ctrl-C or a request broke it: {said}"
            assert process.wait(30) == 0
        finally:
            process.kill()


def request(address: str, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Send a request; returns the status and the answer."""
    sent = urllib.request.Request(f"{address}{path}", data=body, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(sent, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def picture(folder: Path, size: tuple[int, int] | None = None) -> bytes:
    """The bytes of a picture file."""
    image = Image.fromarray(cat())
    (image if size is None else image.resize(size)).save(folder / "picture.png")
    return (folder / "picture.png").read_bytes()


def test_the_server_answers_as_a_session_does(address: str, tmp_path: Path) -> None:
    assert address.startswith("http://127.0.0.1:")
    status, opened = request(address, "POST", "/sessions", picture(tmp_path))
    assert (status, opened["size"]) == (200, [300, 451])
    clicks = f"/sessions/{opened['session']}/clicks"
    request(address, "POST", clicks, b'{"x": 180, "y": 105}')
    status, answer = request(address, "POST", clicks, b'{"x": 200, "y": 160, "positive": false}')
    with Session("demo-small") as session:
        session.set_image(cat())
        session.click(180, 105)
        result = session.click(200, 160, positive=False)
    assert (status, answer["clicks"], answer["area"]) == (200, 2, result.area)
    assert (coco_mask.decode(answer["rle"]).astype(bool) == result.mask).all()
    assert request(address, "DELETE", f"/sessions/{opened['session']}") == (200, {})
    assert request(address, "POST", clicks, b'{"x": 1, "y": 1}')[0] == 404


def test_the_server_names_mistakes(address: str, tmp_path: Path) -> None:
    status, answer = request(address, "POST", "/sessions", b"no picture")
    assert status == 400
    assert "image" in answer["error"]
    _, opened = request(address, "POST", "/sessions", picture(tmp_path, (60, 40)))
    clicks = f"/sessions/{opened['session']}/clicks"
    for body in (
        b"",
        b"{",
        b"[1, 2]",
        b'{"x": 1}',
        b'{"x": 1, "y": "a"}',
        b'{"x": 999, "y": 1}',
        b'{"x": NaN, "y": 1}',
        b"[" * 100_000,
    ):
        assert request(address, "POST", clicks, body)[0] == 400, body
    assert request(address, "POST", clicks, b'{"x": 1, "y": 1}')[1]["clicks"] == 1, "no mistake counts as a click"
    assert request(address, "GET", "/")[0] == 404
    assert request(address, "DELETE", "/sessions/unknown")[0] == 404


def test_the_server_keeps_a_limited_number_of_sessions(address: str, tmp_path: Path) -> None:
    small = picture(tmp_path, (30, 20))
    names = [request(address, "POST", "/sessions", small)[1]["session"] for _ in range(16)]
    click = b'{"x": 5, "y": 5}'
    assert request(address, "POST", f"/sessions/{names[0]}/clicks", click)[0] == 200, "used last, so it stays"
    request(address, "POST", "/sessions", small)
    assert request(address, "POST", f"/sessions/{names[0]}/clicks", click)[0] == 200
    assert request(address, "POST", f"/sessions/{names[1]}/clicks", click)[0] == 404

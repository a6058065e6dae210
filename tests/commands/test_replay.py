from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from mmms_deploy import Bundle, Session
from mmms_deploy.commands.replay import main
from tests.support.invoke import invoke
from tests.support.journals import PICTURE, recorded, separate_walk, write_pictures
from tests.support.toy import write_toy


def replay(*args: object) -> Result:
    return invoke(main, *args, "--threads", "1", "--engine", "onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def test_a_journal(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    recorded(paint, tmp_path / "a.jsonl", separate_walk)
    result = replay(tmp_path / "a.jsonl", "--images", folder)
    assert result.exit_code == 0, result.output
    assert "recorded paint" in result.stdout
    assert result.stdout.count("same") >= 20
    assert "refused: ClickError" in " ".join(result.stdout.split())
    assert "passed: 30 events" in result.stdout
    beside = replay(tmp_path / "a.jsonl", "--images", folder, "--bundle", paint.path, "--against", "openvino")
    assert beside.exit_code == 0, beside.output
    assert "against  OpenVINO" in beside.stdout


def test_json(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    recorded(paint, tmp_path / "a.jsonl", separate_walk)
    result = replay(tmp_path / "a.jsonl", "--images", folder, "--json", "--against", "openvino")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["counts"]["differs"] == 0
    assert found["counts"]["refused"] == 2
    assert found["rows"][1]["against"]["recorded"] is True
    assert found["recorded"][0]["bundle"]["name"] == "paint"


def test_another_mask(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    recorded(paint, tmp_path / "a.jsonl", lambda session: (session.set_image(PICTURE), session.click(20, 20)))
    other = write_toy(tmp_path / "other", radius=9.0)
    result = replay(tmp_path / "a.jsonl", "--images", folder, "--bundle", other.path)
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert "warning: the bundle is another one" in result.stderr
    assert "pass --against onnxruntime" in result.stderr
    assert replay(tmp_path / "a.jsonl", "--images", folder, "--bundle", other.path, "--json").exit_code == 1


def test_a_missing_image(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    recorded(paint, tmp_path / "a.jsonl", lambda session: (session.set_image(PICTURE[:9]), session.click(2, 2)))
    result = replay(tmp_path / "a.jsonl", "--images", folder)
    assert result.exit_code == 1
    assert "missing" in result.stdout
    assert "skipped" in result.stdout
    assert "the image (70 x 9 pixels, hash" in result.stderr
    assert "name its folder with --images" in result.stderr
    assert replay(tmp_path / "a.jsonl", "--images", tmp_path / "no").exit_code == 1


def test_a_file_of_work(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    with Session(paint, threads=1, engine="onnxruntime") as session:
        session.set_image(PICTURE)
        session.click(20, 20)
        session.save(tmp_path / "work.json")
    result = replay(tmp_path / "work.json", "--images", folder / "below" / "b.png")
    assert result.exit_code == 0, result.output
    assert "passed: 1 object" in result.stdout
    other = write_toy(tmp_path / "other", radius=9.0)
    result = replay(tmp_path / "work.json", "--images", folder, "--bundle", other.path)
    assert result.exit_code == 1
    assert "1 of 1 objects" in result.stderr
    assert replay(tmp_path / "work.json", "--images", folder, "--bundle", other.path, "--limit", "0").exit_code == 0


def test_many_events(paint: Bundle, tmp_path: Path, folder: Path) -> None:
    def walk(session: Session) -> None:
        session.set_image(PICTURE)
        for x in range(60):
            session.click(x, 20)

    recorded(paint, tmp_path / "a.jsonl", walk)
    short, long = (
        replay(tmp_path / "a.jsonl", "--images", folder),
        replay(tmp_path / "a.jsonl", "--images", folder, "--all"),
    )
    assert "61 events" in short.stdout
    assert "click" not in short.stdout
    assert long.stdout.count("click") >= 60


def test_wrong_files(tmp_path: Path, paint: Bundle) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    for name, said in (("a.txt", "is no line of a journal"), ("no", "there is no such file"), (".", "folder")):
        result = replay(tmp_path / name)
        assert result.exit_code == 1
        assert said in result.stderr
        assert "Traceback" not in result.output
    assert replay().exit_code == 2
    assert replay(tmp_path / "a.txt", "--limit", "2").exit_code == 2
    assert replay("--help").exit_code == 0

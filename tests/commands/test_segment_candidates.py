"""``mmms-segment`` with a network that gives several answers: which one is taken, and the picture of all of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.commands.segment import main
from mmms_deploy.engines import select
from tests.support.annotating import GREY
from tests.support.invoke import invoke


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    Image.fromarray(GREY).save(file)
    return file


def segment(bundle: Bundle, *args: object) -> Result:
    return invoke(main, bundle.path, *args)


def mask_of(file: Path) -> np.ndarray:
    with Image.open(file) as mask:
        return np.asarray(mask) > 0


def test_a_choice_belongs_to_the_click_before_it(proposing: Bundle, image: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "mask.png", tmp_path / "sheet.jpg"
    clicks = ("--pos", "35,25", "--choose", 2, "--pos", "60,40")
    result = segment(proposing, image, *clicks, "--out", out, "--candidates", sheet)
    assert result.exit_code == 0, result.output
    with Session(proposing) as session:
        session.set_image(GREY)
        first, chosen = session.click(35, 25), session.choose(2)
        expected = session.click(60, 40)
    assert np.array_equal(mask_of(out), expected.mask)
    with Image.open(sheet) as drawn:
        assert drawn.size == chosen.candidate_sheet(GREY).size
    assert re.search(rf"click 1 .* mask {first.area} px .*, answer 1 of 0 to 2, score 0.750", result.stdout)
    gained = chosen.area - first.area
    assert re.search(rf"choice +mask {chosen.area} px \({gained:+d}\), .*, answer 2 of 0 to 2", result.stdout)
    assert "answer" not in next(line for line in result.stdout.splitlines() if line.startswith("click 2"))
    assert f"answers  {sheet}" in result.stdout


def test_the_click_at_the_centre_has_a_choice(proposing: Bundle, image: Path, tmp_path: Path) -> None:
    masks = []
    for choice in range(3):
        out = tmp_path / f"{choice}.png"
        result = segment(proposing, image, "--choose", choice, "--out", out)
        assert result.exit_code == 0, result.output
        masks.append(mask_of(out))
    assert masks[0].sum() < masks[2].sum() < masks[1].sum()
    sheet = tmp_path / "sheet.png"
    assert segment(proposing, image, "--candidates", sheet).exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.png", "1.png", "2.png", "image.png", "sheet.png"]


def test_choices_for_many_images_and_objects(proposing: Bundle, image: Path, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "other.png")
    objects = ("--object", "a", "--pos", "35,25", "--choose", 0, "--object", "b", "--pos", "35,25", "--choose", 2)
    out = tmp_path / "out"
    result = segment(proposing, image, tmp_path / "other.png", *objects, "--out-dir", out, "--write", "masks")
    assert result.exit_code == 0, result.output
    with Session(proposing) as session:
        session.set_image(GREY)
        candidates = session.click(35, 25).candidates
    for name in ("image", "other"):
        for place, one in ((0, "a"), (2, "b")):
            assert np.array_equal(mask_of(out / "masks" / name / f"{one}.png"), candidates[place].mask)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--choose", 1, "--pos", "3,3"), 2, "--choose 1 has no click: it comes after its --pos X,Y"),
        (("--pos", "3,3", "--choose", 1, "--choose", 1), 2, "--choose 1 has no click"),
        (("--pos", "3,3", "--object", "a", "--choose", 1, "--pos", "3,3"), 2, "--choose 1 has no click"),
        (("--pos", "3,3", "--choose", "x"), 2, "--choose"),
        (("--clicks", "clicks.csv", "--choose", 1), 2, "--clicks has the clicks"),
        (("--candidates", "sheet.txt"), 2, "--candidates sheet.txt: its name must end in .png"),
        (("--pos", "3,3", "--object", "b", "--pos", "5,5", "--candidates", "sheet.png"), 1, "is about one object"),
        (("--pos", "3,3", "--choose", 3), 1, "pass --choose with a number from 0 to 2"),
        (("--pos", "3,3", "--pos", "5,5", "--choose", 0), 1, "put --choose right after the first click"),
        (("--neg", "3,3"), 1, "put --pos X,Y before --neg X,Y"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    proposing: Bundle,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[object, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(image.parent)
    result = segment(proposing, image, *args)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert [file.name for file in image.parent.iterdir()] == ["image.png"]


@pytest.mark.parametrize("option", [("--choose", 0), ("--candidates", "sheet.png")], ids=str)
def test_a_network_with_one_answer_refuses_them_before_it_is_opened(
    paint: Bundle, image: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[object, ...]
) -> None:
    monkeypatch.chdir(image.parent)
    monkeypatch.setattr(select, "open_request", None)
    result = segment(paint, image, *option)
    assert result.exit_code == 1
    assert "gives one answer to a click" in result.stderr
    assert "leave out --choose and --candidates" in result.stderr

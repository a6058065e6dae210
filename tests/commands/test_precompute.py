"""``mmms-precompute``: a data set into a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Features
from mmms_deploy.commands.precompute import main
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import SessionError
from mmms_deploy.precompute import ClickFiles, IntoStore, Item, Recipe, precompute
from mmms_deploy.replay import write_click_bundle
from tests.support.invoke import invoke

ENGINE = ("--engine", "onnxruntime", "--precision", "fp32", "--workers", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below."""
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "deep/a.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / name)
    return photos


def test_a_folder(paint: Bundle, folder: Path, tmp_path: Path) -> None:
    arguments = [str(folder), "--bundle", str(paint.path), "--out", str(tmp_path / "store"), *ENGINE]
    done = invoke(main, *arguments)
    assert done.exit_code == 0, done.stderr
    assert "images   2, by 1 process" in done.stdout
    assert "encoded  2 in" in done.stdout
    again = invoke(main, *arguments, "--recursive")
    assert "encoded  1 in" in again.stdout
    assert "2 were there before" in again.stdout


def test_the_store_inside_of_the_folder_holds_no_images(paint: Bundle, folder: Path) -> None:
    arguments = [str(folder), "--recursive", "--bundle", str(paint.path), "--out", str(folder / "deep"), *ENGINE]
    assert "images   2" in invoke(main, *arguments).stdout


def test_a_bad_image_is_named_and_the_others_go_on(paint: Bundle, folder: Path, tmp_path: Path) -> None:
    (folder / "c.jpg").write_bytes(b"no picture")
    done = invoke(main, str(folder), "--bundle", str(paint.path), "--out", str(tmp_path / "store"), *ENGINE)
    assert done.exit_code == 1
    assert f"failed   the image: {folder / 'c.jpg'} is a text file" in done.stdout
    assert "failed   1 of 3 images" in done.stdout
    assert "encoded  2 in" in done.stdout


def test_files_for_a_service(paint: Bundle, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "files"
    arguments = [str(folder), "--recursive", "--bundle", str(paint.path), "--out", str(out), "--for-clicks", *ENGINE]
    assert invoke(main, *arguments).exit_code == 0
    assert Features.load(out / "deep" / "a.png.features").picture is not None


def test_modalities_come_from_folders(modal: Bundle, folder: Path, tmp_path: Path) -> None:
    for name, shape in (("depth", (40, 50)), ("event", (40, 50, 3))):
        (tmp_path / name).mkdir()
        for stem in ("a", "b"):
            np.save(tmp_path / name / f"{stem}.npy", np.zeros(shape, np.float32))
    given = [f"--modality={name}={tmp_path / name}" for name in ("depth", "event")]
    done = invoke(main, str(folder), *given, "--bundle", str(modal.path), "--out", str(tmp_path / "store"), *ENGINE)
    assert done.exit_code == 0, done.stderr
    assert "encoded  2 in" in done.stdout
    without = invoke(main, str(folder), "--bundle", str(modal.path), "--out", str(tmp_path / "store"), *ENGINE)
    assert without.exit_code == 1
    assert "modalities given: none" in without.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--modality", "depth=a", "--modality", "depth=b"], "names one modality twice"),
        (["--workers", "0"], "workers"),
        (["--half", "maybe"], "maybe"),
    ],
)
def test_wrong_usage(paint: Bundle, folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = invoke(main, str(folder), "--bundle", str(paint.path), "--out", str(tmp_path / "store"), *arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_the_bundle_and_images_may_be_mixed_up(paint: Bundle, folder: Path, tmp_path: Path) -> None:
    done = invoke(main, str(paint.path), "--bundle", str(folder), "--out", str(tmp_path / "store"))
    assert done.exit_code != 0
    assert "bundle" in done.stderr


def test_a_click_bundle_encodes_nothing(paint: Bundle, folder: Path, tmp_path: Path) -> None:
    clicks = tmp_path / "clicks"
    write_click_bundle(paint, clicks)
    done = invoke(main, str(folder), "--bundle", str(clicks), "--out", str(tmp_path / "store"), *ENGINE)
    assert done.exit_code == 1
    assert "is a click bundle" in done.stderr
    for sink in (IntoStore(tmp_path / "store"), ClickFiles(tmp_path / "files")):
        items = [Item(folder / "a.png", "a.png")]
        with pytest.raises(SessionError, match="is a click bundle"):
            precompute(items, Recipe(str(clicks), sink, EngineRequest(engine="onnxruntime", threads=1)))

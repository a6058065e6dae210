"""``mmms-package``, and the other commands with what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmms_deploy import Bundle, Features, Session
from mmms_deploy.commands import bench, demo, package, segment, verify
from mmms_deploy.commands import eval as evaluate
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.session import save_features
from tests.support.annotating import SIZE
from tests.support.golden_cases import golden
from tests.support.invoke import invoke
from tests.support.toy import write_toy

PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
ENGINE = ("--engine", "onnxruntime")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("photo.png")
    Image.fromarray(PIXELS[::-1].copy()).save("other.png")
    return tmp_path


@pytest.fixture
def packed(folder: Path, paint: Bundle) -> Bundle:
    """In the folder: ``whole``, ``clicks`` and ``photo.features``."""
    write_toy(folder / "whole", golden=[golden(paint)])
    assert invoke(package.main, "whole", "--out", "clicks", *ENGINE).exit_code == 0
    made = invoke(package.main, "whole", "--image", "photo.png", "--out", "photo.features", *ENGINE)
    assert made.exit_code == 0, made.output
    return Bundle(folder / "clicks")


def test_a_click_bundle(folder: Path, paint: Bundle) -> None:
    write_toy(folder / "whole", golden=[golden(paint)])
    result = invoke(package.main, "whole", "--out", "clicks", *ENGINE)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[:4])
    assert lines["clicks"].startswith("clicks: ")
    assert lines["holds"] == "click in fp32"
    assert lines["without"] == "image"
    assert lines["golden"].startswith("1 pictures as features, without pixels")
    assert "mmms-package whole --image PHOTO --out NAME.features" in result.stdout
    assert "random" in result.stderr, "its toy weights"
    assert "licence of the weights is not stated" in result.stderr
    assert invoke(package.main, "whole", "--out", "clicks").exit_code == 1
    assert invoke(package.main, "whole", "--out", "clicks", "--overwrite", "--precision", "fp32").exit_code == 0
    refused = invoke(package.main, "whole", "--out", "half", "--precision", "fp16")
    assert (refused.exit_code, (folder / "half").exists()) == (1, False)
    assert "leave --precision out" in refused.stderr


def test_the_features_of_an_image(folder: Path, modal: Bundle) -> None:
    np.save("depth.npy", np.random.default_rng(1).random(SIZE) * 9)
    np.save("event.npy", np.random.default_rng(2).random((*SIZE, 3)))
    given = ("--modality", "depth=depth.npy", "--modality", "event=event.npy", *ENGINE)
    result = invoke(package.main, modal.path, "--image", "photo.png", *given, "--out", "photo.features")
    assert result.exit_code == 0, result.output
    assert "photo.png (70 x 50)" in result.stdout
    assert "depth, event: in the features, and not in the file" in result.stdout
    assert set(load_file("photo.features")) == {"fused", "image_png"}
    features = Features.load("photo.features")
    assert (features.bundle, features.present) == (modal.manifest.digest, {"depth", "event"})
    np.testing.assert_array_equal(features.picture, PIXELS)
    with Session(modal, engine="onnxruntime") as session:
        session.set_image("photo.png", depth="depth.npy", event="event.npy")
        assert session.features.key == features.key
        np.testing.assert_array_equal(session.features.arrays["fused"], features.arrays["fused"])
    assert invoke(package.main, modal.path, "--image", "photo.png", *given, "--out", "photo.features").exit_code == 1
    missing = invoke(package.main, modal.path, "--image", "photo.png", "--out", "more.features", *ENGINE)
    assert (missing.exit_code, Path("more.features").exists()) == (1, False)
    assert "--modality depth=FILE --modality event=FILE" in missing.stderr


def test_the_features_of_a_provider(folder: Path) -> None:
    write_toy(folder / "whole", three_stages=True, black_box=True)
    save_features("backbone.npz", {"f1": np.full((1, 1, 1, 1), 0.3, np.float32)}, SIZE)
    options = ("--image", "photo.png", "--features", "backbone.npz", "--out", "photo.features", *ENGINE)
    result = invoke(package.main, "whole", *options)
    assert result.exit_code == 0, result.output
    features = Features.load("photo.features")
    np.testing.assert_array_equal(features.picture, PIXELS)
    assert (set(features.parts), features.file_name) == ({"f1"}, "photo.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["whole"], "Missing option '--out'"),
        (["whole", "--out", "x", "--modality", "depth=depth.npy"], "pass --image FILE"),
        (["whole", "--out", "x", "--features", "backbone.npz"], "pass --image FILE"),
        (["whole", "--out", "x.npz", "--image", "photo.png"], "--out photo.features"),
        (["whole", "--out", "x.features", "--image", "photo.png", "--precision", "fp32,fp16"], "one precision"),
        (["whole", "--out", "x", "--precision", "fp8"], "none of fp32, fp16, bf16"),
        (
            ["whole", "--out", "x.features", "--image", "photo.png", "--modality", "a=b", "--modality", "a=c"],
            "names one modality twice",
        ),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], said: str) -> None:
    write_toy(folder / "whole")
    result = invoke(package.main, *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["other.png", "photo.png", "whole"]


def test_a_folder_and_a_missing_image_are_refused(folder: Path) -> None:
    write_toy(folder / "whole")
    for image, said in ((".", "is a folder"), ("absent.png", "absent.png")):
        result = invoke(package.main, "whole", "--image", image, "--out", "x.features")
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr


def test_a_click_bundle_has_nothing_to_give(packed: Bundle) -> None:
    again = invoke(package.main, "clicks", "--out", "again")
    assert (again.exit_code, "is a click bundle already" in again.stderr) == (1, True)
    image = invoke(package.main, "clicks", "--image", "photo.png", "--out", "x.features")
    assert (image.exit_code, "name the bundle that it was made of" in image.stderr) == (1, True)


def test_it_can_be_verified(packed: Bundle) -> None:
    result = invoke(verify.main, "clicks", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "smallest IoU 1.0000" in result.stdout


def test_masks_are_those_of_the_whole_bundle(packed: Bundle) -> None:
    options = ("--pos", "20,20", "--neg", "50,30", "--out")
    for bundle, features, out in (
        ("clicks", ("--features", "photo.features"), "a.png"),
        ("whole", ("--features", "photo.features"), "b.png"),
        ("whole", (), "c.png"),
    ):
        result = invoke(segment.main, bundle, "photo.png", *features, *options, out, *ENGINE)
        assert result.exit_code == 0, result.output
    masks = [load_rgb(name) for name in ("a.png", "b.png", "c.png")]
    assert masks[0].any()
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(masks[1], masks[2])


def test_a_folder_of_features(packed: Bundle) -> None:
    Path("encoded").mkdir()
    for name in ("photo", "other"):
        made = invoke(package.main, "whole", "--image", f"{name}.png", "--out", f"encoded/{name}.features", *ENGINE)
        assert made.exit_code == 0, made.output
    result = invoke(
        segment.main, "clicks", "photo.png", "other.png", "--features", "encoded", "--coco", "all.json", *ENGINE
    )
    assert result.exit_code == 0, result.output
    assert [one["file_name"] for one in json.loads(Path("all.json").read_text())["images"]] == [
        "photo.png",
        "other.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clicks", "photo.png"], "pass --features FILE"),
        (["clicks", "photo.png", "--features", "backbone.npz"], "takes no backbone's features"),
        (["clicks", "other.png", "--features", "photo.features"], "the features of another image than other.png"),
        (["clicks", "photo.png", "--features", "photo.features", "--zoom"], "leave out --zoom"),
        (
            ["clicks", "photo.png", "--features", "photo.features", "--modality", "depth=photo.png"],
            "leave out --modality",
        ),
        (["other", "photo.png", "--features", "photo.features"], "belong to another bundle"),
    ],
)
def test_what_cannot_be_segmented_is_refused_by_name(packed: Bundle, arguments: list[str], said: str) -> None:
    write_toy(packed.path.parent / "other", echo=True)
    save_features("backbone.npz", {"f1": np.zeros((1, 1, 1, 1), np.float32)}, SIZE)
    result = invoke(segment.main, *arguments, "--out", "mask.png", *ENGINE)
    assert (result.exit_code, said in result.stderr) == (1, True), result.output
    assert not Path("mask.png").exists()


def test_commands_that_encode_images_refuse_it_by_name(packed: Bundle) -> None:
    for command, arguments in (
        (demo.main, ("clicks", "--no-open", "--port", "0")),
        (demo.main, ("clicks", "photo.png", "--no-open", "--port", "0")),
        (demo.main, ("clicks", "--static", "site", "--image", "photo.png")),
        (bench.main, ("clicks",)),
        (evaluate.main, ("clicks", "--limit", "1", "--out", "results")),
    ):
        result = invoke(command, *arguments)
        assert result.exit_code == 1, result.output
        assert "is a click bundle" in result.stderr
    assert not Path("site").exists()

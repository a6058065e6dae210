from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.commands.segment import main
from mmms_deploy.engines import select
from mmms_deploy.session.backbone_features import save_features
from tests.support.invoke import invoke
from tests.support.toy import write_toy


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    Image.fromarray(np.full((100, 150, 3), 51, dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "mask.png"


def segment(*args: object) -> Result:
    return invoke(main, *args)


def mask_of(file: Path) -> np.ndarray:
    with Image.open(file) as mask:
        assert mask.mode == "L"
        array = np.asarray(mask)
    assert set(np.unique(array)) <= {0, 255}
    return array > 0


def test_mask_overlay_and_report(paint: Bundle, image: Path, out: Path) -> None:
    overlay = out.with_name("overlay.jpg")
    result = segment(paint.path, image, "--pos", "30,20", "--neg", "100.5,60", "--out", out, "--overlay", overlay)
    assert result.exit_code == 0, result.output
    with Session(paint) as session:
        session.set_image(image)
        first = session.click(30, 20).mask.sum()
        mask = session.click(100.5, 60, False).mask
    np.testing.assert_array_equal(mask_of(out), mask)
    with Image.open(overlay) as picture:
        assert picture.size == (150, 100)
    assert f"image    {image} (150 x 100)" in result.stdout
    assert re.search(r"engine   OpenVINO \S+ on cpu, fp32", result.stdout)
    assert "the first engine in fp32; nothing was measured here yet" in result.stdout
    assert re.search(rf"click 1  \+ \(30, 20\)  [\d.]+ ms .*mask {first} px", result.stdout)
    assert re.search(r"click 2  - \(100.5, 60\)", result.stdout)
    assert str(out) in result.stdout
    assert str(overlay) in result.stdout
    assert "weights of" in result.stderr, "random weights are said aloud"
    assert sorted(p.name for p in out.parent.iterdir()) == ["image.png", "mask.png", "overlay.jpg"]


@pytest.mark.parametrize(
    "order", [("--pos", "--neg", "--pos"), ("--neg", "--pos", "--neg"), ("--neg", "--neg", "--pos")], ids=" ".join
)
def test_clicks_are_taken_in_the_order_given(paint: Bundle, image: Path, out: Path, order: tuple[str, ...]) -> None:
    places = ("30,20", "32,24", "28,22")
    arguments = [part for option, place in zip(order, places, strict=True) for part in (option, place)]
    result = segment(*arguments, "--out", out, paint.path, image)
    assert result.exit_code == 0, result.output
    reported = re.findall(r"click \d+ +([+-]) \((\d+), (\d+)\)", result.stdout)
    assert [("--pos" if sign == "+" else "--neg", f"{x},{y}") for sign, x, y in reported] == list(
        zip(order, places, strict=True)
    )


def test_brackets_in_names_are_no_markup(paint: Bundle, image: Path, tmp_path: Path) -> None:
    odd = image.rename(tmp_path / "photo [bold] [1].png")
    out = tmp_path / "[red]mask.png"
    result = segment(paint.path, odd, "--pos", "1,2", "--out", out)
    assert str(odd) in result.stdout
    assert str(out) in result.stdout


def test_options_may_be_joined(paint: Bundle, image: Path, out: Path) -> None:
    result = segment(paint.path, image, "--neg=3,4", "--pos=1,2", "--neg=-0.5,-0.5", "--out", out)
    assert re.findall(r"([+-]) \((\S+), (\S+)\)", result.stdout) == [
        ("-", "3", "4"),
        ("+", "1", "2"),
        ("-", "-0.5", "-0.5"),
    ]


def test_modalities(modal: Bundle, image: Path, out: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((100, 150), 20, dtype=np.uint16)).save(tmp_path / "depth.png")
    np.save(tmp_path / "event.npy", np.zeros((100, 150, 3)))
    common = (modal.path, image, "--pos", "3,4", "--out", out)
    depth, event = f"depth={tmp_path / 'depth.png'}", f"event={tmp_path / 'event.npy'}"
    result = segment(*common, "--modality", depth, "--modality", event)
    assert result.exit_code == 0, result.output
    result = segment(*common, "--overwrite", "--modality", depth)
    assert result.exit_code == 1
    assert "missing: event" in result.stderr
    assert segment(*common, "--modality", "depth").exit_code == 2
    result = segment(*common, "--modality", depth, "--modality", depth)
    assert result.exit_code == 2
    assert "twice" in result.stderr


def test_features_from_a_provider(image: Path, out: Path, tmp_path: Path) -> None:
    box = write_toy(tmp_path / "box", black_box=True)
    save_features(tmp_path / "features.npz", {"f1": np.full((1, 1, 1, 1), 0.2, np.float32)})
    result = segment(box.path, image, "--features", tmp_path / "features.npz", "--pos", "30,20", "--out", out)
    assert result.exit_code == 0, result.output
    with Session(box) as session:
        session.set_features(tmp_path / "features.npz", (100, 150))
        np.testing.assert_array_equal(mask_of(out), session.click(30, 20).mask)
    result = segment(box.path, image, "--pos", "30,20", "--out", out, "--overwrite")
    assert result.exit_code == 1
    assert "--features FILE" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--object", "cat", "--out", "mask.png"], "--object cat has no click"),
        (["--object", "cat", "--object", "dog", "--pos", "1,2"], "--object cat has no click"),
        (["--object", " ", "--pos", "1,2"], "the text is empty"),
        (["--object", "a", "--pos", "1,2", "--object", "b", "--pos", "3,4", "--out", "m.png"], "--labels FILE"),
        (["--pos", "1,2", "--clicks", "clicks.csv"], "leave out --pos"),
        (["--pos", "1,2", "--labels", "labels.jpg"], "must end in .png"),
        (["--pos", "1,2", "--coco", "coco.txt"], "must end in .json"),
        (["--pos", "1,2", "--polygons", "1"], "--coco, which is missing"),
        (["--pos", "1,2", "--coco", "a.json", "--polygons", "-1"], "is not in the range"),
        (["--pos", "1,2", "--write", "mask"], "did you mean 'masks'?"),
        (["--pos", "1,2", "--skip-existing", "--overwrite"], "pass one"),
        (["--pos", "1,2", "--skip-existing", "--coco", "a.json"], "written for all images"),
        (["b.png", "--pos", "1,2", "--out", "mask.png"], "--out is for one image, and 2 are named"),
        (["--clicks", "a.json", "--coco", "a.json"], "must all be different"),
        (["--pos", "1", "--out", "mask.png"], "'1' is not X,Y"),
        (["--pos", "1,2,3", "--out", "mask.png"], "is not X,Y"),
        (["--pos", "a,b", "--out", "mask.png"], "is not X,Y"),
        (["--pos", "nan,2", "--out", "mask.png"], "finite numbers"),
        (["--pos", "1e999,2", "--out", "mask.png"], "finite numbers"),
        (["--pos", "1,2", "--out", ""], "the path is empty"),
        (["--pos", "1,2", "--out", "mask.jpg"], "must be lossless"),
        (["--pos", "1,2", "--overlay", "picture.xyz"], "must end in"),
        (["--pos", "1,2", "--out", "a.png", "--overlay", "a.png"], "must all be different"),
        (["--pos", "1,2", "--out", "IMAGE", "--overwrite"], "must all be different"),
        (["--pos", "1,2", "--out", "mask.png", "--threads", "0"], "0 is not in the range"),
        (["--pos", "1,2", "--out", "mask.png", "--nonsense"], "No such option"),
    ],
)
def test_usage_errors(paint: Bundle, image: Path, arguments: list[str], message: str) -> None:
    with_image = [str(image) if argument == "IMAGE" else argument for argument in arguments]
    result = segment(paint.path, image, *with_image)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_user_errors(paint: Bundle, image: Path, out: Path, tmp_path: Path) -> None:
    cases = {
        "is outside of the image": (paint.path, image, "--pos", "150,2"),
        "no bundle at": (tmp_path / "nothing", image, "--pos", "1,2"),
        "there is no file": (paint.path, tmp_path / "nothing.png", "--pos", "1,2"),
        "CUDA was requested, but": (paint.path, image, "--pos", "1,2", "--device", "cuda"),
    }
    for message, arguments in cases.items():
        result = segment(*arguments, "--out", out)
        assert result.exit_code == 1, result.output
        assert result.stderr.split("error: ", 1)[1].count("\n") <= 3
        assert message in result.stderr
        assert not out.exists()


def test_clicks_are_answered_in_the_crop(paint: Bundle, image: Path, out: Path) -> None:
    Image.fromarray(np.full((400, 600, 3), 51, dtype=np.uint8)).save(image)
    result = segment(paint.path, image, "--pos", "300,200", "--pos", "320,210", "--zoom", "--out", out)
    assert result.exit_code == 0, result.output
    with Session(paint, zoom=True) as session:
        session.set_image(image)
        session.click(300, 200)
        answer = session.click(320, 210)
    np.testing.assert_array_equal(mask_of(out), answer.mask)
    x0, y0, x1, y1 = answer.crop or (0, 0, 0, 0)
    assert x1 - x0 < 600
    first, second = re.findall(r"^click.*$", result.stdout, re.MULTILINE)
    assert "crop" not in first
    assert second.endswith(f"in the crop {x0},{y0} to {x1},{y1}")
    refused = segment(paint.path, image, "--zoom", "--features", image)
    assert refused.exit_code != 0


def test_each_click_says_what_it_did_to_the_mask(paint: Bundle, image: Path, out: Path) -> None:
    result = segment(paint.path, image, "--pos", "30,20", "--pos", "100,60", "--neg", "30,20", "--out", out)
    areas = [(int(area), int(change)) for area, change in re.findall(r"mask (\d+) px \(([+-]\d+)\)", result.stdout)]
    assert len(areas) == 3
    before = 0
    for area, change in areas:
        assert change == area - before
        before = area


def test_cheap_checks_come_before_an_engine_is_opened(
    paint: Bundle, modal: Bundle, image: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(select, "open_request", opened)
    np.save(image.with_name("depth.npy"), np.ones((100, 150)))
    depth = f"depth={image.with_name('depth.npy')}"
    for message, arguments in {
        "(150.0, 2.0) is outside of the image": (paint.path, image, "--pos", "1,2", "--neg", "150,2"),
        "not known: depht; did you mean 'depth'?": (
            modal.path,
            image,
            "--pos",
            "1,2",
            "--modality",
            f"depht{depth[5:]}",
        ),
        "missing: event": (modal.path, image, "--pos", "1,2", "--modality", depth),
        "leave --modality out": (paint.path, image, "--pos", "1,2", "--modality", depth),
        "modality 'depth': there is no file": (modal.path, image, "--pos", "1,2", "--modality", "depth=nothing.png"),
    }.items():
        result = segment(*arguments, "--out", out)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert result.stdout == ""


def test_existing_outputs_are_kept(paint: Bundle, image: Path, out: Path) -> None:
    out.write_text("mine")
    result = segment(paint.path, image, "--pos", "1,2", "--out", out)
    assert result.exit_code == 1
    assert f"{out} exists" in result.stderr
    assert "--overwrite" in result.stderr
    assert out.read_text() == "mine"
    other_name = out.with_name("other.txt")
    os.link(out, other_name)
    assert segment(paint.path, image, "--pos", "1,2", "--out", out, "--overwrite").exit_code == 0
    mask_of(out)
    assert other_name.read_text() == "mine", "a new file takes the name; the old one is not written into"


def test_outputs_that_cannot_be_written(paint: Bundle, image: Path, tmp_path: Path) -> None:
    for target, message in ((tmp_path / "no" / "mask.png", "does not exist"), (tmp_path / "folder.png", "is a folder")):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        result = segment(paint.path, image, "--pos", "1,2", "--out", target)
        assert result.exit_code == 1
        assert message in result.stderr
        assert "click 1" not in result.stdout, "found before anything is computed"


def test_disk_full_leaves_nothing(paint: Bundle, image: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = segment(paint.path, image, "--pos", "1,2", "--out", out, "--overwrite")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert out.read_text() == "old"
    assert sorted(p.name for p in out.parent.iterdir()) == ["image.png", "mask.png"]


def test_a_bundle_with_a_changed_byte(copy: Path, image: Path, out: Path) -> None:
    file = copy / "click.fp32.onnx"
    raw = bytearray(file.read_bytes())
    raw[40] ^= 1
    file.write_bytes(raw)
    result = segment(copy, image, "--pos", "1,2", "--out", out)
    assert result.exit_code == 1
    assert "SHA-256" in result.stderr


def test_help() -> None:
    for option in ("-h", "--help"):
        result = segment(option)
        assert result.exit_code == 0
        for text in (
            "--pos X,Y",
            "--modality NAME=PATH",
            "in the order in which they are given",
            "mmms-segment demo photo.jpg",
            "image,object,x,y,positive",
        ):
            assert text in " ".join(result.stdout.split())
    assert "0.1.0" in segment("--version").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_interrupt(image: Path, tmp_path: Path) -> None:
    """Ctrl-C in the real command: exit code 130, no traceback, no half written file."""
    bundle = write_toy(tmp_path / "large", size=(1600, 1600), radius=50)
    clicks = [argument for _ in range(4000) for argument in ("--pos", "30,20")]
    command = [sys.executable, "-m", "mmms_deploy.commands.segment", str(bundle.path), str(image), *clicks]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "mask.png")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    while "click 1" not in process.stdout.readline():
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "mask.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the memory")
@pytest.mark.parametrize("orientation", [1, 6])
def test_108_megapixels_with_an_overlay_take_less_than_a_gigabyte(
    paint: Bundle, tmp_path: Path, orientation: int
) -> None:
    file, out, overlay = (tmp_path / name for name in ("large.jpg", "mask.png", "overlay.jpg"))
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    small.resize((12000, 9000), Image.Resampling.BICUBIC).save(file, quality=85, exif=exif)
    code = (
        "import re; from mmms_deploy.commands.segment import main\n"
        "try: main()\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "finally: print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read()).group(1))"
    )
    given = [str(paint.path), str(file), "--pos", "4000,4500", "--out", str(out), "--overlay", str(overlay)]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 1_000_000
    assert "Warning" not in done.stderr

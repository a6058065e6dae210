"""The same mistake is named in the same way and has the same exit code in every command: 2 when the command line alone
shows it, 1 when it takes a look at files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, __version__
from mmms_deploy.bundle.packed import packed_checkpoint
from mmms_deploy.commands import bench, build, doctor, export, segment, train, verify
from mmms_deploy.commands import eval as eval_command
from tests.support.invoke import invoke

COMMANDS: dict[str, click.Command] = {
    "segment": segment.main,
    "verify": verify.main,
    "eval": eval_command.main,
    "build": build.main,
    "bench": bench.main,
    "export": export.main,
    "train": train.main,
    "doctor": doctor.main,
}
WITH_BUNDLE: dict[str, list[object]] = {
    "segment": ["photo.png", "--pos", "1,2", "--out", "mask.png"],
    "verify": [],
    "eval": ["--dataset", "folder=data"],
    "build": [],
    "bench": [],
}
WITH_ENGINE = ("segment", "verify", "eval", "bench")
WITHOUT_BUNDLE: dict[str, list[object]] = {
    "export": ["--ckpt", "demo"],
    "train": ["data", "--start", "demo", "--out", "run"],
    "doctor": [],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paint: Bundle) -> Path:
    """A folder as a user has it: bundles, checkpoints, pictures, a data set."""
    monkeypatch.chdir(tmp_path)
    for name in ("bundles", "data/images", "data/masks", "empty-folder"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bundles" / "toy").symlink_to(paint.path)
    picture = Image.fromarray(np.full((20, 30, 3), 51, np.uint8))
    for name in ("photo.png", "data/images/0.png"):
        picture.save(tmp_path / name)
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(tmp_path / "data" / "masks" / "0.png")
    (tmp_path / "net.safetensors").symlink_to(packed_checkpoint("demo-small"))
    (tmp_path / "lost.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Sign in</html>")
    (tmp_path / "other.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    (tmp_path / "empty").touch()
    (tmp_path / "clicks.csv").write_text("image,x,y\nphoto.png,1,2\n")
    (tmp_path / "clicks.json").write_text('{"photo.png": [[1, 2]]}')
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as archive:
        archive.writestr("toy/bundle.json", "{}")
    return tmp_path


def arguments(command: str, bundle: object = "bundles/toy", *more: object) -> list[object]:
    if command in WITHOUT_BUNDLE:
        return [*WITHOUT_BUNDLE[command], *more]
    return [bundle, *WITH_BUNDLE[command], *more]


def check(command: str, line: list[object], code: int, *words: str) -> None:
    result = invoke(COMMANDS[command], *line)
    assert result.exit_code == code, result.output
    said = " ".join(result.stderr.split())
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert result.stdout == ""
    assert ("error: " in said) is (code == 1)
    assert ("Usage: " in said) is (code == 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_same_help_and_version(command: str) -> None:
    texts = [invoke(COMMANDS[command], option) for option in ("-h", "--help")]
    assert [result.exit_code for result in texts] == [0, 0]
    assert texts[0].stdout == texts[1].stdout
    assert "-h, --help" in texts[0].stdout
    assert __version__ in invoke(COMMANDS[command], "--version").stdout


def test_the_rewrites_stand_in_two_columns() -> None:
    from mmms_deploy.export.rewrites import REWRITES

    shown = invoke(COMMANDS["export"], "--help").stdout
    _, _, table = shown.partition("Exact rewrites, for --no-rewrite:\n")
    lines = table.partition("\n\n")[0].splitlines()
    column = max(len(one.name) for one in REWRITES) + 6
    assert all(line[column] != " " and line[column - 1] == " " for line in lines)
    rows: list[tuple[str, list[str]]] = []
    for line in lines:
        if name := line[:column].strip():
            rows.append((name, []))
        rows[-1][1].append(line[column:])
    assert [(name, " ".join(parts)) for name, parts in rows] == [(one.name, one.description) for one in REWRITES]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option(command: str) -> None:
    check(command, arguments(command, "bundles/toy", "--versoin"), 2, "--version")


@pytest.mark.parametrize("command", WITH_BUNDLE)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nothing", "no bundle at nothing"),
        ("tyo", "did you mean bundles/toy?"),
        ("bundles/demo", "name it 'demo': it ships with mmms-deploy"),
        ("dmeo", "did you mean 'demo', which ships with mmms-deploy?"),
        ("demo-thermal", "mmms-export --ckpt demo-thermal makes bundles/demo-thermal of it"),
        ("photo.png", "photo.png is a picture, not a bundle"),
        ("net.safetensors", "is a checkpoint, not a bundle"),
        ("net.safetensors", "mmms-export --ckpt net.safetensors"),
        ("lost.pth", "git lfs pull"),
        ("page.pth", "is a web page"),
        ("other.onnx", "is an ONNX graph"),
        ("bundles/toy/bundle.json", "is the manifest of the bundle bundles/toy, not a bundle"),
        ("bundles/toy/click.fp32.onnx", "name its folder, bundles/toy"),
        ("toy.zip", "unpack it"),
        ("bundles", "is a folder of bundles, not a bundle"),
        ("bundles", "name one of them: bundles/toy"),
        ("data", "mmms-eval BUNDLE --dataset KIND=data"),
        ("empty", "is an empty file"),
        ("empty-folder", "is an empty folder"),
        ("/dev/null", "no regular file"),
    ],
)
def test_something_else_in_the_place_of_the_bundle(command: str, given: str, words: str) -> None:
    check(command, arguments(command, given), 1, words)


@pytest.mark.parametrize("command", WITH_BUNDLE)
def test_a_path_that_cannot_be_one(command: str) -> None:
    check(command, arguments(command, ""), 2, "the path is empty")
    check(command, arguments(command, "a\0b"), 2, "NUL")
    check(command, arguments(command, "\udcff"), 1, "no bundle at \\udcff")


@pytest.mark.parametrize("command", WITH_ENGINE)
@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--threads", "abc"), "'abc' is no whole number"),
        (("--threads", "0"), "0 is not in the range"),
        (("--engine", ""), "the text is empty"),
        (("--device", " "), "the text is empty"),
    ],
    ids=str,
)
def test_nonsense_for_the_engine(command: str, option: tuple[str, str], words: str) -> None:
    check(command, arguments(command, "bundles/toy", *option), 2, words, option[0])


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        ("eval", ("--protocol", "nco"), "did you mean 'noc'?"),
        ("eval", ("--threshold", "nan"), "no finite number"),
        ("eval", ("--dataset", "foldr=data"), "did you mean 'folder'?"),
        ("eval", ("--dataset", "davis=data:splt=val"), "did you mean 'split'?"),
        ("eval", ("--dataset", "deliver=data:split=vall"), "did you mean 'val'?"),
        ("eval", ("--dataset", "data"), "KIND=PATH"),
        ("verify", ("--limit", "nan"), "no finite number"),
        ("verify", ("--limit", "x"), "no finite number"),
        ("build", ("--precision", "fp61"), "did you mean 'fp16'?"),
        ("build", ("--workspace", "0"), "is no size"),
        ("bench", ("--sweep", "thread"), "did you mean 'threads'?"),
        ("export", ("--precision", "fp61"), "did you mean 'fp16'?"),
        ("export", ("--cut", "blackbox"), "did you mean 'black-box'?"),
        ("export", ("--no-rewrite", "fold_haed"), "did you mean 'fold_head'?"),
        ("export", ("--size", "0"), "is no size"),
        ("export", ("--size", "9" * 5000), "is no size"),
        ("export", ("--modality", "depth:0"), "is no modality"),
        ("export", ("--gate", "noc", "--gate-data", "foldr=data"), "did you mean 'folder'?"),
        ("export", ("--gate", "noc", "--gate-data", "folder=data:imags=x"), "did you mean 'images'?"),
        ("segment", ("--pos", "1"), "is not X,Y"),
        ("segment", ("--pos", "inf,1"), "finite"),
        ("segment", ("--modality", "depth"), "is not NAME=PATH"),
        ("segment", ("--write", "label"), "did you mean 'labels'?"),
        ("segment", ("--polygons", "nan"), "no finite number"),
    ],
)
def test_nonsense_for_an_option(command: str, option: tuple[str, ...], words: str) -> None:
    result = invoke(COMMANDS[command], *arguments(command, "bundles/toy", *option))
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Usage: " in result.stderr


def test_a_recipe_that_was_meant() -> None:
    check("bench", ["--recipe", "dmeo"], 2, "did you mean 'demo'?")


def test_bundle_and_image_in_the_wrong_order() -> None:
    line: list[object] = ["photo.png", "bundles/toy", "--pos", "1,2", "--out", "mask.png"]
    check("segment", line, 1, "in the wrong order: photo.png is a picture", "mmms-segment bundles/toy photo.png")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("phot.png", "did you mean photo.png?"),
        ("bundles/toy", "is a bundle"),
        ("data", "pass --recursive"),
        ("empty-folder", "is an empty folder"),
        ("clicks.json", "--clicks clicks.json"),
        ("clicks.csv", "--clicks clicks.csv"),
        ("net.safetensors", "is a checkpoint"),
        ("empty", "is an empty file"),
        ("/dev/zero", "no regular file"),
        ("toy.zip", "is an archive with a bundle in it"),
    ],
)
def test_something_else_in_the_place_of_the_image(given: str, words: str) -> None:
    check("segment", ["bundles/toy", given, "--pos", "1,2", "--out", "mask.png"], 1, words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("demo-thermla", "did you mean --ckpt demo-thermal"),
        ("net.safetensor", "did you mean net.safetensors?"),
        ("bundles/toy", "it is exported already: mmms-segment bundles/toy IMAGE"),
        ("bundles/toy/click.fp32.onnx", "bundles/toy is exported already"),
        ("other.onnx", "is an ONNX graph, not a checkpoint"),
        ("photo.png", "is a picture, not a checkpoint"),
        ("lost.pth", "git lfs pull"),
        ("page.pth", "is a web page, not a checkpoint"),
        (".", "name one file in it, such as lost.pth"),
        ("empty", "is an empty file"),
    ],
)
def test_something_else_in_the_place_of_a_checkpoint(given: str, words: str) -> None:
    check("export", ["--ckpt", given], 1, words)
    against = words.replace("--ckpt demo-thermal", "--against torch:demo-thermal")
    line = arguments("eval", "bundles/toy", "--against", f"torch:{given}")
    check("eval", line, 1, against)


def test_a_set_of_weights_in_a_checkpoint_is_no_other_file() -> None:
    eval_command._check_against("torch:net.safetensors#ema")
    line = arguments("eval", "bundles/toy", "--against", "torch:net.safetensor#ema")
    check("eval", line, 1, "did you mean net.safetensors?")


def test_something_else_in_other_places() -> None:
    check("export", ["--ckpt", "demo", "--description", "net.safetensors"], 1, "--ckpt net.safetensors")
    check("export", ["--ckpt", "demo", "--backbone-ckpt", "photo.png"], 1, "is a picture, not a checkpoint")
    for given, words in {
        "photo.png": "is a picture, not a list of clicks",
        "bundles/toy": "is a bundle, not a list of clicks",
        "nothing.csv": "no list of clicks at nothing.csv",
        "empty": "it is empty",
    }.items():
        check("segment", ["bundles/toy", "photo.png", "--clicks", given], 1, words)
    check("segment", ["bundles/toy"], 2, "mmms-segment demo photo.jpg")
    check("eval", ["bundles/toy", "--dataset", "folder=bundles/toy"], 1, "is a bundle, not a data set")
    check("eval", ["bundles/toy", "--dataset", "folder=photo.png"], 1, "is a picture, not a data set")
    check("eval", ["--replay", "bundles/toy", "x"], 1, "there is a bundle at bundles/toy")
    check("bench", ["--load", "photo.png"], 1, "is a picture, not results of mmms-bench")
    check("bench", ["bundles/toy", "--compare", "bundles/toy"], 1, "measure it first")


def test_outputs_are_checked_before_anything_else_is_opened(folder: Path) -> None:
    (folder / "file").touch()
    check("segment", arguments("segment", "bundles/toy", "--overlay", "no/x.png"), 1, "mkdir -p no")
    check("eval", arguments("eval", "bundles/toy", "--out", "file"), 1, "file is a file")
    check("build", arguments("build", "bundles/toy", "--json", "no/x.json"), 1, "mkdir -p no")
    check("bench", arguments("bench", "bundles/toy", "--html", "no/x.html"), 1, "mkdir -p no")
    check("export", ["--ckpt", "demo", "--out", "bundles/toy"], 1, "pass --overwrite")
    check("export", ["--ckpt", "net.safetensors", "--out", "data", "--overwrite"], 1, "is no bundle")
    check("export", ["--ckpt", "demo", "--out", "file/x"], 1, "is a file")

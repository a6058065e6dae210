"""mmms-eval on toy bundles: options, files, continuing, comparing, replaying."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.bundle.protocol import RITM_FAMILY
from mmms_deploy.commands.eval import main
from tests.support.invoke import invoke
from tests.support.scenes import scene
from tests.support.toy import write_toy


def evaluate(*arguments: object):
    return invoke(main, *arguments, "--engine", "onnxruntime")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four images with two objects and a depth map each."""
    root = tmp_path_factory.mktemp("data")
    for name in ("images", "masks", "depth"):
        (root / name).mkdir()
    for index in range(4):
        one = scene(index)
        labels = np.zeros(one.image.shape[:2], np.uint8)
        for value, surface in enumerate(one.surfaces, start=1):
            labels[surface.mask] = value
        Image.fromarray(one.image).save(root / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "masks" / f"{index}.png")
        Image.fromarray(np.full(labels.shape, 40, np.uint8)).save(root / "depth" / f"{index}.png")
    return root


@pytest.fixture
def base(paint: Bundle, data: Path, tmp_path: Path) -> list[object]:
    return [
        paint.path,
        "--dataset",
        f"folder={data}:name=ellipses:modalities=none",
        "--out",
        tmp_path / "out",
        "--max-clicks",
        5,
    ]


def test_the_files_and_the_table(base, tmp_path: Path) -> None:
    result = evaluate(*base, "--target", 60, "--target", "0.8", "--parquet", "--multi-surface", "80,70")
    assert result.exit_code == 0, result.output
    for text in ("ONNX Runtime", "ellipses", "NoC@60", "NoC@80", "NoCMS@(80, 70)", "FRMS@(80, 70)", "report.html"):
        assert text in result.stdout
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == {
        "objects.csv",
        "objects.parquet",
        "report.html",
        "scenes.jsonl",
        "settings.json",
        "summary.json",
    }
    scenes = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    with (out / "objects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    first = scenes[0]["objects"][0]
    assert rows[0]["case"] == f"ellipses:{scenes[0]['scene']}:{first['name']}"
    assert [float(rows[0][f"iou_{k:02}"]) for k in range(1, 6)] == first["ious"]
    assert rows[0]["points"].split()[0] == "{},{},+".format(*first["clicks"][0])
    (summary,) = json.loads((out / "summary.json").read_text())["datasets"]
    assert summary["targets"][0]["noc"] == np.mean([int(row["noc_60"]) for row in rows])
    assert summary["multi_surface"][0]["surfaces"] == 8
    parquet = pytest.importorskip("pyarrow.parquet").read_table(out / "objects.parquet")
    assert parquet.num_rows == 8
    assert parquet.column("noc_60").to_pylist() == [int(row["noc_60"]) for row in rows]


def test_without_a_data_set_scenes_are_drawn(paint: Bundle, tmp_path: Path, monkeypatch) -> None:
    """And none of the libraries of [eval] is needed."""
    for library in ("cv2", "scipy", "pycocotools"):
        monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.chdir(tmp_path)
    result = evaluate(paint.path, "--limit", 2, "--max-clicks", 2, "--out", "out")
    assert result.exit_code == 0, result.output
    assert "no data set was given, so drawn=20 is taken" in result.stderr
    assert "they say nothing about photographs" in " ".join(result.stderr.split())
    assert "they say nothing about photographs" in (tmp_path / "out" / "report.html").read_text()
    case = json.loads((tmp_path / "out" / "scenes.jsonl").read_text().splitlines()[0])
    name = f"drawn:{case['scene']}:{case['objects'][0]['name']}"
    assert evaluate("--replay", "out", name).exit_code == 0


def test_the_report_stands_by_itself(base, tmp_path: Path) -> None:
    assert evaluate(*base, "--worst", 2).exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    ElementTree.fromstring(page.partition("\n")[2])  # well-formed
    for outside in ("http://", "https://", "<script", 'src="/', "@import", "url("):
        assert outside not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/jpeg;base64,") == 2 * 3
    assert "random" in page, "the page says that its measures mean nothing"
    assert page.count("mmms-eval --replay") == 2


def test_a_run_goes_on_and_another_one_is_refused(base, tmp_path: Path) -> None:
    assert evaluate(*base, "--limit", 2).exit_code == 0
    scenes = tmp_path / "out" / "scenes.jsonl"
    before = scenes.read_bytes()
    assert evaluate(*base).exit_code == 0
    assert scenes.read_bytes().startswith(before)
    assert len(scenes.read_text().splitlines()) == 4
    for changed, message in ((["--flip"], "flip"), (["--target", "75"], "targets"), (["--threshold", "0.6"], "0.6")):
        result = evaluate(*base, *changed)
        assert result.exit_code == 1
        assert "another evaluation" in result.stderr
        assert message in result.stderr
        assert all(line.count(" was ") == 1 for line in result.stderr.splitlines() if line.startswith("    "))
    assert evaluate(*base, "--flip", "--fresh").exit_code == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["predictor"]["options"]["flip"] == ""


def test_every_data_set_has_a_default_folder_of_its_own(
    paint: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moved").symlink_to(data)
    one, other, twin = (
        (tmp_path / "moved", "modalities=none"),
        (data, "name=other:modalities=none"),
        (tmp_path / "twin", "modalities=none"),
    )
    for folder in ("images", "masks"):
        (tmp_path / "twin" / folder).mkdir(parents=True)
        for file in (data / folder).iterdir():
            (tmp_path / "twin" / folder / file.name).symlink_to(file)
    lines = [[(data, "modalities=none")], [one], [other], [one, other], [other, one], [twin]]
    for sets in lines:
        given = [part for path, options in sets for part in ("--dataset", f"folder={path}:{options}")]
        assert evaluate(paint.path, *given, "--max-clicks", 1, "--limit", 1).exit_code == 0
    made = sorted(path.name for path in (tmp_path / "evaluations" / "paint").iterdir())
    assert [re.sub("-[0-9a-f]{6}$", "", name) for name in made] == ["folder+other", "folder", "folder", "other"], made


def test_every_protocol_has_a_default_folder_of_its_own(data: Path, tmp_path: Path, monkeypatch) -> None:
    """So that the published protocol can follow the default one; what stands in one folder is never mixed."""
    monkeypatch.chdir(tmp_path)
    toy = write_toy(tmp_path / "toy", published=RITM_FAMILY)
    line = [toy.path, *_on(data), "--max-clicks", 1, "--limit", 1]
    for protocol in ("curve", "noc", "published"):
        result = evaluate(*line, "--protocol", protocol)
        assert result.exit_code == 0, result.output
    made = sorted(path.name for path in (tmp_path / "evaluations" / "toy").iterdir())
    assert [re.sub("-[0-9a-f]{6}", "", name) for name in made] == ["ellipses", "ellipses-noc", "ellipses-published"]
    assert len({re.sub("^ellipses-([0-9a-f]{6}).*$", r"\1", name) for name in made}) == 1


def test_options_by_which_results_differ_have_a_default_folder_of_their_own(
    paint: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = [paint.path, *_on(data), "--limit", 1]

    def folders(*options: object) -> int:
        result = evaluate(*line, *options)
        assert result.exit_code == 0, result.output
        return len(list((tmp_path / "evaluations" / "paint").iterdir()))

    assert folders() == 1
    assert folders("--device", "auto", "--max-clicks", 20, "--worst", 3, "--every", 2, "--workers", 2) == 1
    others = (["--flip"], ["--against", paint.path], ["--max-clicks", 3], ["--threshold", 0.6])
    for number, options in enumerate(others, start=2):
        assert folders(*options) == folders(*options) == number


def test_another_bundle_is_refused(base, data: Path, tmp_path: Path) -> None:
    assert evaluate(*base, "--limit", 1).exit_code == 0
    other = write_toy(tmp_path / "other", radius=9)
    result = evaluate(other.path, *base[1:])
    assert result.exit_code == 1
    assert "predictor identity was" in result.stderr


def test_workers_change_nothing_but_times(base, tmp_path: Path) -> None:
    def plain(folder: Path) -> list:
        scenes = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
        for one in scenes:
            one["image_seconds"] = 0
            for found in one["objects"]:
                found["predict_seconds"] = found["simulate_seconds"] = 0
        return sorted(scenes, key=lambda one: one["index"])

    assert evaluate(*base, "--flip").exit_code == 0
    base[base.index("--out") + 1] = tmp_path / "three"
    assert evaluate(*base, "--flip", "--workers", 3).exit_code == 0
    assert plain(tmp_path / "three") == plain(tmp_path / "out")


def test_against_the_same_bundle_finds_no_difference(base, tmp_path: Path) -> None:
    result = evaluate(*base, "--against", base[0], "--against-engine", "onnxruntime")
    assert result.exit_code == 0, result.output
    assert "8 of 8 objects the same to the last pixel" in result.stdout
    assert "no difference seen: both need the same number of clicks on every object" in result.stdout
    (summary,) = json.loads((tmp_path / "out" / "summary.json").read_text())["datasets"]
    assert summary["comparison"]["differences"][0]["visible"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "8 of 8 objects have the same masks" in page
    with (tmp_path / "out" / "objects.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert row["other_noc_90"] == row["noc_90"]
    assert row["agreement_01"] == "1.0"


def test_against_another_bundle_lists_what_differs(base, tmp_path: Path) -> None:
    other = write_toy(tmp_path / "larger", radius=9)
    result = evaluate(*base, "--against", other.path, "--target", 40)
    assert result.exit_code == 0, result.output
    assert "NoC@40" in result.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Objects that differ most" in page
    ElementTree.fromstring(page.partition("\n")[2])


def test_several_data_sets_are_shown_side_by_side(base, data: Path) -> None:
    result = evaluate(*base, "--dataset", f"folder={data}:name=again:modalities=none", "--limit", 1)
    assert result.exit_code == 0, result.output
    assert "ellipses" in result.stdout
    assert "again" in result.stdout
    result = evaluate(*base, "--dataset", f"folder={data}:name=ellipses:modalities=none", "--fresh")
    assert result.exit_code == 2
    assert "names 2 data sets 'ellipses'; name each with KIND=PATH:name=NAME" in result.stderr


def test_the_multi_instance_task(base) -> None:
    result = evaluate(*base, "--multi-instance", 85, "--instance-clicks", 2, "--limit", 2)
    assert result.exit_code == 0, result.output
    for text in ("NCI@85", "NFO@85", "NFI@85"):
        assert text in result.stdout


# --- modalities -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_depth(tmp_path_factory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("bundle") / "with-depth", modalities=(ModalitySpec(name="depth"),))


def test_modalities_that_a_bundle_does_not_take_are_ignored_with_a_warning(base, data: Path, tmp_path: Path) -> None:
    base[2] = f"folder={data}:name=ellipses:modalities=depth"
    result = evaluate(*base, "--limit", 1)
    assert result.exit_code == 0, result.output
    assert "warning: depth of ellipses is ignored" in result.stderr
    assert "depth of ellipses is ignored" in (tmp_path / "out" / "report.html").read_text()


def test_a_missing_modality_is_an_error_before_anything_runs(base, with_depth: Bundle, tmp_path: Path) -> None:
    result = evaluate(with_depth.path, *base[1:])
    assert result.exit_code == 1
    assert "needs depth, which the data set 'ellipses' does not have" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_shown_its_modalities(base, with_depth: Bundle, data: Path, tmp_path: Path) -> None:
    base[2] = f"folder={data}:name=ellipses:modalities=depth"
    result = evaluate(with_depth.path, *base[1:], "--limit", 1)
    assert result.exit_code == 0, result.output
    (dataset,) = json.loads((tmp_path / "out" / "settings.json").read_text())["datasets"]
    assert dataset["modalities"] == ["depth"]
    for without, message in (("depth", "cannot answer without it"), ("lidar", "takes no such modality")):
        result = evaluate(with_depth.path, *base[1:], "--without", without, "--fresh")
        assert result.exit_code == 1
        assert message in result.stderr


# --- replaying --------------------------------------------------------------------------------------------------------


def test_a_case_is_replayed(base, tmp_path: Path) -> None:
    assert evaluate(*base, "--flip", "--threshold", "0.4").exit_code == 0
    out = tmp_path / "out"
    one = json.loads((out / "scenes.jsonl").read_text().splitlines()[2])
    result = invoke(main, "--replay", out, f"ellipses:{one['scene']}:{one['objects'][1]['name']}")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("click ") == 5
    assert "was" not in result.stdout, "every IoU is what it was"
    (pictures,) = (out / "replay").iterdir()
    assert sorted(p.name for p in pictures.iterdir()) == ["00-object.png", *(f"0{k}.png" for k in range(1, 6))]
    assert Image.open(pictures / "05.png").size == (60, 40)


def test_cases_that_are_not_there_or_not_alone(base, tmp_path: Path) -> None:
    assert evaluate(*base, "--limit", 1).exit_code == 0
    for name, message in (("nothing", "0 cases have 'nothing'"), ("ellipses", "2 cases have 'ellipses'")):
        result = invoke(main, "--replay", tmp_path / "out", name)
        assert result.exit_code == 1
        assert message in result.stderr
    result = invoke(main, "--replay", tmp_path / "nowhere", "x")
    assert result.exit_code == 1
    assert "results of mmms-eval" in result.stderr


def test_replaying_with_another_bundle_says_so(base, tmp_path: Path) -> None:
    assert evaluate(*base, "--limit", 1).exit_code == 0
    other = write_toy(tmp_path / "other", radius=9)
    name = json.loads((tmp_path / "out" / "scenes.jsonl").read_text())["objects"][0]["name"]
    result = invoke(main, other.path, "--replay", tmp_path / "out", f":{name}")
    assert result.exit_code == 0, result.output
    assert "another bundle" in result.stderr


# --- several answers to one click -------------------------------------------------------------------------------------


def test_the_best_of_several_answers(proposing: Bundle, paint: Bundle, base, tmp_path: Path) -> None:
    out, arguments = tmp_path / "out", [proposing.path, *base[1:], "--limit", 2]
    assert evaluate(*arguments).exit_code == 0
    by_score = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    assert json.loads((out / "settings.json").read_text())["predictor"]["options"]["choose"] is None
    result = evaluate(*arguments, "--choose", "best")
    assert result.exit_code == 1
    assert re.search(r"predictor options choose was .+, is .*best", " ".join(result.stderr.split()))
    assert evaluate(*arguments, "--choose", "best", "--against", paint.path, "--fresh").exit_code == 0
    facts = json.loads((out / "settings.json").read_text())
    assert [facts[side]["options"]["choose"] for side in ("predictor", "against")] == ["best", None]
    assert "choose best" in (out / "report.html").read_text()
    best = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    for one, other in zip(best, by_score, strict=True):
        assert all(a["ious"][0] >= b["ious"][0] for a, b in zip(one["objects"], other["objects"], strict=True))
    assert best[0]["objects"][0]["ious"][0] > by_score[0]["objects"][0]["ious"][0]
    replayed = invoke(main, "--replay", out, f"{best[0]['scene']}:{best[0]['objects'][0]['name']}")
    assert replayed.exit_code == 0, replayed.output
    assert "was" not in replayed.stdout, "every IoU is what it was"


def test_the_best_of_one_answer_is_refused(base) -> None:
    result = evaluate(*base, "--choose", "best")
    assert result.exit_code == 1
    assert "the best of several answers was asked of paint, which gives one" in result.stderr
    assert "leave out --choose" in result.stderr


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give BUNDLE, such as mmms-eval demo"),
        (["BUNDLE", "--dataset", "folder=x", "--target", "0"], "above 0"),
        (["BUNDLE", "--dataset", "folder=x", "--target", "x"], "no number"),
        (["BUNDLE", "--dataset", "folder=x", "--multi-surface", "80"], "not T,A"),
        (["BUNDLE", "--dataset", "folder=x", "--multi-surface", "70,80"], "above that of every surface"),
        (["BUNDLE", "--dataset", "folder=x", "--threshold", "1"], "range"),
        (["BUNDLE", "--dataset", "folder=x", "--workers", "0"], "range"),
        (["BUNDLE", "--dataset", "folder=x", "--against-engine", "openvino"], "need --against"),
        (["BUNDLE", "--dataset", "folder=x", "--protocol", "other"], "'other' is not one of"),
        (["BUNDLE", "--dataset", "folder=x", "--choose", "worst"], "'worst' is not one of"),
        (["BUNDLE", "--dataset", "nonsense=x"], "there is no kind of data set"),
        (["BUNDLE", "--dataset", "folder=x", "--dataset", "folder=y"], "names 2 data sets 'folder'"),
    ],
)
def test_usage_errors(paint: Bundle, arguments: list[str], message: str) -> None:
    result = evaluate(*(str(paint.path) if argument == "BUNDLE" else argument for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_user_errors(paint: Bundle, data: Path, tmp_path: Path) -> None:
    good = f"folder={data}:modalities=none"
    cases = {
        "no bundle at": (tmp_path / "nothing", "--dataset", good),
        "nothing at this path": (paint.path, "--dataset", "folder=/nowhere"),
        "cuda'": (paint.path, "--dataset", good, "--device", "cuda"),
        "no checkpoint at": (paint.path, "--dataset", good, "--against", f"torch:{tmp_path / 'no.pth'}"),
    }
    for message, arguments in cases.items():
        result = evaluate(*arguments, "--out", tmp_path / "out")
        assert result.exit_code == 1, (message, result.output)
        assert message in result.stderr, result.stderr
        assert not (tmp_path / "out").exists()


def test_other_files_in_the_folder_are_left_alone(base, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for arguments in ([], ["--fresh"]):
        result = evaluate(*base, *arguments)
        assert result.exit_code == 1
        assert "no results of mmms-eval" in result.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_against_pytorch_with_flips_is_refused(base) -> None:
    result = evaluate(*base, "--flip", "--against", "torch:demo")
    assert result.exit_code == 2
    assert "--threshold and --choose are for bundles" in " ".join(result.stderr.split())


def test_help() -> None:
    result = invoke(main, "--help")
    assert result.exit_code == 0
    for text in ("--multi-surface T,A", "--against BUNDLE|torch:CKPT", "--replay OUT CASE", "goes on where it was"):
        assert text in " ".join(result.stdout.split())


def test_help_needs_no_numpy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom mmms_deploy.commands import eval as command\n"
        "assert CliRunner().invoke(command.main, ['--help']).exit_code == 0\n"
        "print(sorted({'numpy', 'cv2', 'PIL', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupt_keeps_what_is_finished(data: Path, tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "large", size=(800, 800), radius=40)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "mmms_deploy.commands.eval",
        str(bundle.path),
        "--dataset",
        f"folder={data}:modalities=none",
    ]
    command += ["--out", str(out), "--max-clicks", "400", "--engine", "onnxruntime"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    scenes = out / "scenes.jsonl"
    while not scenes.exists() or not scenes.stat().st_size:  # the file is there before its first line
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    for line in scenes.read_bytes().splitlines():
        msgspec.json.decode(line)


# --- the published protocol -------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, data: Path) -> list[object]:
    """A bundle that says how its family's figures were counted, and a data set of the kind DAVIS would have."""
    toy = write_toy(tmp_path / "toy", published=RITM_FAMILY)
    return [toy.path, *_on(data), "--out", tmp_path / "out", "--max-clicks", 3, "--limit", 2]


def _on(data: Path) -> list[object]:
    return ["--dataset", f"folder={data}:name=ellipses:modalities=none"]


def test_the_published_protocol(published, tmp_path: Path) -> None:
    result = evaluate(*published, "--protocol", "published")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "out" / "settings.json").read_text())
    options = facts["predictor"]["options"]
    assert (options["flip"], options["threshold"]) == ("", "0.49")
    assert options["zoom"] == "x1.4 least 200 px, IoU 0.5, outside zeros"
    assert facts["settings"]["protocol"] == "published"
    said = " ".join(result.stderr.split())
    assert "ellipses is evaluated at 448 x 448 in the published protocol, and toy is 64 x 96" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "answered as for the published figures" in page
    assert "exported with --size 448" in page
    assert "zoom x1.4 least 200 px" in page
    one = json.loads((tmp_path / "out" / "scenes.jsonl").read_text().splitlines()[0])
    replayed = invoke(main, "--replay", tmp_path / "out", f"ellipses:{one['scene']}:{one['objects'][0]['name']}")
    assert replayed.exit_code == 0, replayed.output
    assert "was" not in replayed.stdout, "every IoU is what it was"


def test_a_part_goes_before_the_protocol(published, tmp_path: Path) -> None:
    assert evaluate(*published, "--protocol", "published", "--no-flip", "--threshold", "0.6").exit_code == 0
    options = json.loads((tmp_path / "out" / "settings.json").read_text())["predictor"]["options"]
    assert (options["flip"], options["threshold"]) == (None, "0.6")
    assert options["zoom"] is not None
    result = evaluate(*published, "--zoom")
    assert result.exit_code == 1
    assert "protocol" in result.stderr


def test_a_bundle_that_says_no_protocol_and_pytorch_are_refused(base) -> None:
    result = evaluate(*base, "--protocol", "published")
    assert result.exit_code == 1
    assert "paint does not say how the figures of its paper were counted" in result.stderr
    assert "--zoom, --flip, --threshold" in " ".join(result.stderr.split())
    for options in (["--protocol", "published"], ["--zoom"]):
        result = evaluate(*base, *options, "--against", "torch:demo")
        assert result.exit_code == 2
        assert "are for bundles" in result.stderr

"""``mmms-train`` from data to a checkpoint that exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

pytest.importorskip("cv2")

from mmms_deploy import Session
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.commands import export, train
from mmms_deploy.commands.train_results import duration
from mmms_deploy.models import MMMSConfig
from mmms_deploy.models.checkpoint import read_checkpoint_file
from mmms_deploy.training.loop import LOG_FILE, STATE_FILE, read_log
from tests.support.invoke import invoke
from tests.support.tiny import HIERA, tiny_config
from tests.support.trainable import HEAT, SIZE, write_backbone, write_folder


def described(folder: Path, config: MMMSConfig) -> list[object]:
    """Write a backbone and the description of a narrow network on it; the options that name both."""
    folder.mkdir(exist_ok=True)
    description = folder / "network.json"
    description.write_text(json.dumps(to_builtins(config)))
    weights = write_backbone(folder / "backbone.safetensors", config)
    return ["--description", description, "--backbone-ckpt", weights]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "mine", 6, thermal=True)


QUICK = ("--steps", 4, "--batch", 2, "--views", 2, "--threads", 1, "--measure-images", 1, "--measure-every", 2)


def done(*args: object) -> Result:
    result = invoke(train.main, *args)
    assert result.exit_code == 0, result.stderr + result.stdout
    return result


def test_from_a_folder_to_a_bundle_that_answers(data: Path, tmp_path: Path) -> None:
    network = described(tmp_path / "net", tiny_config(HEAT, size=SIZE, backbone=HIERA))
    out = tmp_path / "run"
    planned = done(data, *network, "--out", out, *QUICK, "--dry-run")
    assert "5 pictures, 10 objects" in planned.stdout
    assert "thermal (optional)" in planned.stdout
    assert "10 views (2 a picture)" in planned.stdout
    assert not (out / STATE_FILE).exists()
    assert not list(out.glob("features/*/*.safetensors"))

    result = done(data, *network, "--out", out, *QUICK)
    assert "IoU@1" in result.stdout
    assert len(list(out.glob("features/*/*.safetensors"))) == 10
    assert [line["step"] for line in read_log(out)] == [2, 4]
    page = (out / "report.html").read_text()
    assert "IoU by clicks" in page
    assert "Some held-out objects" in page
    checkpoint = out / "checkpoint.safetensors"
    assert f"mmms-export --ckpt {checkpoint}" in result.stdout

    again = done(data, *network, "--out", out, *QUICK)
    assert "Goes on after step 4" in again.stdout

    exported = invoke(export.main, "--ckpt", checkpoint, "--out", tmp_path / "bundle")
    assert exported.exit_code == 0, exported.stderr
    with Session(tmp_path / "bundle", device="cpu") as session:
        session.set_image(np.zeros((50, 70, 3), np.uint8))
        assert session.click(20, 20).mask.shape == (50, 70)


def test_a_checkpoint_without_its_backbone_is_read_beside_it(data: Path, tmp_path: Path) -> None:
    network = described(tmp_path / "net", tiny_config(size=SIZE))
    out = tmp_path / "run"
    result = done(f"folder={data}:modalities=none", *network, "--out", out, *QUICK, "--without-backbone", "--half")
    beside = f"--backbone-ckpt {tmp_path / 'net' / 'backbone.safetensors'}"
    assert beside in result.stdout
    state = read_checkpoint_file(out / "checkpoint.safetensors").state
    assert not any(name.startswith("backbone.") for name in state)
    further = done(
        data, "--start", out / "checkpoint.safetensors", *network[2:], "--out", tmp_path / "more", *QUICK, "--seed", 3
    )
    assert "thermal (optional)" in further.stdout  # the checkpoint has no modality, the data have one


def test_other_options_are_refused_and_fresh_starts_over(data: Path, tmp_path: Path) -> None:
    network = described(tmp_path / "net", tiny_config(size=SIZE))
    options = [f"folder={data}:modalities=none", *network, "--out", tmp_path / "run", *QUICK, "--held-out", 0]
    done(*options)
    refused = invoke(train.main, *options, "--seed", 1)
    assert refused.exit_code == 1
    assert "seed 0, now 1" in refused.stderr
    assert "--fresh" in refused.stderr
    over = done(*options, "--seed", 1, "--fresh")
    assert "Goes on" not in over.stdout
    assert "0 to compute" not in over.stdout  # views depend on the seed
    assert (tmp_path / "run" / LOG_FILE).exists()


def test_ctrl_c_keeps_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmms_deploy.training import loop

    network = described(tmp_path / "net", tiny_config(size=SIZE))
    options = [f"folder={data}:modalities=none", *network, "--out", tmp_path / "run", *QUICK, "--held-out", 0]
    line = loop._line

    def interrupted(run, window):
        if run.step == 3:
            raise KeyboardInterrupt
        return line(run, window)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_line", interrupted)
        patch.setattr(loop, "LOG_EVERY", 1)
        stopped = invoke(train.main, *options)
    assert stopped.exit_code == 130
    assert "step 3 and all computed features are kept" in stopped.stderr
    assert "the same command goes on" in stopped.stderr
    assert "Goes on after step 3" in done(*options).stdout


def test_fewer_views_are_made_where_they_need_more_room(data: Path, tmp_path: Path) -> None:
    network = described(tmp_path / "net", tiny_config(size=SIZE))
    options = [f"folder={data}:modalities=none", *network, "--out", tmp_path / "run", *QUICK, "--dry-run"]
    less = done(*options, "--views", 50, "--cache-limit", 0.001)
    assert "views of each picture" in less.stderr
    none = invoke(train.main, *options, "--cache-limit", 0.00001)
    assert none.exit_code == 1
    assert "--cache-limit" in none.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--backbone NAME, or --description FILE, or --start CKPT"),
        (["--backbone", "sam2_hiera_s"], "needs --backbone-ckpt FILE; published weights are found for sam2_hiera_t"),
        (["--start", "demo", "--backbone", "sam2_hiera_t"], "--start names the whole network"),
    ],
)
def test_what_the_command_line_alone_shows_is_wrong_usage(data: Path, tmp_path: Path, options: list, said: str) -> None:
    result = invoke(train.main, data, "--out", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_backbone_that_does_not_fit_is_named(data: Path, tmp_path: Path) -> None:
    network = described(tmp_path / "net", tiny_config(size=SIZE))
    other = write_backbone(tmp_path / "other.safetensors", tiny_config(size=SIZE, backbone=HIERA))
    result = invoke(
        train.main, f"folder={data}:modalities=none", *network[:2], "--backbone-ckpt", other, "--out", tmp_path / "run"
    )
    assert result.exit_code == 1
    assert "does not fit" in result.stderr


def test_an_encoder_in_an_onnx_file_is_refused(data: Path, tmp_path: Path) -> None:
    network = described(tmp_path / "net", tiny_config(size=SIZE))
    raw = json.loads((tmp_path / "net" / "network.json").read_text())
    outputs = [{"name": f"m{s}", "stride": s, "channels": 8} for s in (4, 8, 16, 32)]
    raw["backbone"] = {"name": "onnx", "onnx": {"size": [64, 64], "outputs": outputs}}
    (tmp_path / "net" / "network.json").write_text(json.dumps(raw))
    result = invoke(train.main, f"folder={data}:modalities=none", *network, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "a backbone that is an ONNX file" in result.stderr


def test_times_are_said_in_words() -> None:
    assert [duration(s) for s in (3.2, 200, 9000)] == ["3 s", "3 min", "2.5 h"]

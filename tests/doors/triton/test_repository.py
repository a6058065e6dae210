"""A model repository is written whole or not at all, and over nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton import python_form
from mmms_deploy.doors.triton.repository import write_repository
from mmms_deploy.doors.triton.settings import Form, RepositorySettings
from mmms_deploy.errors import DoorError, OutputExistsError
from mmms_deploy.replay import write_click_bundle
from tests.support.golden_cases import golden
from tests.support.toy import write_toy
from tests.support.triton import read_pbtxt


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_python_form(tmp_path: Path, paint: Bundle) -> None:
    settings = RepositorySettings(
        sequences=8,
        idle=2.5,
        instances=2,
        python_path=(tmp_path / "a", tmp_path / "b"),
        opening=Opening(engine="onnxruntime", threads=2, flip=True),
    )
    assert write_repository(tmp_path / "models", paint, settings) == ("paint",)
    bundle = [f"paint/1/bundle/{file.name}" for file in paint.path.iterdir()]
    assert files(tmp_path / "models") == sorted(["mmms-deploy.json", "paint/config.pbtxt", "paint/1/model.py", *bundle])
    assert Bundle(tmp_path / "models" / "paint" / "1" / "bundle").manifest == paint.manifest
    config = read_pbtxt((tmp_path / "models" / "paint" / "config.pbtxt").read_text())
    assert (config["name"], config["backend"]) == ("paint", "python")
    batching = config["sequence_batching"]
    assert batching["max_sequence_idle_microseconds"] == 2_500_000
    assert batching["oldest"] == {"max_candidate_sequences": 8}
    assert [one["name"] for one in batching["control_input"]] == ["START", "END", "CORRID"]
    assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 2}]
    assert {one["key"]: one["value"]["string_value"] for one in config["parameters"]} == {
        "bundle": "bundle",
        "python_path": f"{tmp_path / 'a'}:{tmp_path / 'b'}",
        "engine": "onnxruntime",
        "threads": "2",
        "flip": "true",
    }


def test_what_is_written_opens_as_it_was_asked_for(tmp_path: Path, paint: Bundle) -> None:
    opening = Opening(strict=True, threads=3, store_mib=7, store_folder="/a folder", precision="fp32")
    write_repository(tmp_path / "models", paint, RepositorySettings(opening=opening))
    config = read_pbtxt((tmp_path / "models" / "paint" / "config.pbtxt").read_text())
    given = {one["key"]: one["value"]["string_value"] for one in config["parameters"]}
    del given["bundle"]
    assert Opening.of(given) == opening


@pytest.mark.parametrize("dtypes", [({"uint16": 0.001}, "TYPE_UINT16"), (0.01, "TYPE_FP32")])
def test_types_of_modalities(tmp_path: Path, dtypes: tuple[object, str]) -> None:
    scale, expected = dtypes
    bundle = write_toy(tmp_path / "toy", modalities=(ModalitySpec(name="depth", scale=scale),))
    config = read_pbtxt(python_form.python_config(bundle, RepositorySettings()))
    assert config["input"][-1]["data_type"] == expected


def test_an_older_repository_is_replaced_on_request_and_nothing_else(tmp_path: Path, paint: Bundle) -> None:
    out = tmp_path / "models"
    out.mkdir()
    write_repository(out, paint)  # an empty folder is a new one
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_repository(out, paint)
    write_repository(out, paint, RepositorySettings(form=Form.ONNX), overwrite=True)
    assert "paint/config.pbtxt" not in files(out)
    (out / "another").mkdir()
    with pytest.raises(OutputExistsError, match="another"):
        write_repository(out, paint, overwrite=True)
    assert "paint_click/config.pbtxt" in files(out)
    with pytest.raises(OutputExistsError, match="no folder"):
        write_repository(paint.path / "bundle.json", paint, overwrite=True)
    with pytest.raises(OutputExistsError, match="no model repository"):
        write_repository(paint.path, paint, overwrite=True)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(OutputExistsError, match="no folder"):
        write_repository(tmp_path / "link", paint, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "models"]


def test_a_failure_leaves_nothing(tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_form, "_MODEL", tmp_path / "nothing")
    with pytest.raises(Exception, match="nothing"):
        write_repository(tmp_path / "models", paint)
    assert list(tmp_path.iterdir()) == []


def test_names(tmp_path: Path, paint: Bundle) -> None:
    for name in ("", "a/b", "..", ".hidden", "a b"):
        with pytest.raises(DoorError, match="letters, digits"):
            RepositorySettings(name=name)
    for setting in ("sequences", "idle", "instances"):
        with pytest.raises(DoorError, match=f"{setting} is 0"):
            RepositorySettings(**{setting: 0})
    odd = write_toy(tmp_path / "a toy, with blanks")
    assert write_repository(tmp_path / "models", odd) == ("a_toy__with_blanks",)


def test_bundles_that_see_no_picture(tmp_path: Path, paint: Bundle) -> None:
    whole = write_toy(tmp_path / "whole", golden=[golden(paint)])
    clicks = write_click_bundle(whole, tmp_path / "clicks")
    for bundle in (clicks, write_toy(tmp_path / "box", black_box=True)):
        with pytest.raises(DoorError, match="no stage that sees a picture") as caught:
            write_repository(tmp_path / "models", bundle)
        assert "form 'onnx'" in str(caught.value)
        assert write_repository(tmp_path / f"{bundle.manifest.name}-onnx", bundle, RepositorySettings(form=Form.ONNX))
    stored = RepositorySettings(opening=Opening(store_folder=str(tmp_path / "features")))
    assert write_repository(tmp_path / "models", clicks, stored) == ("whole-clicks",)


def test_a_modality_that_is_called_as_an_input(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "toy", modalities=(ModalitySpec(name="clicks"),))
    with pytest.raises(DoorError, match="has a modality clicks"):
        write_repository(tmp_path / "models", bundle)

"""The folder of a nuclio function: what nuctl reads, a main.py that answers, whole or not at all."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.cvat.function_folder import WRITTEN, write_function
from mmms_deploy.errors import BundleNotFoundError, DoorError, OutputExistsError
from tests.support.wheels import write_wheel

yaml = pytest.importorskip("yaml")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A file like a wheel of the package."""
    return write_wheel(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, paint: Bundle, wheel: Path) -> Path:
    """A function on ``paint``."""
    return write_function(tmp_path / "function", paint, wheel, settings={"engine": "onnxruntime", "sessions": "3"})


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_the_folder_holds_all_that_the_function_needs(folder: Path, paint: Bundle, wheel: Path) -> None:
    bundle = [f"bundle/{name}" for name in ("README.md", "bundle.json", *paint.manifest.files)]
    assert names(folder) == sorted([*bundle, "function.yaml", "main.py", wheel.name, WRITTEN])
    assert Bundle(folder / "bundle").manifest.digest == paint.manifest.digest
    assert (folder / wheel.name).read_bytes() == wheel.read_bytes()


def test_function_yaml_says_what_cvat_and_nuclio_read(folder: Path, wheel: Path) -> None:
    read = yaml.safe_load((folder / "function.yaml").read_text())
    annotations = read["metadata"]["annotations"]
    assert read["metadata"]["name"] == "mmms-paint"
    assert annotations == {
        "name": "paint (mmms-deploy)",
        "version": 2,
        "type": "interactor",
        "spec": None,
        "min_pos_points": 1,
        "min_neg_points": 0,
        "help_message": annotations["help_message"],
    }
    spec = read["spec"]
    assert spec["handler"] == "main:handler"
    assert spec["runtime"] == "python:3.11"
    assert spec["triggers"]["myHttpTrigger"]["attributes"] == {"maxRequestBodySize": 33554432}
    assert [step["value"] for step in spec["build"]["directives"]["postCopy"]] == [
        f'pip install --no-cache-dir "/opt/nuclio/{wheel.name}[cpu]"'
    ]


def test_main_py_opens_the_bundle_with_the_settings_and_answers(folder: Path) -> None:
    made = runpy.run_path(str(folder / "main.py"))
    assert made["SETTINGS"] == {"engine": "onnxruntime", "sessions": "3"}
    context = SimpleNamespace(user_data=SimpleNamespace(), logger=None, Response=SimpleNamespace)
    made["init_context"](context)
    try:
        response = made["handler"](context, SimpleNamespace(body={"image": ""}))
        assert response.status_code == 400
        assert "the picture of a request" in json.loads(response.body)["error"]
        assert context.user_data.function._settings.sessions == 3
    finally:
        context.user_data.function.close()


def test_an_older_function_is_replaced_on_request_alone(folder: Path, paint: Bundle, wheel: Path) -> None:
    with pytest.raises(OutputExistsError, match="exists"):
        write_function(folder, paint, wheel)
    write_function(folder, paint, wheel, name="other", overwrite=True)
    assert "name: other" in (folder / "function.yaml").read_text()
    assert sorted(folder.parent.iterdir()) == sorted([folder, wheel])


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: put(folder, "notes.txt", "mine"), "holds other files, such as notes.txt"),
        (lambda folder: put(folder, "bundle/mine", "mine"), "such as bundle/mine"),
        (lambda folder: put(folder, "main.py", "mine = 1"), "was edited: main.py"),
        (lambda folder: put(folder, WRITTEN, "{}"), "no function of mmms-deploy"),
        (lambda folder: put(folder, WRITTEN, "["), "no function of mmms-deploy"),
        (lambda folder: (folder / WRITTEN).unlink(), "no function of mmms-deploy"),
    ],
)
def test_nothing_but_a_function_as_it_was_written_is_replaced(
    folder: Path, paint: Bundle, wheel: Path, spoil: Any, said: str
) -> None:
    spoil(folder)
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    with pytest.raises(OutputExistsError, match=said):
        write_function(folder, paint, wheel, overwrite=True)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_a_link_or_a_file_in_its_place_is_not_replaced(folder: Path, paint: Bundle, wheel: Path) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    for place in (link, wheel):
        with pytest.raises(OutputExistsError, match="is no folder"):
            write_function(place, paint, wheel, overwrite=True)


def test_a_failure_leaves_nothing(tmp_path: Path, copy: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle(copy)
    (copy / "golden.npz").write_bytes(b"")
    with pytest.raises(Exception, match=r"golden\.npz"):
        write_function(tmp_path / "function", bundle, wheel)
    assert not [path for path in tmp_path.iterdir() if "function" in path.name]


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, paint: Bundle, wheel: Path) -> None:
    other = tmp_path / "numpy-2.0-py3-none-any.whl"
    other.write_bytes(wheel.read_bytes())
    text = tmp_path / "text" / wheel.name
    put(tmp_path, f"text/{wheel.name}", "no archive")
    for path in (other, text, tmp_path / "none.whl", tmp_path):
        with pytest.raises(DoorError, match=r"wheel|there is no file"):
            write_function(tmp_path / "function", paint, path)
    for name in ("Demo", "-demo", "a" * 64, "a_b", ""):
        with pytest.raises(DoorError, match="no name of a function"):
            write_function(tmp_path / "function", paint, wheel, name=name)
    with pytest.raises(DoorError, match="engin"):
        write_function(tmp_path / "function", paint, wheel, settings={"engin": "x"})
    with pytest.raises(BundleNotFoundError):
        write_function(tmp_path / "function", tmp_path / "none", wheel)
    assert not (tmp_path / "function").exists()

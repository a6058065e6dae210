"""What a bundle is named by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle, find_bundle
from mmms_deploy.engines.explain import reason
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import choose
from mmms_deploy.errors import BundleNotFoundError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_path_stays_a_path(folder: Path) -> None:
    for name in ("mine", "demo"):
        (folder / "bundles" / name).mkdir(parents=True)
    assert find_bundle("bundles/mine") == Path("bundles/mine")
    assert find_bundle(Path("bundles/demo")) == Path("bundles/demo")


def test_a_bundle_in_a_folder_of_that_name_comes_first(paint: Bundle, folder: Path) -> None:
    shutil.copytree(paint.path, folder / "demo")
    assert find_bundle("demo") == Path("demo")
    assert Bundle("demo").manifest == paint.manifest


def test_another_folder_of_that_name_does_not(folder: Path) -> None:
    (folder / "demo-small").mkdir()
    assert Bundle("demo-small").manifest.name == "demo-small"
    assert Bundle(Path("demo-small")).manifest.name == "demo-small"


def test_the_thermal_demo_has_to_be_exported(paint: Bundle, folder: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="mmms-export --ckpt demo-thermal makes bundles/demo-thermal"):
        find_bundle("demo-thermal")
    shutil.copytree(paint.path, folder / "bundles" / "demo-thermal")
    with pytest.raises(BundleNotFoundError, match="made of it, bundles/demo-thermal"):
        find_bundle("demo-thermal")
    shutil.copytree(paint.path, folder / "demo-thermal")
    assert find_bundle("demo-thermal") == Path("demo-thermal")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("dmeo", "did you mean 'demo', which ships with mmms-deploy?"),
        ("bundles/demo", "name it 'demo': it ships with mmms-deploy"),
        ("bundles/demo-small", "name it 'demo-small': it ships with mmms-deploy"),
        ("demo-smal", "did you mean 'demo-small', which ships with mmms-deploy?"),
        ("bundles/demo-thermal", "mmms-export --ckpt demo-thermal writes bundles/demo-thermal"),
        ("my/own", "check the path, or make a bundle"),
    ],
)
def test_what_is_not_there_is_looked_for_where_it_may_be(name: str, fix: str) -> None:
    with pytest.raises(BundleNotFoundError, match=f"no bundle at {name}") as caught:
        Session(name)
    assert fix in str(caught.value)
    assert "or 'demo' or 'demo-small', or hf:owner/name" in str(caught.value.expected)


@pytest.mark.parametrize("odd", ["", "a\0b", 3, None, b"demo"])
def test_what_is_no_path_is_refused(odd: object) -> None:
    with pytest.raises(BundleNotFoundError, match="'demo'"):
        find_bundle(odd)  # type: ignore[arg-type]


def test_messages_name_a_bundle_as_it_was_named(paint: Bundle) -> None:
    """And not by the folder in the cache."""
    with Session("demo-small", engine="onnxruntime") as session:
        assert session.bundle.reference == "demo-small"
    assert Bundle(paint.path).reference == str(paint.path)
    choice = choose(Bundle("demo-small"), EngineRequest(device="cpu"))
    assert "mmms-verify demo-small" in reason(choice)

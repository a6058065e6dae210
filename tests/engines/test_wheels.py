from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmms_deploy.engines import wheels
from mmms_deploy.engines.cuda.runtime import import_cuda
from mmms_deploy.engines.onnxruntime import cpu as onnxruntime_cpu
from mmms_deploy.engines.wheels import (
    install_command,
    installed_flavours,
    require_onnxruntime,
    require_openvino,
    require_tensorrt,
)
from mmms_deploy.errors import EngineConflictError, EngineUnavailableError


def pretend(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    """Make importlib.metadata see these distributions, underscores for dashes, and no others."""
    versions = {name.replace("_", "-"): version for name, version in installed.items()}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(wheels.metadata, "version", version)


def test_this_environment_has_one() -> None:
    name, version = require_onnxruntime()
    assert installed_flavours() == {name: version}


def test_one_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime_gpu="1.31.1", numpy="2.0")
    assert require_onnxruntime() == ("onnxruntime-gpu", "1.31.1")


def test_none_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, numpy="2.0", onnxruntime_extensions="0.14")
    with pytest.raises(EngineUnavailableError, match="not installed") as caught:
        require_onnxruntime()
    assert caught.value.fix == 'pip install "mmms-deploy[cpu]"'
    with pytest.raises(EngineUnavailableError) as caught:
        require_onnxruntime("cuda")
    assert caught.value.fix == 'pip install "mmms-deploy[cuda]"'


def test_no_command_brings_a_second_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime="1.31.1")
    for require in (require_tensorrt, import_missing_cuda):
        with pytest.raises(EngineUnavailableError) as caught:
            require()
        assert caught.value.fix == 'pip uninstall -y onnxruntime, then pip install "mmms-deploy[cuda]"'
    with pytest.raises(EngineUnavailableError) as caught:
        require_openvino()
    assert caught.value.fix == 'pip install "mmms-deploy[cpu]"'
    pretend(monkeypatch, onnxruntime_gpu="1.31.1")
    with pytest.raises(EngineUnavailableError) as caught:
        require_openvino()
    assert caught.value.fix == "pip install openvino"
    assert install_command("cuda") == 'pip install "mmms-deploy[cuda]"'


def import_missing_cuda() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuda.bindings", None)
        patch.setitem(sys.modules, "cuda.bindings.runtime", None)  # an earlier test may have imported it
        import_cuda()


@pytest.mark.parametrize("other", ["onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "ort-nightly"])
def test_two_are_a_conflict_with_the_commands_that_mend_it(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    pretend(monkeypatch, **{"onnxruntime": "1.31.1", other.replace("-", "_"): "1.20.0"})
    with pytest.raises(EngineConflictError, match=rf"onnxruntime 1.31.1 and {other} 1.20.0 are installed") as caught:
        require_onnxruntime()
    assert caught.value.fix == (
        f'pip uninstall -y onnxruntime {other}, then pip install "mmms-deploy[cpu]"'
        ' (or "mmms-deploy[cuda]", never both)'
    )


def test_the_conflict_is_found_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__="wrong"))
    with pytest.raises(EngineConflictError):
        onnxruntime_cpu.import_onnxruntime()


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineUnavailableError, match="cannot be imported") as caught:
        onnxruntime_cpu.import_onnxruntime()
    assert "--force-reinstall" in str(caught.value.fix)


@pytest.mark.parametrize("together", [False, True])
def test_a_wheel_in_another_folder_is_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """As PYTHONPATH names a folder with onnxruntime-gpu beside a Python that has onnxruntime."""
    folders = [tmp_path / "first", tmp_path / ("first" if together else "second")]
    for folder, name in zip(folders, ("onnxruntime_gpu-1.31.1", "onnxruntime-1.30.0"), strict=True):
        (folder / "onnxruntime").mkdir(parents=True, exist_ok=True)
        (folder / "onnxruntime" / "__init__.py").touch()
        (folder / f"{name}.dist-info").mkdir()
        distribution, version = name.split("-")
        metadata_file = folder / f"{name}.dist-info" / "METADATA"
        metadata_file.write_text(f"Metadata-Version: 2.1\nName: {distribution.replace('_', '-')}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(folder) for folder in dict.fromkeys(folders)])
    if together:
        with pytest.raises(EngineConflictError, match=r"onnxruntime 1\.30\.0 and onnxruntime-gpu 1\.31\.1"):
            require_onnxruntime()
    else:
        assert require_onnxruntime() == ("onnxruntime-gpu", "1.31.1")

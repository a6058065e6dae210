"""The builder resource of a GPU's architecture: is it beside TensorRT's library, and what is said where it is not?"""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.tensorrt import build as tensorrt_build
from mmms_deploy.engines.tensorrt.build import BuildOptions, build_plan
from mmms_deploy.engines.tensorrt.resources import missing_resource
from mmms_deploy.errors import PlanBuildError
from tests.standins.tensorrt import Severity, TensorRtStandIn
from tests.support.attention import write_attention

HOPPER = (9, 0)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a process with TensorRT has loaded; the libraries are in ``tensorrt_libs``, with PTX's resource alone."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    libraries = tmp_path / "tensorrt_libs"
    libraries.mkdir()
    for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvinfer_builder_resource_ptx.so.10.15.1"):
        (libraries / name).touch()
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r--p 00000000 08:01 1                          /usr/lib/libc.so.6\n"
        f"7f01-7f02 r--p 00000000 08:01 2                          {libraries / 'libnvinfer_plugin.so.10'}\n"
        f"7f02-7f03 r-xp 00000000 08:01 3                          {libraries / 'libnvinfer.so.10'}\n"
        "7f03-7f04 rw-p 00000000 00:00 0\n"
    )
    return maps


def test_the_resource_of_the_architecture_is_missing(loaded: Path) -> None:
    found = missing_resource(HOPPER, loaded)
    assert found is not None
    assert (found.name, found.found) == ("libnvinfer_builder_resource_sm90.so", ("ptx",))
    assert str(loaded.parent / "tensorrt_libs") in str(found)
    assert "those for ptx" in str(found)
    assert "tensorrt-cu13-libs" in found.fix("10.15.1.29")
    assert "10.15.1.29" in found.fix("10.15.1.29")


def test_it_is_there(loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_libs" / "libnvinfer_builder_resource_sm90.so.10.15.1").touch()
    assert missing_resource(HOPPER, loaded) is None
    ada = missing_resource((8, 9), loaded)
    assert ada is not None
    assert ada.found == ("ptx", "sm90")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "libnvinfer_builder_resource_sm89.so.10.15.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path / 'more'}")
    assert missing_resource((8, 9), loaded) is None


def test_nothing_is_said_where_nothing_is_known(loaded: Path, tmp_path: Path) -> None:
    assert missing_resource((8, 7), loaded) is None, "no resource of its own is known"
    assert missing_resource(HOPPER, tmp_path / "none") is None, "no system of this kind"
    loaded.write_text("7f00-7f01 r--p 00000000 08:01 1    /usr/lib/libc.so.6\n")
    assert missing_resource(HOPPER, loaded) is None, "TensorRT is not loaded"


def test_a_build_that_fails_for_want_of_it_names_it(
    loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_attention(tmp_path / "attention")
    (stage,) = bundle.manifest.stages
    trt = TensorRtStandIn("10.16.1.11")

    class NoBuilder:
        def __init__(self, logger: object) -> None:
            logger.log(Severity.ERROR, "Unable to load library: libnvinfer_builder_resource_sm90.so.10.16.1")  # type: ignore[attr-defined]
            raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder = NoBuilder  # type: ignore[attr-defined]
    monkeypatch.setattr(tensorrt_build, "missing_resource", lambda capability: missing_resource(capability, loaded))
    with pytest.raises(PlanBuildError, match=r"sm90\.so is missing in") as refused:
        build_plan(
            trt,
            bundle.file(stage.graphs[Precision.FP16].file),
            stage=stage.name,
            precision=Precision.FP16,
            every_click=True,
            options=BuildOptions(),
            activate=lambda: None,
            capability=HOPPER,
        )
    assert "Unable to load library" in refused.value.given
    assert "copy libnvinfer_builder_resource_sm90.so.* of that version to" in str(refused.value.fix)

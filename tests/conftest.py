from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads of torch and OpenBLAS wait for each other in loops, and take time from all.
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy and torch are imported: before the lines below

from mmms_deploy import installed
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import ClickContract, ModalitySpec, PreviousMask
from mmms_deploy.engines import Engine, open_engine, registry, select
from mmms_deploy.engines.verdicts import Verdict
from mmms_deploy.files.cache import VARIABLE
from tests.support import standin_engine
from tests.support.chromium import chromium_path, open_chromium
from tests.support.engines import CPU_ENGINES, CUDA_ENGINES, skip_without
from tests.support.exporting import skip_without_export
from tests.support.proposing import write_proposing
from tests.support.shared import shared
from tests.support.toy import write_toy

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and every process that a test interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SIDE = 448


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: what this machine's user keeps neither helps nor hurts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def from_an_index() -> Iterator[None]:
    """Messages say how to install extras as after an install from an index, however the tests are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "source_tree", lambda: None)
        patch.setattr(installed, "_origin", lambda: None)
        yield


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium without a window, one for all tests of a worker."""
    if chromium_path() is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with open_chromium() as browser:
        yield browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test that takes Chromium is marked ``browser``."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(params=CPU_ENGINES)
def cpu_engine(request: pytest.FixtureRequest) -> tuple[str, Precision]:
    """Name and precision of every engine on the CPU, in turn."""
    name, precision = request.param
    skip_without(name, precision)
    return name, precision


@pytest.fixture(params=[*CPU_ENGINES, *CUDA_ENGINES])
def every_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Precision]:
    """Makes every engine, in turn, the one that auto takes: as if it were the fastest that passed here.

    The engines on the CPU, and what runs on CUDA, on the CUDA stand-in.
    """
    skip_without(*request.param)
    standins = [backend for backend in standin_engine.BACKENDS if backend.name == request.param[0]]
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, *standins))

    def read_verdict(bundle: Bundle, engine: str, version: str, precision: Precision) -> Verdict | None:
        if (engine, precision) != request.param:
            return None
        return Verdict(
            engine=engine,
            version=version,
            precision=precision,
            passed=True,
            iou=1.0,
            limit=0.99,
            milliseconds=1.0,
            threads=1,
        )

    monkeypatch.setattr(select, "read_verdict", read_verdict)
    name, precision = request.param
    return name, precision


@pytest.fixture(scope="session")
def small_engine() -> Iterator[Engine]:
    """An engine of ``demo-small``, for servers."""
    engine = open_engine("demo-small")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, two stages; the probability is the disk of the newest click."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "echo", echo=True)


@pytest.fixture(scope="session")
def paint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, two stages; depends on the image and on all clicks so far."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "paint")


@pytest.fixture(scope="session")
def proposing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, three stages: the first click is answered with proposals."""
    return write_proposing(tmp_path_factory.mktemp("bundles") / "proposing")


@pytest.fixture(scope="session")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Depth (1 channel) and event (3 channels), three stages."""
    return write_toy(
        tmp_path_factory.mktemp("bundles") / "modal",
        modalities=(ModalitySpec(name="depth", scale=0.01), ModalitySpec(name="event", channels=3)),
    )


@pytest.fixture(scope="session")
def cell448(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real exported click cell at 448 x 448, its network narrow; the previous mask is thresholded inside.

    The seed is one whose masks are neither empty nor full.
    """
    skip_without_export()
    from mmms_deploy.export.exporter import export_bundle
    from mmms_deploy.export.source import Source
    from mmms_deploy.models import BackboneConfig
    from mmms_deploy.models.checkpoint import random_network, save_checkpoint
    from tests.support.tiny import tiny_config

    patches = {"patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2}
    config = tiny_config(
        size=(SIDE, SIDE),
        clicks=ClickContract(previous=PreviousMask.MASK),
        backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides=patches),
    )

    def make(folder: Path) -> None:
        save_checkpoint(folder / "narrow.safetensors", random_network(config, 5))
        export_bundle(Source(checkpoint=folder / "narrow.safetensors"), folder / "narrow")

    return Bundle(shared(tmp_path_factory, "cell448", make) / "narrow")


@pytest.fixture
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports take float32 graphs that this run has made before; see there for which tests may."""
    from tests.support.traced import traced_once

    with traced_once(tmp_path_factory):
        yield


@pytest.fixture
def copy(tmp_path: Path, paint: Bundle) -> Path:
    """A copy of ``paint`` to be spoiled."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in paint.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder

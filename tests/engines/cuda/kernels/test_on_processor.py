"""The models compute what the sources say: a kernel's source, compiled for the processor, writes the same bytes.

``answer.cu`` is not among them: the threads of a warp put a word together.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda import decider
from mmms_deploy.imaging.decision import Enlargement
from tests.standins.cuda_driver import MODELS, Memory
from tests.standins.kernels.launch import Launch
from tests.standins.kernels.on_processor import COMPILER, compiled
from tests.support.image_kernels import bands_of
from tests.support.joint import write_joint
from tests.support.standin_engine import tidy

Compared = Callable[[str], list[str]]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Compared]:
    """Compare every launch of a module's kernels from now on; returns the list of their names."""
    if shutil.which(COMPILER) is None:
        pytest.skip("there is no C++ compiler")
    launched: list[str] = []

    def compare(module: str) -> list[str]:
        for name, launch in compiled(module, tmp_path).items():
            monkeypatch.setitem(MODELS, name, both(name, MODELS[name], launch))
        return launched

    def both(name: str, model: Callable[..., None], launch: Callable[..., None]) -> Callable[..., None]:
        def run(memory: Memory, how: Launch, *arguments: Any) -> None:
            launched.append(name)
            before = everything(memory)
            model(memory, how, *arguments)
            expected = everything(memory)
            for address, content in before.items():
                memory.array(address, content.shape, np.uint8)[:] = content
            launch(how, arguments)
            for address, content in everything(memory).items():
                np.testing.assert_array_equal(content, expected[address])

        return run

    yield compare
    assert launched


@pytest.fixture
def small_bands() -> Iterator[None]:
    """Images go up in many bands."""
    with bands_of(3000):
        yield


def everything(memory: Memory) -> dict[int, np.ndarray]:
    """Return a copy of all memory of the GPU, by address."""
    live = memory._gpu.live.items()
    return {address: memory.array(address, (size,), np.uint8).copy() for address, (_, size, there) in live if there}


@pytest.mark.parametrize("band", [decider.BAND, 1000])
def test_labels(compared: Compared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, band: int) -> None:
    monkeypatch.setattr(decider, "BAND", band)
    bundle = write_joint(tmp_path / "joint")
    with tidy(bundle) as engine, Session(bundle, engine=engine) as session:
        launched = compared("labels")
        for height, width in ((50, 70), (131, 97), (7, 5), (1, 33)):
            session.set_image(np.full((height, width, 3), 51, np.uint8))
            for name, x, y, positive in (("1", 0.3, 0.4, True), ("b", 0.8, 0.6, True), ("c", 0.6, 0.1, False)):
                session.select(name)
                session.click(x * width - 0.5, y * height - 0.5, positive)
        assert len(launched) >= 12
        planes, owners = np.random.default_rng(0).integers(-1, 2, (9, 6, 10)), np.array([3, 0, 255, 3, 0, 9, 9, 1, 0])
        how = Enlargement((24, 40), (24, 40), (48, 80), ResizeRule())  # many ties
        decided = session._runner.decided  # type: ignore[attr-defined]
        assert set(np.unique(decided(planes.astype(np.float32), owners.astype(np.uint8), how))) == {0, 1, 3, 9, 255}


@pytest.mark.usefixtures("small_bands")
def test_images(compared: Compared, paint: Bundle) -> None:
    with tidy(paint) as engine, Session(paint, engine=engine) as session:
        launched = compared("image")
        for size in ((50, 70), (131, 97), (7, 5), (1, 33)):
            session.set_image(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
        assert {"image_columns_uint8", "image_lines"} <= set(launched)

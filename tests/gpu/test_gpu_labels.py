"""The decision between objects that are answered at once, made on a real GPU, on every engine for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda import decider
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.cuda.runner import CudaRunner
from mmms_deploy.imaging.decision import Enlargement, LargestMap
from mmms_deploy.session import Session
from mmms_deploy.session.joint_surfaces import JointSurfaces
from tests.support.engines import Open
from tests.support.joint import GRID, write_joint
from tests.support.near import assert_same_labels

SIZES = ((1080, 1920), (60, 80), (1081, 1923), (1, 33), (301, 200), (1080, 1920))
"""Larger and smaller than the network, odd, and the first one again."""
STRICT = CudaOptions(strict=True)
RULES = [
    ResizeRule(align_corners=aligned, antialias=smooth)
    for aligned, smooth in ((False, False), (True, False), (False, True))
]


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_joint(tmp_path_factory.mktemp("bundles") / "joint", sizes=(4, 40))


@pytest.fixture
def engine(opened: Open, joint: Bundle) -> CudaEngine:
    return opened(joint, options=STRICT)


@pytest.fixture
def runner(engine: CudaEngine) -> Iterator[CudaRunner]:
    runner = engine.open()
    yield runner
    runner.close()


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(sum(size)).integers(0, 255, (*size, 3), dtype=np.uint8)


def check(session: Session, device: str = "cuda") -> None:
    """Compare the label map and the mask with the CPU's decision between the same rows."""
    surfaces = session._state.surfaces
    assert isinstance(surfaces, JointSurfaces)
    rows, size = surfaces.now.rows, session.image_size
    assert rows is not None
    assert size is not None
    assert session.result.mask_device == device
    assert_same_labels(session.labels, rows.logits, rows.owners, rows.enlarged(size))
    np.testing.assert_array_equal(session.mask, session.labels == session.surfaces[session.surface])


def annotated(session: Session, size: tuple[int, int]) -> None:
    """Clicks on two objects, one back, and one object less."""
    height, width = size
    session.set_image(picture(size))
    for name, x, y, positive in (("1", 0.2, 0.3, True), ("b", 0.7, 0.6, True), ("b", 0, 0, False)):
        session.select(name)
        session.click(x * width - 0.5, y * height - 0.5, positive)
    check(session)
    for step in (session.undo, lambda: session.remove("1")):
        step()
        check(session)


def test_label_maps_of_every_size_are_those_of_the_cpu(engine: CudaEngine, joint: Bundle) -> None:
    with Session(joint, engine=engine) as session:
        for size in SIZES:
            annotated(session, size)


def test_many_clicks(engine: CudaEngine, joint: Bundle) -> None:
    with Session(joint, engine=engine) as session:
        session.set_image(picture((301, 200)))
        for number in range(40):
            session.select("abc"[number % 3])
            session.click(5 * number, 7 * number % 300, number % 5 > 0)
            if number % 8 == 7:
                check(session)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_maps_of_noise(runner: CudaRunner, rule: ResizeRule) -> None:
    """Outlines are everywhere; and the maps are as many and as large as those of DynaMITe at 448 x 448."""
    rng = np.random.default_rng(0)
    for count, size in ((13, (1080, 1920)), (1, (97, 131)), (49, (300, 517)), (5, (64, 32)), (2, (2160, 3840))):
        planes = rng.normal(0, 4, (count, 112, 112)).astype(np.float32)
        owners = rng.integers(0, 6, count).astype(np.uint8)
        how = Enlargement((448, 448), (448, 430), size, rule)
        found = runner.decided(planes, owners, how)
        assert found is not None
        assert found.dtype == np.uint8
        assert_same_labels(found.astype(np.int32), planes, owners.astype(np.int32), how)


def test_ties(runner: CudaRunner) -> None:
    """With sizes that are powers of two of each other, weights and numbers are exact, and many of them equal."""
    owners = np.array([5, 0, 2, 255, 0, 2], dtype=np.uint8)
    planes = np.random.default_rng(0).integers(-1, 2, (6, 64, 96)).astype(np.float32)
    how = Enlargement((256, 384), (256, 384), (512, 768), RULES[0])
    expected = LargestMap(planes, owners.astype(np.int32), how).labels()
    np.testing.assert_array_equal(runner.decided(planes, owners, how), expected)


def test_bands(runner: CudaRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is made piece by piece is the same one."""
    planes = np.random.default_rng(0).normal(0, 4, (9, 112, 112)).astype(np.float32)
    owners = np.arange(9, dtype=np.uint8) % 4
    how = Enlargement((448, 448), (448, 448), (381, 523), RULES[0])
    whole = runner.decided(planes, owners, how)
    runner.decided(planes, owners, how._replace(size=(30, 40)))  # its tables take the place of the others
    monkeypatch.setattr(decider, "BAND", 20_000)
    np.testing.assert_array_equal(runner.decided(planes, owners, how), whole)


def test_sessions_of_different_sizes_do_not_mix(engine: CudaEngine, joint: Bundle) -> None:
    sizes = ((1080, 1920), (301, 200), (448, 448))
    sessions = [Session(joint, engine=engine) for _ in sizes]
    for session, size in zip(sessions, sizes, strict=True):
        session.set_image(picture(size))
    for x in (20, 150, 190):
        for session in sessions:
            session.select(str(x))
            session.click(x, 100)
            check(session)
    for session in sessions:
        session.close()


def test_a_byte_a_pixel_comes_down(engine: CudaEngine, joint: Bundle) -> None:
    with Session(joint, engine=engine) as session:
        session.set_image(picture((1080, 1920)))
        session.click(500, 500)
        session._runner.take_moved()  # type: ignore[attr-defined]
        session.click(900, 300)
        moved = session._runner.take_moved()  # type: ignore[attr-defined]
        plane = 4 * GRID[0] * GRID[1]
        # The list of four clicks; of what it answers, two clicks and a learned row go back, with what is whose.
        assert (moved.up, moved.down) == (4 * 4 * 5 + 3 * plane + 4 * (3 + 2 + 2), 5 * plane + 1080 * 1920)
        assert engine.memory().masks > 1080 * 1920

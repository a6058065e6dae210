"""Masks at the image's size, made on a real GPU, on every engine for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.session import Session
from tests.support.engines import Open
from tests.support.near import assert_same_mask
from tests.support.toy import write_toy

SIZES = ((1080, 1920), (60, 80), (1081, 1923), (448, 448), (1, 33), (301, 200), (2160, 3840), (1080, 1920))
"""Larger and smaller than the network, odd, of its own size, and the first one again."""
STRICT = CudaOptions(strict=True)


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(sum(size)).integers(0, 255, (*size, 3), dtype=np.uint8)


def check(session: Session, size: tuple[int, int]) -> None:
    """Click, go back and forward, and compare every mask with what the CPU makes of the same answer."""
    height, width = size
    session.set_image(picture(size))
    results = [session.click(0.3 * width, 0.4 * height), session.click(0.7 * width - 0.5, 0.6 * height - 0.5)]
    results += [session.click(0.1 * width, 0.9 * height - 0.5, False), session.undo(), session.undo(), session.redo()]
    for result in results:
        assert result.mask_device == "cuda"
        assert_same_mask(result)


def test_masks_of_every_size_are_those_of_the_cpu(opened: Open, cell448: Bundle) -> None:
    """One session, so that the CUDA graph is recorded anew for each."""
    with Session(cell448, engine=opened(cell448, options=STRICT)) as session:
        for size in SIZES:
            check(session, size)


def test_float16(opened: Open, tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "half", precisions=(Precision.FP16,))
    with Session(bundle, engine=opened(bundle, Precision.FP16, options=STRICT)) as session:
        check(session, (1081, 1923))


def test_without_a_cuda_graph(opened: Open, cell448: Bundle) -> None:
    with Session(cell448, engine=opened(cell448, options=CudaOptions(cuda_graph=False))) as session:
        check(session, (301, 200))
        check(session, (1080, 1920))


def test_exact_disks(opened: Open, echo: Bundle) -> None:
    """Their outlines are steps from 0 to 1, enlarged."""
    with Session(echo, engine=opened(echo, options=STRICT)) as session:
        check(session, (1080, 1920))


def test_sessions_of_different_sizes_do_not_mix(opened: Open, cell448: Bundle) -> None:
    engine = opened(cell448, options=STRICT)
    sizes = ((1080, 1920), (301, 200), (448, 448))
    sessions = [Session(cell448, engine=engine) for _ in sizes]
    for session, size in zip(sessions, sizes, strict=True):
        session.set_image(picture(size))
    for x in (20, 150, 190):
        for session in sessions:
            assert_same_mask(session.click(x, 100))
        assert_same_mask(sessions[1].undo())
    for session in sessions:
        session.close()


def test_the_bits_are_all_that_comes_down_beside_the_answer(opened: Open, cell448: Bundle) -> None:
    engine = opened(cell448)
    with Session(cell448, engine=engine) as session:
        session.set_image(picture((1080, 1920)))
        session.click(500, 500)
        session._runner.take_moved()  # type: ignore[attr-defined]
        session.click(900, 300)
        moved = session._runner.take_moved()  # type: ignore[attr-defined]
        assert (moved.up, moved.down) == (16, 4 * 448 * 448 + 1080 * 1920 // 8)
        assert engine.memory().masks > 1080 * 1920 // 8

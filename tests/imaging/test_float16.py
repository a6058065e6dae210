from __future__ import annotations

import numpy as np

from mmms_deploy.imaging.float16 import as_float32

EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def test_every_half() -> None:
    positive = EVERY_HALF[:0x7C00]
    for halves in (positive, positive.reshape(1, -1, 4)[:, ::2, ::-1], EVERY_HALF, EVERY_HALF[0x7C00:0x7C01]):
        wide = as_float32(halves)
        assert wide.dtype == np.float32
        np.testing.assert_array_equal(wide.view(np.uint32), halves.astype(np.float32).view(np.uint32))
    assert as_float32(EVERY_HALF[:0]).shape == (0,)


def test_halves_stay_as_they_are() -> None:
    halves = np.full((2, 3), 0.5, dtype=np.float16)
    as_float32(halves)[:] = 7
    assert (halves == 0.5).all()


def test_other_types() -> None:
    array = np.ones(3, dtype=np.float32)
    assert as_float32(array) is array
    np.testing.assert_array_equal(as_float32(np.full(3, 0.1)), np.full(3, 0.1, dtype=np.float32))

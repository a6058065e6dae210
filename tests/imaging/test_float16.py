from __future__ import annotations

import numpy as np

from mmms_deploy.imaging.float16 import as_float32

EVERY_NUMBER = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def test_every_number() -> None:
    positive = EVERY_NUMBER[:0x7C00]
    for numbers in (positive, positive.reshape(1, -1, 4)[:, ::2, ::-1], EVERY_NUMBER, EVERY_NUMBER[0x7C00:0x7C01]):
        wide = as_float32(numbers)
        assert wide.dtype == np.float32
        np.testing.assert_array_equal(wide.view(np.uint32), numbers.astype(np.float32).view(np.uint32))
    assert as_float32(EVERY_NUMBER[:0]).shape == (0,)


def test_the_input_stays_as_it_is() -> None:
    numbers = np.full((2, 3), 0.5, dtype=np.float16)
    as_float32(numbers)[:] = 7
    assert (numbers == 0.5).all()


def test_other_types() -> None:
    array = np.ones(3, dtype=np.float32)
    assert as_float32(array) is array
    np.testing.assert_array_equal(as_float32(np.full(3, 0.1)), np.full(3, 0.1, dtype=np.float32))

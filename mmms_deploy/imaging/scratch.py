"""Memory that a thread computes in, kept for the next image or mask.

To ask the system for it again every time would take as long as half of the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmms_deploy.imaging.threads import MOST

FloatArray: TypeAlias = npt.NDArray[np.float32]

KEPT = 1 << 21
"""Numbers that a thread's memory has at most if it is kept: 8 MB."""

_spare: deque[FloatArray] = deque(maxlen=MOST)
"""Memory of threads that have ended."""


@contextmanager
def scratch(count: int) -> Iterator[FloatArray]:
    """A context in which this thread alone has memory, which holds whatever it held.

    Args:
        count: How many float32 numbers it has at least.
    """
    try:
        memory = _spare.pop()
    except IndexError:
        memory = np.empty(0, dtype=np.float32)
    if memory.size < count:
        memory = np.empty(count, dtype=np.float32)
    yield memory
    if memory.size <= KEPT:
        _spare.append(memory)

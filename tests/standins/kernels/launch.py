"""How a kernel was launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """How a kernel was launched.

    Attributes:
        grid: Blocks along x, y and z.
        block: Threads of a block along x, y and z.
        shared: Bytes of dynamic shared memory of a block.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int = 0

    @property
    def threads(self) -> tuple[int, int, int]:
        """Threads of all blocks along x, y and z."""
        x, y, z = (blocks * threads for blocks, threads in zip(self.grid, self.block, strict=True))
        return x, y, z

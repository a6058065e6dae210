"""Sequences that only grow at their end, and share with each other what they have in common.

A session keeps its steps, and a step keeps all that led to it. As tuples, n steps would hold n * n / 2 items. A trail
with one more item costs the same however long it is: items lie in blocks of :data:`WIDTH`, blocks in blocks of blocks,
and a longer trail takes over all blocks that are full. Blocks are never deeper than the logarithm of the length, so
that a million items are freed, compared and pickled without deep recursion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")

WIDTH = 32
"""Items in a block, and blocks in a block of blocks."""


class Trail(Sequence[T], Generic[T]):
    """A sequence that never changes; :meth:`push` and :meth:`pop` return others.

    Args:
        items: Its items, oldest first.
    """

    __slots__ = ("_blocks", "_length", "_newest")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._newest: tuple[T, ...] = ()
        # Full blocks of one item each WIDTH ** (place + 1), at most WIDTH - 1 at a place, oldest first.
        self._blocks: tuple[tuple[Any, ...], ...] = ()
        self._length = 0
        waiting = list(islice(source := iter(items), WIDTH))
        while len(waiting) == WIDTH:
            self._blocks = _carried(self._blocks, self._fold(tuple(waiting)))
            self._length += WIDTH
            waiting = list(islice(source, WIDTH))
        self._newest = tuple(waiting)
        self._length += len(waiting)

    def push(self, item: T) -> Self:
        """Return a trail with one more item; this costs the same for every length."""
        newest = (*self._newest, item)
        if len(newest) < WIDTH:
            return self._made(self._blocks, newest, self._length + 1)
        return self._made(_carried(self._blocks, self._fold(newest)), (), self._length + 1)

    def pop(self) -> Self:
        """Return a trail without the newest item; this costs the same for every length.

        Raises:
            IndexError: There is none.
        """
        if self._newest:
            return self._made(self._blocks, self._newest[:-1], self._length - 1)
        if not self._length:
            raise IndexError("an empty trail")
        blocks = list(self._blocks)
        place = next(place for place, level in enumerate(blocks) if level)
        taken, blocks[place] = blocks[place][-1], blocks[place][:-1]
        while place:
            place -= 1
            # One block of a place is WIDTH of the place below: all but the newest stay there.
            blocks[place], taken = taken[:-1], taken[-1]
        while blocks and not blocks[-1]:
            blocks.pop()
        return self._made(tuple(blocks), tuple(self._unfold(taken))[:-1], self._length - 1)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for place in range(len(self._blocks) - 1, -1, -1):
            for block in self._blocks[place]:
                for leaf in _leaves(block, place):
                    yield from self._unfold(leaf)
        yield from self._newest

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...

    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            if step != 1:
                return tuple(self)[index]
            if start >= self._length - len(self._newest):
                first = self._length - len(self._newest)
                return self._newest[start - first : max(start, stop) - first]
            return tuple(islice(self, start, max(start, stop)))
        place = index + self._length if index < 0 else index
        if not 0 <= place < self._length:
            raise IndexError(f"item {index} of {self._length}")
        return self._at(place)

    def _at(self, place: int) -> T:
        for level in range(len(self._blocks) - 1, -1, -1):
            span = WIDTH ** (level + 1)
            held = span * len(self._blocks[level])
            if place < held:
                block = self._blocks[level][place // span]
                while span > WIDTH:
                    place %= span
                    span //= WIDTH
                    block = block[place // span]
                return tuple(self._unfold(block))[place % WIDTH]
            place -= held
        return self._newest[place]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Trail | tuple):
            return len(self) == len(other) and all(map(_equal, self, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[type[Trail[T]], tuple[tuple[T, ...]]]:
        return type(self), (tuple(self),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._length} items)"

    def _made(self, blocks: tuple[tuple[Any, ...], ...], newest: tuple[T, ...], length: int) -> Self:
        made = type(self).__new__(type(self))
        made._blocks, made._newest, made._length = blocks, newest, length
        return made

    def _fold(self, items: tuple[T, ...]) -> Any:
        """Return a block of :data:`WIDTH` items as it is kept."""
        return items

    def _unfold(self, block: Any) -> Iterable[T]:
        """Return the items of a block that is kept."""
        items: tuple[T, ...] = block
        return items


def _equal(one: object, other: object) -> bool:
    return one is other or one == other


def _carried(blocks: tuple[tuple[Any, ...], ...], block: Any) -> tuple[tuple[Any, ...], ...]:
    """Return the blocks with one more at the first place, where full places move to the next one."""
    levels = list(blocks)
    for place in range(len(levels)):
        grown = (*levels[place], block)
        if len(grown) < WIDTH:
            levels[place] = grown
            return tuple(levels)
        levels[place], block = (), grown
    return (*levels, (block,))


def _leaves(block: Any, depth: int) -> Iterator[Any]:
    """Yield the blocks of items in a block of blocks, oldest first; the depth is the logarithm of the length."""
    if not depth:
        yield block
        return
    for inner in block:
        yield from _leaves(inner, depth - 1)

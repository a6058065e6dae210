"""Things in memory up to a number of bytes, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RecentlyUsed(Generic[K, V]):
    """A mapping with a budget of bytes. Its caller holds a lock.

    Args:
        budget: The most bytes that it holds; None for no limit. What is larger by itself is not taken.
    """

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.bytes = 0
        self.hits = 0
        self.evictions = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: K) -> V | None:
        """Return what is kept by a key, which is now the most recently used; None where there is nothing."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: K, value: V, size: int) -> list[V]:
        """Keep a value in the place of an earlier one.

        Args:
            key: What it is kept by.
            value: The value.
            size: Its bytes.

        Returns:
            What had to leave: to be let go after the lock was, because freeing memory on a device may take long.
        """
        left = self.drop([key])
        if self.budget is not None and size > self.budget:
            return left
        self._kept[key] = value, size
        self.bytes += size
        while self.budget is not None and self.bytes > self.budget:
            _, (oldest, its_size) = self._kept.popitem(last=False)
            self.bytes -= its_size
            self.evictions += 1
            left.append(oldest)
        return left

    def drop(self, keys: Iterable[K]) -> list[V]:
        """Take out some keys, and return what was kept by them."""
        left = []
        for key in keys:
            found = self._kept.pop(key, None)
            if found is not None:
                self.bytes -= found[1]
                left.append(found[0])
        return left

    def keys(self, wanted: Callable[[K, V], bool]) -> list[K]:
        """Return the keys of which something is true."""
        return [key for key, (value, _) in self._kept.items() if wanted(key, value)]

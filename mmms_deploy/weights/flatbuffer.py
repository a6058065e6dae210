"""Tables of a flatbuffer, as far as a reader of ONNX Runtime's own format needs them.

A table begins with the distance back to its vtable, which says where each of its fields lies; a field that is not
there lies nowhere. Vectors, texts and other tables are reached by a distance forward. Every number is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


class Table:
    """A table in a flatbuffer. What leads outside of it raises a ValueError.

    Args:
        content: The flatbuffer.
        place: Where the table begins.
    """

    def __init__(self, content: memoryview, place: int) -> None:
        self._content, self._place = content, place
        self._fields = place - self._number("<i", place)
        self._size = self._number("<H", self._fields)

    @classmethod
    def root(cls, content: memoryview) -> Table:
        """Return the outermost table."""
        (place,) = struct.unpack_from("<I", content, 0)
        return cls(content, place)

    def whole(self, number: int) -> int:
        """Return a field of 32 bits; 0 where it is not there."""
        place = self._field(number)
        return 0 if place is None else self._number("<i", place)

    def table(self, number: int) -> Table:
        """Return a field that is a table."""
        return Table(self._content, self._target(number))

    def tables(self, number: int) -> Iterator[Table]:
        """Yield the tables of a field that is a vector of tables."""
        start, count = self._vector(number)
        for place in range(start, start + 4 * count, 4):
            yield Table(self._content, place + self._number("<I", place))

    def numbers(self, number: int) -> tuple[int, ...]:
        """Return a field that is a vector of numbers of 64 bits."""
        start, count = self._vector(number)
        return struct.unpack(f"<{count}q", self._span(start, 8 * count))

    def content(self, number: int) -> memoryview:
        """Return a field that is a text, or a vector of bytes."""
        return self._span(*self._vector(number))

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        offset = self._number("<H", self._fields + slot) if slot < self._size else 0
        return self._place + offset if offset else None

    def _target(self, number: int) -> int:
        place = self._field(number)
        if place is None:
            raise ValueError(f"field {number} of a table is missing")
        return place + self._number("<I", place)

    def _vector(self, number: int) -> tuple[int, int]:
        """Return where a vector begins, and how many elements it has; one that is not there has none."""
        if self._field(number) is None:
            return 0, 0
        start = self._target(number)
        count = self._number("<I", start)
        if count > len(self._content):
            raise ValueError("a vector is longer than the file")
        return start + 4, count

    def _number(self, form: str, place: int) -> int:
        return int(struct.unpack(form, self._span(place, struct.calcsize(form)))[0])

    def _span(self, start: int, size: int) -> memoryview:
        if start < 0 or start + size > len(self._content):
            raise ValueError("a place outside of the file")
        return self._content[start : start + size]

"""What an image and its modalities are, as a hash of their numbers: the name of a file and its format do not count.

Each part is hashed by itself, ``rgb`` and every modality, or the backbone's features of a provider. The content is the
hash of all of them, so that a modality that arrives later costs only its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_PIXELS = 1 << 30
"""The most pixels of an image whose size alone is given, with its features. A mask takes a byte each."""


class Part:
    """The hash of one array, computed when it is first asked for.

    The array is kept until then, and must not change.

    Args:
        array: The numbers: (H0, W0, 3) uint8 of an image, (H0, W0, C) float32 of a modality in the network's units.
        now: Whether the hash is computed at once, so that the array is not kept.
    """

    def __init__(self, array: npt.NDArray[Any], *, now: bool = False) -> None:
        self._array = None if now else array
        self._hash = _hash_of(array) if now else ""

    @classmethod
    def known(cls, found: str) -> Part:
        """Return a part whose hash is known already."""
        part = cls.__new__(cls)
        part._array, part._hash = None, found
        return part

    @property
    def hash(self) -> str:
        """SHA-256 over type, shape and numbers, as 64 hexadecimal digits."""
        # Two threads may both compute it; they find the same.
        array = self._array
        if array is not None:
            self._hash = _hash_of(array)
            self._array = None
        return self._hash


@dataclass(frozen=True, eq=False)
class Content:
    """An image and its modalities.

    Attributes:
        parts: The hash of every part, by its name. Two images are the same where all of these are.
        size: (H0, W0) of the image.
    """

    parts: Mapping[str, Part]
    size: tuple[int, int]

    @property
    def hash(self) -> str:
        """SHA-256 over all parts and the size, as 64 hexadecimal digits."""
        return content_hash({name: part.hash for name, part in self.parts.items()}, self.size)

    def changed(self, parts: Mapping[str, Part], gone: frozenset[str]) -> Content:
        """Return the content with other parts.

        Args:
            parts: Parts that are new or have changed.
            gone: Names of those that are not there any more.
        """
        kept = {name: part for name, part in self.parts.items() if name not in gone}
        return Content({**kept, **parts}, self.size)


def content_hash(parts: Mapping[str, str], size: tuple[int, int]) -> str:
    """Return the hash of an image with its modalities.

    Args:
        parts: The hash of every part, by its name.
        size: (H0, W0) of the image.

    Returns:
        SHA-256 over the JSON text ``{"parts": {...}, "size": [H0, W0]}`` without spaces, names sorted, as 64
        hexadecimal digits.
    """
    text = json.dumps({"parts": dict(parts), "size": list(size)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_of(array: npt.NDArray[Any]) -> str:
    ordered = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    found = hashlib.sha256(f"{ordered.dtype.str} {ordered.shape}\n".encode())
    found.update(ordered.data if ordered.size else b"")
    return found.hexdigest()

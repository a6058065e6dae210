"""The objects of the images that a session left, for those that come back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

MOST = 10_000
"""Images whose objects are kept; a list of clicks takes some kB."""


class Remembered:
    """Annotations as plain data, by the content of their image; the oldest ones go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def keep(self, content: str, annotation: Mapping[str, Any] | None) -> None:
        """Keep the annotation of an image in the place of an earlier one.

        Args:
            content: Hash of the image and its modalities.
            annotation: What ``Session.to_dict`` returned; None where there is nothing to keep.
        """
        self._kept.pop(content, None)
        if annotation is not None:
            self._kept[content] = annotation
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def find(self, content: str) -> Mapping[str, Any] | None:
        """Return the annotation of an image; None where there is none."""
        return self._kept.get(content)

"""An image of a data set, and what became of it. Both go from process to process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mmms_deploy.errors import MMMSDeployError


@dataclass(frozen=True)
class Item:
    """An image to encode.

    Attributes:
        path: Its file; every worker can read it at this path.
        name: What it is called in the data set, with ``/``.
        modalities: Files of its extra modalities, by name.
        backbone: The file of its backbone's features, for a bundle without one; None for any other.
    """

    path: Path
    name: str
    modalities: Mapping[str, Path] = field(default_factory=dict)
    backbone: Path | None = None


class Status(StrEnum):
    """What became of an image."""

    ENCODED = "encoded"
    FOUND = "found"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        status: Whether it was encoded now, or before, or could not be.
        content: Hash of the image and its modalities; empty where it failed.
        file: The file that holds its features, below the folder that all go to, with ``/``; empty where there is none.
        nbytes: Size of that file.
        seconds: How long it took.
        error: Why it failed; None where it did not.
    """

    status: Status
    content: str = ""
    file: str = ""
    nbytes: int = 0
    seconds: float = 0.0
    error: MMMSDeployError | None = None

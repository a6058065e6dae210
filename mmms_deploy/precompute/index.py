"""Which image of a data set has which entry of a store: ``images.jsonl`` in the store's folder, a line an image.

A store finds features by content, and needs no index; people and other programs look here. A line is::

    {"name": "a/photo.jpg", "content": "<hash>", "bundle": "<digest>", "precision": "fp32", "file": "ab/ab....features"}

Lines are sorted, so that the same images give the same file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.errors import FileReadError, StoreError
from mmms_deploy.files import read_text, write_file, writing
from mmms_deploy.files.locks import locked

INDEX_FILE = "images.jsonl"
_LOCK_FILE = ".images.lock"
_MOST_BYTES = 1 << 30


class IndexRow(Struct, frozen=True, kw_only=True):
    """An image of a data set, and its entry.

    Attributes:
        name: Name of the image in the data set, with ``/``.
        content: Hash of the image and its modalities.
        bundle: Digest of the bundle that encoded it.
        precision: What it computed in.
        file: The entry, below the store's folder, with ``/``.
    """

    name: str
    content: str
    bundle: str
    precision: Precision
    file: str

    @property
    def place(self) -> tuple[str, str, str]:
        """What there is one line of."""
        return self.bundle, str(self.precision), self.name


def read_index(folder: Path) -> list[IndexRow]:
    """Return the lines of a store's index; none where there is none. Lines that are none are passed over.

    Raises:
        StoreError: It cannot be read.
    """
    file = folder / INDEX_FILE
    try:
        lines = read_text(file, _MOST_BYTES).splitlines()
    except FileReadError as error:
        if error.missing:
            return []
        raise StoreError(error.given, expected="the index of a store", fix=f"remove {file}") from error
    rows = []
    for line in lines:
        try:
            rows.append(msgspec.json.decode(line, type=IndexRow))
        except (msgspec.MsgspecError, ValueError):
            continue
    return rows


def add_to_index(folder: Path, rows: Iterable[IndexRow]) -> None:
    """Put lines into a store's index, in the place of earlier ones of the same images.

    Args:
        folder: The store's folder.
        rows: The lines.

    Raises:
        StoreError: Another run writes it just now, or it cannot be read.
        OutputWriteError: It cannot be written.
    """
    given = {row.place: row for row in rows}
    if not given:
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    in_use = StoreError(
        f"another run writes the index of {folder}",
        expected="one run at a time at its end",
        fix="run it again: what is encoded is not encoded again",
    )
    with locked(folder / _LOCK_FILE, in_use, "run one at a time into it"):
        every = {row.place: row for row in read_index(folder)} | given
        lines = [msgspec.json.encode(every[place]) + b"\n" for place in sorted(every)]
        write_file(folder / INDEX_FILE, lines)

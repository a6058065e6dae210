"""What a path holds, by its content: so that a file in the wrong place is named as what it is. Nothing is executed."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mmms_deploy.bundle.names import MANIFEST_NAME
from mmms_deploy.errors import FileReadError
from mmms_deploy.files import decode_json, open_regular

_HEAD = 4096
_MOST_ENTRIES = 10_000
_DOCUMENT = 1 << 22
"""The largest JSON file that is looked into."""
_LISTED = 4


class Thing(Enum):
    """Kinds of files and folders that users have, in words."""

    NOTHING = "nothing"
    SPECIAL = "no regular file (a device, a FIFO or a socket)"
    UNREADABLE = "a file that this user may not read"
    EMPTY = "an empty file"
    BUNDLE = "a bundle"
    BUNDLES = "a folder of bundles"
    BUNDLE_PART = "a file of a bundle"
    GRAPH = "an ONNX graph"
    CHECKPOINT = "a checkpoint"
    POINTER = "a Git LFS pointer (the file itself was not downloaded)"
    ARCHIVED_BUNDLE = "an archive with a bundle in it"
    ARCHIVE = "an archive"
    PICTURE = "a picture"
    VIDEO = "a video"
    PDF = "a PDF document"
    WEB_PAGE = "a web page"
    ARRAY = "an array of numpy (.npy)"
    ARRAYS = "arrays of numpy (.npz)"
    PLAN = "a compiled plan of TensorRT"
    BENCHMARK = "results of mmms-bench"
    EVALUATION = "a folder of results of mmms-eval"
    DESCRIPTION = "a description of a network"
    TABLE = "JSON of another kind"
    PICTURES = "a folder of pictures"
    CHECKPOINTS = "a folder of checkpoints"
    DATASET = "a folder that may be a data set"
    EMPTY_FOLDER = "an empty folder"
    FOLDER = "a folder of other files"
    FILE = "a file of another kind"


@dataclass(frozen=True)
class Found:
    """What is at a path.

    Attributes:
        path: The path.
        thing: What it is.
        inside: Paths in it, or above it, that were probably meant: the bundles of a folder of bundles, the bundle of
            one of its files, the pictures or checkpoints of a folder.
    """

    path: Path
    thing: Thing
    inside: tuple[Path, ...] = ()

    @property
    def listed(self) -> str:
        """The paths inside, as text."""
        names = [str(path) for path in self.inside[:_LISTED]]
        more = len(self.inside) - len(names)
        return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def recognise(path: Path) -> Found:
    """Look at what is at a path."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return Found(path, Thing.NOTHING)
    if stat.S_ISDIR(mode):
        return _folder(path)
    if not stat.S_ISREG(mode):
        return Found(path, Thing.SPECIAL)
    if (path.parent / MANIFEST_NAME).is_file() and (path.name == MANIFEST_NAME or _belongs(path)):
        return Found(path, Thing.BUNDLE_PART, (path.parent,))
    try:
        with open_regular(path) as stream:
            head = stream.read(_HEAD)
    except (FileReadError, OSError):
        return Found(path, Thing.UNREADABLE)
    return Found(path, _file(path, head))


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Found:
    try:
        names = sorted(entry.name for entry in os.scandir(path))[:_MOST_ENTRIES]
    except OSError:
        return Found(path, Thing.UNREADABLE)
    if MANIFEST_NAME in names or {"settings.json", "scenes.jsonl"} <= set(names):
        return Found(path, Thing.BUNDLE if MANIFEST_NAME in names else Thing.EVALUATION)
    paths = [path / name for name in names if not name.startswith(".")]
    if not paths:
        return Found(path, Thing.EMPTY_FOLDER)
    bundles = tuple(entry for entry in paths if (entry / MANIFEST_NAME).is_file())
    if bundles:
        return Found(path, Thing.BUNDLES, bundles)
    for thing, suffixes in ((Thing.CHECKPOINTS, _CHECKPOINTS), (Thing.PICTURES, _PICTURES)):
        fitting = tuple(entry for entry in paths if entry.suffix.lower() in suffixes)
        if fitting:
            return Found(path, thing, fitting)
    return Found(path, Thing.DATASET if any(entry.is_dir() for entry in paths) else Thing.FOLDER)


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, as far as their names show it; none when it is no folder."""
    try:
        return sorted(folder / entry.name for entry in os.scandir(folder) if Path(entry.name).suffix in _CHECKPOINTS)
    except OSError:
        return []


def _belongs(path: Path) -> bool:
    return path.suffix in (".onnx", ".data") or path.name == "golden.npz"


# --- files ------------------------------------------------------------------------------------------------------------

_CHECKPOINTS = frozenset({".safetensors", ".pt", ".pth", ".ckpt"})
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".heic", ".heif", ".avif"})
_PICTURE_BRANDS = frozenset({b"heic", b"heix", b"mif1", b"msf1", b"avif"})
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
_LEGACY_TORCH = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_POINTER = b"version https://git-lfs"
_STARTS: tuple[tuple[bytes, Thing], ...] = (
    (_POINTER, Thing.POINTER),
    (b"\x89PNG\r\n", Thing.PICTURE),
    (b"\xff\xd8\xff", Thing.PICTURE),
    (b"GIF8", Thing.PICTURE),
    (b"II*\0", Thing.PICTURE),
    (b"MM\0*", Thing.PICTURE),
    (b"II+\0", Thing.PICTURE),
    (b"\0\0\0\x0cjP  ", Thing.PICTURE),
    (b"BM", Thing.PICTURE),
    (b"%PDF", Thing.PDF),
    (b"\x1aE\xdf\xa3", Thing.VIDEO),
    (b"\x93NUMPY", Thing.ARRAY),
    (b"ftrt", Thing.PLAN),
    (b"\x1f\x8b", Thing.ARCHIVE),
    (b"BZh", Thing.ARCHIVE),
    (b"\xfd7zXZ", Thing.ARCHIVE),
    (b"7z\xbc\xaf", Thing.ARCHIVE),
    (b"Rar!", Thing.ARCHIVE),
)


def is_pointer(head: bytes) -> bool:
    """Return whether a file begins as a pointer of Git LFS, which lies in the place of large files without it."""
    return head.startswith(_POINTER)


def _file(path: Path, head: bytes) -> Thing:
    if not head:
        return Thing.EMPTY
    starts = (thing for start, thing in _STARTS if head.startswith(start))
    return next(starts, None) or _container(path, head) or _network(path, head) or _text(path, head)


def _container(path: Path, head: bytes) -> Thing | None:
    if head[:4] == b"RIFF":
        return Thing.PICTURE if head[8:12] == b"WEBP" else Thing.VIDEO
    if head[4:8] == b"ftyp":
        return Thing.PICTURE if head[8:12] in _PICTURE_BRANDS else Thing.VIDEO
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _archive(path)
    return Thing.ARCHIVE if head[257:262] == b"ustar" else None


def _network(path: Path, head: bytes) -> Thing | None:
    suffix = path.suffix.lower()
    if _LEGACY_TORCH in head[:32] or (head[:1] == b"\x80" and suffix in (*_CHECKPOINTS, ".bin", ".pkl")):
        return Thing.CHECKPOINT
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 28:
        return Thing.CHECKPOINT  # safetensors: the length of its JSON, and the JSON
    if suffix == ".onnx" or (head[:1] == b"\x08" and re.search(rb"pytorch|onnx", head[:64])):
        return Thing.GRAPH
    return None


def _text(path: Path, head: bytes) -> Thing:
    suffix = path.suffix.lower()
    if re.match(rb"\s*<(!doctype html|html|\?xml)", head, re.IGNORECASE):
        return Thing.WEB_PAGE
    if head.lstrip()[:1] == b"{":
        return _document(path)
    if suffix == ".toml":
        return Thing.DESCRIPTION
    return Thing.CHECKPOINT if suffix in _CHECKPOINTS else Thing.ARCHIVE if suffix in _ARCHIVES else Thing.FILE


def _archive(path: Path) -> Thing:
    try:
        if path.stat().st_size > _DOCUMENT and path.suffix.lower() in _CHECKPOINTS:
            return Thing.CHECKPOINT  # its list of contents may be long
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            names = archive.namelist()[:_MOST_ENTRIES]
    except Exception:  # zipfile raises nearly anything for a damaged file
        return Thing.ARCHIVE
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return Thing.CHECKPOINT
    if any(name.rpartition("/")[2] == MANIFEST_NAME for name in names):
        return Thing.ARCHIVED_BUNDLE
    return Thing.ARRAYS if names and all(name.endswith(".npy") for name in names) else Thing.ARCHIVE


def _document(path: Path) -> Thing:
    try:
        with open_regular(path) as stream:
            content = stream.read(_DOCUMENT + 1)
        found = decode_json(content, path) if len(content) <= _DOCUMENT else None
    except (FileReadError, OSError):
        return Thing.FILE
    if not isinstance(found, dict):
        return Thing.TABLE
    if "digest" in found and "stages" in found:
        return Thing.BUNDLE_PART
    if found.get("kind") == "mmms-bench":
        return Thing.BENCHMARK
    return Thing.DESCRIPTION if {"backbone", "size", "family"} & found.keys() else Thing.TABLE

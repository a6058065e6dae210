"""What a file is that was given as a checkpoint and is none, and what to do about it."""

from __future__ import annotations

import json
import string
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mmms_deploy.documents import document
from mmms_deploy.weights.safetensors_file import begins_as_safetensors

_HEAD = 4096
"""Bytes that are looked at."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is no checkpoint.

    Attributes:
        name: What it is, after "is".
        fix: What to do.
    """

    name: str
    fix: str


_AGAIN = "download it again, and compare its size and hash with the source's"
_TORCH = "take the PyTorch checkpoint that it was made from"
_UNPACK = "unpack it, and pass the checkpoint in it"
_CONVERT = "load it with the software that wrote it, and save its tensors with torch.save or as safetensors"

_MAGICS: tuple[tuple[bytes, FileKind], ...] = (
    (b"version https://git-lfs", FileKind("a Git LFS pointer, not the file itself", 'run "git lfs pull" in its clone')),
    (b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file, as Keras and MATLAB write them", _CONVERT)),
    (b"\x93NUMPY", FileKind("a NumPy array (.npy)", _CONVERT)),
    (b"GGUF", FileKind("a GGUF file, of quantised weights", _TORCH)),
    (b"ftrt", FileKind("a TensorRT plan", _TORCH)),
    (b"ptrt", FileKind("a TensorRT plan", _TORCH)),
    (b"\x1f\x8b", FileKind("a gzip archive", _UNPACK)),
    (b"\xfd7zXZ\x00", FileKind("an xz archive", _UNPACK)),
    (b"BZh", FileKind("a bzip2 archive", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", FileKind("a zstd archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", _UNPACK)),
    (b"Rar!", FileKind("a RAR archive", _UNPACK)),
    (b"\x89PNG", FileKind("a PNG picture", "pass a checkpoint")),
    (b"\xff\xd8\xff", FileKind("a JPEG picture", "pass a checkpoint")),
    (b"%PDF", FileKind("a PDF document", "pass a checkpoint")),
    (b"\x7fELF", FileKind("a program or library", "pass a checkpoint")),
)
"""Kinds by their first bytes."""

_SUFFIXES = {
    ".onnx": FileKind("an ONNX graph", _TORCH),
    ".engine": FileKind("a TensorRT plan", _TORCH),
    ".plan": FileKind("a TensorRT plan", _TORCH),
    ".pb": FileKind("a TensorFlow graph", _CONVERT),
    ".index": FileKind("a part of a TensorFlow checkpoint", _CONVERT),
    ".tflite": FileKind("a TensorFlow Lite model", _CONVERT),
    ".msgpack": FileKind("weights of Flax (.msgpack)", _CONVERT),
}
"""Kinds without a certain beginning, by suffix; asked when nothing else fits."""


def foreign_kind(path: Path) -> FileKind | None:
    """Recognise a file or folder that is no checkpoint.

    Args:
        path: A file or a folder.

    Returns:
        What it is; None when it may be a safetensors file or one of ``torch.save``, or is of an unknown kind.

    Raises:
        OSError: It cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return FileKind("an empty file", _AGAIN)
    if begins_as_safetensors(head, path.stat().st_size):
        return None
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    for recognise in (_lite, _onnx, _archive, _tar, _text):
        if (found := recognise(path, head)) is not None:
            return found
    return None


def kind_by_suffix(path: Path) -> FileKind | None:
    """Recognise a file that nothing could read by its suffix."""
    if ".data-" in path.name:
        return _SUFFIXES[".index"]
    return _SUFFIXES.get(path.suffix.lower())


def _folder(path: Path) -> FileKind:
    names = {entry.name for entry in path.iterdir()}
    if "bundle.json" in names:
        return FileKind("a bundle, which was exported already", "pass the checkpoint that it was made from")
    if "saved_model.pb" in names:
        return FileKind("a TensorFlow SavedModel", _CONVERT)
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return FileKind(
            "a distributed checkpoint of PyTorch",
            "make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE",
        )
    weights = sorted(name for name in names if name.endswith((".safetensors", ".pt", ".pth", ".ckpt", ".bin")))
    found = f" with {', '.join(weights[:5])}" if weights else ""
    return FileKind(f"a folder{found}", "pass the file with the weights")


def _lite(path: Path, head: bytes) -> FileKind | None:
    return _SUFFIXES[".tflite"] if head[4:8] == b"TFL3" else None


def _onnx(path: Path, head: bytes) -> FileKind | None:
    """An ONNX file begins with its IR version, then a text or a graph."""
    begins = len(head) > 8 and head[0] == 0x08 and 1 <= head[1] <= 20 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"
    return _SUFFIXES[".onnx"] if begins else None


def _archive(path: Path, head: bytes) -> FileKind | None:
    """A zip archive of something else than ``torch.save``; a damaged one is not named here."""
    if not head.startswith(b"PK") or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return None
    last = {name.rpartition("/")[2] for name in names}
    kinds = (
        (
            "constants.pkl" in last,
            "a TorchScript archive, which is a program with weights",
            "load it with torch.jit.load where you trust it, and save its state_dict() with torch.save",
        ),
        (
            "archive_format" in last and "data.pkl" not in last,
            "an archive of torch.export (.pt2), which is a program with weights",
            "load it with torch.export.load where you trust it, and save its state_dict with torch.save",
        ),
        (bool(names) and all(name.endswith(".npy") for name in names), "NumPy arrays (.npz)", _CONVERT),
        ("model.weights.h5" in last, "a Keras model", _CONVERT),
        ("data.pkl" not in last, f"a zip archive of {_some(names)}", _UNPACK),
    )
    return next((FileKind(name, fix) for fits, name, fix in kinds if fits), None)


def _tar(path: Path, head: bytes) -> FileKind | None:
    if head[257:262] != b"ustar":
        return None
    try:
        with tarfile.open(path) as archive:
            names = [member.name for _, member in zip(range(20), archive, strict=False)]
    except (tarfile.TarError, EOFError, ValueError, OSError):
        return FileKind("a damaged tar archive", _AGAIN)
    if {"storages", "tensors", "pickle"} <= {name.removeprefix("./") for name in names}:
        return FileKind(
            "a tar archive of a PyTorch before 0.2",
            "load it with the PyTorch that wrote it, and save its state_dict() with torch.save",
        )
    return FileKind(f"a tar archive of {_some(names)}", _UNPACK)


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown + (" and more" if len(names) > 5 else "") if names else "nothing"


def _text(path: Path, head: bytes) -> FileKind | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    low = text[:200].lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head", b"<script")) or (low[:1] == b"<" and b"<html" in low):
        return FileKind(
            "a web page, such as a sign-in or a confirmation that was saved in place of the file",
            "open the link in a browser, sign in or confirm there, and download the file itself",
        )
    if low.startswith(b"<?xml") or (low[:1] == b"<" and _printable(text)):
        return FileKind("an XML file, such as a server's error or an OpenVINO graph", _AGAIN)
    if not _printable(text) or b"\x00" in text:
        return None
    if text[:1] in (b"{", b"["):
        return _json(path)
    first = text.decode("utf-8", "replace").splitlines()
    return FileKind(f'a text file that begins with "{first[0][:60] if first else ""}"', _AGAIN)


def _json(path: Path) -> FileKind:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(1 << 20))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "weight_map" in value:
        return FileKind(
            "an index of weights in several files", "load all of them, and save their tensors in one safetensors file"
        )
    return FileKind("a JSON file", f"pass the weights; a description goes beside them, see {document('checkpoints')}")


def _printable(head: bytes) -> bool:
    if head.isascii():
        return all(byte in _PRINTABLE for byte in head)
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(byte in _PRINTABLE or byte >= 0x80 for byte in head)


_PRINTABLE = frozenset(string.printable.encode())

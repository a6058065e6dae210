"""Arrays from files: the header must account for the bytes that are there, before anything is allocated."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy.errors import FileReadError
from mmms_deploy.files.arrays import load_array, load_arrays

BIG = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"


def npy(header: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    head = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(head)) + head + body


def npz(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def saved(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(24, dtype=">i2").reshape(2, 3, 4)),
    np.array(7),
    np.zeros((0, 3), np.uint8),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.arange(3_000_000, dtype=np.float16),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, array: Any) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    found = load_array(path)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", first=array, **{"0/second": array})
        both = load_arrays(tmp_path / "a.npz")
        assert list(both) == ["first", "0/second"]
        np.testing.assert_array_equal(both["0/second"], array)
        assert both["first"].dtype == array.dtype


BAD = {
    "empty": b"",
    "no header": b"\x93NUMPY\1\0",
    "torn header": npy("{"),
    "header of an expression": npy("__import__('os')"),
    "header that is no dict": npy("[1]"),
    "unknown version": npy(BIG, version=b"\x09\0"),
    "version 3": b"\x93NUMPY\3\0" + struct.pack("<I", 10) + b"{}        ",
    "4 TB": npy(BIG),
    "40 digits": npy(BIG.replace("1000000", str(10**40))),
    "5000 digits": b"\x93NUMPY\1\0" + struct.pack("<H", 6000) + b"{'shape': (" + b"1" * 5989,
    "negative": npy(BIG.replace("1000000", "-1")),
    "zero times 40 digits": npy(BIG.replace("(1000000", "(0").replace("1000000", str(10**40))),
    "truth as a shape": npy(BIG.replace("(1000000, 1000000)", "(True,)"), b"1234"),
    "bytes are missing": npy(BIG.replace("1000000", "3"), b"x" * 35),
    "bytes too many": npy(BIG.replace("1000000", "3"), b"x" * 37),
    "objects": saved(np.array([{}], dtype=object)),
    "texts": saved(np.array(["a"])),
    "records": saved(np.zeros(2, dtype=[("a", "f4")])),
    "times": saved(np.zeros(2, dtype="M8[s]")),
    "nested header": npy("(" * 110),
    "torn zip": b"PK\3\4" + b"x" * 90,
    "long header": b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31) + b"x" * 100,
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_array_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(BAD[case])
    with pytest.raises(FileReadError):
        load_array(path)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path.write_bytes(npz({"a.npy": BAD[case]}, compression))
        with pytest.raises(FileReadError, match=r"a\.npy"):
            load_arrays(path)


def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(BIG.replace("(1000000, 1000000)", f"({10 << 30},)")))
    with path.open("r+b") as stream:
        stream.truncate(128 + (40 << 30))
    with pytest.raises(FileReadError, match="42949672960 bytes, more than"):
        load_array(path)


def test_an_archive_that_would_become_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(1 << 20), b=np.zeros(1 << 20))
    assert path.stat().st_size < 50_000
    with pytest.raises(FileReadError, match="its arrays have 16777"):
        load_arrays(path, limit=10 << 20)


def test_an_entry_whose_size_is_forged_is_refused(tmp_path: Path) -> None:
    """The list of contents says that an entry is small, and it unpacks to more."""
    path = tmp_path / "a.npz"
    content = bytearray(npz({"a.npy": saved(np.zeros(1 << 20))}))
    entry = content.rindex(b"PK\1\2")
    content[entry + 24 : entry + 28] = struct.pack("<I", 200)
    path.write_bytes(content)
    with pytest.raises(FileReadError):
        load_arrays(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 1000, id="no archive"),
        pytest.param(npz({"a.txt": b"text"}), id="no array"),
        pytest.param(npz({"a.npy": saved(np.zeros(3))}, zipfile.ZIP_LZMA), id="another packing"),
        pytest.param(npz({f"{n}.npy": b"" for n in range(5000)}), id="many entries"),
        pytest.param(npz({"x" * 60_000 + f"{n}.npy": b"" for n in range(80)}), id="a large list of contents"),
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(FileReadError):
        load_arrays(path)


def test_an_encrypted_entry_and_a_name_that_is_there_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    content = bytearray(npz({"a.npy": saved(np.zeros(3))}))
    content[content.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(FileReadError, match="encrypted"):
        load_arrays(path)
    content = npz({"a.npy": saved(np.zeros(3)), "b.npy": saved(np.zeros(3))})
    path.write_bytes(content.replace(b"b.npy", b"a.npy"))
    with pytest.raises(FileReadError, match="twice"):
        load_arrays(path)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    content = bytearray(npz({"a.npy": saved(np.zeros(3))}, zipfile.ZIP_STORED))
    content[content.index(b"\x93NUMPY") + 130] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileReadError, match="CRC"):
        load_arrays(path)

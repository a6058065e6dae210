"""``tools/slim_cuda_provider.py``: machine code of other GPUs is blanked, and what is packed is joined again.

The real provider, blanked, is loaded in ``test_wheel.py``.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.slim_cuda_provider import (
    MACHINE_CODE,
    PROVIDER,
    PTX,
    SlimError,
    blank,
    entries,
    kept_architecture,
    main,
    ordered_parts,
)

SCRIPT = ROOT / "tools" / "slim_cuda_provider.py"
MAGIC = struct.pack("<I", 0xBA55ED50)


def code(kind: int, architecture: int, payload: bytes, header: int = 64) -> bytes:
    """Code for one architecture, as compilers embed it."""
    head = struct.pack("<HHIQ12xI", kind, 0x101, header, len(payload), architecture)
    return head.ljust(header, b"\x7f") + payload


def container(*parts: bytes, size: int | None = None) -> bytes:
    inside = b"".join(parts)
    return MAGIC + struct.pack("<HHQ", 1, 16, len(inside) if size is None else size) + inside


def library() -> bytes:
    """Two containers between bytes that look like the start of one, and host code."""
    first = container(
        code(MACHINE_CODE, 80, b"ampere" * 10), code(MACHINE_CODE, 90, b"hopper" * 10), code(PTX, 75, b".version 9.0")
    )
    second = container(code(MACHINE_CODE, 90, b"second" * 4, header=72), code(MACHINE_CODE, 120, b"blackwell" * 4))
    # Entries that do not fill it, another version, more bytes than there are.
    fakes = (container(code(MACHINE_CODE, 80, b"x"), b"rest"), MAGIC + struct.pack("<HHQ", 2, 16, 8) + bytes(8))
    return b"\x7fELF host" + fakes[0] + first + b"more host code" + fakes[1] + second + container(size=1 << 40) + MAGIC


def test_the_code_in_a_library_is_found() -> None:
    content = library()
    found = list(entries(content))
    assert [(entry.kind, entry.architecture) for entry in found] == [(2, 80), (2, 90), (1, 75), (2, 90), (2, 120)]
    assert [content[entry.at : entry.at + entry.size][:6] for entry in found] == [
        b"ampere",
        b"hopper",
        b".versi",
        b"second",
        b"blackw",
    ]
    assert len({entry.container for entry in found}) == 2
    assert list(entries(b"")) == []


def test_only_machine_code_of_other_architectures_is_blanked(tmp_path: Path) -> None:
    file = tmp_path / "provider.so"
    file.write_bytes(library())
    said = blank(file, 90)
    assert "kept 3 of 5 pieces of code, for architecture 90" in said
    assert "(80: 1, 120: 1)" in said
    assert file.read_bytes() == library().replace(b"ampere" * 10, bytes(60)).replace(b"blackwell" * 4, bytes(36))
    assert list(entries(file.read_bytes())) == list(entries(library())), "headers stay"
    with pytest.raises(SlimError, match="no machine code for architecture 75; it has code for 80, 90, 120"):
        blank(file, 75)


def test_a_gpu_takes_older_code_of_its_generation() -> None:
    found = list(entries(container(*(code(MACHINE_CODE, one, b"x") for one in (75, 80, 86, 90)))))
    assert [kept_architecture(found, wanted) for wanted in (86, 89, 87, 80, 90)] == [86, 86, 86, 80, 90]
    for wanted in (100, 70):
        with pytest.raises(SlimError):
            kept_architecture(found, wanted)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with a provider, and with what is left out."""
    file = tmp_path / "onnxruntime_gpu-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(PROVIDER, library())
        archive.writestr("onnxruntime/__init__.py", "here = True\n")
        archive.writestr("onnxruntime_gpu-1.0.dist-info/METADATA", "Name: onnxruntime-gpu\nVersion: 1.0\n")
        for name in ("capi/libonnxruntime.so.1.0", "capi/libonnxruntime_providers_tensorrt.so", "tools/x.py"):
            archive.writestr(f"onnxruntime/{name}", "left out")
    return file


def unpacked(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Unpack as on the other side: with the file alone, and nothing installed."""
    alone = folder / "slim.py"
    alone.write_bytes(SCRIPT.read_bytes())
    command = [sys.executable, "-I", "-S", str(alone), "unpack", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_packed_is_joined_again(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, site = tmp_path / "parts", tmp_path / "other" / "site"
    assert main(["pack", str(wheel), "--out", str(parts), "--part-mb", "0.0003"]) == 0
    assert "kept 3 of 5" in capsys.readouterr().out
    files = ordered_parts(parts)
    assert len(files) > 1
    assert [file.parent.name for file in files] == [str(number) for number in range(1, len(files) + 1)]
    assert all(file.stat().st_size <= 300 for file in files)
    again = main(["pack", str(wheel), "--out", str(parts), "--part-mb", "0.0003"])
    assert (again, ordered_parts(parts)) == (0, files), "older parts are replaced"

    last = files[-1].rename(tmp_path / "kept")
    done = unpacked(parts, "--out", site, folder=tmp_path)
    assert done.returncode == 1
    assert f"lacks part {len(files)} of {len(files)}" in done.stderr
    last.rename(files[-1])
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:100] + bytes(50) + whole[150:])
    done = unpacked(parts, "--out", site, folder=tmp_path)
    assert "are damaged" in done.stderr
    assert not site.exists()
    files[0].write_bytes(whole)

    done = unpacked(parts, "--out", site, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()) == [
        "onnxruntime/__init__.py",
        PROVIDER,
        "onnxruntime_gpu-1.0.dist-info/METADATA",
    ]
    assert b"hopper" in (site / PROVIDER).read_bytes()
    assert b"ampere" not in (site / PROVIDER).read_bytes()
    assert "3 files" in unpacked(tmp_path / "nowhere", "--out", site, folder=tmp_path).stdout, "it is there already"


def test_what_cannot_be_packed(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.whl"
    zipfile.ZipFile(empty, "w").close()
    (tmp_path / "text").write_text("no wheel")
    for file, architecture, said in (
        (empty, 90, "give a wheel of onnxruntime-gpu for Linux"),
        (wheel, 75, "no machine code for architecture 75"),
        (tmp_path / "text", 90, "not a zip file"),
        (tmp_path / "none", 90, "No such file"),
    ):
        arguments = ["pack", str(file), "--out", str(tmp_path / "parts"), "--architecture", str(architecture)]
        assert main(arguments) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SlimError, match="holds no part"):
        ordered_parts(tmp_path)

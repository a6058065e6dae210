"""ONNX Runtime for CUDA in a fifth of its size, for a machine that has no network and takes files in small parts.

Its CUDA provider holds machine code for six GPU architectures, and a GPU uses one of them. ``pack`` takes the wheel,
blanks the code of the others in place, leaves out what Python does not load, compresses the rest and splits it.
``unpack`` joins the parts on the other side. Both need Python 3.11 or newer and nothing else: this file can be
copied there alone.

    python3 tools/slim_cuda_provider.py pack onnxruntime_gpu-1.31.1-*.whl --architecture 90 --out parts --part-mb 26
    python3 tools/slim_cuda_provider.py unpack parts --out site      # then PYTHONPATH=site

Headers stay as they are, so that the driver chooses its code as before. Only machine code is blanked: PTX stays. The
result is for GPUs of the one architecture; on others its kernels fail.
"""

from __future__ import annotations

import argparse
import io
import lzma
import mmap
import re
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
LEFT_OUT = (
    r"onnxruntime/capi/libonnxruntime\.so",
    r"onnxruntime/capi/libonnxruntime_providers_tensorrt\.so",
    r"onnxruntime/(transformers|quantization|tools|datasets|backend)/",
)
"""What running a graph from Python does not load: the library for C, the provider for TensorRT, and tools."""
_MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")
"""Magic number, version, bytes of this header, bytes that follow."""
_ENTRY = struct.Struct("<HHIQ12xI")
"""Kind, version, bytes of this header, bytes that follow it, and, 12 bytes later, the architecture."""
_KINDS = (PTX, MACHINE_CODE) = (1, 2)
_NAME = re.compile(r"cuda-provider\.(\d+)-of-(\d+)")
_CHUNK = 1 << 22
_WINDOW = 64 << 20


class SlimError(Exception):
    """What cannot be packed or unpacked, and what to do."""


@dataclass(frozen=True)
class Entry:
    """Code for one architecture.

    Attributes:
        at: Its first byte in the file.
        size: Its bytes.
        kind: ``PTX`` or ``MACHINE_CODE``.
        architecture: The compute capability times 10, e.g. 90.
        container: The first byte of the container that it is in. A container holds the same kernels for several
            architectures.
    """

    at: int
    size: int
    kind: int
    architecture: int
    container: int


def entries(content: bytes | mmap.mmap) -> Iterator[Entry]:
    """Yield the code in a library, as NVIDIA's compilers embed it ("fat binaries").

    A container is taken only where its entries fill it exactly, so that other bytes that look like one are left alone.

    Args:
        content: The whole file.
    """
    magic, start = struct.pack("<I", _MAGIC), 0
    while (start := content.find(magic, start)) >= 0:
        found = list(_inside(content, start))
        yield from found
        start = found[-1].at + found[-1].size if found else start + len(magic)


def _inside(content: bytes | mmap.mmap, start: int) -> Iterator[Entry]:
    if start + _CONTAINER.size > len(content):
        return
    _, version, header, size = _CONTAINER.unpack_from(content, start)
    at, end = start + header, start + header + size
    if version != 1 or header != _CONTAINER.size or end > len(content):
        return
    found = []
    while at + _ENTRY.size <= end:
        kind, _, header, size, architecture = _ENTRY.unpack_from(content, at)
        if kind not in _KINDS or not _ENTRY.size <= header <= 512:
            return
        found.append(Entry(at + header, size, kind, architecture, start))
        at += header + size
    if at == end:
        yield from found


def kept_architecture(found: Sequence[Entry], wanted: int) -> int:
    """Return the architecture whose machine code a GPU takes: its own, or the nearest older one of its generation.

    Raises:
        SlimError: There is no code for it.
    """
    there = {entry.architecture for entry in found if entry.kind == MACHINE_CODE}
    fitting = [one for one in there if one // 10 == wanted // 10 and one <= wanted]
    if not fitting:
        listed = ", ".join(map(str, sorted(there))) or "no architecture at all"
        raise SlimError(f"the provider has no machine code for architecture {wanted}; it has code for {listed}")
    return max(fitting)


def blank(path: Path, wanted: int) -> str:
    """Blank the machine code of all architectures but one, in place, and return what was done as a line of text.

    Args:
        path: The library.
        wanted: The architecture to keep: the compute capability times 10, e.g. 90.

    Raises:
        SlimError: There is no code for it.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        found = list(entries(content))
        keep = kept_architecture(found, wanted)
        others = [entry for entry in found if entry.kind == MACHINE_CODE and entry.architecture != keep]
        without = {entry.container for entry in others} - {e.container for e in found if e.architecture == keep}
        for entry in others:
            content[entry.at : entry.at + entry.size] = bytes(entry.size)
        blanked = Counter(entry.architecture for entry in others)
    listed = ", ".join(f"{architecture}: {count}" for architecture, count in sorted(blanked.items()))
    missing = f"; {len(without)} containers have no code for {keep}" if without else ""
    return (
        f"kept {len(found) - len(others)} of {len(found)} pieces of code, for architecture {keep}; blanked"
        f" {sum(entry.size for entry in others) / 1e6:.1f} MB ({listed or 'none'}){missing}"
    )


# --- packing ----------------------------------------------------------------------------------------------------------


class _Parts(io.RawIOBase):
    """Writes one stream into files of a largest size, in a folder each, so that each can be carried by itself."""

    def __init__(self, folder: Path, largest: int) -> None:
        super().__init__()
        self._folder, self._largest = folder, largest
        self._files: list[Path] = []
        self._open: IO[bytes] | None = None
        self._room = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self._open is None or not self._room:
                self._next()
            assert self._open is not None
            taken = min(self._room, len(view) - at)
            self._open.write(view[at : at + taken])
            at += taken
            self._room -= taken
        return len(view)

    def _next(self) -> None:
        self.finish()
        file = self._folder / str(len(self._files) + 1) / "part"
        file.parent.mkdir(parents=True, exist_ok=True)
        self._files.append(file)
        self._open = file.open("wb")
        self._room = self._largest

    def finish(self) -> list[Path]:
        if self._open is not None:
            self._open.close()
            self._open = None
        return self._files


def pack(wheel: Path, out: Path, architecture: int, largest: int) -> list[Path]:
    """Write the parts of a wheel into folders ``1``, ``2``, ... and return their files.

    Args:
        wheel: A wheel of onnxruntime-gpu.
        out: The folder of the folders; parts that it holds from an earlier call are replaced.
        architecture: The compute capability of the GPU times 10, e.g. 90.
        largest: The most bytes of a part.

    Raises:
        SlimError: The wheel has no CUDA provider, or no code for the architecture.
    """
    for old in sorted(out.glob("*/cuda-provider.*")) + sorted(out.glob("*/part")):
        old.unlink()
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=_made(out)) as folder:
        names = [name for name in archive.namelist() if not any(re.match(pattern, name) for pattern in LEFT_OUT)]
        if PROVIDER not in names:
            raise SlimError(f"{wheel} holds no {PROVIDER}: give a wheel of onnxruntime-gpu for Linux")
        parts = _Parts(out, largest)
        total = sum(archive.getinfo(name).file_size for name in names)
        # The same kernels come again far away, so the window is wide, but never wider than the content.
        window = max(1 << 16, min(_WINDOW, 1 << total.bit_length()))
        compression = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": window}
        filters = [{"id": lzma.FILTER_X86}, compression]
        with (
            lzma.LZMAFile(parts, "w", check=lzma.CHECK_SHA256, filters=filters) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for name in names:
                if name.endswith("/"):
                    continue
                file = Path(archive.extract(name, folder))
                if name == PROVIDER:
                    print(blank(file, architecture), flush=True)
                tar.add(file, name, filter=_anonymous)
                file.unlink()
        files = parts.finish()
    return [file.rename(file.with_name(f"cuda-provider.{n}-of-{len(files)}")) for n, file in enumerate(files, 1)]


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member without time and owner, so that the same wheel gives the same parts."""
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- unpacking --------------------------------------------------------------------------------------------------------


class _Joined(io.RawIOBase):
    """Reads files as one stream."""

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__()
        self._left = list(files)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._open is None:
                if not self._left:
                    return 0
                self._open = self._left.pop(0).open("rb")
            data = self._open.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._open.close()
            self._open = None


def ordered_parts(folder: Path) -> list[Path]:
    """Return the parts below a folder in their order.

    Raises:
        SlimError: There are none, or some are missing.
    """
    found = {
        (int(match[1]), int(match[2])): file for file in folder.rglob("*") if (match := _NAME.fullmatch(file.name))
    }
    totals = {total for _, total in found}
    if len(totals) != 1:
        what = "parts of several packings" if totals else "no part"
        raise SlimError(f"{folder} holds {what}: copy the folders that pack wrote there, and nothing else")
    (total,) = totals
    missing = [str(number) for number in range(1, total + 1) if (number, total) not in found]
    if missing:
        raise SlimError(f"{folder} lacks part {', '.join(missing)} of {total}: copy it there too")
    return [found[number, total] for number in range(1, total + 1)]


def unpack(folder: Path, out: Path) -> int:
    """Write the packed files to a folder, and return how many they are. A folder that is there already is complete.

    They appear all at once: a call that is cut off leaves nothing of that name.

    Args:
        folder: Where the parts are, at any depth.
        out: The folder for ``PYTHONPATH``.

    Raises:
        SlimError: Parts are missing or damaged.
    """
    if out.is_dir():
        return sum(file.is_file() for file in out.rglob("*"))
    parts = ordered_parts(folder)
    with tempfile.TemporaryDirectory(dir=_made(out.absolute().parent)) as temporary:
        site = Path(temporary) / "site"
        try:
            with (
                io.BufferedReader(_Joined(parts), _CHUNK) as joined,
                lzma.LZMAFile(joined) as packed,
                tarfile.open(fileobj=packed, mode="r|") as tar,
            ):
                tar.extractall(site, filter="data")
        except (lzma.LZMAError, EOFError, tarfile.TarError) as error:
            raise SlimError(f"the parts in {folder} are damaged ({error}): copy them again") from error
        site.rename(out)
    return sum(file.is_file() for file in out.rglob("*"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="blank, compress and split a wheel")
    packing.add_argument("wheel", type=Path, help="a wheel of onnxruntime-gpu for the other side's Python")
    packing.add_argument("--out", type=Path, required=True, help="folder of the folders 1, 2, ... with a part each")
    packing.add_argument(
        "--architecture", type=int, default=90, help="compute capability of the GPU times 10 (default: 90, Hopper)"
    )
    packing.add_argument("--part-mb", type=float, default=26, help="most MB (10^6 bytes) of a part (default: 26)")
    joining = commands.add_parser("unpack", help="join the parts and write the files")
    joining.add_argument("parts", type=Path, help="folder with the parts, at any depth")
    joining.add_argument("--out", type=Path, required=True, help="folder to write, for PYTHONPATH")
    options = parser.parse_args(arguments)
    try:
        if options.command == "unpack":
            print(f"{unpack(options.parts, options.out)} files in {options.out}")
        else:
            files = pack(options.wheel, options.out, options.architecture, max(1, round(options.part_mb * 1e6)))
            for file in files:
                print(f"{file.stat().st_size / 1e6:.1f} MB {file}")
            print(f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB in all")
    except (SlimError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

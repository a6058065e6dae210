"""onnxruntime-web, which runs the click stage in a browser: fetched once from npm, pinned, never committed.

``python -m mmms_deploy.page.runtime`` (``make demo-page``) fetches it. In a clone its files go into ``page/runtime/``
of the package, and a wheel that is built afterwards has them in it. In an installed package they stay in the cache.
Without them clicks run on the server.

Two builds are there. The one for WebAssembly alone has 14 MB, the one that also knows WebGPU 27 MB; a browser fetches
one of the two. The package's archive has no text of its licence, so ``page/files/browser/`` has it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.files.output import writing
from mmms_deploy.progress import OnProgress
from mmms_deploy.weights.npm import NpmPackage, PackageFile, cached_files, npm_package

ONNXRUNTIME_WEB = NpmPackage(
    name="onnxruntime-web",
    version="1.30.0",
    integrity="sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    size=33106585,
    license="MIT",
    files=(
        PackageFile("dist/ort.wasm.min.mjs", 50126, "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b"),
        PackageFile(
            "dist/ort-wasm-simd-threaded.mjs", 24381, "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
        ),
        PackageFile(
            "dist/ort-wasm-simd-threaded.wasm",
            14239897,
            "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
        ),
        PackageFile(
            "dist/ort.webgpu.min.mjs", 66349, "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0"
        ),
        PackageFile(
            "dist/ort-wasm-simd-threaded.asyncify.mjs",
            53057,
            "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
        ),
        PackageFile(
            "dist/ort-wasm-simd-threaded.asyncify.wasm",
            26781914,
            "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
        ),
    ),
)
"""The runtime: a module and its WebAssembly, for each of the two builds."""

WASM_ONLY = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The files of the build without WebGPU."""
EVERY = tuple(file.name for file in ONNXRUNTIME_WEB.files)
"""The files of both."""
FOLDER = Path(__file__).parent / "runtime"
"""Where a clone, and a wheel that was built with them, has the files."""
LICENSE = Path(__file__).parent / "files" / "browser" / "LICENSE-onnxruntime.txt"
"""Their licence."""
NO_RUNTIME = (
    "onnxruntime-web is not here, so clicks run on the server; make demo-page in a clone, or python -m"
    " mmms_deploy.page.runtime, fetches it once"
)
"""What a page says where it is missing."""


def runtime_files() -> Path | None:
    """Return the folder with all files of onnxruntime-web; None where there is none.

    It is that of the package, whose files have the sizes that are pinned, or that of the cache, whose files are
    compared with their hashes when they are first asked for.
    """
    if _is_whole(FOLDER):
        return FOLDER
    cached = cached_files(ONNXRUNTIME_WEB, EVERY)
    return None if cached is None else cached[EVERY[0]].parent


def fetch_runtime(on_progress: OnProgress | None = None, *, archive: Path | None = None) -> Path:
    """Return the folder with all files of onnxruntime-web; those that are not here yet are fetched.

    In a clone they are put into the package's own folder, all or none; an installed package leaves them in the cache,
    or, where that is off, in a folder that is removed when this process ends.

    Args:
        on_progress: Receives how far the download is, in kB.
        archive: The package's archive, where it is here already; None for the registry.

    Raises:
        RegistryError: The registry does not answer, or gives another package.
        OutputWriteError: The files cannot be written.
    """
    here = runtime_files()
    clone = _in_clone()
    if here is not None and (here == FOLDER or not clone):
        return here
    files = npm_package(ONNXRUNTIME_WEB, archive=archive, on_progress=on_progress)
    if clone:
        _put(files.values(), FOLDER)
        return FOLDER
    return files[EVERY[0]].parent


def main(arguments: Sequence[str]) -> int:
    """Fetch onnxruntime-web, and say where it is.

    Args:
        arguments: The path of the package's archive, where it is here already; none for the registry.
    """
    try:
        folder = fetch_runtime(archive=Path(arguments[0]) if arguments else None)
    except MMMSDeployError as error:
        print(error, file=sys.stderr)
        return 1
    print(folder)
    return 0


def _in_clone() -> bool:
    """Whether this package is a working copy, which a wheel can be built of, and no installed one."""
    root = Path(__file__).parents[2]
    return (root / "pyproject.toml").is_file() and (root / "setup.py").is_file()


def _is_whole(folder: Path) -> bool:
    return all(_has(folder / file.name, file.size) for file in ONNXRUNTIME_WEB.files)


def _has(file: Path, size: int) -> bool:
    try:
        return file.is_file() and file.stat().st_size == size
    except OSError:
        return False


def _put(files: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder, which is replaced by one that has them all."""
    with writing(folder), tempfile.TemporaryDirectory(prefix=".runtime.", dir=folder.parent) as temporary:
        made = Path(temporary) / "new"
        made.mkdir()
        for file in (*files, LICENSE):
            shutil.copyfile(file, made / file.name)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        made.rename(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

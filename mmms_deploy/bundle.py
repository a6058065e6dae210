"""A bundle: the whole truth about a deployed model, as one folder.

``bundle.json`` holds the manifest (the types below); beside it lie one ONNX graph per stage and precision and
``golden.npz``. Nothing in a bundle is executed when it is read.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from pathlib import Path
from types import TracebackType

import msgspec

from mmms_deploy.contract import ClickContract, ImageSpec, ModalitySpec, Struct, to_builtins
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    BundleVersionError,
    OutputExistsError,
    OutputWriteError,
)

SCHEMA = 1
MANIFEST_NAME = "bundle.json"
GOLDEN_NAME = "golden.npz"
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}
"""Element types that stages exchange, and their sizes."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
# Bytes that are no UTF-8 and values nested too deeply leave msgspec with Python's own exceptions.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Precision(StrEnum):
    """Number format of a stage's graph."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Rate(IntEnum):
    """How often an input changes; a stage runs at the fastest rate among its inputs."""

    IMAGE = 0
    MODALITY = 1
    CLICK = 2


class Role(StrEnum):
    """What a tensor at the border of a stage is."""

    IMAGE = "image"
    MODALITY = "modality"
    CLICK = "click"
    FEATURE = "feature"
    STATE = "state"
    PROBABILITY = "probability"
    MASK = "mask"


class TensorSpec(Struct, frozen=True, kw_only=True):
    """A tensor at the border of a stage.

    Attributes:
        name: Its name in the graph.
        role: What it is for.
        dtype: NumPy name of its element type (``float32``, ``float16``, ``bfloat16``, ``uint8``).
        shape: Static shape; images are (1, C, H, W).
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"tensor {self.name}: dtype {self.dtype!r} is none of {', '.join(ITEM_BYTES)}")


class StageGraph(Struct, frozen=True, kw_only=True):
    """One stage in one precision.

    Attributes:
        file: Name of the ONNX file in the bundle.
        data: Name of its external data file, for graphs that do not fit in one protobuf message (2 GB).
        inputs: Inputs, in graph order.
        outputs: Outputs, in graph order.
    """

    file: str
    data: str | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Stage(Struct, frozen=True, kw_only=True):
    """A part of the network that runs again only when one of its inputs changed.

    Attributes:
        name: Unique name, e.g. ``image`` or ``click``.
        rate: How often it runs.
        graphs: Its graph in every precision of the bundle.
        bypass: For each of its outputs, the tensor of an earlier stage that takes its place when none of the stage's
            modalities is there; empty for a stage that must run.
    """

    name: str
    rate: Rate
    graphs: dict[Precision, StageGraph]
    bypass: dict[str, str] = msgspec.field(default_factory=dict)


class StateLink(Struct, frozen=True, kw_only=True):
    """The click stage's output ``output`` is its input ``input`` at the next click; zeros after a reset."""

    input: str
    output: str


class Provenance(Struct, frozen=True, kw_only=True):
    """Where a bundle comes from.

    Attributes:
        checkpoint: File name of the checkpoint, or None for random weights.
        checkpoint_sha256: Its hash.
        backbone_checkpoint: File name of the separate backbone weights, if any.
        backbone_checkpoint_sha256: Its hash.
        random_seed: Seed of the random weights; None when the weights are trained.
        description: The network's description, as read from the checkpoint.
        parameters: Number of parameters of the network.
        opset: ONNX opset of the float32 graphs.
        half_opsets: ONNX opset of the graphs in each reduced precision.
        rewrites: Names of the exact rewrites that were applied before the export, in order.
        cuts: How the network was cut beside the default cut (``late``, ``black-box``).
        packages: Versions of the packages that made the bundle.
        created: UTC time in ISO 8601.
    """

    checkpoint: str | None
    checkpoint_sha256: str | None
    backbone_checkpoint: str | None = None
    backbone_checkpoint_sha256: str | None = None
    random_seed: int | None = None
    description: dict[str, object]
    parameters: int
    opset: int
    half_opsets: dict[Precision, int] = msgspec.field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    packages: dict[str, str]
    created: str


class GateCheck(Struct, frozen=True, kw_only=True):
    """One comparison the export gate made.

    Attributes:
        name: What was compared with what, e.g. ``stages against whole``.
        measure: What was measured, e.g. ``largest |difference| of prob``.
        worst: The worst value seen.
        limit: The bound it had to keep.
        where: Stage, tensor, image and click of the worst value.
        samples: Number of comparisons behind it.
    """

    name: str
    measure: str
    worst: float
    limit: float
    where: str
    samples: int


class BlockPeak(Struct, frozen=True, kw_only=True):
    """The largest absolute activations of one block of the backbone, in float32, on the gate's pictures.

    Attributes:
        block: One-based number of the block.
        output: In what the block gives, the residual stream.
        inside: In what any of its layers gives.
        layer: Which layer that is, by its name in the block.
    """

    block: int
    output: float
    inside: float
    layer: str


class FileEntry(Struct, frozen=True, kw_only=True):
    """Size in bytes and SHA-256 of one file of the bundle."""

    size: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What ``bundle.json`` says.

    Attributes:
        schema: Version of this format.
        name: Name of the bundle.
        size: Network size (H, W) in pixels.
        image: How the RGB image is prepared; its graph input is named ``rgb``.
        modalities: How each extra modality is prepared; its graph input has the modality's name.
        clicks: How clicks are shown and answers are read.
        stages: The stages, in the order in which they run.
        state: How the click stage feeds itself.
        provenance: Where the bundle comes from.
        gate: What the export gate measured.
        activations: The largest activations of the backbone's blocks; empty when somebody else runs it.
        files: Every file beside the manifest.
        digest: SHA-256 over the manifest without this field.
    """

    schema: int
    name: str
    size: tuple[int, int]
    image: ImageSpec
    modalities: tuple[ModalitySpec, ...]
    clicks: ClickContract
    stages: tuple[Stage, ...]
    state: tuple[StateLink, ...]
    provenance: Provenance
    gate: tuple[GateCheck, ...]
    activations: tuple[BlockPeak, ...] = ()
    files: dict[str, FileEntry] = msgspec.field(default_factory=dict)
    digest: str = ""

    def stage(self, name: str) -> Stage:
        """Return the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions in which every stage exists."""
        return tuple(p for p in Precision if all(p in stage.graphs for stage in self.stages))

    @property
    def trained(self) -> bool:
        """False when the weights are random, so that the masks mean nothing."""
        return self.provenance.random_seed is None


class Bundle:
    """A bundle on disk, checked.

    Args:
        path: The bundle's folder.
        verify: Whether to compare every file with its recorded hash (about a second per GB).

    Raises:
        BundleNotFoundError: There is no bundle there.
        BundleCorruptError: A file is missing or differs from the manifest.
        BundleVersionError: The manifest was written in another schema.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        for name, entry in self.manifest.files.items():
            _check_file(self.path, name, entry, hashed=verify)

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle."""
        return self.path / name

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST_NAME
    fix = "export it again with mmms-export, or name the folder that holds bundle.json"
    try:
        raw = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleNotFoundError(
            f"no bundle at {folder}", expected=f"a folder with a {MANIFEST_NAME} in it", fix=fix
        ) from None
    except OSError as error:
        raise BundleCorruptError(f"{file} cannot be read: {error}", expected="a readable manifest", fix=fix) from error
    try:
        schema = msgspec.json.decode(raw, type=_SchemaOnly).schema
    except _UNREADABLE as error:
        raise BundleCorruptError(f"{file} is no manifest: {error}", expected="JSON with a schema", fix=fix) from error
    if schema != SCHEMA:
        newer = schema > SCHEMA
        raise BundleVersionError(
            f"{folder} has bundle schema {schema}",
            expected=f"schema {SCHEMA}, the one this version of mmms-deploy reads",
            fix="upgrade mmms-deploy" if newer else "export the checkpoint again with this version",
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except _UNREADABLE as error:
        raise BundleCorruptError(f"{file}: {error}", expected=f"a manifest of schema {SCHEMA}", fix=fix) from error
    if manifest.digest != _digest(msgspec.json.decode(raw)):
        raise BundleCorruptError(
            f"{file} was changed after it was written (its digest does not fit)",
            expected="an unchanged manifest",
            fix="export the checkpoint again; a bundle cannot be edited by hand",
        )
    _check_references(folder, manifest)
    return manifest


class _SchemaOnly(msgspec.Struct):
    schema: int


def _check_references(folder: Path, manifest: Manifest) -> None:
    used = {GOLDEN_NAME}
    for stage in manifest.stages:
        for graph in stage.graphs.values():
            used |= {graph.file} | ({graph.data} if graph.data else set())
    odd = sorted(n for n in manifest.files if not _FILE_NAME.fullmatch(n)) + sorted(used - set(manifest.files))
    if odd:
        raise BundleCorruptError(
            f"the manifest of {folder} names files it may not name or does not list: {', '.join(odd)}",
            expected="plain file names, each with its size and hash",
            fix="export the checkpoint again",
        )


def _check_file(folder: Path, name: str, entry: FileEntry, *, hashed: bool) -> None:
    file = folder / name
    fix = "copy the bundle again, or export the checkpoint again"
    try:
        size = file.stat().st_size
        if size != entry.size:
            raise BundleCorruptError(f"{file} has {size} bytes", expected=f"{entry.size} bytes", fix=fix)
        if hashed and (found := sha256_of(file)) != entry.sha256:
            raise BundleCorruptError(f"{file} has SHA-256 {found}", expected=entry.sha256, fix=fix)
    except OSError as error:
        raise BundleCorruptError(f"{file} cannot be read: {error}", expected="a complete bundle", fix=fix) from error


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(manifest: dict[str, object]) -> str:
    """Hash a manifest as it is written, so that a field with a default can be added without a new schema."""
    return hashlib.sha256(msgspec.json.encode({**manifest, "digest": ""}, order="sorted")).hexdigest()


class BundleWriter:
    """Writes a bundle into a temporary folder beside its destination and renames it into place, or leaves nothing.

    Use as a context manager: write files to :meth:`path`, then call :meth:`commit`. Leaving the block without a commit,
    or by an error, removes everything that was written.

    Args:
        out: The bundle's folder; must not exist unless ``overwrite``.
        overwrite: Whether an existing *bundle* may be replaced, once the new one is complete.

    Raises:
        OutputExistsError: The folder exists.
        OutputWriteError: The folder cannot be written.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        self.out = out
        self.overwrite = overwrite
        self._folder: Path | None = None

    def __enter__(self) -> BundleWriter:
        if self.out.exists() or self.out.is_symlink():
            if not self.overwrite:
                raise OutputExistsError(
                    f"{self.out} exists", expected="a new folder", fix="choose another --out, or pass --overwrite"
                )
            if not (self.out / MANIFEST_NAME).is_file():
                raise OutputExistsError(
                    f"{self.out} exists and is no bundle",
                    expected="a new folder, or an old bundle to replace",
                    fix="choose another --out",
                )
        with writing(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", suffix=".partial", dir=self.out.parent))
            self._folder.chmod(0o755)
        return self

    @property
    def folder(self) -> Path:
        """The temporary folder."""
        if self._folder is None:
            raise RuntimeError("BundleWriter is used outside of its 'with' block")
        return self._folder

    def path(self, name: str) -> Path:
        """Return where to write the file of that name."""
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no plain file name")
        return self.folder / name

    def seal(self, manifest: Manifest) -> Bundle:
        """Hash every file and write the manifest, so that the temporary folder can be opened as a bundle.

        Args:
            manifest: The manifest; its ``files`` and ``digest`` are filled in here.

        Returns:
            The bundle in the temporary folder.
        """
        with writing(self.out):
            files = {
                file.name: FileEntry(size=file.stat().st_size, sha256=sha256_of(file))
                for file in sorted(self.folder.iterdir())
                if file.name != MANIFEST_NAME
            }
            written = to_builtins(msgspec.structs.replace(manifest, files=files))
            encoded = msgspec.json.format(msgspec.json.encode({**written, "digest": _digest(written)}), indent=1)
            self.path(MANIFEST_NAME).write_bytes(encoded + b"\n")
        return Bundle(self.folder, verify=False)

    def commit(self, manifest: Manifest) -> Bundle:
        """Seal the folder and rename it into place.

        Args:
            manifest: The manifest; its ``files`` and ``digest`` are filled in here.

        Returns:
            The bundle at its final place.
        """
        self.seal(manifest)
        with writing(self.out):
            for file in self.folder.iterdir():
                _sync(file)
            self._into_place()
        return Bundle(self.out, verify=False)

    def _into_place(self) -> None:
        old = None
        if self.out.exists():
            if not self.overwrite:
                raise OutputExistsError(
                    f"{self.out} appeared while exporting", expected="a new folder", fix="choose another --out"
                )
            old = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", suffix=".old", dir=self.out.parent)) / "bundle"
            self.out.rename(old)
        try:
            self.folder.rename(self.out)
        except OSError:
            if old is not None:
                old.rename(self.out)
            raise
        finally:
            if old is not None:
                shutil.rmtree(old.parent, ignore_errors=True)
        self._folder = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the system's errors while writing ``target`` into :class:`OutputWriteError`.

    Args:
        target: What is being written, for the message.
    """
    try:
        yield
    except OSError as error:
        fixes = {
            errno.ENOSPC: "free some space, or write elsewhere with --out",
            errno.EDQUOT: "free some of your quota, or write elsewhere with --out",
        }
        raise OutputWriteError(
            f"{target} cannot be written: {error.strerror or error}",
            expected="a place with room that this user may write to",
            fix=fixes.get(error.errno or 0, "check the folder and its permissions, or write elsewhere with --out"),
        ) from error

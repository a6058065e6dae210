"""An image that was encoded: what the stages before the clicks made of it, which is all that clicks need.

Features belong to a bundle, and to an image by its content. They stand for the image in every session with that bundle,
or with its click stage alone, on this machine or another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mmms_deploy.arguments import flag, shown
from mmms_deploy.bundle import Manifest, Precision, Rate
from mmms_deploy.bundle.click_inputs import click_inputs
from mmms_deploy.bundle.names import RGB
from mmms_deploy.engines.protocol import Engine, Value
from mmms_deploy.errors import FeatureError
from mmms_deploy.files import PathLike, write_file
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.session.content import Part, content_hash
from mmms_deploy.session.features_file import FORMAT, VERSION, FileHeader, features_place, pack, read_content, unpack

Array = npt.NDArray[Any]


class FeatureKey(NamedTuple):
    """What features are kept by. No name of a file is in it.

    Attributes:
        content: Hash of the image and its modalities (:mod:`mmms_deploy.session.content`).
        bundle: Digest of the bundle whose stages computed them.
        precision: What these stages computed in.
    """

    content: str
    bundle: str
    precision: Precision

    @property
    def name(self) -> str:
        """64 hexadecimal digits, a name for a file."""
        return hashlib.sha256("\n".join(self).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Resident:
    """Features on the device of an engine.

    Attributes:
        engine: The engine; sessions that share it take the values as they are.
        values: The tensors, by name.
        download: Copies a value to the host; raises where the session that made them is closed.
        is_open: Whether the values can still be used.
    """

    engine: Engine
    values: Mapping[str, Value]
    download: Callable[[Value], Array]
    is_open: Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Features:
    """An image that was encoded. It never changes.

    :meth:`mmms_deploy.Model.encode` and ``Session.features`` make them, and ``Session.use`` starts on them.

    Attributes:
        size: (H0, W0) of the image; clicks and masks are in its pixels.
        parts: Hash of the image and of every modality, by name: ``rgb`` and those of the bundle.
        bundle: Digest of the bundle whose stages computed them.
        precision: What these stages computed in.
        engine: The engine that ran them, in words; it is no part of :attr:`key`.
        present: Names of the modalities that are there.
        awaited: Names of required modalities that were announced with ``LATER``.
        bypassed: Names of the stages that were left out, because no modality is there.
        aliases: Tensors that are another one of the same numbers, by name.
        file_name: Name of the image's file; empty where it is none.
        picture: (H0, W0, 3) uint8, RGB, read-only: the image's pixels, for overlays; None where they are not kept.
        resident: The tensors on a device; None where they are on the host alone.
        in_half: Whether they were rounded to float16.
    """

    size: tuple[int, int]
    parts: Mapping[str, str]
    bundle: str
    precision: Precision
    engine: str = ""
    present: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    bypassed: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    file_name: str = ""
    picture: UInt8Array | None = None
    resident: Resident | None = None
    in_half: bool = False
    _host: Mapping[str, Array] | None = None

    @cached_property
    def content(self) -> str:
        """Hash of the image and its modalities, 64 hexadecimal digits."""
        return content_hash(self.parts, self.size)

    @property
    def key(self) -> FeatureKey:
        """What they are kept by."""
        return FeatureKey(self.content, self.bundle, self.precision)

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        """The tensors on the host, read-only, by the name that the stages give them; bfloat16 as float32.

        They are copied from the device when they are first asked for.

        Raises:
            FeatureError: The model or session that made them was closed before.
        """
        if self._host is not None:
            return self._host
        resident = self.resident
        if resident is None or not resident.is_open():
            raise FeatureError(
                "these features were on the device of a model that is closed",
                expected="features of an open model, or features that were saved",
                fix="call features.save(path) before the model is closed, or encode the image again",
            )
        arrays = {name: resident.download(value) for name, value in resident.values.items()}
        for array in arrays.values():
            array.setflags(write=False)
        return arrays

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the tensors on the host; the picture is not counted."""
        return sum(array.nbytes for array in self.arrays.values())

    def on_host(self) -> Features:
        """Return the same features on the host alone; their memory on the device is free when the last one is gone.

        Raises:
            FeatureError: As for :attr:`arrays`.
        """
        return self if self.resident is None else replace(self, resident=None, _host=self.arrays)

    def with_arrays(self, arrays: Mapping[str, Array]) -> Features:
        """Return features with other numbers, on the host.

        Args:
            arrays: Arrays of the same names and shapes, float32 or float16; not to be written to afterwards.

        Raises:
            FeatureError: They are no arrays by name. Names, shapes and types are checked where they are used.
        """
        if not isinstance(arrays, Mapping) or not all(
            isinstance(name, str) and isinstance(array, np.ndarray) for name, array in arrays.items()
        ):
            raise FeatureError(
                f"the numbers of the features are {shown(arrays, 80)}",
                expected="arrays by name, as features.arrays",
                fix="convert them with numpy.asarray",
            )
        for array in arrays.values():
            array.setflags(write=False)
        return replace(self, resident=None, _host=dict(arrays))

    def rounded(self) -> Features | None:
        """Return features in float16 where they are float32; None where a number is not finite or beyond float16."""
        arrays: dict[str, Array] = {}
        for name, array in self.arrays.items():
            if array.dtype != np.float32:
                arrays[name] = array
                continue
            with np.errstate(over="ignore"):
                arrays[name] = array.astype(np.float16)
            if not np.isfinite(arrays[name]).all():
                return None
        return replace(self.with_arrays(arrays), in_half=True)

    def without_picture(self) -> Features:
        """Return the same features without the image's pixels."""
        return replace(self, picture=None)

    def for_clicks(self, manifest: Manifest) -> Features:
        """Return the same features with the tensors that the stages at clicks read, and no others.

        So they hold no input of a fuser that runs when a modality changes, and a modality cannot be changed on them.
        They have the same key, and the same masks.

        Args:
            manifest: That of the bundle that made them, or of a click bundle of it.

        Raises:
            FeatureError: They belong to another bundle, lack a tensor, or await a modality.
        """
        if self.bundle != origin_of(manifest):
            raise other_bundle(self, manifest)
        if self.awaited:
            raise FeatureError(
                f"the features await {', '.join(sorted(self.awaited))}, which was announced with LATER",
                expected="features of an image with all of its modalities, ready for clicks",
                fix="encode the image again, with every modality that it has",
            )
        kept: dict[str, str] = {}
        aliases: dict[str, str] = {}
        there = self.arrays if self.resident is None else self.resident.values
        for name in sorted(click_inputs(manifest)):
            source = self.aliases.get(name, name)
            if source not in there:
                raise FeatureError(
                    f"the features are without {name}",
                    expected=f"all that the click stage of {manifest.name} reads",
                    fix="encode the image again with the whole bundle",
                )
            first = kept.setdefault(source, name)
            if first != name:
                aliases[name] = first
        resident = self.resident
        if resident is None:
            arrays = {name: self.arrays[source] for source, name in kept.items()}
            return replace(self, aliases=aliases, _host=arrays)
        values = {name: resident.values[source] for source, name in kept.items()}
        return replace(self, aliases=aliases, resident=replace(resident, values=values))

    def check_image(self, pixels: UInt8Array, name: str) -> None:
        """Check that they belong to an image. Those that stand on a backbone's features know its size alone.

        Args:
            pixels: (H0, W0, 3) uint8, RGB.
            name: What errors call it.

        Raises:
            FeatureError: They belong to another one.
        """
        size = (pixels.shape[0], pixels.shape[1])
        if self.size != size or self.parts.get(RGB) not in (None, Part(pixels, now=True).hash):
            raise FeatureError(
                f"these are the features of another image than {name}",
                expected="features of the same pixels",
                fix="take the file that was encoded from this image, or the image that it was encoded from",
            )

    def save(self, path: PathLike, *, picture: bool = False, overwrite: bool = False) -> None:
        """Write them to a file in the format safetensors, whole or not at all; :meth:`load` reads it.

        The same features give the same bytes.

        Args:
            path: The file.
            picture: Whether the image's pixels go with them, as PNG.
            overwrite: Whether an existing file may be replaced.

        Raises:
            FeatureError: The pixels are wanted and were not kept, or as for :attr:`arrays`.
            OutputExistsError: The file exists, and may not be replaced.
            OutputWriteError: It cannot be written.
        """
        place = features_place(path)
        write_file(place, self.to_bytes(picture=picture), overwrite=overwrite)

    @classmethod
    def load(cls, path: PathLike) -> Features:
        """Read what :meth:`save` wrote; nothing in the file is executed, and all numbers are compared with their hash.

        Args:
            path: The file.

        Raises:
            FeatureError: It is no such file, or it is damaged.
        """
        return cls.from_bytes(*read_content(path))

    def to_bytes(self, *, picture: bool = False) -> bytes:
        """Return the content of the file that :meth:`save` writes.

        Args:
            picture: Whether the image's pixels go with them.

        Raises:
            FeatureError: The pixels are wanted and were not kept, or as for :attr:`arrays`.
        """
        wanted = flag("picture", picture, FeatureError)
        if wanted and self.picture is None:
            raise FeatureError(
                "the image's pixels were to be saved with its features, and were not kept",
                expected="features of a model or session that keeps the image",
                fix="encode with keep_image=True, or save without picture=True",
            )
        return pack(self._header, self.arrays, self.picture if wanted else None)

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "this file") -> Features:
        """Return what :meth:`to_bytes` wrote.

        Args:
            content: The content of a file.
            name: What errors call the file.

        Raises:
            FeatureError: It is something else, or it is damaged.
        """
        header, arrays, picture = unpack(content, name)
        return cls(
            size=header.size,
            parts=header.parts,
            bundle=header.bundle,
            precision=header.precision,
            engine=header.engine,
            present=frozenset(header.present),
            awaited=frozenset(header.awaited),
            bypassed=frozenset(header.bypassed),
            aliases=header.aliases,
            file_name=header.file_name,
            picture=picture,
            _host=arrays,
        )

    def _header(self, sha256: str) -> FileHeader:
        return FileHeader(
            format=FORMAT,  # type: ignore[arg-type]
            version=VERSION,  # type: ignore[arg-type]
            size=self.size,
            parts=dict(sorted(self.parts.items())),
            bundle=self.bundle,
            precision=self.precision,
            engine=self.engine,
            present=tuple(sorted(self.present)),
            awaited=tuple(sorted(self.awaited)),
            bypassed=tuple(sorted(self.bypassed)),
            aliases=dict(sorted(self.aliases.items())),
            file_name=self.file_name,
            sha256=sha256,
        )

    def __getstate__(self) -> dict[str, object]:
        # To another process they go on the host; every cached value follows from the rest.
        return {**self.on_host().__dict__, "resident": None, "_host": dict(self.arrays)}

    def __repr__(self) -> str:
        where = "on the host" if self.resident is None else f"on {self.resident.engine.info.device}"
        return f"Features({self.size[1]} x {self.size[0]}, {self.content[:12]}, {self.precision}, {where})"


class FeatureSource(Protocol):
    """Keeps features for later; :class:`mmms_deploy.store.FeatureStore` is one.

    Sessions and models call it from many threads. What fails inside of it is a warning, never an error of the call.
    """

    def find(self, key: FeatureKey, engine: Engine | None = None) -> Features | None:
        """Return features that are kept; None where they are not, or not any more.

        Args:
            key: What they are kept by.
            engine: The engine that they are for: those on its device are taken as they are. None takes them on the
                host.
        """
        ...

    def encoding(self, key: FeatureKey, engine: Engine | None = None) -> AbstractContextManager[Features | None]:
        """Enter before an image is encoded, and give features that are kept; None where the block has to encode it.

        A block that gets None calls :meth:`keep` before it ends. While it runs, other threads that enter with the same
        key may be made to wait for it, so that the stages run once.

        Args:
            key: As for :meth:`find`.
            engine: As for :meth:`find`.
        """
        ...

    def keep(self, features: Features) -> Features:
        """Keep features, and return them as they will be found later: a store may round them to half precision."""
        ...

    def hold(self, features: Features) -> None:
        """Keep features on the device where they are, which :meth:`keep` or :meth:`find` returned before."""
        ...

    def forget(self, key: FeatureKey) -> None:
        """Keep features no longer, because they do not fit their bundle or because their image is to be forgotten."""
        ...


def origin_of(manifest: Manifest) -> str:
    """Return the digest of the bundle whose features a bundle takes: its own, where it computes them itself."""
    return manifest.features_of or manifest.digest


def read_after_image(manifest: Manifest) -> frozenset[str]:
    """Return the names of the tensors that any stage after the image's reads: what features hold, where it is there.

    With a bundle exported with ``--cut late`` these are what the fuser reads, too: a modality that arrives later finds
    the backbone's features.
    """
    names: set[str] = set()
    for stage in manifest.stages:
        if stage.rate is not Rate.IMAGE:
            for graph in stage.graphs.values():
                names |= {spec.name for spec in graph.inputs}
    return frozenset(names)


def other_bundle(features: Features, manifest: Manifest) -> FeatureError:
    """Return the error for features of another bundle than the one whose manifest this is."""
    return FeatureError(
        f"the features belong to another bundle, whose digest begins with {features.bundle[:12]}",
        expected=f"features of {manifest.name}, {origin_of(manifest)[:12]}",
        fix="encode the image with this session's bundle",
    )


def check_shape(name: str, array: Array, shape: tuple[int, ...] | None) -> None:
    """Check that an array of features is what a bundle's tensor is.

    Args:
        name: Its name.
        array: The array.
        shape: The shape of the bundle's tensor; None where it has none of that name.

    Raises:
        FeatureError: It has another shape, or is no tensor of the bundle.
    """
    if shape != array.shape or array.dtype not in (np.float16, np.float32, np.uint8):
        raise FeatureError(
            f"the features have {name} as {array.dtype} {array.shape}",
            expected="no such tensor" if shape is None else f"numbers of the shape {shape}",
            fix="encode the image again with this bundle",
        )

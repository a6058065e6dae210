"""The file of an encoded image: safetensors, with what the tensors belong to as JSON in its metadata.

The metadata has one entry, ``mmms-deploy``, whose text is JSON: see :class:`FileHeader`. The tensors are those of
``Features.arrays`` under their own names, and, where the image goes with them,
``image_png``, the bytes of a PNG file as uint8. ``sha256`` is over all tensors. So a file that was cut off, or of which
a bit changed, is no features file.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.errors import FeatureError, FileReadError, ImageError
from mmms_deploy.files import PathLike, as_path, open_regular, read_bytes
from mmms_deploy.imaging.io import UInt8Array, load_rgb
from mmms_deploy.session.content import MOST_PIXELS

FORMAT, VERSION = "mmms-deploy-features", 1
SUFFIX = ".features"
"""How the names of such files end where this package chooses them."""
_ENTRY = "mmms-deploy"
_PICTURE = "image_png"
_MOST_BYTES = 1 << 32
_LENGTH = struct.Struct("<Q")
_EXPECTED = "a file that Features.save wrote, complete and unchanged"
_FIX = "encode the image again, and save its features"
_DAMAGE = (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError, struct.error)
_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class FileHeader(Struct, frozen=True, kw_only=True):
    """What the metadata of the file says.

    Attributes:
        format: The name of this format.
        version: Its version.
        size: [H0, W0] of the image.
        parts: Hash of the image and of every modality, by name.
        bundle: Digest of the bundle whose stages computed them.
        precision: What these stages computed in.
        engine: The engine that ran them, in words.
        present: Names of the modalities that are there, sorted.
        awaited: Names of modalities that are to come, sorted.
        bypassed: Names of the stages that were left out, sorted.
        aliases: Tensors that are another one of the same numbers, by name.
        file_name: Name of the image's file.
        sha256: Hash over all tensors, sorted by name: of each, its name, type, shape and bytes.
    """

    format: Literal["mmms-deploy-features"]
    version: Literal[1]
    size: tuple[_Side, _Side]
    parts: dict[str, _Hash]
    bundle: _Hash
    precision: Precision
    engine: str
    present: tuple[str, ...]
    awaited: tuple[str, ...]
    bypassed: tuple[str, ...]
    aliases: dict[str, str]
    file_name: str
    sha256: _Hash


def pack(
    header: Callable[[str], FileHeader], arrays: Mapping[str, npt.NDArray[Any]], picture: UInt8Array | None
) -> bytes:
    """Return a file's content; the same header, arrays and picture give the same bytes.

    Args:
        header: Returns what the file says of itself, given the hash over all tensors.
        arrays: The tensors by name.
        picture: (H0, W0, 3) uint8, RGB: the image that goes with them; None for none.
    """
    from safetensors.numpy import save

    tensors = dict(arrays)
    if picture is not None:
        tensors[_PICTURE] = _png_of(picture)
    text = msgspec.json.encode(header(_hash_of(tensors))).decode()
    return save(tensors, metadata={_ENTRY: text})


def unpack(content: bytes, name: str) -> tuple[FileHeader, dict[str, npt.NDArray[Any]], UInt8Array | None]:
    """Return what a file's content holds: what it says of itself, its tensors, and the image that goes with them.

    Args:
        content: The content.
        name: What errors call the file.

    Raises:
        FeatureError: It is something else, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = _header(content)
        tensors: dict[str, npt.NDArray[Any]] = load(content)
        if _hash_of(tensors) != header.sha256:
            raise ValueError("its numbers have another hash than it says")
        packed = tensors.pop(_PICTURE, None)
        picture = None if packed is None else _picture_of(packed, header.size)
    except (*_DAMAGE, SafetensorError, ImageError) as error:
        raise FeatureError(f"{name} holds no features: {error}", expected=_EXPECTED, fix=_FIX) from error
    for array in tensors.values():
        array.setflags(write=False)
    return header, tensors, picture


def read_content(path: PathLike) -> tuple[bytes, str]:
    """Return a file's content, and what errors call the file.

    Raises:
        FeatureError: It cannot be read.
    """
    place = features_place(path)
    try:
        return read_bytes(place, _MOST_BYTES), str(place)
    except FileReadError as error:
        raise FeatureError(error.given, expected=_EXPECTED, fix=_FIX) from error


def read_header(path: Path) -> FileHeader:
    """Return what a file says of itself, without its numbers; they may be damaged.

    Raises:
        FeatureError: It is something else.
    """
    try:
        with open_regular(path) as stream:
            (length,) = _LENGTH.unpack(stream.read(8))
            if length > _MOST_BYTES:
                raise ValueError("its header is too long")
            return _header(_LENGTH.pack(length) + stream.read(length))
    except (*_DAMAGE, FileReadError, OSError) as error:
        raise FeatureError(f"{path} holds no features: {error}", expected=_EXPECTED, fix=_FIX) from error


def _header(content: bytes) -> FileHeader:
    (length,) = _LENGTH.unpack_from(content) if len(content) >= 8 else (0,)
    if not 0 < length <= len(content) - 8:
        raise ValueError("it is no file in the format safetensors")
    text = json.loads(content[8 : 8 + length])["__metadata__"][_ENTRY]
    found = msgspec.json.decode(text, type=FileHeader)
    if found.size[0] * found.size[1] > MOST_PIXELS:
        raise ValueError(f"its image has the size {found.size}")
    return found


def _hash_of(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.data if array.size else b"")
    return found.hexdigest()


def features_place(path: PathLike) -> Path:
    """Return the path of a file of features that a caller gave.

    Raises:
        FeatureError: It is none.
    """
    try:
        return as_path(path, "the file of features")
    except FileReadError as error:
        raise FeatureError(error.given, expected=error.expected, fix="pass the path of a file of features") from error


def _png_of(picture: UInt8Array) -> npt.NDArray[np.uint8]:
    stream = io.BytesIO()
    # Level 1 writes photographs five times faster than the default, 5 % larger.
    Image.fromarray(picture).save(stream, format="PNG", compress_level=1)
    return np.frombuffer(stream.getvalue(), dtype=np.uint8)


def _picture_of(packed: npt.NDArray[Any], size: tuple[int, int]) -> UInt8Array:
    picture = load_rgb(packed.tobytes())
    if picture.shape[:2] != size:
        raise ValueError(f"its image has the size {picture.shape[:2]}, not {size}")
    picture.setflags(write=False)
    return picture

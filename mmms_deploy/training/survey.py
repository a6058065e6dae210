"""What is in the data: objects, sizes, numbers of the modalities. Scenes are read once; the result is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmms_deploy.bundle.contract import ModalitySpec, Struct
from mmms_deploy.documents import document
from mmms_deploy.errors import FileReadError
from mmms_deploy.files import read_bytes, write_file, writing
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.training.data import Part, fingerprint
from mmms_deploy.training.errors import TrainingDataError

_SCALES = {"uint8": 1 / 255, "uint16": 1 / 65535, "int16": 1 / 32768}
_LIMIT = 256 << 20


class ModalityFacts(Struct, frozen=True, kw_only=True):
    """The numbers of a modality.

    Attributes:
        dtypes: NumPy names of the types it is stored in.
        channels: Channels; equal ones count as one.
        total: Sum of its finite numbers, by channel.
        squares: Sum of their squares.
        count: How many there are, in each channel.
        holes: Whether some are not finite.
    """

    dtypes: tuple[str, ...]
    channels: int
    total: tuple[float, ...]
    squares: tuple[float, ...]
    count: int
    holes: bool


class Survey(Struct, frozen=True, kw_only=True):
    """What is in some scenes.

    Attributes:
        fingerprint: Hash of the scenes.
        objects: How many targets each scene has, by part and scene.
        pixels: Pixels of all pictures.
        modalities: The numbers of each modality, by name.
    """

    fingerprint: str
    objects: tuple[tuple[int, ...], ...]
    pixels: int
    modalities: dict[str, ModalityFacts]


def survey(parts: Sequence[Part], kept: Path, on_progress: OnProgress | None = None) -> Survey:
    """Read all scenes once and say what is in them.

    Args:
        parts: The scenes.
        kept: File that keeps the result; it is used again while the scenes stay the same.
        on_progress: Receives every scene as a step.

    Raises:
        DatasetError: A scene cannot be read.
        TrainingDataError: A modality has another number of channels in another scene.
    """
    wanted = fingerprint(parts)
    try:
        known = msgspec.json.decode(read_bytes(kept, _LIMIT), type=Survey)
    except (FileReadError, msgspec.DecodeError):
        known = None
    if known is not None and known.fingerprint == wanted:
        return known
    found: dict[str, ModalityFacts] = {}
    objects: list[tuple[int, ...]] = []
    pixels, done, total = 0, 0, sum(map(len, parts))
    for part in parts:
        counts = []
        for index in range(len(part)):
            scene = part[index]
            counts.append(sum(bool(surface.mask.any()) for surface in scene.surfaces))
            pixels += scene.image.shape[0] * scene.image.shape[1]
            for name, stored in scene.modalities.items():
                found[name] = _with(found.get(name), name, stored, scene.name)
            done += 1
            if on_progress is not None:
                on_progress(Progress("reading the data", done, total, finished=done == total))
        objects.append(tuple(counts))
    result = Survey(fingerprint=wanted, objects=tuple(objects), pixels=pixels, modalities=found)
    with writing(kept.parent):
        kept.parent.mkdir(parents=True, exist_ok=True)
    write_file(kept, msgspec.json.encode(result))
    return result


def _with(known: ModalityFacts | None, name: str, stored: NDArray[Any], scene: str) -> ModalityFacts:
    """Return the facts of a modality with one more picture of it."""
    thinned = np.ma.getdata(stored)[::4, ::4].astype(np.float64)
    thinned = thinned[:, :, None] if thinned.ndim == 2 else thinned
    channels = thinned.shape[2]
    if channels > 1 and (thinned == thinned[:, :, :1]).all():
        channels, thinned = 1, thinned[:, :, :1]
    if known is not None and known.channels != channels:
        raise TrainingDataError(
            f"modality {name!r} of scene {scene!r} has {channels} channels, and {known.channels} in others",
            expected="the same channels in every scene",
            fix="store all of them alike",
        )
    finite = np.isfinite(thinned).all(2)
    numbers = thinned[finite]
    dtype = stored.dtype.name
    facts = known or ModalityFacts(
        dtypes=(), channels=channels, total=(0.0,) * channels, squares=(0.0,) * channels, count=0, holes=False
    )
    return ModalityFacts(
        dtypes=facts.dtypes if dtype in facts.dtypes else (*facts.dtypes, dtype),
        channels=channels,
        total=tuple(float(a + b) for a, b in zip(facts.total, numbers.sum(0), strict=True)),
        squares=tuple(float(a + b) for a, b in zip(facts.squares, (numbers**2).sum(0), strict=True)),
        count=facts.count + len(numbers),
        holes=facts.holes or not np.isfinite(np.ma.getdata(stored)).all() or bool(np.ma.getmaskarray(stored).any()),
    )


def described_modality(name: str, facts: ModalityFacts) -> ModalitySpec:
    """Describe a modality as its numbers suggest: 8 and 16 bits as shares of the range, others as they are.

    Mean and deviation are those of the data. It is optional, because training leaves it out on some views.

    Args:
        name: Its name.
        facts: Its numbers.

    Raises:
        TrainingDataError: Pictures of it are stored in types of different ranges, or it has no finite number.
    """
    factors = {dtype: _SCALES.get(dtype, 1.0) for dtype in facts.dtypes}
    if len(set(factors.values())) > 1 or not facts.count:
        raise TrainingDataError(
            f"modality {name!r} is stored as {' and '.join(facts.dtypes)}"
            if facts.count
            else f"modality {name!r} has no finite number",
            expected="one type of numbers in all scenes",
            fix=f"store all of them alike, or describe the modality in a file, as {document('checkpoints')} says",
        )
    factor = next(iter(factors.values()))
    mean = [total / facts.count for total in facts.total]
    spread = [max(square / facts.count - m * m, 0.0) ** 0.5 for square, m in zip(facts.squares, mean, strict=True)]
    scaled = tuple(round(m * factor, 6) for m in mean)
    return ModalitySpec(
        name=name,
        channels=facts.channels,
        scale=factors,
        invalid=("nan", "inf") if facts.holes else (),
        fill=scaled[0] if facts.holes else 0.0,
        mean=scaled,
        std=tuple(max(round(s * factor, 6), 1e-6) for s in spread),
        optional=True,
    )

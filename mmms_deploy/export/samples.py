"""The pictures and clicks that the gate uses: real photographs that ship with scikit-image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.imaging.modality import as_stored

CLICKS_PER_IMAGE = 10
NAMES = ("astronaut", "coffee", "chelsea")
"""Names of the photographs."""


@dataclass(frozen=True)
class Sample:
    """A picture with clicks.

    Attributes:
        name: Its name, for messages.
        image: (H0, W0, 3) uint8 RGB.
        modalities: (H0, W0, C_m) numbers as files store them, by name; optional ones may be left out.
        clicks: (N, 3) float32: x, y in image pixels, 1 positive / 0 negative.
    """

    name: str
    image: npt.NDArray[np.uint8]
    modalities: dict[str, npt.NDArray[Any]]
    clicks: npt.NDArray[np.float32]


def sample_images(modalities: tuple[ModalitySpec, ...]) -> list[Sample]:
    """Return the samples for a network with these modalities.

    The photographs have no depth, thermal, ... image. So each modality is made of the picture's own brightness, sharp
    in its first channel and smoother in the next ones, spread over the range that its normalisation expects (about -2
    to 2 after it). The first picture has all modalities, the second has no optional ones, the third every other one of
    them.

    Args:
        modalities: The network's extra modalities.
    """
    from skimage import data

    return [
        picture_sample(name, np.ascontiguousarray(getattr(data, name)()[..., :3]), modalities, seed)
        for seed, name in enumerate(NAMES)
    ]


def picture_sample(name: str, image: npt.NDArray[np.uint8], modalities: tuple[ModalitySpec, ...], seed: int) -> Sample:
    """Return a picture with ten clicks, and with modalities derived from it as :func:`sample_images` says.

    Args:
        name: Its name.
        image: (H0, W0, 3) uint8 RGB.
        modalities: The network's extra modalities.
        seed: Its number among the pictures: clicks and optional modalities depend on it.
    """
    extra = {
        spec.name: _derived(image, spec, shift)
        for shift, spec in enumerate(modalities)
        if not spec.optional or seed % 3 == 0 or (seed % 3 == 2 and shift % 2 == 0)
    }
    return Sample(name, image, extra, _clicks(image.shape[0], image.shape[1], seed))


def _derived(image: npt.NDArray[np.uint8], spec: ModalitySpec, shift: int) -> npt.NDArray[Any]:
    from skimage.filters import gaussian

    gray = image.mean(axis=2, dtype=np.float64) / 255.0
    planes = [gaussian(np.roll(gray, 7 * (shift + c), axis=1), sigma=1.0 + 3.0 * c) for c in range(spec.channels)]
    return as_stored((np.stack(planes, axis=2) * 4.0 - 2.0) * np.asarray(spec.std) + np.asarray(spec.mean), spec)


def _clicks(height: int, width: int, seed: int) -> npt.NDArray[np.float32]:
    """Ten clicks: positive ones in the middle half of the picture, negative ones anywhere, the first one positive."""
    rng = np.random.default_rng(seed)
    positive = np.array([1, 1, 0, 1, 0, 1, 0, 1, 0, 0], dtype=np.float32)
    low = np.where(positive == 1, 0.25, 0.0)[:, None]
    place = low + (1.0 - 2.0 * low) * rng.random((CLICKS_PER_IMAGE, 2))
    xy = np.floor(place * np.array([width, height]))
    return np.concatenate([xy, positive[:, None]], axis=1).astype(np.float32)

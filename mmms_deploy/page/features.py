"""An image's features in half precision, as a browser takes them: once an image, and then it clicks by itself.

They are what the click stage takes and no click changes. A frame (:mod:`mmms_deploy.page.framing`) holds them: the
header is ``{"image_size": [H0, W0], "tensors": [{"name", "shape", "offset", "values"}]}``, where ``offset`` counts the
bytes from the beginning of the payload, a multiple of four, and ``values`` the numbers; the payload is float16,
little-endian, each tensor in C order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import FeatureError
from mmms_deploy.imaging.float16 import as_float32
from mmms_deploy.page.framing import ALIGNMENT, frame, unframe
from mmms_deploy.page.model import browser_model, feature_specs
from mmms_deploy.session import Session

MOST = 65504.0
"""The largest number of float16."""


class TensorPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tensor lies in the payload.

    Attributes:
        name: Its name in the click stage.
        shape: Its shape.
        offset: Bytes from the beginning of the payload.
        values: How many numbers it has.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    values: int


UNCLEANED = "masks are cleaned, which the page in a browser does not do: its masks would be other ones"
"""Why clicks do not run in a browser where a session cleans masks."""


def encode_features(session: Session) -> bytes:
    """Return the features of a session's image in half precision.

    Args:
        session: A session with an image, and with all modalities that it needs.

    Returns:
        A frame, see the module.

    Raises:
        NoImageError: No image was set.
        SessionError: The session zooms or flips, so that features change with the clicks; or a modality is missing.
        FeatureError: A number is not finite, or beyond the range of float16: in half precision this image cannot be
            clicked on, and clicks run on the server. Or the network's click stage runs in no browser, or the session
            cleans masks, which the page does not.
    """
    model = browser_model(session.bundle)
    why = UNCLEANED if session.cleaning is not None else model.why
    if why:
        raise FeatureError(why, expected="a network whose click stage runs in a browser", fix="click on the server")
    specs = feature_specs(session.bundle)
    size = session.image_size
    arrays = session.download_features([spec.name for spec in specs])
    parts: list[bytes] = []
    places: list[TensorPlace] = []
    offset = 0
    for spec in specs:
        content = _halved(spec.name, arrays[spec.name]).tobytes()
        places.append(
            TensorPlace(name=spec.name, shape=spec.shape, offset=offset, values=int(np.prod(spec.shape, dtype=int)))
        )
        padding = -len(content) % ALIGNMENT
        parts.extend((content, bytes(padding)))
        offset += len(content) + padding
    return frame({"image_size": size, "tensors": places}, parts)


def decode_features(content: bytes) -> tuple[tuple[int, int], Mapping[str, npt.NDArray[np.float16]]]:
    """Return what :func:`encode_features` wrote.

    Args:
        content: The frame.

    Returns:
        (H0, W0) of the image, and the tensors by name, read-only.

    Raises:
        FeatureError: It is something else.
    """
    try:
        header, payload = unframe(content)
        height, width = msgspec.convert(header["image_size"], tuple[int, int])
        places = msgspec.convert(header["tensors"], list[TensorPlace])
        tensors = {}
        for place in places:
            if math.prod(place.shape) != place.values:
                raise ValueError(f"{place.name} has {place.values} numbers and the shape {place.shape}")
            numbers = np.frombuffer(payload, dtype="<f2", count=place.values, offset=place.offset)
            tensors[place.name] = numbers.reshape(place.shape)
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        raise FeatureError(
            f"these are no features in half precision: {error}",
            expected="what encode_features returned",
            fix="check where they come from",
        ) from error
    return (height, width), tensors


def _halved(name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    numbers = as_float32(array)
    largest = float(np.abs(numbers).max(initial=0.0))
    if not largest <= MOST:  # NaN is in the way of every comparison
        raise FeatureError(
            f"the features {name} reach {largest:g}",
            expected=f"finite numbers up to {MOST:g}, which half precision can hold",
            fix="click on the server: this image's features cannot be sent to a browser",
        )
    return numbers.astype("<f2")

"""Which argument of ``set_image`` is the image, and the names that others give it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mmms_deploy.errors import ImageError
from mmms_deploy.imaging.io import ImageLike

_EXPECTED = "one image: the first argument, or image=..."
_OTHERS = frozenset(
    {
        "img",
        "frame",
        "picture",
        "photo",
        "pic",
        "input",
        "source",
        "path",
        "file",
        "filename",
        "im",
        "array",
        "raw_image",
    }
)
"""What the image is called elsewhere."""
_OF_OPENCV = frozenset({"frame", "img"})
"""What the image is called where OpenCV reads it."""
_FORMATS = frozenset(
    {
        "image_format",
        "format",
        "color",
        "colour",
        "color_order",
        "channels",
        "channel",
        "mode",
        "order",
        "channels_order",
        "color_mode",
        "color_format",
        "color_space",
        "colorspace",
        "pixel_format",
    }
)
"""What the order of channels is called elsewhere: ``image_format`` by SAM's predictor."""


def the_image(
    rgb: ImageLike | None,
    image: ImageLike | None,
    modalities: Mapping[str, object],
    known: Collection[str],
) -> ImageLike:
    """Return the image among the arguments of ``set_image``.

    Args:
        rgb: The first argument.
        image: The same by its other name.
        modalities: All other keywords.
        known: The names of the bundle's modalities.

    Raises:
        ImageError: There is none, or two; or a keyword is the image, or the order of its channels, by a name that is
            not this one.
    """
    for name, value in modalities.items():
        fix = None if name in known else _meant(name, value)
        if fix is not None:
            raise ImageError(f"set_image({name}=...) is not understood", expected=_EXPECTED, fix=fix)
    if rgb is not None and image is not None:
        raise ImageError(
            "set_image got two images, as its first argument and as image=",
            expected=_EXPECTED,
            fix="leave out one of them",
        )
    found = image if rgb is None else rgb
    if found is None:
        raise ImageError(
            "set_image got no image, or None",
            expected=_EXPECTED,
            fix="check the path that was read (cv2.imread returns None for a file that it cannot read), or pass the"
            " path itself",
        )
    return found


def _meant(name: str, value: object) -> str | None:
    """Return what to do about a keyword that is no modality; None where nothing like it is known."""
    plain = name.lower()
    if "bgr" in plain or plain in ("cv2", "cv2_image", "opencv"):
        return 'pass the array of OpenCV as the image and say its order: set_image(array, channel_order="bgr")'
    if plain in _FORMATS:
        order = "bgr" if "bgr" in str(value).lower() else "rgb"
        return f'its name is channel_order: set_image(array, channel_order="{order}")'
    if plain not in _OTHERS:
        return None
    video = ', or set_image(frame, channel_order="bgr") where it comes from OpenCV' if plain in _OF_OPENCV else ""
    return f"pass it as the first argument, set_image(image){video}"

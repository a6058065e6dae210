"""Files that come in: the parts of a form, their names, their pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.requests import Request

from mmms_deploy.errors import ImageError, MMMSDeployError, ModalityError
from mmms_deploy.imaging.formats import READ
from mmms_deploy.imaging.picture import stored_size
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.reporting.visible import visible
from mmms_deploy.server.errors import RequestError, TooLargeError
from mmms_deploy.server.tabs import Source

IMAGE = "image"
"""The field, and the layer, of the image."""
_ALONE = ("image/", "application/octet-stream")
_NPY = b"\x93NUMPY"
_LONGEST_NAME = 200


class Upload(NamedTuple):
    """Files of a form.

    Attributes:
        files: Their contents by field.
        name: The name of the image's file, as it may be shown.
    """

    files: dict[str, bytes]
    name: str


async def read_form(request: Request, fields: Sequence[str]) -> Upload:
    """Read the files of a form; an image without modalities may come alone, as the body.

    Args:
        request: The request.
        fields: The fields that may be there.

    Raises:
        RequestError: It is no form with files, or has another field, or one of them twice.
    """
    expected = f"multipart/form-data with files in the fields {', '.join(fields)}" if fields else "no file"
    kind = request.headers.get("content-type", "").lower()
    if IMAGE in fields and kind.startswith(_ALONE):
        return Upload({IMAGE: await request.body()}, "")
    if not kind.startswith("multipart/form-data"):
        raise RequestError("the request is no form", expected=expected, fix="send the files as multipart/form-data")
    files: dict[str, bytes] = {}
    name = ""
    async with request.form(max_files=len(fields) + 1, max_fields=1) as form:
        for field, value in form.multi_items():
            shown = shown_name(field)
            if field not in fields or field in files:
                why = "is there twice" if field in files else "is unknown"
                raise RequestError(f"the field {shown!r} {why}", expected=expected, fix="leave it out")
            if not isinstance(value, UploadFile):
                raise RequestError(f"the field {shown!r} is no file", expected=expected, fix="send it with a filename")
            files[field] = await value.read()
            if field == IMAGE:
                name = shown_name(value.filename or "")
    return Upload(files, name)


def shown_name(name: str, *, whole: bool = False) -> str:
    """Return a name of a file as it is shown: short, without control characters.

    Args:
        name: The name.
        whole: Whether the folders before it stay; a caller's are of no use here.
    """
    last = name if whole else re.split(r"[/\\]", name)[-1]
    return visible(last.encode("utf-8", "backslashreplace").decode(), kept="")[:_LONGEST_NAME]


def check_pixels(sources: Mapping[str, Source], most: int) -> int:
    """Check the number of pixels of pictures, before any of them is decoded, and return that of the image, or 0.

    Args:
        sources: Files by layer.
        most: The most pixels of one.

    Raises:
        TooLargeError: A picture has more.
        ImageError: The image is no picture.
        ModalityError: A modality is none.
    """
    pixels = 0
    for layer, source in sources.items():
        if layer != IMAGE and _is_array(source):
            continue  # its numbers are as many as its bytes say
        kind: type[MMMSDeployError] = ImageError if layer == IMAGE else ModalityError
        found = check_picture(source, kind, "the image" if layer == IMAGE else f"modality {layer!r}", most)
        if layer == IMAGE:
            pixels = found
    return pixels


def check_picture(source: Source, kind: type[MMMSDeployError], what: str, most: int) -> int:
    """Check the number of pixels of a picture, before it is decoded, and return it.

    Args:
        source: Its file.
        kind: The error where it is no picture.
        what: What it is for, for messages.
        most: The most pixels.

    Raises:
        MMMSDeployError: It is no picture; ``kind``.
        TooLargeError: It has more pixels.
    """
    height, width = stored_size(source, Refusal(kind, what, f"a picture ({READ})"))
    if height * width > most:
        raise TooLargeError(
            f"{what} has {width} x {height} pixels", expected=f"at most {most} pixels", fix="make it smaller"
        )
    return height * width


def _is_array(source: Source) -> bool:
    return source.startswith(_NPY) if isinstance(source, bytes) else source.suffix.lower() == ".npy"

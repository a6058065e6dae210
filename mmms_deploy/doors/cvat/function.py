"""What a nuclio function of CVAT answers: the server posts the picture and all points at every click.

A request is JSON, and so is the answer, which CVAT's server passes to the browser as it is::

    {"image": base64, "pos_points": [[x, y], ...], "neg_points": [...], "obj_bbox": [[x, y], [x, y]] or null}
    {"mask": [[0, 1, ...], ...], "bounds": [x0, y0, x1, y1]}

``mask`` holds the rows of the object's box, and ``bounds`` its first and last column and row. With ``whole_image``
there are all rows of the picture and no ``bounds``. An error is ``{"error": text}`` with the status 400, or 500 where
it is not the request's.

Nothing is kept between requests but sessions and features: they are known by a hash of the base64 text, so that a
picture which comes again is not decoded, and its clicks go on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import traceback
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from mmms_deploy.annotations.boxes import xyxy_of
from mmms_deploy.arguments import shown
from mmms_deploy.doors.cvat.frames import Frames
from mmms_deploy.doors.cvat.prompts import checked_prompts
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, ImageError, MMMSDeployError, SessionError
from mmms_deploy.files import MIB
from mmms_deploy.imaging.formats import READ
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.imaging.picture import stored_size
from mmms_deploy.imaging.refusal import Refusal
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session import Features

REQUEST_BYTES = 32 * MIB
"""The most bytes of a request, as ``function.yaml`` says it to nuclio."""
OK, BAD_REQUEST, FAILED = 200, 400, 500
_EMPTY = '{"mask":[[0]],"bounds":[0,0,0,0]}'


class FunctionSettings(Opening, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set about a nuclio function.

    Attributes:
        sessions: How many pictures are ready for the next click at once; others are decoded again.
        most_pixels: The most pixels of a picture.
        whole_image: Whether answers have the rows of the whole picture, for servers whose page knows no ``bounds``.
    """

    sessions: Annotated[int, msgspec.Meta(ge=1)] = 8
    most_pixels: Annotated[int, msgspec.Meta(ge=1)] = 64_000_000
    whole_image: bool = False


class _Request(msgspec.Struct):
    image: str
    pos_points: list[Any] = []
    neg_points: list[Any] = []
    obj_bbox: list[Any] | None = None


class Function:
    """Answers requests of CVAT's server on one bundle.

    Args:
        bundle: A folder, ``demo``, or ``hf:owner/name``.
        **settings: Those of :class:`FunctionSettings`, by name.

    Raises:
        DoorError: A setting is unknown or of another type, or the network needs more than pictures.
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
    """

    def __init__(self, bundle: str | os.PathLike[str], **settings: Any) -> None:
        self._settings = FunctionSettings.of(settings)
        self._model = self._settings.model(os.fspath(bundle))
        try:
            self._frames: Frames[str] = Frames(self._model, self._settings, self._settings.sessions)
        except BaseException:
            self._model.close()
            raise

    def respond(self, context: Any, event: Any) -> Any:
        """Answer an event of nuclio.

        Args:
            context: nuclio's context.
            event: The event; its body is the request as JSON, or what nuclio made of it.

        Returns:
            A ``context.Response``. No exception leaves this.
        """
        status, text = self.answer(event.body, getattr(context, "logger", None))
        return context.Response(body=text, headers={}, content_type="application/json", status_code=status)

    def answer(self, body: object, logger: Any = None) -> tuple[int, str]:
        """Answer a request.

        Args:
            body: The request: bytes or text of JSON, or its content as a mapping.
            logger: Has ``error(text)``; what is wrong goes there too, because CVAT's server keeps it from the page.

        Returns:
            The status, and the answer as JSON.
        """
        try:
            return OK, self._mask(_request(body))
        except Exception as error:
            named = isinstance(error, MMMSDeployError)
            status = BAD_REQUEST if isinstance(error, DoorError | SessionError) else FAILED
            text = str(error) if named else f"{type(error).__name__}: {error}"
            if logger is not None:
                logger.error(text if named else traceback.format_exc())
            return status, msgspec.json.encode({"error": text}).decode()

    def close(self) -> None:
        """Free everything."""
        self._frames.close()
        self._model.close()

    def _mask(self, request: _Request) -> str:
        if len(request.image) > REQUEST_BYTES:
            raise DoorError(
                f"the picture of a request has {len(request.image)} characters",
                expected=f"at most {REQUEST_BYTES}, which is what nuclio lets through",
                fix="lower the picture's size or its quality in CVAT, or use an agent, which gets the picture once",
            )
        prompts = checked_prompts(request.pos_points, request.neg_points, request.obj_bbox)
        key = hashlib.sha256(request.image.encode("utf-8", "surrogatepass")).hexdigest()
        mask = self._frames.answer(key, lambda: self._features(request.image), prompts)
        x0, y0, x1, y1 = xyxy_of(mask)
        if self._settings.whole_image:
            return f'{{"mask":{rows_of(mask)}}}'
        if not y1:
            return _EMPTY
        return f'{{"mask":{rows_of(mask[y0:y1, x0:x1])},"bounds":[{x0},{y0},{x1 - 1},{y1 - 1}]}}'

    def _features(self, text: str) -> Features:
        """Decode a picture, and encode it where the store has no features of it."""
        refuse = Refusal(ImageError, "the picture of a request", f"a picture in base64 ({READ})")
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise refuse(f"it is no base64: {shown(text, 40)}", "send the file's bytes in base64") from error
        height, width = stored_size(content, refuse)
        if height * width > self._settings.most_pixels:
            raise refuse(
                f"it has {width} x {height} pixels, and at most {self._settings.most_pixels} are taken",
                "make it smaller, or raise most_pixels in the SETTINGS of main.py",
            )
        return self._model.encode(load_rgb(content))


def rows_of(mask: BoolArray) -> str:
    """Return a mask as JSON: a list of rows, each a list of 0 and 1.

    Args:
        mask: (H, W) bool; at least one pixel.
    """
    height, width = mask.shape
    text = np.full((height, 2 * width + 2), ord(","), dtype=np.uint8)
    text[:, 0] = ord("[")
    text[:, 1:-1:2] = mask
    text[:, 1:-1:2] += ord("0")
    text[:, -2] = ord("]")
    return f"[{text.tobytes()[:-1].decode('ascii')}]"


def _request(body: object) -> _Request:
    expected = '{"image": base64, "pos_points": [[x, y], ...], "neg_points": [...]}'
    try:
        if isinstance(body, str | bytes | bytearray | memoryview):
            return msgspec.json.decode(body, type=_Request)
        if isinstance(body, Mapping):
            return msgspec.convert(body, _Request)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DoorError(
            f"a request is not what CVAT sends: {error}", expected=expected, fix="call the function from CVAT"
        ) from error
    raise DoorError(f"a request is {shown(body, 80)}", expected=expected, fix="call the function from CVAT")

"""What a picture may be given as besides arrays and PIL images: paths, bytes, and file objects.

Bytes are a file's contents, such as an upload. A file object is anything that has ``read()`` and gives bytes: an open
file, ``io.BytesIO``, the answer of ``urllib.request.urlopen``, the file of an upload. It is read from its beginning to
its end, as Pillow reads it, and stands where it stood afterwards; one that cannot go back is read from where it stands.

What people pass and what is no picture (None, tensors, lists, URLs, a path as bytes) is refused with the line that
makes a picture of it. Nothing is ever downloaded.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mmms_deploy.files import unreadable
from mmms_deploy.imaging.refusal import Refusal

LIMIT = 2 << 30
"""The most bytes that are read from a file object."""
_PART = 1 << 22
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+://|data:)")
_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
"""How PNG, JPEG, GIF, WebP and TIFF files begin in Base64."""
_LONGEST_PATH = 4096
_TENSORS = frozenset({"torch", "jax", "jaxlib", "tensorflow", "cupy", "mxnet", "paddle"})


@runtime_checkable
class FileObject(Protocol):
    """Anything that is read as a file: ``read(size)`` gives bytes, and none at its end."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to ``size`` bytes."""


class Contents(NamedTuple):
    """A file in memory.

    Attributes:
        stream: Its bytes.
        where: What it is, for messages.
    """

    stream: io.BytesIO
    where: str


def contents(source: object, refuse: Refusal) -> Contents | None:
    """Return the contents of bytes or of a file object; None for anything else.

    Args:
        source: What was given.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: ``refuse``'s error: the bytes are a path, or the file object gives no bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        if _is_path(content):
            raise refuse(f"{content[:80]!r} is a path as bytes", "pass the path as a text: os.fsdecode(path)")
        return Contents(io.BytesIO(content), "the bytes object")
    if not callable(getattr(source, "read", None)) or isinstance(source, type):
        return None
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    where = f"the file object of {name}" if isinstance(name, str) else "the file object"
    return Contents(io.BytesIO(_read(source, where, refuse)), where)


def _is_path(content: bytes) -> bool:
    """Return whether bytes are a path: short, printable, with a suffix, and no picture's first bytes."""
    return len(content) < _LONGEST_PATH and re.fullmatch(rb"[\x20-\x7e]+\.[A-Za-z]{2,4}", content) is not None


def _read(source: Any, where: str, refuse: Refusal) -> bytes:
    kind = type(source)
    if kind.__module__.split(".")[0] == "cv2":
        raise refuse(
            f"it is a {kind.__module__}.{kind.__qualname__}",
            "read a frame, say that OpenCV's colours are blue, green, red, and pass that:"
            ' ok, frame = capture.read(); set_image(frame, channel_order="bgr")',
            "save one frame as PNG",
        )
    if isinstance(source, io.TextIOBase):
        raise refuse(f"{where} was opened as text", "open it as bytes: open(path, 'rb')", "check the file")
    parts: list[bytes] = []
    try:
        with _from_its_beginning(source):
            total = 0
            while total <= LIMIT:
                part = source.read(_PART)
                if not isinstance(part, bytes | bytearray | memoryview):
                    raise _no_bytes(part, where, refuse)
                if not part:
                    return b"".join(parts)
                parts.append(bytes(part))
                total += len(part)
    except refuse.error:
        raise
    except Exception as error:  # whatever a foreign object's read() raises
        reason = unreadable(where, error).reason
        raise refuse(f"{where} cannot be read: {reason}", "pass its bytes, or the array that it gives") from error
    raise refuse(f"{where} has more than {LIMIT} bytes", "check it")


@contextlib.contextmanager
def _from_its_beginning(source: Any) -> Iterator[None]:
    """Let a file object stand at its beginning, and afterwards where it stood, where it can."""
    try:
        place = source.tell()
        source.seek(0)
    except Exception:  # a pipe, a socket, an object that has no places
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            source.seek(place)


def _no_bytes(part: object, where: str, refuse: Refusal) -> Exception:
    if inspect.iscoroutine(part):
        part.close()
        return refuse(
            f"{where} is read with await",
            "pass what it reads: await upload.read()",
            "check the file",
        )
    what = type(part).__qualname__
    return refuse(
        f"{where} has a read() that returns {what}, no bytes",
        "pass the array that it gives, channels last, or the path",
        "check the file",
    )


def check_text(source: object, refuse: Refusal) -> None:
    """Refuse a text that is no path but a picture's address or its contents in Base64.

    Args:
        source: What was given.
        refuse: Makes the error.

    Raises:
        MMMSDeployError: ``refuse``'s error.
    """
    if not isinstance(source, str):
        return
    if source.startswith("file://"):
        raise refuse(f"{_brief(source)} is a URL", "pass the path alone, without file://")
    if source.startswith("data:") or (len(source) > 255 and source.startswith(_BASE64)):
        raise refuse(
            f"{_brief(source)} is a picture as a text in Base64",
            "pass its bytes: base64.b64decode(text.split(',')[-1])",
            "save the picture as a file",
        )
    if _URL.match(source):
        raise refuse(
            f"{_brief(source)} is a URL, and nothing is downloaded here",
            "download it and pass its bytes: urllib.request.urlopen(url).read()",
            "download it first, e.g. with curl, and give the file",
        )


def refused(source: object, refuse: Refusal) -> Exception:
    """Return the error for an object that is no picture, with the line that makes one of it.

    Args:
        source: What was given.
        refuse: Makes the error.
    """
    kind = type(source)
    given = f"{refuse.what} is a {kind.__module__}.{kind.__qualname__}"
    fix = "convert it to a NumPy array, channels last"
    if source is None:
        given = f"{refuse.what} is None"
        fix = "check the path that was read (cv2.imread returns None for a file that it cannot read), or pass the path"
    elif kind.__module__.split(".")[0] in _TENSORS:
        given += f" of shape {tuple(getattr(source, 'shape', ()))} and dtype {getattr(source, 'dtype', None)}"
        fix = f"pass an array: {_array_of(source)}"
    elif isinstance(source, list | tuple):
        fix = "pass one picture at a time: image[0]"
        if source and isinstance(source[0], list | tuple):
            fix = "pass an array: numpy.array(image, dtype=numpy.uint8)"
    elif isinstance(source, dict):
        fix = "pass the picture in it, such as image['image'] or image['bytes']"
    return refuse.error(given, expected=refuse.expected, fix=fix)


def _array_of(tensor: Any) -> str:
    """Return the expression that makes an array of a tensor, channels last."""
    shape = tuple(getattr(tensor, "shape", ()))
    library = type(tensor).__module__.split(".")[0]
    first = "image[0]" if len(shape) == 4 else "image"
    shape = shape[1:] if len(shape) == 4 else shape
    planes = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
    floats = "float" in str(getattr(tensor, "dtype", ""))
    if library == "torch":
        steps = [first, "permute(1, 2, 0)"] if planes else [first]
        steps += ["mul(255).round().byte()"] if floats else []
        return ".".join([*steps, "cpu().numpy()"])
    array = f"{first}.get()" if library == "cupy" else f"numpy.asarray({first})"
    array += ".transpose(1, 2, 0)" if planes else ""
    return f"({array} * 255).round().astype(numpy.uint8)" if floats else array


def _brief(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."

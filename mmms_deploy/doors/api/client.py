"""A client of the server's API that needs the standard library and this package's run-time half, and no engine.

docs/integrations.md shows how it is used.
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from mmms_deploy.annotations.rle import mask_of_rle
from mmms_deploy.arguments import shown
from mmms_deploy.errors import DoorError
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.page.layers import png_of

_SECONDS = 600.0
"""How long an answer may take: a busy server lets calls wait."""


class Client:
    """A session on a server of ``mmms-demo``, by its API; one image and its objects at a time.

    Not made for several threads. The session on the server is closed with the client.

    Args:
        address: The server's address as it prints it, e.g. ``http://127.0.0.1:8000`` or with ``#token=...`` behind.
        token: The token that the server asks for; None takes that of the address.
        seconds: How long an answer may take.
        cleaning: What is done to masks after the network has answered; None for what the server does.

    Raises:
        DoorError: There is no such server, it asks for another token, or it opens no session.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        seconds: float = _SECONDS,
        cleaning: MaskCleaning | None = None,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DoorError(
                f"the address {shown(address)}",
                expected="the address of a server, such as http://127.0.0.1:8000",
                fix="pass the address that mmms-demo prints",
            )
        _, _, given = parts.fragment.partition("token=")
        secret = token or given
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._address = f"{parts.scheme}://{parts.netloc}"
        self._root = f"{parts.path.rstrip('/')}/api/v1"
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=seconds)
        self._session = ""
        try:
            body = b"" if cleaning is None else msgspec.json.encode({"cleaning": cleaning})
            self._session = self._call("POST", "sessions", body)["session"]
        except BaseException:
            self._connection.close()
            raise

    def set_image(self, image: UInt8Array | PathLike | bytes, **modalities: PathLike | bytes) -> tuple[int, int]:
        """Set a new image, and forget the clicks.

        Args:
            image: (H0, W0, 3) uint8 RGB, which is sent as PNG; the path of a picture's file; or a file's bytes.
            **modalities: The path or the bytes of each modality's file.

        Returns:
            (H0, W0) in pixels, upright.

        Raises:
            DoorError: The server refuses it, or does not answer.
            OSError: A file cannot be read.
        """
        body, kind = _form({"image": _content(image), **{name: _content(one) for name, one in modalities.items()}})
        height, width = self._call("PUT", f"{self._place}/image", body, kind)["size"]
        return height, width

    def click(self, x: float, y: float, positive: bool = True) -> BoolArray:
        """Click, and return the mask of the current object.

        Args:
            x: To the right, in image pixels; pixel centres are at integers.
            y: Downwards.
            positive: Whether the click is on the object.

        Returns:
            (H0, W0) bool.

        Raises:
            DoorError: The server refuses it, or does not answer.
        """
        return self._mask("click", {"x": x, "y": y, "positive": bool(positive)})

    def undo(self) -> BoolArray:
        """Take back the newest click, and return the mask (H0, W0) bool as it was before.

        Raises:
            DoorError: There is none.
        """
        return self._mask("undo")

    def redo(self) -> BoolArray:
        """Bring back the click that was undone last, and return the mask (H0, W0) bool.

        Raises:
            DoorError: There is none.
        """
        return self._mask("redo")

    def reset(self) -> None:
        """Forget the clicks on the current object.

        Raises:
            DoorError: There is no image.
        """
        self.state("reset")

    def select(self, name: str) -> None:
        """Turn to another object, a new one or one that is there.

        Args:
            name: Its name.

        Raises:
            DoorError: The server refuses the name.
        """
        self.state("select", {"name": name})

    def annotation(self) -> Any:
        """Return all objects with their clicks, as :meth:`Session.to_dict` does.

        Raises:
            DoorError: There is no image.
        """
        return self._call("GET", f"{self._place}/annotation")

    def state(self, call: str = "state", fields: Mapping[str, Any] | None = None, mask: str = "none") -> Any:
        """Make a call that is answered with the state of the session (docs/server.md).

        Args:
            call: Its name, such as ``state`` or ``rename``.
            fields: Its fields.
            mask: In which form the answer has the current object's mask: ``rle``, ``polygons`` or ``none``.

        Returns:
            The answer, decoded JSON.

        Raises:
            DoorError: The server refuses it, or does not answer.
        """
        content = json.dumps(fields or {}).encode()
        return self._call("POST", f"{self._place}/{quote(call)}?mask={quote(mask)}", content, "application/json")

    def close(self) -> None:
        """Close the session on the server; a server that is gone has closed it."""
        session, self._session = self._session, ""
        try:
            if session:
                self._call("DELETE", f"sessions/{session}")
        except DoorError:
            pass
        finally:
            self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _place(self) -> str:
        if not self._session:
            raise DoorError("the client is closed", expected="an open client", fix="make another one")
        return f"sessions/{self._session}"

    def _mask(self, call: str, fields: Mapping[str, Any] | None = None) -> BoolArray:
        return mask_of_rle(self.state(call, fields, "rle")["mask"])

    def _call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """Send a request, and return its answer as decoded JSON; None where it has no body."""
        headers = {**self._headers, "Content-Type": kind}
        try:
            self._connection.request(method, f"{self._root}/{path}", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next call connects anew
            raise DoorError(
                f"{self._address} does not answer: {error or type(error).__name__}",
                expected="a running server (mmms-demo)",
                fix="start it, and pass the address that it prints",
            ) from error
        if answer.status >= 400:
            raise _refused(answer.status, content, self._address)
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise _foreign(self._address, answer.status) from error


def _refused(status: int, content: bytes, address: str) -> DoorError:
    """Return the server's own error, in its words."""
    try:
        error = json.loads(content)["error"]
        return DoorError(str(error["given"]), expected=error.get("expected"), fix=error.get("fix"))
    except (ValueError, TypeError, KeyError):
        return _foreign(address, status)


def _foreign(address: str, status: int) -> DoorError:
    return DoorError(
        f"{address} answers with status {status} and nothing of the API's form",
        expected="a server of mmms-demo",
        fix="check the address, and whether a proxy stands before it",
    )


def _content(given: UInt8Array | PathLike | bytes) -> bytes:
    if isinstance(given, np.ndarray):
        return png_of(given, fast=True)
    return given if isinstance(given, bytes) else Path(given).read_bytes()


def _form(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return a body of files by their fields, and its type."""
    if set(files) == {"image"}:
        return files["image"], "application/octet-stream"
    border = f"mmms-deploy-{secrets.token_hex(16)}"
    parts = [
        f'--{border}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    return b"".join(parts) + f"--{border}--\r\n".encode(), f"multipart/form-data; boundary={border}"

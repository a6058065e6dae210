"""A task's picture: from Label Studio, from hosts that were named, or out of the address itself.

A task's data come from whoever may import tasks, so an address in them is not trusted: fetching every address would let
them read what only this machine reaches. Pictures are fetched over HTTP from Label Studio and from the hosts that were
named when the backend was started. Every redirect is checked like the first address, and the access token goes to Label
Studio alone: the same scheme, host and port.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mmms_deploy.arguments import shown
from mmms_deploy.doors.label_studio.settings import LabelStudio, split_address
from mmms_deploy.doors.label_studio.tokens import Tokens, is_personal
from mmms_deploy.errors import DoorError
from mmms_deploy.files import MIB
from mmms_deploy.server.errors import TooLargeError
from mmms_deploy.version import __version__

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 18
_KEPT = "/%:@!$&'()*+,;=~-._?[]"
"""Characters of an address that stay as they are."""
_LOGIN = "/user/login"


class _Unredirected(HTTPRedirectHandler):
    """Follows no redirect: each is checked first."""

    def redirect_request(self, *given: Any) -> None:
        return None


class Fetcher:
    """Fetches pictures; several threads may.

    Args:
        label_studio: The Label Studio, the hosts and the limits.
        most_bytes: The most bytes of a picture.
        clock: Seconds that only grow.
    """

    def __init__(self, label_studio: LabelStudio, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._label_studio, self._most_bytes, self._clock = label_studio, most_bytes, clock
        self._opener = build_opener(_Unredirected)
        self._tokens = Tokens(label_studio, self._post)

    def picture(self, address: str, token: str | None) -> bytes:
        """Return the file of a picture.

        Args:
            address: As the task has it: a path of Label Studio's, an address over HTTP, or a ``data:`` URL.
            token: The token that Label Studio sent when the model was connected; one of the settings comes first.

        Raises:
            DoorError: The address is of another kind or host, or is refused, not there, or takes too long.
            TooLargeError: It has too many bytes.
        """
        if address.lower().startswith("data:"):
            return self._decoded(address)
        token = self._label_studio.token or token
        place = self._resolved(address)
        try:
            return self._followed(place, token, fresh=False)
        except _RefusedError as error:
            if token is None or not is_personal(token):
                raise self._refused(error, token) from None
        try:
            # It may have ended early, as when Label Studio was started anew with another key.
            return self._followed(place, token, fresh=True)
        except _RefusedError as error:
            raise self._refused(error, token) from None

    def _resolved(self, address: str) -> str:
        base = self._label_studio.base
        if address.startswith("/"):
            path = urlsplit(base).path
            # Where Label Studio lies below a path, it may have written that path into the address already.
            return base.removesuffix(path) + address if path and address.startswith(f"{path}/") else base + address
        scheme = address.partition(":")[0].lower()
        if split_address(address) is None:
            known = scheme != address.lower() and scheme.isalnum()
            raise DoorError(
                f"the picture's address is {shown(address, 200)}" + (f", of the kind {scheme}:" if known else ""),
                expected="a path of Label Studio such as /data/upload/1/photo.jpg, http://, https://, or data:",
                fix="import the picture by such an address; for a storage, switch its pre-signed URLs on",
            )
        return address

    def _followed(self, address: str, token: str | None, *, fresh: bool) -> bytes:
        ends = self._clock() + self._label_studio.seconds
        for _ in range(self._label_studio.most_redirects + 1):
            parts = split_address(address)
            if parts is None or not self._label_studio.allows(parts):
                raise self._another_host(address)
            own = self._label_studio.is_own(parts)
            if own and parts.path.startswith(_LOGIN):
                raise _RefusedError(address, 302)
            headers = {}
            if own and token is not None:
                headers["Authorization"] = self._tokens.header(token, fresh=fresh)
                fresh = False
            answer = self._opened(Request(_quoted(address), headers=headers), own)
            if isinstance(answer, str):
                address = urljoin(address, answer)
                continue
            with answer:
                return self._read(answer, address, ends)
        raise DoorError(
            f"{shown(address, 200)} is redirected more than {self._label_studio.most_redirects} times",
            expected="a picture",
            fix="import the address at which the picture is",
        )

    def _opened(self, request: Request, own: bool) -> Any:
        """Return the answer to a request, or where it is redirected to."""
        request.add_header("User-Agent", f"mmms-deploy/{__version__}")
        try:
            return self._opener.open(request, timeout=self._label_studio.seconds)
        except HTTPError as error:
            with error:
                place = error.headers.get("Location")
                if error.code in _REDIRECTS and place:
                    return str(place)
                if own and error.code in (401, 403):
                    raise _RefusedError(request.full_url, error.code) from None
                raise self._failed(request.full_url, f"answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(request.full_url, _why(error)) from error

    def _read(self, answer: Any, address: str, ends: float) -> bytes:
        length = answer.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self._most_bytes:
            raise self._too_large(address)
        parts: list[bytes] = []
        total = 0
        try:
            while part := answer.read1(_CHUNK):
                total += len(part)
                if total > self._most_bytes:
                    raise self._too_large(address)
                if self._clock() > ends:
                    raise self._failed(address, f"takes longer than {self._label_studio.seconds:g} seconds")
                parts.append(part)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(address, _why(error)) from error
        if length.isdecimal() and total < int(length):
            raise self._failed(address, f"breaks off after {total} of {length} bytes")
        return b"".join(parts)

    def _post(self, address: str, content: bytes) -> bytes:
        request = Request(address, content, {"Content-Type": "application/json"}, method="POST")
        try:
            answer = self._opened(request, own=True)
        except _RefusedError as error:
            raise DoorError(
                f"Label Studio at {self._label_studio.base} refuses the personal access token ({error.status})",
                expected="one that has not ended and was not revoked",
                fix="make a new one under Account & Settings, and start with it:"
                " mmms-serve label-studio BUNDLE --access-token TOKEN",
            ) from None
        if isinstance(answer, str):
            raise self._failed(address, f"is redirected to {shown(answer, 200)}")
        with answer:
            return self._read(answer, address, self._clock() + self._label_studio.seconds)

    def _decoded(self, address: str) -> bytes:
        head, comma, body = address.partition(",")
        content = b""
        with suppress(ValueError, binascii.Error):
            raw = unquote_to_bytes(body)
            content = base64.b64decode(raw, validate=True) if head.lower().endswith(";base64") else raw
        if not comma or not content:
            raise DoorError(
                f"the picture's address {shown(address, 60)} cannot be decoded",
                expected="data:image/png;base64,... or another picture's contents",
                fix="import the picture anew",
            )
        if len(content) > self._most_bytes:
            raise self._too_large("a data: URL")
        return content

    def _another_host(self, address: str) -> DoorError:
        host = urlsplit(address).netloc
        return DoorError(
            f"the picture is at {shown(address, 200)}",
            expected=f"Label Studio at {self._label_studio.base}, or a host that was named; pictures are fetched from"
            " no other, because whoever imports tasks could make this machine ask for what only it reaches",
            fix="start with mmms-serve label-studio BUNDLE --label-studio URL where that is Label Studio, or"
            f" --image-host {host} where it is not",
        )

    def _refused(self, error: _RefusedError, token: str | None) -> DoorError:
        start = (
            "start with mmms-serve label-studio BUNDLE --access-token TOKEN and a personal access token"
            " (Account & Settings)"
        )
        if token is None:
            return DoorError(
                f"Label Studio asks for an access token for {error.address} ({error.status})",
                expected="an access token",
                fix=start,
            )
        kind = "personal" if is_personal(token) else "legacy"
        return DoorError(
            f"Label Studio refuses the {kind} access token for {error.address} ({error.status})",
            expected="a token that it takes, of a user who may see the project"
            + (
                "; a new installation takes no legacy tokens, which is what it sends itself to models"
                if kind == "legacy"
                else ""
            ),
            fix=f"{start}; or allow legacy tokens under Organization > Access Token Settings"
            if kind == "legacy"
            else "make a new one under Account & Settings, as a user who may see the project",
        )

    def _failed(self, address: str, why: str) -> DoorError:
        return DoorError(
            f"{shown(address, 200)} {why}",
            expected="the task's picture",
            fix="check that this machine reaches it; mmms-serve label-studio BUNDLE --label-studio URL names Label"
            " Studio's address as seen from here",
        )

    def _too_large(self, address: str) -> TooLargeError:
        return TooLargeError(
            f"the picture at {shown(address, 200)} has more than {self._most_bytes} bytes",
            expected=f"at most {self._most_bytes / MIB:g} MiB",
            fix="make it smaller, or start with mmms-serve label-studio BUNDLE --upload MIB",
        )


class _RefusedError(Exception):
    """Label Studio wants another token."""

    def __init__(self, address: str, status: int) -> None:
        self.address, self.status = address, status
        super().__init__(address)


def _quoted(address: str) -> str:
    """Return an address in which spaces and letters beyond ASCII are spelt out."""
    parts = urlsplit(address)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{quote(parts.path or '/', safe=_KEPT)}{quote(query, safe=_KEPT)}"


def _why(error: BaseException) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return "does not answer in time"
    return f"cannot be fetched: {reason}"

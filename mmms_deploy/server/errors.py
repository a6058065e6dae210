"""The API's own errors, and how any error is answered.

    ServerError
        ServerUnavailableError
        ListenError
        RequestError
        TokenError
        RefusedHostError
        RefusedOriginError
        UnknownPlaceError
            UnknownSessionError
            UnknownImageError
        StateError
        TooLargeError
        FullError

Their form is that of :mod:`mmms_deploy.errors`.
"""

from __future__ import annotations

from typing import Any

from mmms_deploy.errors import (
    AnnotationError,
    Door,
    DoorError,
    EngineError,
    MMMSDeployError,
    NoImageError,
    OutputExistsError,
    ResidentBudgetError,
    SessionClosedError,
    SessionError,
)
from mmms_deploy.session.click_only import WITH_FEATURES


class ServerError(MMMSDeployError):
    """A request cannot be answered.

    Attributes:
        status: The HTTP status of the answer.
    """

    status = 400


class ServerUnavailableError(ServerError):
    """The packages that serve the page are not installed."""

    status = 500


class ListenError(ServerError):
    """The server cannot listen on its address."""

    status = 500


class RequestError(ServerError):
    """A request is of another form than the API takes."""


class TokenError(ServerError):
    """A request has no token, or a wrong one."""

    status = 401


class RefusedHostError(ServerError):
    """A request names a host that is not this server."""

    status = 403


class RefusedOriginError(ServerError):
    """A request comes from a page of another origin."""

    status = 403


class UnknownPlaceError(ServerError):
    """There is nothing at an address."""

    status = 404


class UnknownSessionError(UnknownPlaceError):
    """There is no such session, or it was idle for too long and was freed."""


class UnknownImageError(UnknownPlaceError):
    """There is no such image, layer or modality."""


class StateError(ServerError):
    """A request does not fit what the session or the server holds."""

    status = 409


class TooLargeError(ServerError):
    """A body has too many bytes, or a picture too many pixels."""

    status = 413


class FullError(ServerError):
    """The server holds as many sessions, or as much memory, as it may."""

    status = 503


_STATUS: tuple[tuple[type[MMMSDeployError], int], ...] = (
    (NoImageError, 409),
    (OutputExistsError, 409),
    (ResidentBudgetError, 503),
    (EngineError, 500),
    (SessionError, 400),
    (AnnotationError, 400),
    (DoorError, 400),
)
"""The status of the package's other errors; the first that fits counts."""


def unknown_session() -> UnknownSessionError:
    """Return the error about a session that is not there, or not there any more."""
    return UnknownSessionError(
        "there is no such session (any more)",
        expected="a session that POST sessions opened, and that was used since",
        fix="open a session with POST sessions, set the image again, and restore the annotation",
    )


def answered(error: MMMSDeployError) -> MMMSDeployError:
    """Return the error that a caller of the API sees in the place of another one."""
    return unknown_session() if isinstance(error, SessionClosedError) else error


def status_of(error: MMMSDeployError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, ServerError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(error: MMMSDeployError) -> dict[str, Any]:
    """Return an error as the API gives it."""
    return described(type(error).__name__, error.given, error.expected, error.fix, error.message(Door.PYTHON))


def unexpected_body() -> dict[str, Any]:
    """Return what is said of an error that is the server's own fault: nothing of its inside."""
    given, fix = "the server failed", "look at what it printed, and report it"
    return described("InternalError", given, None, fix, f"{given}\n  to fix: {fix}")


_WORDS = {
    "the bytes object": "the file",
    "give the picture": "send the picture",
    "call set_image(...) first": "set an image first",
    f"call use(Features.load(FILE)) {WITH_FEATURES}": "open one of the server's pictures",
    "or call reset() to start over": "or reset the surface to start over",
    "what Session.to_dict() returned, also as JSON reads it": "what GET annotation returned",
}
"""What errors say to callers in Python, and what it is for those of the API."""


def described(kind: str, given: str, expected: str | None, fix: str | None, text: str) -> dict[str, Any]:
    """Return the fields of an error."""
    fields = {"kind": kind, "given": given, "expected": expected, "fix": fix, "text": text}
    return {"error": {name: None if value is None else _plain(value) for name, value in fields.items()}}


def _plain(text: str) -> str:
    """Return a text in the API's words that JSON can hold: bytes that are no UTF-8 are spelt out."""
    for ours, theirs in _WORDS.items():
        text = text.replace(ours, theirs)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

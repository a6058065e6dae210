"""The access token of Label Studio, as it is sent: a legacy token as it is, a personal one by what it is exchanged for.

A personal access token is a JWT that is worth nothing by itself: ``POST /api/token/refresh/`` gives another one for it,
which counts for some minutes and is sent as ``Bearer``.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable

from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.errors import DoorError

REFRESH = "/api/token/refresh/"
"""Where a personal access token is exchanged."""
MARGIN_SECONDS = 30.0
"""How long before its end a token is exchanged anew."""
USUAL_SECONDS = 120.0
"""How long one counts that does not say it."""

Post = Callable[[str, bytes], bytes]
"""Posts JSON to an address of Label Studio's own, and returns the answer."""


class Tokens:
    """What to send for a token; several threads may ask.

    Args:
        label_studio: The Label Studio.
        post: Posts the exchange.
        now: Seconds since 1970.
    """

    def __init__(self, label_studio: LabelStudio, post: Post, now: Callable[[], float] = time.time) -> None:
        self._label_studio, self._post, self._now = label_studio, post, now
        self._lock = threading.Lock()
        self._given: dict[str, tuple[str, float]] = {}

    def header(self, token: str, *, fresh: bool = False) -> str:
        """Return the header ``Authorization`` for a token.

        Args:
            token: The token.
            fresh: Whether what it was exchanged for before was refused.

        Raises:
            DoorError: It cannot be exchanged.
        """
        if not is_personal(token):
            return f"Token {token}"
        with self._lock:
            held = self._given.get(token)
            if held is None or fresh or held[1] <= self._now():
                self._given = {token: self._exchanged(token)}
            return f"Bearer {self._given[token][0]}"

    def _exchanged(self, token: str) -> tuple[str, float]:
        answer = self._post(self._label_studio.base + REFRESH, json.dumps({"refresh": token}).encode())
        try:
            access = json.loads(answer)["access"]
            if not isinstance(access, str) or not access.isascii() or not access.isprintable():
                raise ValueError
        except (ValueError, LookupError, TypeError, RecursionError):
            raise DoorError(
                f"{self._label_studio.base}{REFRESH} gives no access token for the personal one",
                expected='{"access": ...}, as Label Studio answers',
                fix="check that the address is Label Studio's",
            ) from None
        ends = _claims(access).get("exp")
        lasts = ends - MARGIN_SECONDS if isinstance(ends, int | float) else self._now() + USUAL_SECONDS
        return access, lasts


def is_personal(token: str) -> bool:
    """Return whether a token is a personal access token: a JWT, of three parts; a legacy token is one word."""
    return token.count(".") == 2 and bool(_claims(token))


def _claims(token: str) -> dict[str, object]:
    """Return what a JWT says of itself; nothing is trusted of it."""
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

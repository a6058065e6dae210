"""Who may ask: the guard of the page's server, with Label Studio's way to send a token."""

from __future__ import annotations

import base64
import binascii

from starlette.datastructures import Headers
from starlette.types import Scope

from mmms_deploy.server.guard import Guard


class BackendGuard(Guard):
    """Looks at every request before the application does.

    Label Studio sends a user's name and a password to a model with Basic authentication: the password is the token,
    whatever the name. A token as ``Bearer`` counts, too.
    """

    def _asks(self, path: str) -> bool:
        return True

    def _given_token(self, headers: Headers) -> str | None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return super()._given_token(headers)
        try:
            return base64.b64decode(given.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (ValueError, binascii.Error):
            return None

    def _limit(self, scope: Scope) -> int:
        # A task may carry its picture in a data: URL.
        return self._settings.upload_bytes

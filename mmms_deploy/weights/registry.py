"""A file of a package registry, over HTTPS: a stream that goes on where the connection broke."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener, getproxies

from mmms_deploy.errors import FileReadError, RegistryError
from mmms_deploy.files import decode_json
from mmms_deploy.version import __version__
from mmms_deploy.weights.npm_settings import DEFAULT_REGISTRY, NpmSettings

PAUSE = 1.0
"""Seconds before the first attempt to go on; twice as long before each next one."""
_ATTEMPTS = 5
"""Attempts to go on without a byte between them."""
_SECONDS = 30.0
"""Seconds without an answer after which a connection is given up."""
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that a later request may not get."""
_LARGEST_ANSWER = 1 << 22
"""Bytes of a registry's description of a version."""


class RegistryClient:
    """Asks one registry.

    Args:
        settings: Where it is, and how it is reached.

    Raises:
        RegistryError: Its address is none, or the network may not be used.
    """

    def __init__(self, settings: NpmSettings) -> None:
        if settings.offline is not None:
            raise RegistryError(
                f"{settings.offline} forbids to ask the npm registry", fix="unset it, or name a file that is here"
            )
        self.registry = settings.registry
        _check_address(settings.registry)
        self._opener = _opener(settings)

    def tarball(self, name: str, version: str) -> str:
        """Return the address of a package's archive.

        Args:
            name: The package, with its scope.
            version: Its version.

        Raises:
            RegistryError: The registry does not answer.
        """
        usual = f"{self.registry}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        try:
            with self._open(f"{self.registry}/{quote(name, safe='@')}/{version}") as answer:
                described = decode_json(answer.read(_LARGEST_ANSWER), self.registry)
        except HTTPError as error:
            if error.code in _LATER:
                raise _unreachable(self.registry, error) from error
            return usual  # a mirror that has archives alone
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.registry, error) from error
        except FileReadError:
            return usual
        dist = described.get("dist") if isinstance(described, dict) else None
        found = dist.get("tarball") if isinstance(dist, dict) else None
        # A mirror may pass on the addresses of the registry that it mirrors; npm puts its own in their place, too.
        elsewhere = isinstance(found, str) and found.startswith(DEFAULT_REGISTRY) != (self.registry == DEFAULT_REGISTRY)
        if not isinstance(found, str) or elsewhere:
            return usual
        _check_address(found)
        return found

    def download(self, address: str, most: int) -> Download:
        """Open a file.

        Args:
            address: Its address.
            most: The most bytes that it may have.
        """
        return Download(self._open, address, most)

    def _open(self, address: str, start: int = 0) -> Any:
        headers = {"User-Agent": f"mmms-deploy/{__version__}"}
        if start:
            headers["Range"] = f"bytes={start}-"
        return self._opener.open(Request(address, headers=headers), timeout=_SECONDS)


class Download:
    """The bytes of a file, in order, each once; a broken connection is opened again where it broke.

    Args:
        opened: Opens an address from a byte on.
        address: The address.
        most: The most bytes that the file may have.

    Attributes:
        address: The address.
        total: Bytes of the file; None when the server does not say.
    """

    def __init__(self, opened: Callable[[str, int], Any], address: str, most: int) -> None:
        self.address = address
        self.total: int | None = None
        self._opened, self._most = opened, most
        self._answer: Any = None
        self._done = 0

    def read(self, count: int) -> bytes:
        """Return the next bytes, at most ``count``; nothing at the end.

        Raises:
            RegistryError: The server does not answer, refuses, or sends more than was expected.
        """
        failures = 0
        while True:
            try:
                data = self._next(count)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                refused = isinstance(error, HTTPError) and error.code not in _LATER
                untrusted = isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError)
                if refused or untrusted or failures >= _ATTEMPTS:
                    raise _unreachable(self.address, error) from error
                time.sleep(PAUSE * 2**failures)
                failures += 1
                continue
            self._done += len(data)
            if self._done > self._most:
                raise self._too_large(f"more than {self._most}")
            return data

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            with suppress(OSError, http.client.HTTPException):
                self._answer.close()
            self._answer = None

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _next(self, count: int) -> bytes:
        if self._answer is None:
            if self.total is not None and self._done >= self.total:
                return b""
            self._answer = self._opened(self.address, self._done)
            self._begin(self._answer)
        data: bytes = self._answer.read(count)
        if not data and self.total is not None and self._done < self.total:
            raise ConnectionError(f"the connection ended after {self._done} of {self.total} bytes")
        return data

    def _begin(self, answer: Any) -> None:
        """Look at the answer's head, and pass over what is here already when the server starts from the beginning."""
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        if answer.status == 206:
            span, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if span.partition("-")[0] != str(self._done):
                raise ConnectionError("the server goes on at another place than it was asked to")
            size = int(whole) if whole.isdecimal() else self.total
        elif self._done:
            _pass_over(answer, self._done)
        if size is not None:
            if self.total not in (None, size):
                raise RegistryError(f"{_shown(self.address)} changed its size while it was fetched", fix="try again")
            if size > self._most:
                raise self._too_large(str(size))
            self.total = size

    def _too_large(self, found: str) -> RegistryError:
        return RegistryError(
            f"{_shown(self.address)} has {found} bytes",
            expected=f"at most {self._most}, as the pinned package has",
            fix="check which registry npm is set to: npm config get registry",
        )


def _pass_over(answer: IO[bytes], count: int) -> None:
    while count:
        passed = len(answer.read(min(count, 1 << 20)))
        if not passed:
            raise ConnectionError("the connection ended before the place where it broke")
        count -= passed


def _opener(settings: NpmSettings) -> OpenerDirector:
    proxies = getproxies() | dict(settings.proxies or {})
    host = urlsplit(settings.registry).hostname or ""
    if any(host == end.lstrip(".") or host.endswith(f".{end.lstrip('.')}") for end in settings.no_proxy):
        proxies = {}
    context = ssl.create_default_context()
    for file in settings.ca_files:
        with suppress(OSError):  # as npm, which says what is wrong when it matters: no certificate is trusted
            context.load_verify_locations(file)
    if not settings.verify:  # what comes is compared with the hash of the pinned package
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return build_opener(ProxyHandler(proxies), HTTPSHandler(context=context))


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RegistryError(
            f"the npm registry is set to {_shown(address)!r}",
            expected=f"an address such as {DEFAULT_REGISTRY}",
            fix="correct it: npm config set registry ADDRESS",
        )


def _unreachable(address: str, error: Exception) -> RegistryError:
    reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    said = f"HTTP {error.code} {error.reason}" if isinstance(error, HTTPError) else str(reason) or type(reason).__name__
    fix = "check the network, its proxy (HTTPS_PROXY) and npm's registry (npm config get registry), and try again"
    if isinstance(reason, ssl.SSLCertVerificationError):
        fix = "name the file with your authority's certificate: set SSL_CERT_FILE, or npm config set cafile FILE"
    return RegistryError(f"{_shown(address)} does not answer: {said[:300]}", expected="the package's archive", fix=fix)


def _shown(address: str) -> str:
    """Return an address without a user's name and password."""
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"[:200]

"""The Label Studio that is served, and what may be fetched from where."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from mmms_deploy.arguments import shown
from mmms_deploy.errors import DoorError

ADDRESS = "http://localhost:8080"
"""Where Label Studio is, unless something else is said: its own default."""
PORTS = {"http": 80, "https": 443}
"""The schemes that are fetched, and their ports."""


@dataclass(frozen=True)
class LabelStudio:
    """The Label Studio that is served.

    Attributes:
        address: Its address as this machine reaches it, ``http://host:port``, with a path where it lies below one.
        token: The access token with which pictures are fetched from it; None takes the one that it sends itself when
            the model is connected.
        image_hosts: More hosts from which pictures are fetched, ``host`` or ``host:port``; they never see the token.
        seconds: How long one answer of a host may take, and a picture altogether.
        most_redirects: How many redirects are followed for one picture.

    Raises:
        DoorError: The address or a host is none, or the time is not above zero.
    """

    address: str = ADDRESS
    token: str | None = field(default=None, repr=False)
    image_hosts: tuple[str, ...] = ()
    seconds: float = 30.0
    most_redirects: int = 5

    def __post_init__(self) -> None:
        parts = split_address(self.address)
        if parts is None or parts.query or parts.fragment:
            raise DoorError(
                f"the address of Label Studio is {shown(self.address, 200)}",
                expected="http://HOST:PORT or https://HOST, without a name or password in it",
                fix="take it from the browser in which Label Studio is open",
            )
        for host in self.image_hosts:
            named = split_address(f"http://{host}")
            if named is None or named.path or named.query or named.fragment:
                raise DoorError(
                    f"a host for pictures is {shown(host, 200)}",
                    expected="a name or an address, with a port where only that one is meant: images.example.com:8443",
                    fix="leave out the scheme and the path",
                )
        if not self.seconds > 0:
            raise DoorError(
                f"the time for a picture is {self.seconds:g} seconds", expected="more than none", fix="pass 30"
            )

    @property
    def base(self) -> str:
        """The address without a slash at its end."""
        return self.address.rstrip("/")

    def is_own(self, parts: SplitResult) -> bool:
        """Return whether an address is of Label Studio itself: scheme, host and port are the same.

        Args:
            parts: An address that :func:`split_address` gave.
        """
        own = split_address(self.address)
        assert own is not None
        return _origin(parts) == _origin(own)

    def allows(self, parts: SplitResult) -> bool:
        """Return whether pictures may be fetched from an address.

        Args:
            parts: An address that :func:`split_address` gave.
        """
        if self.is_own(parts):
            return True
        _, host, port = _origin(parts)
        named = (urlsplit(f"//{one.lower()}") for one in self.image_hosts)
        return any(one.hostname == host and one.port in (None, port) for one in named)


def split_address(address: str) -> SplitResult | None:
    """Return the parts of an ``http`` or ``https`` address; None where it is none, or carries a name or password."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # is a number, or raises
    except ValueError:
        return None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, (parts.hostname or "").lower(), parts.port or PORTS[parts.scheme]

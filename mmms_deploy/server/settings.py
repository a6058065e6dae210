"""What the server may do, and the pictures that it offers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmms_deploy.imaging.cleaning import MaskCleaning

MIB, GIB = 1 << 20, 1 << 30
JSON_BYTES = 16 * MIB
"""The most bytes of a request in JSON, over HTTP or the live socket; annotations with masks are far smaller."""


@dataclass(frozen=True)
class Settings:
    """What the server may do.

    Attributes:
        host: The address that it listens on.
        port: The port; 0 takes a free one.
        token: What callers must know; None asks for none, which is meant for this machine alone.
        most_sessions: How many sessions there may be at once.
        idle_seconds: A session that was not used for so long is freed.
        upload_bytes: The most bytes of an upload.
        most_pixels: The most pixels of a picture.
        most_bytes: The most memory of all sessions together: features, masks, histories and uploaded files.
        out: The folder that annotations are saved in; None where they are not.
        allowed_hosts: More names by which browsers may call this server, such as that of a proxy.
        calls_at_once: How many sessions compute at once; the others wait for their turn. On two cores, 2 to 8 answer
            about as many clicks a second; with more than 2, two long calls stop no click.
        cleaning: What is done to the masks of sessions that do not say it themselves; None for nothing.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    most_sessions: int = 128
    idle_seconds: float = 1800.0
    upload_bytes: int = 64 * MIB
    most_pixels: int = 64_000_000
    most_bytes: int = 4 * GIB
    out: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    calls_at_once: int = 4
    cleaning: MaskCleaning | None = None

    def __post_init__(self) -> None:
        if self.cleaning is not None and not self.cleaning.active:
            object.__setattr__(self, "cleaning", None)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class ServedPicture:
    """A picture that the server offers.

    Attributes:
        path: Its file.
        name: What it is called, e.g. ``a/photo.jpg``.
        key: What its results are called after, without a suffix, e.g. ``a/photo``.
        modalities: The files of its modalities, by name.
        features: The file of what it was encoded to; None where the server encodes it.
    """

    path: Path
    name: str
    key: str
    modalities: Mapping[str, Path] = field(default_factory=dict)
    features: Path | None = None


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is this machine as only this machine sees it.

    Args:
        host: A name or an address, an IPv6 address without brackets.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

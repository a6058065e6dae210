"""What a door shows of itself to be compared: it opens on a bundle, takes a picture, and answers lists of clicks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mmms_deploy.bundle import Bundle
from mmms_deploy.doors.opening import Opening
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session import Click


class OpenDoor(Protocol):
    """A door that is open on a bundle, used as its tool uses it: one picture at a time, on one object."""

    def set_image(self, image: UInt8Array) -> None:
        """Take another picture, and forget the clicks.

        Args:
            image: (H0, W0, 3) uint8, RGB; it passes through the tool's own form, a file or a message.
        """

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        """Return the mask as the tool has it after these clicks.

        Args:
            clicks: All clicks on the object so far, oldest first; each call has one more than the one before it.

        Returns:
            (H0, W0) bool: what the tool's own decoder makes of the answer that it was sent.
        """

    def close(self) -> None:
        """Free everything, and end every process that was started."""


class Door(Protocol):
    """A door as the comparison sees it; the module ``conformance`` of each door's folder has them as ``doors``.

    Attributes:
        name: As on the command line, e.g. ``cvat``.
        title: As people know it, e.g. ``CVAT agent``.
    """

    name: str
    title: str

    def missing(self) -> str | None:
        """Return why this door cannot be opened here, with the command that helps; None where it can."""

    def open(self, bundle: Bundle, opening: Opening) -> OpenDoor:
        """Open the door on a bundle.

        Raises:
            MMMSDeployError: It cannot be opened.
        """

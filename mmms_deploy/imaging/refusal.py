"""How an error about a picture begins, and what it is."""

from __future__ import annotations

from dataclasses import dataclass

from mmms_deploy.errors import MMMSDeployError


@dataclass(frozen=True)
class Refusal:
    """How an error about a picture begins and what it is.

    Attributes:
        error: The error.
        what: What the picture is for, e.g. ``the image``.
        expected: What would have been right.
    """

    error: type[MMMSDeployError]
    what: str
    expected: str

    def __call__(self, given: str, fix: str, command_fix: str | None = None) -> MMMSDeployError:
        """Return the error."""
        return self.error(f"{self.what}: {given}", expected=self.expected, fix=fix, command_fix=command_fix)

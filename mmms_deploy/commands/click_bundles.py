"""What commands say where a click bundle stands in the place of a whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmms_deploy.errors import BundleError

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle


def check_encodes(bundle: Bundle, instead: str) -> None:
    """Check that a bundle encodes images itself.

    Args:
        bundle: The bundle.
        instead: What its user can do with a click bundle.

    Raises:
        BundleError: It is a click bundle.
    """
    if bundle.manifest.click_only:
        raise BundleError(
            f"{bundle.reference} is a click bundle: it holds the click stage alone, and encodes no image",
            expected="a whole bundle",
            fix=instead,
        )

"""Networks that were reconstructed from a paper alone; every place that offers one says so."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mmms_deploy.bundle.manifest import Manifest

RECONSTRUCTED: Mapping[str, str] = MappingProxyType(
    {
        "disnet": "This DISNet is a reconstruction: its authors published neither code nor weights, and nothing shows"
        " that their network is the same.",
    }
)
"""What is to be known of them, by family."""


def reconstruction(manifest: Manifest) -> str | None:
    """Return what is to be known of a bundle whose network was reconstructed; None for any other."""
    return RECONSTRUCTED.get(str(manifest.provenance.description.get("family")))

"""What the page has to know of a network, whoever answers its clicks."""

from __future__ import annotations

from mmms_deploy.bundle import Manifest
from mmms_deploy.version import __version__


def described_network(manifest: Manifest) -> dict[str, object]:
    """Return what ``GET model`` and a static export say of a network, JSON-able.

    Args:
        manifest: The bundle's manifest.

    Returns:
        ``name`` of the bundle, ``network`` (its family), ``version`` of mmms-deploy, ``size`` (H, W) in which the
        network sees a picture, ``modalities``, ``candidates`` (the most answers to one click), and ``joint``: whether a
        click answers for all objects at once.
    """
    return {
        "name": manifest.name,
        "network": str(manifest.provenance.description.get("family", "")),
        "version": __version__,
        "size": manifest.size,
        "modalities": [
            {"name": spec.name, "channels": spec.channels, "optional": spec.optional} for spec in manifest.modalities
        ],
        "candidates": manifest.clicks.candidates,
        "joint": manifest.clicks.objects > 1,
    }

"""A backbone's own weights: those that are published, and into a network whose other weights stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmms_deploy.errors import WeightsError
from mmms_deploy.models.checkpoint import (
    BACKBONE_PREFIX,
    CheckpointFile,
    load_weights,
    read_checkpoint_file,
    release_state,
)
from mmms_deploy.models.config import LateFusionConfig, NetworkConfig, backbone_name
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.weights import PUBLISHED, find_weights

FindWeights = Callable[[str], Path]
"""Finds the canonical file of published weights by the backbone's name."""


def is_published(config: NetworkConfig) -> bool:
    """Return whether published weights are known that a network's frozen backbone takes as they are."""
    if not isinstance(config, LateFusionConfig):
        return False
    backbone = config.backbone
    return backbone.name in PUBLISHED and backbone.maps == "stages" and not backbone.overrides


def published_backbone(config: NetworkConfig, find: FindWeights | None = None) -> CheckpointFile:
    """Read the published weights of a network's frozen backbone, from wherever they are.

    Args:
        config: The network's description.
        find: Finds the file; None takes :func:`~mmms_deploy.weights.find_weights`.

    Raises:
        WeightsError: None are known, or no source has them.
    """
    if not is_published(config):
        raise WeightsError(
            f"no published weights are known that {_described(config)} takes",
            expected=f"{' or '.join(PUBLISHED)} as it is, or the file with the backbone's weights",
            fix="pass backbone_checkpoint=FILE",
            command_fix="pass --backbone-ckpt FILE",
        )
    return read_checkpoint_file((find or find_weights)(backbone_name(config)))


def _described(config: NetworkConfig) -> str:
    if not isinstance(config, LateFusionConfig):
        return backbone_name(config)
    backbone = config.backbone
    changed = "the neck of " * (backbone.maps == "neck")
    return f"{changed}the backbone {backbone.name}" + " with overrides" * bool(backbone.overrides)


def load_backbone(network: InteractiveNetwork, path: Path) -> None:
    """Load the weights of the frozen backbone, and leave all others as they are.

    Args:
        network: The network.
        path: The backbone's file, as ``--backbone-ckpt`` takes it.

    Raises:
        CheckpointError: It cannot be read, or is of another backbone.
    """
    file = read_checkpoint_file(path)
    rest = {n: t.clone() for n, t in release_state(network).items() if not n.startswith(BACKBONE_PREFIX)}
    load_weights(network, CheckpointFile(file.path, rest, {"size": list(network.config.size)}), file)

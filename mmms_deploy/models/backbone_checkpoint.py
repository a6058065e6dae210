"""A backbone's own file into a network whose other weights stay: for training on a frozen backbone."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.models.checkpoint import (
    BACKBONE_PREFIX,
    CheckpointFile,
    load_weights,
    read_checkpoint_file,
    release_state,
)
from mmms_deploy.models.network import InteractiveNetwork


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

"""Reads a DISNet's checkpoint into a network that runs in PyTorch."""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.errors import CheckpointKeysError
from mmms_deploy.files import PathLike
from mmms_deploy.models.checkpoint import load_weights, read_checkpoint_file
from mmms_deploy.models.description import convert_description, read_description
from mmms_deploy.models.disnet import DISNet
from mmms_deploy.models.disnet_config import DISNetConfig


def load_disnet(path: PathLike, *, description: Path | None = None, size: tuple[int, int] | None = None) -> DISNet:
    """Read a DISNet, a reconstruction of the manuscript's network that someone trained.

    Args:
        path: A safetensors file with or without a description, or a file of ``torch.save``. Its weights have the names
            of :class:`~mmms_deploy.models.disnet.DISNet`.
        description: A TOML or JSON file that replaces the file's own description; None takes that one, or what the
            shapes of the weights say, with the defaults of :class:`~mmms_deploy.models.disnet_config.DISNetConfig`.
        size: Network size (H, W) in its place; the position table is resized to it.

    Returns:
        The network in float32, in evaluation mode.

    Raises:
        CheckpointNotFoundError, CheckpointCorruptError: The file is missing or cannot be read.
        CheckpointKeysError: It is of another network, or weights are missing, unexpected or misshapen.
        DescriptionError: The description cannot be read, or has a field that is unknown or impossible.
        SizeError: The size does not fit the patches, the windows or the neck.
    """
    file = read_checkpoint_file(path)
    described = read_description(description) if description is not None else file.description
    if described is None or described.get("family") != "disnet":
        found = "describes no network" if described is None else f"describes a network of {described.get('family')!r}"
        raise CheckpointKeysError(
            f"{description or path} {found}",
            expected="the weights of a DISNet, or a description with family = 'disnet'",
            fix="pass a checkpoint of a DISNet, or open another network's with mmms_deploy.export",
        )
    if size is not None:
        described = {**described, "size": list(size)}
    network = DISNet(convert_description(described, DISNetConfig, str(description or path)))
    load_weights(network, file)
    return network.eval()

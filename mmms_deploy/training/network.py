"""The network that a run trains: a new head on a frozen backbone, or a checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from mmms_deploy.bundle.contract import ClickContract, ModalitySpec, PreviousMask, to_builtins
from mmms_deploy.errors import DescriptionError
from mmms_deploy.models import MMMS, BackboneConfig, EncoderConfig, FuserConfig, InteractiveNetwork, MMMSConfig
from mmms_deploy.models.backbone_checkpoint import FindWeights, is_published, published_backbone
from mmms_deploy.models.checkpoint import (
    BACKBONE_PREFIX,
    CheckpointFile,
    load_weights,
    parse_description,
    read_checkpoint_file,
    read_description,
    release_state,
)
from mmms_deploy.models.config import LateFusionConfig, NetworkConfig
from mmms_deploy.models.families import build_network
from mmms_deploy.training.errors import TrainingSettingsError
from mmms_deploy.training.initial import initialise

FUSER = "fuser."
"""What the names of a fuser's weights start with."""
_NEW_HEAD = Path("a new head")


def compact_config(
    backbone: BackboneConfig, size: tuple[int, int] = (448, 448), modalities: Sequence[ModalitySpec] = ()
) -> MMMSConfig:
    """Return the description of a network with a small head: 4.6 million parameters on SAM 2 tiny.

    Args:
        backbone: The frozen backbone.
        size: Network size (H, W) in pixels.
        modalities: The extra modalities.
    """
    # Depth where tokens are few: the first stage alone costs as much as the others together.
    heads = (1, 2, 4, 8)
    return MMMSConfig(
        size=size,
        widths=(40, 80, 160, 256),
        fpn_hidden=(96, 128, 192, 256),
        backbone=backbone,
        modalities=tuple(modalities),
        csnet=EncoderConfig(depths=(1, 2, 3, 2), heads=heads, mlp_ratio=2),
        fuser=FuserConfig(encoder=EncoderConfig(depths=(1, 1, 2, 1), heads=heads, mlp_ratio=2)),
        head_width=96,
        clicks=ClickContract(previous=PreviousMask.PROBABILITY),
    )


def described_config(path: Path, overrides: Mapping[str, Any]) -> NetworkConfig:
    """Read a description from a TOML or JSON file; fields of ``overrides`` replace its own.

    Raises:
        DescriptionError: It cannot be read, or describes no network.
    """
    return parse_description(to_builtins({**read_description(path), **overrides}), str(path))


def new_network(
    config: NetworkConfig, backbone_checkpoint: Path | None, seed: int, find: FindWeights | None = None
) -> InteractiveNetwork:
    """Build a network with a new head on a backbone's weights.

    Args:
        config: Its description.
        backbone_checkpoint: The backbone's weights, as its release names them; None for published ones, which are
            found.
        seed: Seed of the head's weights.
        find: Finds published weights; None takes :func:`~mmms_deploy.weights.find_weights`.

    Returns:
        The network, float32, in evaluation mode.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
        SizeError: The size does not fit.
        DescriptionError: The backbone is unknown, or an ONNX file, which trains nothing here.
        WeightsError: No published weights of the backbone are known, or no source has them.
    """
    network = _initial(config, seed)
    backbone = _backbone(config, backbone_checkpoint, find)
    own = {name: value for name, value in release_state(network).items() if not name.startswith(BACKBONE_PREFIX)}
    load_weights(network, CheckpointFile(_NEW_HEAD, own, None), backbone)
    return network.eval()


def continued_network(
    checkpoint: Path,
    backbone_checkpoint: Path | None,
    modalities: Sequence[ModalitySpec],
    seed: int,
    size: tuple[int, int] | None = None,
    find: FindWeights | None = None,
) -> InteractiveNetwork:
    """Open a checkpoint to train its head further. Modalities that it lacks get a fuser that hardly speaks at first.

    Args:
        checkpoint: A checkpoint that describes itself.
        backbone_checkpoint: The backbone's weights when the checkpoint does not hold them; None for those in the
            checkpoint, or published ones, which are found.
        modalities: The data's modalities, taken when the checkpoint has none.
        seed: Seed of new weights.
        size: Network size instead of its own.
        find: Finds published weights; None takes :func:`~mmms_deploy.weights.find_weights`.

    Returns:
        The network, float32, in evaluation mode.

    Raises:
        CheckpointError: It cannot be read, does not describe itself, or does not fit.
        WeightsError: It lacks the backbone's weights, which are published, and no source has them.
    """
    file = read_checkpoint_file(checkpoint)
    if file.description is None:
        raise file.problem or DescriptionError(
            f"{checkpoint} does not describe its network",
            expected="a checkpoint with a description in its metadata, as training and save_checkpoint write it",
            fix="store it with mmms_deploy.models.save_checkpoint first",
        )
    config = parse_description(file.description, str(checkpoint))
    if size is not None:
        config = msgspec.structs.replace(config, size=size)
    state = dict(file.state)
    if modalities and not config.modalities and isinstance(config, MMMSConfig):
        config = msgspec.structs.replace(config, modalities=tuple(modalities))
    network = _initial(config, seed)
    fresh = {name: value for name, value in release_state(network).items() if name.startswith(FUSER)}
    if not any(name.startswith(FUSER) for name in state):
        state |= fresh
    lacking = not any(name.startswith(BACKBONE_PREFIX) for name in state) and is_published(config)
    backbone = None
    if backbone_checkpoint is not None or lacking:
        backbone = _backbone(config, backbone_checkpoint, find)
    load_weights(network, CheckpointFile(file.path, state, file.description), backbone)
    return network.eval()


def _backbone(config: NetworkConfig, given: Path | None, find: FindWeights | None) -> CheckpointFile:
    return published_backbone(config, find) if given is None else read_checkpoint_file(given)


def _initial(config: NetworkConfig, seed: int) -> InteractiveNetwork:
    if not isinstance(config, LateFusionConfig):
        raise TrainingSettingsError(
            f"a network of the family {config.family}",
            expected="a late-fusion network, whose head is trained on the maps of a frozen backbone",
            fix="describe a network of the family mmms; this one has no frozen backbone",
        )
    if config.backbone.onnx is not None or config.backbone.name == "onnx":
        raise TrainingSettingsError(
            "a backbone that is an ONNX file",
            expected="a backbone that PyTorch computes, by its name and the file of its weights",
            fix="name the backbone, such as sam2_hiera_t or dinov2_b14_reg",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config)
        return initialise(network) if isinstance(network, MMMS) else network

"""Where an export's network comes from: a checkpoint or random weights, and a description."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmms_deploy.bundle import sha256_of
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.bundle.packed import CHECKPOINTS, packed_checkpoint
from mmms_deploy.documents import document
from mmms_deploy.errors import CheckpointKeysError, DescriptionError, MMMSDeployWarning
from mmms_deploy.files import PathLike
from mmms_deploy.hub import find_checkpoint, is_reference, parse_reference
from mmms_deploy.hub.weights import name_of
from mmms_deploy.models import InteractiveNetwork, NetworkConfig
from mmms_deploy.models.backbone_checkpoint import FindWeights, is_published, published_backbone
from mmms_deploy.models.checkpoint import (
    BACKBONE_PREFIX,
    CheckpointFile,
    load_weights,
    parse_description,
    random_network,
    read_checkpoint_file,
    read_description,
    release_state,
)
from mmms_deploy.models.config import backbone_name
from mmms_deploy.models.families import FAMILIES, build_network
from mmms_deploy.models.onnx_backbone import OnnxBackbone
from mmms_deploy.models.resemblance import resemblance
from mmms_deploy.models.ritm_checkpoint import layout_of
from mmms_deploy.progress import OnProgress

DEMOS = CHECKPOINTS
"""The checkpoints that ship with the package, by the names that the commands take."""

_UNDESCRIBED_CLICKS = (
    "{file}: its description has no section clicks, so the paper's defaults are taken (channels positive, negative,"
    " previous; the previous mask as 0 and 1; half-pixel coordinates). Training code of RITM's family does otherwise,"
    " and the masks would be wrong without any other sign. Write the section, even an empty one; {document} says what"
    " to write"
)


@dataclass(frozen=True)
class Source:
    """What to export.

    Attributes:
        checkpoint: The checkpoint file, or a reference to one on the hub, ``hf:owner/name[@revision][/file]``; None for
            random weights.
        random_seed: Seed of random weights; None for a checkpoint.
        description: A TOML or JSON file with the description; None takes the checkpoint's own.
        backbone_checkpoint: A file with the frozen backbone's weights, or a reference to one; None when the checkpoint
            holds them, or where published ones are known (``mmms_deploy.weights.PUBLISHED``), which are found.
        overrides: Fields that replace those of the description (``size``, ``backbone``, ``modalities``).
        weights: Which weights of the checkpoint: ``ema`` for averaged ones, or the place of a set as an error lists it;
            None for the trained ones.
        license: The licence of the weights, as an identifier of the hub such as ``apache-2.0``; it goes into the model
            card. None when it is not known.
        backbone_onnx: The encoder of a description whose backbone is named ``onnx``.
        find_backbone: Finds the file of published weights; None takes ``mmms_deploy.weights.find_weights``.
    """

    checkpoint: PathLike | None = None
    random_seed: int | None = None
    description: Path | None = None
    backbone_checkpoint: PathLike | None = None
    overrides: dict[str, Any] | None = None
    weights: str | None = None
    license: str | None = None
    backbone_onnx: Path | None = None
    find_backbone: FindWeights | None = None

    @property
    def name(self) -> str:
        """A name for the bundle."""
        if self.checkpoint is None:
            return f"random-{self.random_seed}"
        return name_of(self.checkpoint)

    def fetched(self, on_progress: OnProgress | None = None) -> Source:
        """Return the same with local files: what a reference to the hub names is fetched where its cache lacks it.

        Args:
            on_progress: Receives how far a download is; None leaves that to the bars of ``huggingface_hub``.

        Raises:
            HubError: It cannot be fetched.
        """
        return replace(
            self,
            checkpoint=_fetched(self.checkpoint, on_progress),
            backbone_checkpoint=_fetched(self.backbone_checkpoint, on_progress),
        )


@dataclass(frozen=True)
class SourcedNetwork:
    """A network that can be exported, and where it came from.

    Attributes:
        network: The network, in evaluation mode, float32.
        hashes: SHA-256 of each file that was read, as ``checkpoint`` and ``backbone``.
        weights: Where in the checkpoint the weights lie; empty for the outermost dict, and for random weights.
        averaged: Whether they are averaged weights (EMA).
        backbone: The separate file with the backbone's weights; None when there is none.
    """

    network: InteractiveNetwork
    hashes: dict[str, str]
    weights: str = ""
    averaged: bool = False
    backbone: Path | None = None


def _fetched(file: PathLike | None, on_progress: OnProgress | None) -> PathLike | None:
    return find_checkpoint(parse_reference(file), on_progress) if is_reference(file) else file


def demo_checkpoint(name: str = "demo") -> Path:
    """Return the file of a checkpoint that ships with the package, unpacked into the cache.

    Args:
        name: One of ``DEMOS``.

    Raises:
        CheckpointError, OutputWriteError: There is none of this name, or it cannot be unpacked.
    """
    return packed_checkpoint(name)


def open_source(source: Source, *, black_box: bool = False) -> SourcedNetwork:
    """Build the network and load its weights.

    Args:
        source: What to export.
        black_box: Whether a provider runs the backbone, so that its weights may be missing. Missing ones are random:
            any backbone's features serve to compare the rest of the network.

    Raises:
        CheckpointError: The checkpoint or its description cannot be used.
        HubError: It cannot be fetched from the hub.
        SizeError: The network size does not fit.
        WeightsError: The checkpoint lacks the backbone's weights, which are published, and no source has them.
    """
    source = source.fetched()
    if (source.checkpoint is None) == (source.random_seed is None):
        raise DescriptionError(
            "neither a checkpoint nor random weights"
            if source.checkpoint is None
            else "a checkpoint and random weights",
            expected="one of the two",
            fix="pass Source(checkpoint=FILE), or Source(random_seed=SEED) for latency work",
            command_fix="pass --ckpt FILE, or --random-weights SEED for latency work",
        )
    if source.checkpoint is None:
        if source.weights is not None:
            raise DescriptionError(
                f"the weights {source.weights!r} of random weights",
                expected="a checkpoint to choose them from",
                fix="leave out weights or random_seed",
                command_fix="leave out --weights or --random-weights",
            )
        if source.backbone_checkpoint is not None:
            raise DescriptionError(
                "a backbone checkpoint with random weights",
                expected="a checkpoint beside it",
                fix="leave out backbone_checkpoint or random_seed",
                command_fix="leave out --backbone-ckpt or --random-weights",
            )
        config = _describe(source, None)
        network = random_network(config, source.random_seed or 0)
        return SourcedNetwork(network, _attach_encoder(network, source, black_box=black_box))
    file = read_checkpoint_file(source.checkpoint, source.weights)
    backbone = read_checkpoint_file(source.backbone_checkpoint) if source.backbone_checkpoint else None
    config = _describe(source, file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(config)
    given = backbone is not None or any(name.startswith(BACKBONE_PREFIX) for name in file.state)
    lacking = network.frozen is not None and not given
    if lacking and not black_box and is_published(config):
        backbone = published_backbone(config, source.find_backbone)
    elif lacking and black_box:
        stand_in = {n: t for n, t in release_state(network).items() if n.startswith(BACKBONE_PREFIX)}
        file = replace(file, state={**file.state, **stand_in})
    itself = source.description is None and file.description is not None and set(source.overrides or {}) <= {"size"}
    try:
        load_weights(network, file, backbone, describes_itself=itself)
    except CheckpointKeysError as error:
        said = {**(source.overrides or {}), **(file.description or {})}
        if source.description is None and "family" not in said:
            raise _of_no_said_family(error, config, file) from error
        raise
    hashes = {"checkpoint": sha256_of(file.path), **_attach_encoder(network, source, black_box=black_box)}
    if backbone is not None:
        hashes["backbone"] = sha256_of(backbone.path)
    return SourcedNetwork(
        network.eval(), hashes, file.place, file.averaged, None if backbone is None else backbone.path
    )


def _attach_encoder(network: InteractiveNetwork, source: Source, *, black_box: bool) -> dict[str, str]:
    """Give a network whose backbone is an ONNX file that file; return its hash as ``backbone``."""
    backbone, path = network.frozen, source.backbone_onnx
    if not isinstance(backbone, OnnxBackbone):
        if path is None:
            return {}
        raise DescriptionError(
            f"the encoder {path!s:.200} for the backbone {backbone_name(network.config)}",
            expected="a description whose backbone is named 'onnx'",
            fix="leave out backbone_onnx, or describe the encoder",
            command_fix="leave out --backbone-onnx, or describe the encoder",
        )
    if path is None:
        if black_box:
            return {}
        raise DescriptionError(
            "the description's backbone is an ONNX file, and none was given",
            expected="the encoder's file, or the cut black-box, where a provider runs it",
            fix="pass backbone_onnx=FILE, or cuts=[Cut.BLACK_BOX]",
            command_fix="pass mmms-export --backbone-onnx FILE or --cut black-box; other commands take the bundle",
        )
    from mmms_deploy.export.encoder_file import EncoderFile

    backbone.run = EncoderFile(path, backbone)
    return {"backbone": sha256_of(path)}


def _with_resemblance(problem: DescriptionError, file: CheckpointFile) -> DescriptionError:
    """Return the error about a file's own description, with what its weights resemble where they are of no family."""
    if layout_of(file.state) is not None:
        return problem
    given = f"{problem.given}; {resemblance(file.state)}"
    return DescriptionError(given, expected=problem.expected, fix=problem.fix, command_fix=problem.command_fix)


def _of_no_said_family(error: CheckpointKeysError, config: NetworkConfig, file: CheckpointFile) -> CheckpointKeysError:
    """Return the error about keys that do not fit, with what they resemble: nothing said the family."""
    guessed = f"nothing says the family of this file, and {config.family} was taken; {resemblance(file.state)}"
    advice = "or describe the network with its family"
    return CheckpointKeysError(
        f"{error.given}\n    {guessed}",
        expected=error.expected,
        fix=f"{error.fix}; {advice} (description=FILE.toml)",
        command_fix=f"{error.command_fix or error.fix}; {advice} (--description FILE.toml)",
    )


def _describe(source: Source, file: CheckpointFile | None) -> NetworkConfig:
    given = read_description(source.description) if source.description else file.description if file else None
    if given is None and file is not None and file.problem is not None:
        raise _with_resemblance(file.problem, file)
    overrides = dict(source.overrides or {})
    if given is None and not overrides and source.checkpoint is not None:
        raise DescriptionError(
            f"{source.checkpoint} does not describe its network; {resemblance(file.state if file else {})}",
            expected="a description in its metadata, in a file, or by single fields, or an official file of"
            f" {', '.join(FAMILIES)}",
            fix='pass description=FILE.toml, or overrides={"backbone": {"name": "dinov2_b14_reg"}, "size": (448, 448)}',
            command_fix="pass --description FILE.toml, or flags such as --backbone dinov2_b14_reg --size 448",
        )
    merged: dict[str, Any] = {**(given or {}), **overrides}
    if source.checkpoint is not None and merged.get("family", "mmms") == "mmms" and "clicks" not in merged:
        warnings.warn(
            _UNDESCRIBED_CLICKS.format(file=source.checkpoint, document=document("checkpoints")),
            MMMSDeployWarning,
            stacklevel=3,
        )
    origin = str(source.description or source.checkpoint or "the description")
    try:
        return parse_description(to_builtins(merged), origin)
    except DescriptionError as error:
        if given is not None:
            _check_overrides(error, given, overrides, origin)
        raise


def _check_overrides(problem: DescriptionError, given: dict[str, Any], overrides: dict[str, Any], origin: str) -> None:
    """Raise the error about a description with the field that is to be left out, where that field alone is wrong."""
    for name in overrides:
        rest = {**given, **{other: value for other, value in overrides.items() if other != name}}
        try:
            parse_description(to_builtins(rest), origin)
        except DescriptionError:
            continue
        option = {"modalities": "--modality"}.get(name, f"--{name}")
        raise DescriptionError(
            problem.given,
            expected=problem.expected,
            fix=f"leave out {name!r} among the overrides",
            command_fix=f"leave out {option}",
        ) from problem

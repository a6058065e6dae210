"""Checkpoints: one file with the weights and the description of the network.

The native form is safetensors with the description as JSON in the metadata. Plain PyTorch state dicts are read too
(``weights_only``: nothing in the file is executed); their description comes from elsewhere.
"""

from __future__ import annotations

import argparse
import difflib
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmms_deploy.bundle.contract import ClickChannel
from mmms_deploy.errors import (
    CheckpointCorruptError,
    CheckpointKeysError,
    CheckpointNotFoundError,
    DescriptionError,
    FileReadError,
)
from mmms_deploy.files import as_path, check_regular, decode_json, partial_beside
from mmms_deploy.models.config import NetworkConfig
from mmms_deploy.models.description import parse_description, read_description
from mmms_deploy.models.families import build_network
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.release_layout import describe_layout
from mmms_deploy.models.skipclick_checkpoint import describe_official, inert_globals, is_official, native_names

__all__ = [
    "BACKBONE_PREFIX",
    "CheckpointFile",
    "load_weights",
    "parse_description",
    "random_network",
    "read_checkpoint_file",
    "read_description",
    "release_state",
    "save_checkpoint",
]

DESCRIPTION_KEY = "mmms_deploy.description"
BACKBONE_PREFIX = "backbone."
_VIT_PREFIX = "backbone.vit."
_IGNORED_SUFFIX = "num_batches_tracked"
_LISTED = 12
_CLICK_EMBEDDINGS = ("patch_embed.", "patch_embed_coords.")
_LAST_LAYERS = ("linear_pred.weight", "conv_seg.weight")
NESTS = ("state_dict", "model", "target_encoder", "encoder")
"""Keys under which PyTorch files keep the state dict. The last two are I-JEPA's, whose evaluations take the first."""
State = dict[str, Tensor]


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint as read from disk, not yet matched with a network.

    Attributes:
        path: Where it came from.
        state: Tensors by name.
        description: The file's own description, if it has one.
        problem: Why the file's own description cannot be used; None when it can, or when there is none.
    """

    path: Path
    state: State
    description: dict[str, Any] | None
    problem: DescriptionError | None = None


# --- files ------------------------------------------------------------------------------------------------------------


def read_checkpoint_file(path: Path) -> CheckpointFile:
    """Read a ``.safetensors`` file or a PyTorch state dict without executing anything in it.

    Args:
        path: The file. Of PyTorch files, the state dict may lie under one of :data:`NESTS`; a ``module.`` prefix
            (DataParallel) is removed. An official SkipClick file describes itself.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointCorruptError: It cannot be read, or only by executing code.
    """
    path = _checked(path)
    if not path.is_file():
        raise CheckpointNotFoundError(
            f"no checkpoint at {path}",
            expected="a .safetensors file or a PyTorch state dict (.pt, .pth)",
            fix="check the path; mmms_deploy.export.demo_checkpoint() returns one that ships with mmms-deploy",
            command_fix="check the path; the name 'demo' is a checkpoint that ships with mmms-deploy",
        )
    problem = None
    if path.suffix.lower() == ".safetensors":
        state, description = _read_safetensors(path)
    else:
        state, config = _read_torch(path)
        description, problem = _own_description(path, state, config)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    _check_finite(path, state)
    return CheckpointFile(path, native_names(state), description, problem)


def _checked(path: object) -> Path:
    """Return a path that can be one of a checkpoint: nothing yet, a folder, or a regular file."""
    try:
        place = as_path(path, "the checkpoint")
    except FileReadError as error:
        raise CheckpointNotFoundError(error.given, expected=error.expected, fix="name a checkpoint file") from error
    try:
        check_regular(place)
    except FileReadError as error:
        if not (error.missing or place.is_dir()):
            raise CheckpointCorruptError(
                f"{place!s:.200} cannot be read: {error.reason}",
                expected="a .safetensors file or a PyTorch state dict (.pt, .pth)",
                fix="check the path and the permissions",
            ) from error
    return place


def _own_description(path: Path, state: State, config: object) -> tuple[dict[str, Any] | None, DescriptionError | None]:
    """Describe a network by the config beside its weights, if the official software saved them."""
    if not is_official(config, state):
        return None, None
    try:
        return describe_official(config, state, str(path)), None
    except DescriptionError as error:
        return None, error


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    # The library also lets other exceptions of Python pass, for instance for types that torch does not have.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise CheckpointCorruptError(
            f"{path} is no readable safetensors file: {error}",
            expected="a complete safetensors file",
            fix="copy it again and compare its hash with the source's",
        ) from error
    text = metadata.get(DESCRIPTION_KEY)
    if text is None:
        return state, None
    try:
        description = decode_json(text, path)
    except FileReadError as error:
        raise DescriptionError(f"{path}: the description in its metadata cannot be used: {error.reason}") from error
    if not isinstance(description, dict):
        raise DescriptionError(f"{path}: the description in its metadata is no JSON object")
    return state, description


def _read_torch(path: Path) -> tuple[State, object]:
    """Return the weights, and the file's entry ``config``."""
    try:
        # With mmap, the unused parts of a file are not read: an I-JEPA file holds three networks and an optimizer. MAE
        # keeps its command line in an argparse.Namespace, which has data and no code; SkipClick's config names classes.
        with torch.serialization.safe_globals([argparse.Namespace, *inert_globals(path)]):
            raw = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointCorruptError(
            f"{path} holds more than tensors: {_first_line(error)}",
            expected="a plain state dict; reading classes in a checkpoint would execute code, which is refused",
            fix="save it again as torch.save(model.state_dict(), ...), or as safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointCorruptError(
            f"{path} is no readable PyTorch file: {_first_line(error)}",
            expected="a complete state dict",
            fix="copy it again and compare its hash with the source's",
        ) from error
    config = raw.get("config") if isinstance(raw, dict) else None
    for key in NESTS:
        if isinstance(raw, dict) and isinstance(raw.get(key), dict):
            raw = raw[key]
    if not isinstance(raw, dict) or not raw or not all(isinstance(v, Tensor) for v in raw.values()):
        found = f"a dict of {_listing(sorted(map(str, raw)))}" if isinstance(raw, dict) else f"a {type(raw).__name__}"
        raise CheckpointCorruptError(
            f"{path} holds no state dict but {found}",
            expected=f"a dict of tensors, or one under {', '.join(map(repr, NESTS))}",
            fix="save it as torch.save(model.state_dict(), ...)",
        )
    return {str(name): tensor for name, tensor in raw.items()}, config


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_finite(path: Path, state: State) -> None:
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise CheckpointCorruptError(
            f"{path}: {_listing(bad)} hold NaN or infinite values",
            expected="finite weights",
            fix="take a checkpoint from before the training diverged",
        )


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# --- matching ---------------------------------------------------------------------------------------------------------


def load_weights(model: InteractiveNetwork, file: CheckpointFile, backbone: CheckpointFile | None = None) -> None:
    """Load weights under their release names into a network.

    Args:
        model: The network; its weights are replaced.
        file: The checkpoint. Half-precision weights are widened to float32.
        backbone: A separate file with the frozen backbone's weights, under the names of its release.

    Raises:
        CheckpointKeysError: Keys are missing, unexpected or misshapen, or both files hold different backbones.
    """
    own, vit = _split({name: _widened(tensor) for name, tensor in file.state.items()})
    source, names, vit_model = str(file.path), model.backbone.names, model.backbone.vit
    vit = names.clean(vit)
    grid = _stored_grid(file, model)
    own, converted = model.adapt(own, grid), names.to_timm(vit, vit_model, grid)
    if backbone is not None:
        source += f" with {backbone.path}"
        extra = names.clean({n.removeprefix(BACKBONE_PREFIX): _widened(t) for n, t in backbone.state.items()})
        # Compared after renaming and resampling: the checkpoint's position table may have been resampled already.
        loadable = names.to_timm(extra, vit_model)
        differing = [n for n in loadable if n in converted and not torch.equal(converted[n], loadable[n])]
        if differing:
            raise CheckpointKeysError(
                f"{file.path} has backbone weights of its own that differ from {backbone.path}: {_listing(differing)}",
                expected="one source of backbone weights",
                fix="leave out backbone_checkpoint, or take the backbone out of the checkpoint",
                command_fix="leave out --backbone-ckpt, or take the backbone out of the checkpoint",
            )
        vit, converted = vit | extra, converted | loadable
    state = own | {BACKBONE_PREFIX + name: tensor for name, tensor in vit.items()}
    _check_keys(model, state, converted, source)
    model.load_state_dict(own, strict=False)
    vit_model.load_state_dict(converted, strict=False)


def _stored_grid(file: CheckpointFile, model: InteractiveNetwork) -> tuple[int, int] | None:
    """Return the grid (H, W) of the position table in a checkpoint that describes itself."""
    size, (rows, columns) = (file.description or {}).get("size"), model.backbone.patch
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        return None
    return size[0] // rows, size[1] // columns


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _split(state: State) -> tuple[State, State]:
    own = {n: t for n, t in state.items() if not n.startswith(BACKBONE_PREFIX)}
    vit = {n.removeprefix(BACKBONE_PREFIX): t for n, t in state.items() if n.startswith(BACKBONE_PREFIX)}
    return own, vit


def release_state(model: InteractiveNetwork) -> State:
    """Return a network's state under the names that its checkpoints use: the backbone's under those of its release."""
    state = {n: t.detach() for n, t in model.state_dict().items() if not n.startswith(_VIT_PREFIX)}
    vit = {n: t.detach() for n, t in model.backbone.vit.state_dict().items()}
    released = model.backbone.names.to_release(vit, model.backbone.vit)
    return {n: t for n, t in state.items() if not n.endswith(_IGNORED_SUFFIX)} | {
        BACKBONE_PREFIX + n: t for n, t in released.items()
    }


def _check_keys(model: InteractiveNetwork, given: State, converted: State, source: str) -> None:
    expected = release_state(model)
    missing = sorted(n for n in expected if n not in given and _is_read(model, n))
    unexpected = sorted(
        n for n in given if n not in expected and _is_read(model, n) and not n.endswith(_IGNORED_SUFFIX)
    )
    target = model.backbone.vit.state_dict()
    fits = {
        BACKBONE_PREFIX + n for n, t in converted.items() if n in target and t.shape == target[n].shape
    }  # e.g. a resampled position table
    misshapen = sorted(
        n for n in expected.keys() & given.keys() if expected[n].shape != given[n].shape and n not in fits
    )
    if not (missing or unexpected or misshapen):
        return
    lines = [
        *_report("missing", missing, unexpected),
        *_report("unexpected", unexpected, missing or sorted(expected)),
        *(f"misshapen  {n}: {list(given[n].shape)}, expected {list(expected[n].shape)}" for n in misshapen[:_LISTED]),
    ]
    if len(misshapen) > _LISTED:
        lines.append(f"misshapen  ... and {len(misshapen) - _LISTED} more")
    layouts = [describe_layout(_split(state)[1]) for state in (given, expected)]
    if layouts[0] != layouts[1] and any(n.startswith(BACKBONE_PREFIX) for n in given):
        lines.append(f"the backbone's weights look like {layouts[0]}")
        lines.append(f"{model.config.backbone.name} would be {layouts[1]}")
    raise CheckpointKeysError(
        f"{source} does not fit the described network: {len(missing)} keys missing, {len(unexpected)} unexpected, "
        f"{len(misshapen)} misshapen\n    " + "\n    ".join(lines),
        expected=f"the {len(expected)} keys of the network that the description names",
        **_advice(missing, misshapen),
    )


def _is_read(model: InteractiveNetwork, name: str) -> bool:
    """Whether a weight is used; a backbone's release has unused ones."""
    return not name.startswith(BACKBONE_PREFIX) or model.backbone.names.reads(name.removeprefix(BACKBONE_PREFIX))


def _report(kind: str, names: list[str], candidates: list[str]) -> list[str]:
    lines = []
    for name in names[:_LISTED]:
        close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.7)
        lines.append(f"{kind:<10} {name}" + (f" (nearest: {close[0]})" if close else ""))
    if len(names) > _LISTED:
        lines.append(f"{kind:<10} ... and {len(names) - _LISTED} more")
    return lines


def _advice(missing: list[str], misshapen: list[str]) -> dict[str, str]:
    """Return ``fix`` and, where it differs, ``command_fix``."""
    if missing and not misshapen and all(name.startswith(BACKBONE_PREFIX) for name in missing):
        found = "the frozen backbone is not in this file: pass its release file"
        return {"fix": f"{found} as backbone_checkpoint", "command_fix": f"{found} as --backbone-ckpt"}
    return {"fix": "correct the description (backbone, widths, modalities), or rename the keys"}


# --- whole checkpoints ------------------------------------------------------------------------------------------------


def random_network(config: NetworkConfig, seed: int) -> InteractiveNetwork:
    """Build an untrained network, for latency work.

    Every weight is distinct. The norms' weights start equal and would hide mix-ups, so they are changed, too. The last
    layer is scaled so that logits spread to both sides of the threshold. The weights of the previous mask are small: a
    mask that is fed back as zeros and ones turns a rounding difference at the threshold into a difference of 1. A
    trained network forgets it; in an untrained one it would grow from click to click.

    Args:
        config: The network.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(config)
        with torch.no_grad():
            previous = config.clicks.channels.index(ClickChannel.PREVIOUS)
            for name, parameter in model.named_parameters():
                if name.startswith(_CLICK_EMBEDDINGS) and parameter.ndim == 4:
                    parameter[:, previous] *= 0.1
                elif parameter.ndim == 1:
                    parameter.add_(torch.empty_like(parameter).uniform_(-0.05, 0.05))
                elif name.endswith(_LAST_LAYERS):
                    parameter.mul_(10.0)
    return model.eval()


def save_checkpoint(
    path: Path, model: InteractiveNetwork, *, dtype: torch.dtype | None = None, **metadata: str
) -> None:
    """Write a network as safetensors with its description in the metadata; atomic.

    Args:
        path: The file to write.
        model: The network.
        dtype: Type to store floating-point weights in; None keeps their type.
        **metadata: Further entries for the file's metadata.
    """
    state = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in release_state(model).items()
    }
    described = {DESCRIPTION_KEY: msgspec.json.encode(model.config).decode(), **metadata}
    with partial_beside(path) as temporary:
        save_file(state, temporary, metadata=described)

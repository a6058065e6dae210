"""Checkpoints: one file with the weights and the description of the network.

The native form is safetensors with the description as JSON in the metadata. Files of ``torch.save`` are read too, bare
state dicts and whole training checkpoints; their description comes from elsewhere. Nothing in a file is ever executed.
"""

from __future__ import annotations

import difflib
import warnings
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
    CheckpointError,
    CheckpointKeysError,
    CheckpointNotFoundError,
    DescriptionError,
    FileReadError,
    MMMSDeployWarning,
)
from mmms_deploy.files import PathLike, as_path, check_regular, decode_json, partial_beside
from mmms_deploy.models.checkpoint_kinds import FileKind, foreign_kind, kind_by_suffix
from mmms_deploy.models.config import LateFusionConfig, NetworkConfig, backbone_name
from mmms_deploy.models.description import parse_description, read_description
from mmms_deploy.models.families import build_network
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.official import Official, official_of
from mmms_deploy.models.ort_file import read_ort_tensors
from mmms_deploy.models.release_layout import describe_layout
from mmms_deploy.models.ritm_params import describe_it
from mmms_deploy.models.torch_files import load_tensors
from mmms_deploy.models.weight_types import (
    WEIGHT_TYPES,
    check_finite,
    check_stored,
    check_types,
    widened,
)
from mmms_deploy.weights.checkpoint_contents import Chosen, choose_weights
from mmms_deploy.weights.ort_file import begins_as_ort
from mmms_deploy.weights.passive_pickle import Contents, PickleError, StoredTensor
from mmms_deploy.weights.running_names import running_names
from mmms_deploy.weights.safetensors_file import begins_as_safetensors
from mmms_deploy.weights.torch_files import TorchFile, open_torch_file, plain_pickle_names

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
_IGNORED_SUFFIX = "num_batches_tracked"
_LISTED = 12
_CLICK_EMBEDDINGS = ("patch_embed.", "patch_embed_coords.", "maps_transform.0.")
_SIDE_BRANCH = "conv_prevMod.0.conv.weight"
"""A layer that reads the image's three channels, and then previous masks."""
_FED_BACK = (ClickChannel.PREVIOUS, ClickChannel.MODULATED)
_LAST_LAYERS = ("linear_pred.weight", "conv_seg.weight", "cls_head.weight")
State = dict[str, Tensor]


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint as read from disk, not yet matched with a network.

    Attributes:
        path: Where it came from.
        state: Tensors by name.
        description: The file's own description, if it has one.
        problem: Why the file's own description cannot be used; None when it can, or when there is none.
        place: Where in the file the weights lie: keys joined by slashes; empty for the outermost dict.
        averaged: Whether they are averaged weights (EMA).
    """

    path: Path
    state: State
    description: dict[str, Any] | None
    problem: DescriptionError | None = None
    place: str = ""
    averaged: bool = False


# --- files ------------------------------------------------------------------------------------------------------------


def read_checkpoint_file(path: PathLike, weights: str | None = None) -> CheckpointFile:
    """Read a safetensors file or one of ``torch.save`` without executing anything in it.

    Of a file in ONNX Runtime's own format (.ort) its weights are read (:mod:`mmms_deploy.weights.ort_file`).

    The weights may lie in dicts inside of dicts, beside optimizers, settings and objects of any class, and their names
    may begin with prefixes of training software (:mod:`mmms_deploy.weights.checkpoint_contents`). What network an
    official file holds is found from its weights and its config (:mod:`mmms_deploy.models.official`).

    Args:
        path: The file.
        weights: Which weights, where a file holds several sets: ``ema`` for the averaged ones, or the place of a set as
            the error lists it; None for the trained ones.

    Warns:
        MMMSDeployWarning: Averaged weights lie beside the trained ones, or are taken.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointCorruptError: It is of another kind, or cannot be read.
        CheckpointKeysError: It holds several sets of weights, or not those that were chosen.
    """
    place = _checked(path)
    if not place.exists():
        raise CheckpointNotFoundError(
            f"no checkpoint at {place}",
            expected="a .safetensors file or a PyTorch state dict (.pt, .pth)",
            fix="check the path; mmms_deploy.export.demo_checkpoint() returns one that ships with mmms-deploy",
            command_fix="check the path; the name 'demo' is a checkpoint that ships with mmms-deploy",
        )
    kind = _foreign_kind(place)
    if kind is not None:
        raise _of_another_kind(place, kind)
    config: object = None
    description: dict[str, Any] | None = None
    problem: DescriptionError | None = None
    if _is_ort(place):
        return _read_ort(place)
    if _is_safetensors(place):
        state, description = _read_safetensors(place)
        chosen: Chosen[Tensor] = choose_weights(state, place, weights, Tensor)
    else:
        chosen, config = _read_torch(place, weights)
    official = official_of(config, chosen.tensors)
    if description is None and official is not None:
        description, problem = _own_description(official, place, chosen.tensors, config)
    for note in chosen.notes:
        warnings.warn(f"{place}: {note}", MMMSDeployWarning, stacklevel=2)
    check_finite(place, chosen.tensors)
    state = chosen.tensors if official is None else official.native(chosen.tensors, config, str(place))
    return CheckpointFile(place, state, description, problem, chosen.place, chosen.averaged)


def _foreign_kind(path: Path) -> FileKind | None:
    try:
        return foreign_kind(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _of_another_kind(path: Path, kind: FileKind) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"{path} is {kind.name}", expected="a safetensors file or a file of torch.save", fix=kind.fix
    )


def _unreadable(path: Path, error: Exception) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"{path} is no readable PyTorch file: {_first_line(error)}",
        expected="a complete state dict",
        fix="copy it again and compare its hash with the source's",
    )


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, or has their suffix and begins as nothing else."""
    with path.open("rb") as file:
        head = file.read(9)
    if begins_as_safetensors(head, path.stat().st_size):
        return True
    return path.suffix.lower() == ".safetensors" and not head.startswith((b"PK\x03\x04", b"\x80"))


def _is_ort(path: Path) -> bool:
    with path.open("rb") as file:
        return begins_as_ort(file.read(8))


def _read_ort(path: Path) -> CheckpointFile:
    state = read_ort_tensors(path)
    check_finite(path, state)
    return CheckpointFile(path, state, None)


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


def _own_description(
    official: Official, path: Path, state: State, config: object
) -> tuple[dict[str, Any] | None, DescriptionError | None]:
    """Describe a network by its weights and the config beside them, which official software saved."""
    try:
        return official.describe(config, state, str(path)), None
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


def _read_torch(path: Path, weights: str | None) -> tuple[Chosen[Tensor], object]:
    """Return the weights, and the file's entry ``config``."""
    try:
        file = open_torch_file(path)
    except (PickleError, OSError) as error:
        raise _unreadable(path, error) from error
    if file is None:
        raise _of_another_kind(path, kind_by_suffix(path) or _pickled_kind(path))
    _check_names(path, file.contents)
    chosen = choose_weights(file.contents.value, path, weights, StoredTensor)
    check_stored(path, chosen.tensors)
    return _loaded(file, chosen), _config(file.contents.value)


def _loaded(file: TorchFile, chosen: Chosen[StoredTensor]) -> Chosen[Tensor]:
    try:
        tensors = load_tensors(file, chosen.tensors)
    except (PickleError, OSError, RuntimeError, ValueError) as error:
        raise _unreadable(file.path, error) from error
    return Chosen(tensors, chosen.place, chosen.averaged, chosen.notes)


def _config(root: object) -> object:
    return root.get("config") if isinstance(root, dict) else None


def _pickled_kind(path: Path) -> FileKind:
    """Describe a file that is no file of ``torch.save``: another pickle, or nothing that is known."""
    names = plain_pickle_names(path)
    if names is None:
        return FileKind("of no known kind", "copy it again and compare its hash with the source's")
    numpy = any(name.startswith("numpy.") for name in names)
    return FileKind(
        "a plain pickle" + (" of NumPy arrays" if numpy else "") + ", not a file of torch.save",
        "load it with the software that wrote it, and save its tensors with torch.save or as safetensors",
    )


def _check_names(path: Path, contents: Contents) -> None:
    """Refuse a file that other software could not open without starting something."""
    if running := running_names(contents.names):
        raise CheckpointCorruptError(
            f"{path} holds more than tensors: it names {_listing(running)}, which would run code in software that"
            " unpickles it",
            expected="weights, settings and objects of training software",
            fix="do not open it elsewhere; if it is your own, save it again as torch.save(model.state_dict(), ...)",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# --- matching ---------------------------------------------------------------------------------------------------------


def load_weights(
    model: InteractiveNetwork,
    file: CheckpointFile,
    backbone: CheckpointFile | None = None,
    *,
    describes_itself: bool = False,
) -> None:
    """Load weights under their release names into a network.

    Args:
        model: The network; its weights are replaced.
        file: The checkpoint. Weights in half precision and in float64 become float32.
        backbone: A separate file with the frozen backbone's weights, under the names of its release.
        describes_itself: Whether the network was built by the file's own description, for errors.

    Raises:
        CheckpointKeysError: Keys are missing, unexpected or misshapen, weights are of a type that cannot be weights, or
            both files hold different backbones.
    """
    frozen = model.frozen
    if frozen is None:
        _load_whole(model, file, backbone, describes_itself=describes_itself)
        return
    source, names, vit_model = str(file.path), frozen.names, frozen.model
    expected = release_state(model)
    own, vit = _split(file.state)
    vit = names.clean(vit)
    check_types(file.path, expected, own | _as_backbone(vit))
    own, vit = widened(file.path, own), widened(file.path, vit)
    grid = _stored_grid(file, frozen.patch)
    own, converted = model.adapt(own, grid), names.to_timm(vit, vit_model, grid)
    if backbone is not None:
        source += f" with {backbone.path}"
        extra = names.clean({n.removeprefix(BACKBONE_PREFIX): t for n, t in backbone.state.items()})
        check_types(backbone.path, expected, _as_backbone(extra))
        extra = widened(backbone.path, extra)
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
    state = own | _as_backbone(vit)
    _check_keys(model, state, converted, source, describes_itself=describes_itself)
    model.load_state_dict(own, strict=False)
    vit_model.load_state_dict(converted, strict=False)


def _load_whole(
    model: InteractiveNetwork, file: CheckpointFile, backbone: CheckpointFile | None, *, describes_itself: bool
) -> None:
    """Load the weights of a network without a frozen backbone."""
    if backbone is not None:
        raise CheckpointKeysError(
            f"{backbone.path} as the backbone of a {model.config.family} network",
            expected="one file with all weights: clicks go through the whole network, and no part of it is frozen",
            fix="leave out backbone_checkpoint",
            command_fix="leave out --backbone-ckpt",
        )
    check_types(file.path, release_state(model), file.state)
    state = widened(file.path, file.state)
    patch = model.patch
    adapted = model.adapt(state, None if patch is None else _stored_grid(file, patch))
    _check_keys(model, state, adapted, str(file.path), describes_itself=describes_itself)
    model.load_state_dict(adapted, strict=False)


def _stored_grid(file: CheckpointFile, patch: tuple[int, int]) -> tuple[int, int] | None:
    """Return the grid (H, W) of the position table in a checkpoint that describes itself."""
    size, (rows, columns) = (file.description or {}).get("size"), patch
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        return None
    return size[0] // rows, size[1] // columns


def _as_backbone(vit: State) -> State:
    return {BACKBONE_PREFIX + name: tensor for name, tensor in vit.items()}


def _split(state: State) -> tuple[State, State]:
    own = {n: t for n, t in state.items() if not n.startswith(BACKBONE_PREFIX)}
    vit = {n.removeprefix(BACKBONE_PREFIX): t for n, t in state.items() if n.startswith(BACKBONE_PREFIX)}
    return own, vit


def release_state(model: InteractiveNetwork) -> State:
    """Return a network's state under the names that its checkpoints use: the backbone's under those of its release."""
    frozen = model.frozen
    if frozen is None:
        return {n: t.detach() for n, t in model.state_dict().items() if not n.endswith(_IGNORED_SUFFIX)}
    state = {n: t.detach() for n, t in model.state_dict().items() if not n.startswith(BACKBONE_PREFIX)}
    vit = {n: t.detach() for n, t in frozen.model.state_dict().items()}
    released = frozen.names.to_release(vit, frozen.model)
    return {n: t for n, t in state.items() if not n.endswith(_IGNORED_SUFFIX)} | {
        BACKBONE_PREFIX + n: t for n, t in released.items() if not n.endswith(_IGNORED_SUFFIX)
    }


def _check_keys(
    model: InteractiveNetwork, given: State, converted: State, source: str, *, describes_itself: bool
) -> None:
    expected = release_state(model)
    missing = sorted(n for n in expected if n not in given and _is_read(model, n))
    unexpected = sorted(
        n for n in given if n not in expected and _is_read(model, n) and not n.endswith(_IGNORED_SUFFIX)
    )
    frozen = model.frozen
    target = model.state_dict() if frozen is None else frozen.model.state_dict()
    # A resampled position table fits; nothing else may change its shape on the way.
    fits = {
        ("" if frozen is None else BACKBONE_PREFIX) + n
        for n, t in converted.items()
        if n.rpartition(".")[2] == "pos_embed" and n in target and t.shape == target[n].shape
    }
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
    frozen_differs = isinstance(model.config, LateFusionConfig) and layouts[0] != layouts[1]
    if frozen_differs and any(n.startswith(BACKBONE_PREFIX) for n in given):
        lines.append(f"the backbone's weights look like {layouts[0]}")
        lines.append(f"{backbone_name(model.config)} would be {layouts[1]}")
    described = "the file describes" if describes_itself else "the description names"
    advice = _own_description_advice(model.config.family) if describes_itself else _DESCRIPTION_ADVICE
    separate = isinstance(model.config, LateFusionConfig)
    raise CheckpointKeysError(
        f"{source} does not fit the described network: {len(missing)} keys missing, {len(unexpected)} unexpected, "
        f"{len(misshapen)} misshapen\n    " + "\n    ".join(lines),
        expected=f"the {len(expected)} keys of the network that {described}",
        **((_backbone_advice(missing, misshapen) if separate else None) or advice),
    )


def _is_read(model: InteractiveNetwork, name: str) -> bool:
    """Whether a weight is used; a backbone's release has unused ones."""
    frozen = model.frozen
    if frozen is None or not name.startswith(BACKBONE_PREFIX):
        return True
    return frozen.names.reads(name.removeprefix(BACKBONE_PREFIX))


def _report(kind: str, names: list[str], candidates: list[str]) -> list[str]:
    lines = []
    for name in names[:_LISTED]:
        close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.7)
        lines.append(f"{kind:<10} {name}" + (f" (nearest: {close[0]})" if close else ""))
    if len(names) > _LISTED:
        lines.append(f"{kind:<10} ... and {len(names) - _LISTED} more")
    return lines


_DESCRIPTION_ADVICE = {"fix": "correct the description (backbone, widths, modalities), or rename the keys"}


def _own_description_advice(family: str) -> dict[str, str]:
    """Return ``fix`` and ``command_fix`` for a file whose weights are not those that it says."""
    copy = "copy the file again and compare its hash with the source's"
    return describe_it(family, f"{copy}; where it is whole, describe the network")


def _backbone_advice(missing: list[str], misshapen: list[str]) -> dict[str, str] | None:
    """Return ``fix`` and ``command_fix`` where all that is missing is a backbone, which has a file of its own."""
    if not missing or misshapen or not all(name.startswith(BACKBONE_PREFIX) for name in missing):
        return None
    found = "the frozen backbone is not in this file: pass its release file"
    return {"fix": f"{found} as backbone_checkpoint", "command_fix": f"{found} as --backbone-ckpt"}


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
            fed_back = [n for n, c in enumerate(config.clicks.channels) if c in _FED_BACK]
            for name, parameter in model.named_parameters():
                if name.startswith(_CLICK_EMBEDDINGS) and parameter.ndim == 4:
                    parameter[:, fed_back] *= 0.1
                elif name.endswith(_SIDE_BRANCH):
                    parameter[:, 3:] *= 0.1
                elif parameter.ndim == 1:
                    parameter.add_(torch.empty_like(parameter).uniform_(-0.05, 0.05))
                elif name.endswith(_LAST_LAYERS):
                    parameter.mul_(10.0)
    return model.eval()


def save_checkpoint(
    path: Path,
    model: InteractiveNetwork,
    *,
    dtype: torch.dtype | None = None,
    backbone: bool = True,
    **metadata: str,
) -> None:
    """Write a network as safetensors with its description in the metadata; atomic.

    Args:
        path: The file to write.
        model: The network.
        dtype: Type to store floating-point weights in; None keeps their type.
        backbone: Whether to store the backbone's weights too. Without them the file is read with a separate one.
        **metadata: Further entries for the file's metadata.

    Raises:
        CheckpointError: Weights cannot be stored in this type.
    """
    if dtype is not None and dtype not in WEIGHT_TYPES:
        raise CheckpointError(
            f"weights to be stored as {str(dtype).removeprefix('torch.')}",
            expected=f"one of {', '.join(str(t).removeprefix('torch.') for t in WEIGHT_TYPES)}, or None",
            fix="store them in a floating-point type",
        )
    state = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in release_state(model).items()
        if backbone or not name.startswith(BACKBONE_PREFIX)
    }
    described = {DESCRIPTION_KEY: msgspec.json.encode(model.config).decode(), **metadata}
    with partial_beside(path) as temporary:
        save_file(state, temporary, metadata=described)

"""The state of a run on disk: one file, written whole or not at all, with the settings that it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmms_deploy.bundle.contract import Struct, to_builtins
from mmms_deploy.files import partial_beside
from mmms_deploy.training.errors import TrainingStateError
from mmms_deploy.training.recipe import Recipe

_KEY = "mmms_deploy.training"


class RunFacts(Struct, frozen=True, kw_only=True):
    """What a state belongs to; a run continues only a state with the same facts.

    Attributes:
        recipe: Every number of the run.
        description: The network.
        backbone: Hash of the backbone's weights.
        views: Hash of all views, and so of the data.
        start: Hash of the checkpoint that the run started from; empty for a new head.
        device: ``cpu`` or ``cuda``.
        threads: Replicas on a CPU.
        bfloat16: Whether matrix products are computed in bfloat16.
    """

    recipe: Recipe
    description: dict[str, Any]
    backbone: str
    views: str
    start: str
    device: str
    threads: int
    bfloat16: bool


_WORDS = {
    "recipe": "the settings",
    "description": "the network",
    "backbone": "the backbone's weights",
    "views": "the data or their views",
    "start": "the checkpoint to start from",
    "device": "the device",
    "threads": "the number of threads",
    "bfloat16": "the precision",
}


def save_state(path: Path, tensors: dict[str, Tensor], facts: RunFacts) -> None:
    """Write a state.

    Raises:
        OutputWriteError: It cannot be written.
    """
    # Replicas share memory with the head; a file holds every tensor once.
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with partial_beside(path) as temporary:
        save_file(kept, temporary, metadata={_KEY: json.dumps(to_builtins(facts), sort_keys=True)})


def load_state(path: Path, facts: RunFacts) -> dict[str, Tensor]:
    """Read a state of a run with the same facts.

    Args:
        path: The file.
        facts: What the run that goes on is.

    Raises:
        TrainingStateError: It cannot be read, or belongs to a run with other settings; the message names them.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(_KEY, "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise TrainingStateError(
            f"{path} cannot be read: {error}",
            expected="a state as training writes it",
            fix="delete it to start over; the features that are computed stay",
        ) from error
    own = json.loads(json.dumps(to_builtins(facts)))
    if not isinstance(found, dict) or found != own:
        known = found if isinstance(found, dict) else {}
        others = [word for name, word in _WORDS.items() if known.get(name) != own[name]]
        raise TrainingStateError(
            f"{path} belongs to a run in which {_joined(others)} {'was' if len(others) == 1 else 'were'} different"
            f"{_changed(known.get('recipe'), own['recipe'])}",
            expected="the same settings, to go on with it",
            fix="repeat the settings of that run, train in another folder, or delete the state to start over",
            command_fix="repeat the options of that run, name another --out, or pass --fresh to start over",
        )
    return state


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "the version"


def _changed(before: object, now: dict[str, Any]) -> str:
    if not isinstance(before, dict):
        return ""
    changes = [f"{name} {before.get(name)}, now {value}" for name, value in now.items() if before.get(name) != value]
    return f" ({'; '.join(changes)})" if changes else ""


def torch_device(name: str) -> torch.device:
    """Return the device of a name: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        TrainingStateError: There is no such device.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise TrainingStateError(
            "device cuda: PyTorch sees no GPU here",
            expected="a GPU that PyTorch can use",
            fix="leave the device out to train on the CPU",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and there) else "cpu")

"""Which of a file's contents are the weights, and what they are called without the prefixes of training software.

A training checkpoint holds more than weights: optimizers, schedulers, random states, settings, and often averages of
the weights (EMA), in dicts inside of dicts. Here a set of weights is a dict whose values are tensors. Everything else
is passed over. Two sets that could both be the network's are not chosen between: the caller says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError
from mmms_deploy.weights.passive_pickle import Inert, StoredTensor

T = TypeVar("T")

EMA = "ema"
"""Chooses the averaged weights."""
_DEPTH = 8
"""Dicts inside of dicts that are looked into."""
_LISTED = 12
_AVERAGED = re.compile(
    r"(?:^|[\W_])(?:(?i:ema|swa|moving_average)(?:[\W_]|$)|(?i:shadow|averaged)(?:_|$))|EMA|Ema(?:[A-Z]|$)|MovingAverage"
)
"""Keys of averaged weights: ``ema``, ``model_ema``, ``state_dict_ema``, ``shadow_params``, ``averaged_model``, ..."""
_OTHER = re.compile(
    r"(?:^|_)(?:optim\w*|opt|lr|sched\w*|\w*scheduler\w*|scaler|grad_scaler|amp|rng|random\w*|loops?|hparams|hyper_parameters|"
    r"args|config|cfg|criterion|loss\w*|metrics?|loggers?|history|dataset|sampler)(?:_state\w*|_states|_dict|$|s$)",
    re.I,
)
"""Keys of what is no weights."""
_WRAPPERS = re.compile(
    r"_orig_mod|module|model|net|network|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module|"
    r"segmentation_model|inner_model|lightning_module"
)
"""First parts of names that training software puts before a network's own."""
_INSIDE = re.compile(r"(?:^|\.)(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
"""Parts that it puts before the names of single layers."""
_COUNTERS = re.compile(r"(?:.*\.)?(?:n_averaged|num_updates|decay|ema_decay)")
"""Counters that averages keep among their weights."""
_COMPANIONS = re.compile(r"(?:criterion|loss\w*|\w*metrics?|(?:train|val|valid|test)_\w+)\.")
"""First parts of names of what a training module holds beside its network."""


@dataclass
class WeightSet(Generic[T]):
    """A set of weights.

    Attributes:
        place: Where it lies: keys from the outermost dict on, joined by slashes; empty for the outermost dict itself.
        tensors: Tensors by name, without prefixes of training software.
        averaged: Whether they are averages (EMA).
        unnamed: Averages that are kept as a list, in the order of the network's parameters.
        dropped: Names of tensors that belong to the training and were left out.
    """

    place: str
    tensors: dict[str, T] = field(default_factory=dict)
    averaged: bool = False
    unnamed: list[T] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = len(self.tensors) or len(self.unnamed)
        what = (
            f"{count} tensors"
            + (", averaged (EMA)" if self.averaged else "")
            + (", without names" * (not self.tensors))
        )
        return f"{self.place or 'the outermost dict'} ({what})"


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """The chosen weights.

    Attributes:
        tensors: Tensors by name.
        place: Where they lie.
        averaged: Whether they are averages (EMA).
        notes: What a user should know about the choice.
    """

    tensors: dict[str, T]
    place: str
    averaged: bool
    notes: tuple[str, ...]


def choose_weights(root: Any, path: Path, choice: str | None, tensor: type[T]) -> Chosen[T]:
    """Find the weights in what a file holds.

    Args:
        root: What it holds.
        path: The file, for messages.
        choice: Which weights: :data:`EMA`, or the place of a set as the error lists it; None for the trained ones.
        tensor: The class of a tensor.

    Returns:
        The weights.

    Raises:
        CheckpointCorruptError: There are none.
        CheckpointKeysError: Several sets could be meant, or none has the chosen name.
    """
    sets = [part for found in _find(root, (), tensor, _DEPTH, set()) for part in _parts(found)]
    named = [one for one in sets if one.tensors]
    plain = _distinct(_of_full_size([one for one in named if not one.averaged]))
    averages = [one for one in sets if one.averaged]
    if not sets:
        raise CheckpointCorruptError(
            f"{path} holds no state dict but {_described(root)}",
            expected="a dict of tensors, or one inside of it",
            fix="save it as torch.save(model.state_dict(), ...)",
        )
    if choice == EMA:
        return _averaged(path, plain, averages)
    if choice is not None:
        matching = [one for one in named if one.place == choice]
        if len(matching) != 1:
            raise CheckpointKeysError(
                f"{path} has no weights {choice!r}",
                expected=f"one of {_list(named)}" + (f", or {EMA}" if averages else ""),
                fix=f'pass weights="{named[0].place}"' if named else "leave weights out",
                command_fix=f"pass --weights {named[0].place}" if named else "leave --weights out",
            )
        return _result(matching[0], ())
    if len(plain) > 1:
        first = plain[0].place
        raise CheckpointKeysError(
            f"{path} holds several sets of weights: {_list(plain)}",
            expected="one, or a choice between them",
            fix=f'pass weights="{first}", or another of them',
            command_fix=f"pass --weights {first}, or another of them",
        )
    if plain:
        said = (
            [
                f"averaged weights (EMA) lie beside the trained ones, in {_list(averages)}; the trained ones are taken"
                ' (weights="ema" or --weights ema takes the averages)'
            ]
            if averages
            else []
        )
        return _result(plain[0], tuple(said))
    return _averaged(path, plain, averages)


def _averaged(path: Path, plain: list[WeightSet[T]], averages: list[WeightSet[T]]) -> Chosen[T]:
    full = _of_full_size([one for one in averages if one.tensors])
    if len(full) == 1:
        return _result(full[0], ("the averaged weights (EMA) are taken",))
    unnamed = [one for one in averages if one.unnamed]
    if not full and len(unnamed) == 1 and len(plain) == 1:
        return _result(_with_names(path, plain[0], unnamed[0]), ("the averaged weights (EMA) are taken",))
    given = (
        f"{path} holds {'several sets of averaged weights: ' + _list(averages) if averages else 'no averaged weights'}"
    )
    first = averages[0].place if averages else ""
    raise CheckpointKeysError(
        given,
        expected="one set of averaged weights (EMA) with names, or a list of them beside the trained ones",
        fix=f'pass weights="{first}", or another of them' if averages else "leave weights out",
        command_fix=f"pass --weights {first}, or another of them" if averages else "leave --weights out",
    )


def _result(one: WeightSet[T], notes: tuple[str, ...]) -> Chosen[T]:
    dropped = (f"{_shown(one.dropped)} belong to the training and are left out",) if one.dropped else ()
    return Chosen(one.tensors, one.place, one.averaged, (*notes, *dropped))


def _with_names(path: Path, trained: WeightSet[T], averages: WeightSet[T]) -> WeightSet[T]:
    """Name averages that are kept as a list, by the order and shapes of the trained parameters."""
    names = [name for name in trained.tensors if not _is_buffer(name)]
    pairs = list(zip(names, averages.unnamed, strict=False))
    fits = len(names) == len(averages.unnamed) and all(_shape(trained.tensors[n]) == _shape(t) for n, t in pairs)
    if not fits:
        raise CheckpointKeysError(
            f"{path}: the averaged weights in {averages.place} have no names, and do not fit the {len(names)} trained"
            " parameters in their order",
            expected="a tensor of the same shape for each parameter",
            fix="save the averaged network's state_dict()",
        )
    return WeightSet(averages.place, {**trained.tensors, **dict(pairs)}, averaged=True)


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in {
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "relative_position_index",
        "pixel_mean",
        "pixel_std",
    }


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.size if isinstance(tensor, StoredTensor) else tensor.shape)


# --- finding ----------------------------------------------------------------------------------------------------------


def _find(node: Any, keys: tuple[str, ...], tensor: type[T], depth: int, seen: set[int]) -> Iterator[WeightSet[T]]:
    """Yield the dicts of tensors in what a file holds, and lists of averages, with their places."""
    entries = _entries(node)
    if depth == 0 or id(node) in seen or entries is None or _is_optimizer(entries):
        return
    seen.add(id(node))
    tensors = {name: value for name, value in entries.items() if isinstance(value, tensor)}
    averaged = any(_AVERAGED.search(key) for key in keys)
    inner: list[WeightSet[T]] = []
    for key, value in entries.items():
        if not _passed_over(key, entries):
            inner += list(_find(value, (*keys, key), tensor, depth - 1, seen))
            inner += _listed(value, (*keys, key), tensor)
    # A few counters beside dicts of weights are no weights: {"state_dict": {...}, "epoch": tensor(3)}.
    if tensors and (not inner or any("." in name for name in tensors)):
        own = {name: value for name, value in tensors.items() if "." in name or not _OTHER.search(name)}
        yield WeightSet("/".join(keys), own or tensors, averaged)
    yield from inner


def _passed_over(key: str, entries: Mapping[str, Any]) -> bool:
    """Whether what lies under a key is no weights, or those that a release's own evaluations do not take."""
    if _OTHER.search(key):
        return _AVERAGED.search(key) is None
    # I-JEPA's evaluations take the target encoder, which is the average of the other one.
    return (key == "encoder" and "target_encoder" in entries) or (key == "predictor" and "encoder" in entries)


def _entries(node: Any) -> dict[str, Any] | None:
    """Return what lies below a value, by text; None when it is no dict and no module."""
    if isinstance(node, Inert):
        if isinstance(node.state, Mapping) and "_parameters" in node.state:
            return dict(_of_module(node, "", _DEPTH * 4))
        node = node.items or node.state
    if not isinstance(node, Mapping):
        return None
    return {
        (k.decode("latin1") if isinstance(k, bytes) else k): v for k, v in node.items() if isinstance(k, str | bytes)
    }


def _of_module(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a module that was pickled whole, by their names."""
    state = node.state if isinstance(node, Inert) else None
    if not isinstance(state, Mapping) or depth == 0:
        return
    for kind in ("_parameters", "_buffers"):
        own = _entries(state.get(kind))
        yield from ((prefix + name, value) for name, value in (own or {}).items() if value is not None)
    for name, child in (_entries(state.get("_modules")) or {}).items():
        yield from _of_module(child, f"{prefix}{name}.", depth - 1)


def _listed(value: Any, keys: tuple[str, ...], tensor: type[T]) -> list[WeightSet[T]]:
    elements = value.elements if isinstance(value, Inert) else value
    if not isinstance(elements, list | tuple) or not elements or not any(_AVERAGED.search(key) for key in keys):
        return []
    tensors = [element for element in elements if isinstance(element, tensor)]
    return [WeightSet("/".join(keys), averaged=True, unnamed=tensors)] if len(tensors) == len(elements) else []


def _is_optimizer(entries: Mapping[str, Any]) -> bool:
    return "param_groups" in entries and "state" in entries


def _of_full_size(sets: list[WeightSet[T]]) -> list[WeightSet[T]]:
    """Return the sets with at least half as many tensors as the largest; smaller ones are parts of a training."""
    largest = max((len(one.tensors) for one in sets), default=0)
    return [one for one in sets if 2 * len(one.tensors) >= largest]


def _distinct(sets: list[WeightSet[T]]) -> list[WeightSet[T]]:
    """Leave out sets that are the same numbers under the same names, saved under two keys."""
    kept: dict[Any, WeightSet[T]] = {}
    for one in sets:
        identity = frozenset((name, _numbers(tensor)) for name, tensor in one.tensors.items())
        kept.setdefault(identity, one)
    return list(kept.values())


def _numbers(tensor: Any) -> Any:
    if isinstance(tensor, StoredTensor):
        return (tensor.kind, tensor.key, tensor.offset, tensor.size, tensor.stride)
    return tensor.data_ptr()


# --- names ------------------------------------------------------------------------------------------------------------


def _parts(found: WeightSet[T]) -> list[WeightSet[T]]:
    """Split a dict by the networks that its names begin with, and take the prefixes of training software off."""
    if not found.tensors:
        return [found]
    heads: dict[tuple[str, bool], WeightSet[T]] = {}
    dropped = []
    for name, tensor in found.tensors.items():
        wrappers, averaged, rest = _unwrapped(name)
        if _COUNTERS.fullmatch(name) and (averaged or found.averaged or _has_averages(found.tensors)):
            continue
        if _COMPANIONS.match(name) and any(_unwrapped(other)[0] for other in found.tensors):
            dropped.append(name)
            continue
        head = ".".join(wrappers)
        place = "/".join(part for part in (found.place, head) if part)
        one = heads.setdefault((head, averaged), WeightSet(place, averaged=averaged or found.averaged))
        one.tensors[rest] = tensor
    parts = _joined(found, list(heads.values()))
    for part in parts:
        part.dropped = dropped
    return [split for part in parts for split in _twins(part)]


def _has_averages(names: Mapping[str, Any]) -> bool:
    return "n_averaged" in names or any(_unwrapped(name)[1] for name in names)


def _unwrapped(name: str) -> tuple[list[str], bool, str]:
    """Return the prefixes before a name, whether one of them says that it is an average, and the name without them."""
    wrappers, averaged, rest = [], False, name
    while "." in rest:
        first, _, after = rest.partition(".")
        average = _AVERAGED.search(first) is not None
        if not average and not _WRAPPERS.fullmatch(first):
            break
        averaged = averaged or average
        wrappers.append(first)
        rest = after
    return wrappers, averaged, _INSIDE.sub("", rest).lstrip(".")


def _joined(found: WeightSet[T], parts: list[WeightSet[T]]) -> list[WeightSet[T]]:
    """Join parts whose names do not meet: one network, of which only some layers were wrapped."""
    joined: list[WeightSet[T]] = []
    for part in parts:
        home = next(
            (j for j in joined if j.averaged == part.averaged and not j.tensors.keys() & part.tensors.keys()), None
        )
        if home is None:
            joined.append(part)
        else:
            home.tensors.update(part.tensors)
    if sum(not part.averaged for part in joined) == 1 or len(joined) == 1:
        for part in joined:
            if part.averaged == found.averaged or len(joined) == 1:
                part.place = found.place
    order = {id(t): n for n, t in enumerate(found.tensors.values())}
    for part in joined:  # the order of the file, which averages without names follow
        part.tensors = dict(sorted(part.tensors.items(), key=lambda item: order[id(item[1])]))
    return joined


def _twins(part: WeightSet[T]) -> list[WeightSet[T]]:
    """Split ``student.*`` and ``teacher.*``: first parts of names with the same names after them."""
    groups: dict[str, dict[str, T]] = {}
    for name, tensor in part.tensors.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest] = tensor
    largest = max(groups.values(), key=len)
    twins = [first for first, names in groups.items() if names.keys() == largest.keys()]
    covered = sum(len(groups[first]) for first in twins)
    if len(twins) < 2 or not any("." in name for name in largest) or 2 * covered < len(part.tensors):
        return [part]
    made = []
    for first in twins:
        wrappers, averaged, _ = _unwrapped(f"{first}.x")
        place = "/".join(p for p in (part.place, first) if p)
        tensors = {_unwrapped(name)[2]: tensor for name, tensor in groups[first].items()}
        made.append(WeightSet(place, tensors, part.averaged or (averaged and bool(wrappers)), dropped=part.dropped))
    return made


# --- words ------------------------------------------------------------------------------------------------------------


def _list(sets: list[WeightSet[T]]) -> str:
    return _shown([str(one) for one in sets])


def _shown(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _described(root: Any) -> str:
    if isinstance(root, Inert):
        return f"an object of {root.name}"
    if isinstance(root, Mapping):
        return f"a dict of {_shown(sorted(str(key) for key in root))}" if root else "an empty dict"
    return f"a {type(root).__name__}"

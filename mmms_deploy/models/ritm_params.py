"""The ``config`` of checkpoints that RITM's code saves: the parameters of a network's class, read with named errors.

Such a file is ``torch.save({"state_dict": ..., "config": {"class": ..., "params": {NAME: {"type", "value",
"specified"}}}})``. Values are plain, but for whole pickled losses, of which nothing is imported
(:mod:`mmms_deploy.weights.passive_pickle`).
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from typing import Any

from mmms_deploy.documents import document
from mmms_deploy.errors import DescriptionError

_TRAINED_BY = (
    *("use_rgb_conv", "use_leaky_relu", "with_aux_output", "conv_extend", "norm_layer"),
    *("backbone_lr_mult", "head_lr_mult", "cpu_dist_maps"),
)
"""How the network was trained and computed, and layers that would show in the names of its weights."""
_FIXED = {"use_disks": True, "with_prev_mask": True, "random_split": False, "binary_prev_mask": False}
"""Parameters with which every network here was trained."""


class Params:
    """The parameters of a network's class, or a table among them.

    Args:
        values: Value by name.
        place: What to call the table, such as ``backbone_params``; empty for the parameters themselves.
        source: Where they come from, for messages.
        family: The family of networks, for messages.

    Attributes:
        values: As given.
        source: As given.
    """

    def __init__(self, values: Mapping[str, Any], place: str, source: str, family: str) -> None:
        self.values, self.source = values, source
        self._place, self._family = place, family

    @classmethod
    def of(cls, config: Mapping[Any, Any], source: str, family: str) -> Params:
        """Read a file's entry ``config``.

        Raises:
            DescriptionError: It has another form.
        """
        params = config.get("params")
        if not isinstance(params, Mapping):
            raise cls({}, "", source, family).unknown("params", params, "a table of parameters")
        values = {}
        for name, entry in params.items():
            if not isinstance(name, str) or not isinstance(entry, Mapping) or "value" not in entry:
                raise cls({}, "params", source, family).unknown(
                    repr(name), entry, "a table with type, value and specified"
                )
            values[name] = entry["value"]
        return cls(values, "", source, family)

    def check(self, known: Collection[str], fixed: Mapping[str, Any]) -> None:
        """Check that only known parameters have a value, and that fixed ones have theirs.

        Raises:
            DescriptionError: Another parameter says something, or one has another value.
        """
        for name, value in self.values.items():
            if name in fixed:
                if plain(value) != plain(fixed[name]):
                    raise self.unknown(name, value, repr(fixed[name]))
            elif name not in known and value is not None and value is not False:
                raise self.unknown(name, value, "no such parameter")

    def check_outermost(self, known: Collection[str], fixed: Mapping[str, Any] | None = None) -> None:
        """Check the parameters of the class itself.

        Args:
            known: Names of those that are read elsewhere.
            fixed: What else is fixed in the family.

        Raises:
            DescriptionError: As :meth:`check`.
        """
        given = {*known, "norm_radius", "norm_mean_std", *_TRAINED_BY}
        self.check(given, {**_FIXED, **(fixed or {})})

    def table(self, name: str) -> Params:
        """Return a table among the parameters; an absent one is empty.

        Raises:
            DescriptionError: It is no table.
        """
        value = self.values.get(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.unknown(name, value, "a table of parameters")
        return Params(value, self._path(name), self.source, self._family)

    def whole(self, name: str) -> int | None:
        """Return a positive whole number; None where the parameter is absent.

        Raises:
            DescriptionError: It is something else.
        """
        value = self.number(name)
        if value is not None and value != int(value):
            raise self.unknown(name, value, "a positive whole number")
        return None if value is None else int(value)

    def number(self, name: str) -> float | None:
        """Return a positive number; None where the parameter is absent.

        Raises:
            DescriptionError: It is something else.
        """
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise self.unknown(name, value, "a positive number")
        return value

    def flag(self, name: str) -> bool | None:
        """Return a flag; None where the parameter is absent.

        Raises:
            DescriptionError: It is something else.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.unknown(name, value, "True or False")
        return value

    def wholes(self, name: str, count: int) -> list[int] | None:
        """Return that many positive whole numbers; None where the parameter is absent.

        Raises:
            DescriptionError: It is something else.
        """
        value = self.values.get(name)
        if value is None:
            return None
        good = isinstance(value, list | tuple) and len(value) == count
        if not good or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value):
            raise self.unknown(name, value, f"{count} positive whole numbers")
        return list(value)

    def statistics(self) -> tuple[list[float], list[float]] | None:
        """Return the image's means and standard deviations, three each; None where they are absent.

        Raises:
            DescriptionError: They are something else.
        """
        value = self.values.get("norm_mean_std")
        if value is None:
            return None
        try:
            mean, std = ([float(x) for x in values] for values in value)
        except (TypeError, ValueError):
            raise self.unknown("norm_mean_std", value, "three means and three standard deviations") from None
        return mean, std

    def unknown(self, name: str, value: object, expected: str) -> DescriptionError:
        """Return the error for a value that no published network has."""
        return DescriptionError(
            f"{self.source}: its config says {self._path(name)} = {short(value)}",
            expected=expected,
            **describe_it(self._family, "if you know what network this is, describe it"),
        )

    def _path(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name


_DOCUMENTS = {"mmms": "checkpoints", "skipclick": "skipclick"}
"""Where the description of a family is explained, where it is not in ``docs/families.md``."""


def describe_it(family: str, advice: str = "describe the network") -> dict[str, str]:
    """Return ``fix`` and ``command_fix``: pass a description."""
    where = f'(family = "{family}"), see {document(_DOCUMENTS.get(family, "families"))}'
    return {
        "fix": f"{advice} in a file and pass it as description {where}",
        "command_fix": f"{advice} with --description {where}",
    }


def plain(value: object) -> object:
    """Return a list as a tuple, so that both compare alike."""
    return tuple(value) if isinstance(value, list) else value


def short(value: object) -> str:
    """Return a value's text; of deep ones only the beginning, which a crafted file could make endless."""
    texts = reprlib.Repr()
    texts.maxstring = texts.maxother = 200
    return texts.repr(value)

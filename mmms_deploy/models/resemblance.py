"""Which family of networks weights resemble by their names, for errors about files that nothing recognises."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

import torch

from mmms_deploy.models.checkpoint import release_state
from mmms_deploy.models.families import FAMILIES, build_network

LEAST = 0.2
"""Below this share of common names, weights resemble no family."""
_NUMBERS = re.compile(r"\d+")


def resemblance(names: Collection[str]) -> str:
    """Say which family's weights have such names.

    Args:
        names: Names of weights.

    Returns:
        A clause, for example ``its weights are named like those of simpleclick (87 % of the names of both)``.
    """
    given = _patterns(names)
    shares = {family: _share(given, known) for family, known in _known().items()}
    family = max(shares, key=lambda name: shares[name])
    if shares[family] < LEAST:
        return f"its weights are named like those of no known family ({', '.join(FAMILIES)})"
    return f"its weights are named like those of {family} ({100 * shares[family]:.0f} % of the names of both)"


def _patterns(names: Collection[str]) -> frozenset[str]:
    """Return names without the numbers of blocks, so that networks of other depths compare."""
    return frozenset(_NUMBERS.sub("#", name) for name in names)


def _share(given: frozenset[str], known: frozenset[str]) -> float:
    """Return the share of common names among all names of both."""
    both = given | known
    return len(given & known) / len(both) if both else 0.0


@cache
def _known() -> dict[str, frozenset[str]]:
    """Return the names of the weights of every family's usual network, which is built without memory for them."""
    with torch.device("meta"):
        return {name: _patterns(release_state(build_network(entry.config()))) for name, entry in FAMILIES.items()}  # type: ignore[call-arg]

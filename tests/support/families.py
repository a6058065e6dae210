"""Golden numbers of other families' networks: made with their authors' code, on weights that a recipe makes again."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.paths import FAMILIES

Array = npt.NDArray[Any]


class GoldenFile:
    """A golden file; a test that opens one is skipped where there is none.

    Args:
        name: Its name without the suffix, such as ``simpleclick-xtiny``.

    Attributes:
        meta: Its description: family, config, clicks, ...
        arrays: Its arrays, by name.
    """

    def __init__(self, name: str) -> None:
        self.path = FAMILIES / "golden" / f"{name}.npz"
        if not self.path.is_file():
            pytest.skip(f"no golden file at {self.path}")
        with np.load(self.path) as stored:
            self.arrays: Mapping[str, Array] = {key: stored[key] for key in stored.files if key != "meta"}
            self.meta: dict[str, Any] = json.loads(str(stored["meta"]))

    @property
    def keys(self) -> dict[str, list[int]]:
        """Every name of the official file's weights, with its shape."""
        listed: dict[str, list[int]] = json.loads((FAMILIES / "keys" / self.meta["keys"]).read_text())
        return listed

    def weights(self) -> dict[str, Array]:
        """The weights that the golden numbers were made with; without counters."""
        made: dict[str, Array] = _recipe().golden_weights(str(self.path))
        return made

    def image(self) -> npt.NDArray[np.uint8]:
        """(H0, W0, 3) uint8: the picture."""
        picture: npt.NDArray[np.uint8] = _recipe().image(**self.meta["image"])
        return picture


def key_list(name: str) -> dict[str, list[int]]:
    """Every name and shape of an official file, such as ``dynamite-mit_b0``; without a list a test is skipped."""
    path = FAMILIES / "keys" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no list of keys at {path}")
    listed: dict[str, list[int]] = json.loads(path.read_text())
    return listed


def probe(values: Array, count: int = 64) -> Array:
    """What golden files keep of a tensor: ``count`` of its values, evenly spaced."""
    flat = np.asarray(values).reshape(-1)
    return flat[np.arange(count, dtype=np.int64) * (flat.size - 1) // (count - 1)]


@cache
def _recipe() -> Any:
    spec = importlib.util.spec_from_file_location("golden_recipe", FAMILIES / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

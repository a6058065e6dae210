"""The batch of every training step, a function of the recipe's seed and the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.training.feature_cache import FeatureCache, StoredView
from mmms_deploy.training.recipe import Recipe

_ORDER, _CHOICE = 1, 2
"""Second words of the seeds of the views' order and of what is chosen from a view."""


class Batches:
    """The batches of a run.

    Args:
        cache: Where the views are kept.
        keys: Keys of the views, in order.
        recipe: The run's settings.
        specs: The network's modalities; those that are optional are left out on some views.
    """

    def __init__(
        self, cache: FeatureCache, keys: Sequence[str], recipe: Recipe, specs: Sequence[ModalitySpec] = ()
    ) -> None:
        self._cache, self._keys, self._recipe = cache, tuple(keys), recipe
        self._optional = tuple(spec.name for spec in specs if spec.optional)

    def __getitem__(self, step: int) -> list[StoredView]:
        """Return the views of a step, with the targets and the modalities that are shown."""
        rng = np.random.default_rng([self._recipe.seed, _CHOICE, step])
        first = step * self._recipe.views
        return [self._shown(self._cache.load(self._key(first + i)), rng) for i in range(self._recipe.views)]

    def _key(self, place: int) -> str:
        """Return the key of a place in the endless row of all views, each time in another order."""
        epoch, within = divmod(place, len(self._keys))
        order = np.random.default_rng([self._recipe.seed, _ORDER, epoch]).permutation(len(self._keys))
        return self._keys[int(order[within])]

    def _shown(self, view: StoredView, rng: np.random.Generator) -> StoredView:
        count = min(self._recipe.targets, len(view.targets))
        chosen = np.sort(rng.choice(len(view.targets), count, replace=False))
        dropped = {name for name in self._optional if rng.random() < self._recipe.modality_dropout}
        return replace(
            view,
            targets=view.targets[chosen],
            weights=view.weights[chosen],
            modalities={name: values for name, values in view.modalities.items() if name not in dropped},
        )


def stream(batches: Batches, first: int, last: int) -> Iterator[list[StoredView]]:
    """Yield the batches of the steps from ``first`` to before ``last``; the next one is read while one is used."""
    with ThreadPoolExecutor(1, "mmms-batches") as pool:
        waiting = pool.submit(batches.__getitem__, first) if first < last else None
        for step in range(first, last):
            following = pool.submit(batches.__getitem__, step + 1) if step + 1 < last else None
            if waiting is not None:
                yield waiting.result()
            waiting = following

"""Training the head of a network on a frozen backbone's cached features. Needs the ``[train]`` extra.

In reading order:

- ``recipe``: every number of a run
- ``data``, ``survey``: the scenes of data sets, held-out ones, and what is in them
- ``views``, ``scene_views``: what is trained on: pictures, parts of them, and pasted objects
- ``network``, ``initial``: the network that is trained, and how it starts
- ``feature_cache``: the backbone's maps of every view, on disk
- ``batches``: which views a step gets
- ``clicks``, ``losses``, ``rounds``: simulated clicks, what is learned from them, and the rounds of a step
- ``mixing``, ``replicas``: a batch with different modalities, and threads that share a batch
- ``quick_forms``: attention and head in forms that a CPU trains faster
- ``run``, ``state``, ``loop``: steps, what a continued run needs, and the loop with its log
- ``measure``, ``page``: held-out scenes, and the page of a run
- ``pipeline``: all of it, from a network and views to a checkpoint
- ``errors``: the named errors of training

The names below load on first use, so that importing the package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.training.measure import HeldOut
    from mmms_deploy.training.network import compact_config, continued_network, new_network
    from mmms_deploy.training.pipeline import Training, write_checkpoint
    from mmms_deploy.training.recipe import Recipe
    from mmms_deploy.training.scene_views import SceneViews
    from mmms_deploy.training.views import JoinedViews, View, Views

__all__ = [
    "HeldOut",
    "JoinedViews",
    "Recipe",
    "SceneViews",
    "Training",
    "View",
    "Views",
    "compact_config",
    "continued_network",
    "new_network",
    "write_checkpoint",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "HeldOut": "measure",
        "JoinedViews": "views",
        "Recipe": "recipe",
        "SceneViews": "scene_views",
        "Training": "pipeline",
        "View": "views",
        "Views": "views",
        "compact_config": "network",
        "continued_network": "network",
        "new_network": "network",
        "write_checkpoint": "pipeline",
    },
)

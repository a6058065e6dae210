"""Encodes the images of a data set before they are clicked on, by one process, several, or a Ray cluster.

What was encoded before is found and not encoded again, so that a run that was stopped goes on; and the same images give
the same bytes, whoever encodes them.

In reading order:

- ``items``: an image of a data set, and what became of it
- ``encoder``: what one worker does: it holds a bundle, and encodes image after image
- ``sinks``: where features go: into a store, or into a file for each image
- ``index``: which image has which entry of a store
- ``run``: all images, by a pool of workers
"""

from mmms_deploy.precompute.encoder import Recipe
from mmms_deploy.precompute.index import INDEX_FILE, IndexRow, read_index
from mmms_deploy.precompute.items import Item, Outcome, Status
from mmms_deploy.precompute.run import Summary, precompute
from mmms_deploy.precompute.sinks import ClickFiles, IntoStore, Sink

__all__ = [
    "INDEX_FILE",
    "ClickFiles",
    "IndexRow",
    "IntoStore",
    "Item",
    "Outcome",
    "Recipe",
    "Sink",
    "Status",
    "Summary",
    "precompute",
    "read_index",
]

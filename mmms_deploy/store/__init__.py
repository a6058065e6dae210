"""Encoded images that outlive their session: kept on the device, on the host and on the disk, and made in advance.

In reading order:

- ``store``: ``FeatureStore``, which sessions and models take as ``store=``
- ``memory``: features in memory, least recently used out first
- ``disk``: a folder of files, one an image, that several processes use
- ``disk_budget``: the bytes of that folder, and which entries go
- ``flights``: one thread encodes an image, and the others that want it wait
- ``half``: which features are rounded to float16, and the verdict that allows it
- ``statistics``: the figures of a store
- ``prefetch``: ``Prefetcher``, which encodes the next images in the background
- ``prefetch_worker``: the process that it does so in
- ``worker_link``: its priority, and the messages between both
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.store.half import Half, HalfVerdict
    from mmms_deploy.store.prefetch import Prefetcher, PrefetchError, PrefetchProgress
    from mmms_deploy.store.statistics import StoreStats, TierStats
    from mmms_deploy.store.store import FeatureStore
    from mmms_deploy.store.worker_link import Priority

__all__ = [
    "FeatureStore",
    "Half",
    "HalfVerdict",
    "PrefetchError",
    "PrefetchProgress",
    "Prefetcher",
    "Priority",
    "StoreStats",
    "TierStats",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FeatureStore": "store",
        "Half": "half",
        "HalfVerdict": "half",
        "PrefetchError": "prefetch",
        "PrefetchProgress": "prefetch",
        "Prefetcher": "prefetch",
        "Priority": "worker_link",
        "StoreStats": "statistics",
        "TierStats": "statistics",
    },
)

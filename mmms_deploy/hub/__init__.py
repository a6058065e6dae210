"""The Hugging Face hub: files of model repositories by reference, and files into them. It knows nothing of bundles.

In reading order:

- ``reference``: ``hf:owner/name[@revision][/path]``, and where a copy in the cache comes from
- ``client``: the one place that imports ``huggingface_hub``; its failures have names, and its telemetry is off
- ``snapshot``: a repository at one commit, from the hub or from the cache
- ``weights``: which file of a repository is the checkpoint
- ``upload``: files into a repository, in one commit
"""

from mmms_deploy.hub.reference import HubReference, is_reference, parse_reference, parse_repository, reference_of
from mmms_deploy.hub.snapshot import Snapshot, open_snapshot
from mmms_deploy.hub.upload import Destination, RepositoryFile, open_destination, upload
from mmms_deploy.hub.weights import find_checkpoint

__all__ = [
    "Destination",
    "HubReference",
    "RepositoryFile",
    "Snapshot",
    "find_checkpoint",
    "is_reference",
    "open_destination",
    "open_snapshot",
    "parse_reference",
    "parse_repository",
    "reference_of",
    "upload",
]

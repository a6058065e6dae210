"""A bundle: everything about a deployed model, as one folder.

``bundle.json`` holds the manifest; beside it lie one ONNX graph per stage and precision and ``golden.npz``.
"""

from mmms_deploy.bundle.manifest import (
    ITEM_BYTES,
    SCHEMA,
    BlockPeak,
    FileEntry,
    GateCheck,
    Manifest,
    Precision,
    Provenance,
    Rate,
    Role,
    Stage,
    StageGraph,
    StateLink,
    TensorSpec,
)
from mmms_deploy.bundle.names import GOLDEN_NAME, MANIFEST_NAME
from mmms_deploy.bundle.reader import Bundle, sha256_of
from mmms_deploy.bundle.writer import BundleWriter, writing

__all__ = [
    "GOLDEN_NAME",
    "ITEM_BYTES",
    "MANIFEST_NAME",
    "SCHEMA",
    "BlockPeak",
    "Bundle",
    "BundleWriter",
    "FileEntry",
    "GateCheck",
    "Manifest",
    "Precision",
    "Provenance",
    "Rate",
    "Role",
    "Stage",
    "StageGraph",
    "StateLink",
    "TensorSpec",
    "sha256_of",
    "writing",
]

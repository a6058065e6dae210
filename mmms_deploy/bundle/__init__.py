"""A bundle: everything about a deployed model, as one folder.

``bundle.json`` holds the manifest; beside it lie one ONNX graph per stage and precision and ``golden.npz``.

In reading order:

- ``manifest``: the types of ``bundle.json``
- ``contract``: how images, modalities and clicks are prepared, the same for a checkpoint and a bundle
- ``protocol``: how a family's published figures are evaluated: crop, mirror image, threshold, sizes
- ``names``: names of files, and of the tensors that exports write and sessions set and read
- ``reference``: what a bundle is named by; ``packed``: the package's own; ``fetched``: those on the hub
- ``manifest_file``: reads ``bundle.json``
- ``reader``: opens a bundle and checks it
- ``split``: what the split into stages gains
- ``notebook``: what a notebook shows of a bundle
- ``card``, ``writer``: the model card; writes a bundle whole or not at all
- ``click_inputs``: what the stages at clicks read that no click changes
- ``click_stages``: these stages, apart from the others: what a click bundle holds
- ``push``: puts a bundle on the hub
"""

from mmms_deploy.bundle.contract import (
    AnswerForm,
    AnswerSpec,
    ClickChannel,
    ClickContract,
    ClickLabel,
    ClickList,
    ClickMemory,
    Coordinates,
    ImageSpec,
    Interpolation,
    ModalitySpec,
    PointList,
    PreviousMask,
    ResizeRule,
)
from mmms_deploy.bundle.manifest import (
    ITEM_BYTES,
    SCHEMA,
    BlockPeak,
    FileEntry,
    GateCheck,
    Manifest,
    Precision,
    Provenance,
    Quantisation,
    Rate,
    Role,
    Stage,
    StageGraph,
    StateLink,
    TensorSpec,
)
from mmms_deploy.bundle.names import GOLDEN_NAME, MANIFEST_NAME
from mmms_deploy.bundle.protocol import EvaluationProtocol, Outside, ZoomRule
from mmms_deploy.bundle.push import push_bundle
from mmms_deploy.bundle.reader import Bundle, sha256_of
from mmms_deploy.bundle.reference import find_bundle
from mmms_deploy.bundle.writer import BundleWriter

__all__ = [
    "GOLDEN_NAME",
    "ITEM_BYTES",
    "MANIFEST_NAME",
    "SCHEMA",
    "AnswerForm",
    "AnswerSpec",
    "BlockPeak",
    "Bundle",
    "BundleWriter",
    "ClickChannel",
    "ClickContract",
    "ClickLabel",
    "ClickList",
    "ClickMemory",
    "Coordinates",
    "EvaluationProtocol",
    "FileEntry",
    "GateCheck",
    "ImageSpec",
    "Interpolation",
    "Manifest",
    "ModalitySpec",
    "Outside",
    "PointList",
    "Precision",
    "PreviousMask",
    "Provenance",
    "Quantisation",
    "Rate",
    "ResizeRule",
    "Role",
    "Stage",
    "StageGraph",
    "StateLink",
    "TensorSpec",
    "ZoomRule",
    "find_bundle",
    "push_bundle",
    "sha256_of",
]

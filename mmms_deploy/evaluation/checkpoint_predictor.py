"""A checkpoint in PyTorch as a predictor: the reference of the export, to compare a bundle with.

Torch and the export load when a checkpoint is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Manifest, sha256_of
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.evaluation.results import PredictorFacts
from mmms_deploy.evaluation.run import Contestant

if TYPE_CHECKING:
    from mmms_deploy.export.reference import Answer
    from mmms_deploy.models.dynamite import DynaMITe
    from mmms_deploy.models.network import InteractiveNetwork


class TorchPredictor:
    """The network in PyTorch, in float32 on the CPU, as the paper describes it.

    Args:
        network: The network, in evaluation mode; several predictors may share it.
    """

    def __init__(self, network: InteractiveNetwork) -> None:
        from mmms_deploy.export.proposal_reference import reference_for

        self._reference = reference_for(network)

    def set_image(self, image: npt.NDArray[np.uint8], /, **modalities: npt.NDArray[Any]) -> None:
        """Take an image (H0, W0, 3) uint8 RGB and its modalities as stored."""
        # PyTorch warns of read-only arrays, and decoded images are read-only.
        writable = image if image.flags.writeable else image.copy()
        self._reference.set_image(writable, modalities)

    def click(self, x: float, y: float, positive: bool, /) -> Answer:
        """Answer a click at image pixel (x, y)."""
        return self._reference.click(x, y, positive)

    def reset(self) -> None:
        """Forget the clicks, keep the image."""
        self._reference.reset()


class JointTorchPredictor:
    """A network that answers for all objects at once, in PyTorch, in float32 on the CPU.

    Args:
        network: The network, in evaluation mode; several predictors may share it.
    """

    def __init__(self, network: DynaMITe) -> None:
        from mmms_deploy.export.joint import JointReference

        self._reference = JointReference(network)
        listed = network.config.clicks.listed
        assert listed is not None
        self.most_clicks = listed.sizes[-1]
        """How many clicks a bundle of it takes on an image; PyTorch would take more."""

    def set_image(self, image: npt.NDArray[np.uint8], /, **modalities: npt.NDArray[Any]) -> None:
        """Take an image (H0, W0, 3) uint8 RGB."""
        self._reference.set_image(image if image.flags.writeable else image.copy(), modalities)

    def click(self, x: float, y: float, positive: bool, /) -> npt.NDArray[np.bool_]:
        """Answer a click on the only object, or on the background."""
        mask: npt.NDArray[np.bool_] = self.click_on(int(positive), x, y) == 1
        return mask

    def click_on(self, number: int, x: float, y: float, /) -> npt.NDArray[np.uint8]:
        """Answer a click on an object, from 1, or on the background, 0, with the label map (H0, W0) of all objects."""
        return self._reference.click(x, y, number > 0, number).labels

    def reset(self) -> None:
        """Forget the clicks on all objects, keep the image."""
        self._reference.reset()


def torch_predictor(network: InteractiveNetwork) -> TorchPredictor | JointTorchPredictor:
    """Return a network in PyTorch as a predictor.

    Args:
        network: The network, in evaluation mode; several predictors may share it.
    """
    from mmms_deploy.models.dynamite import DynaMITe

    return JointTorchPredictor(network) if isinstance(network, DynaMITe) else TorchPredictor(network)


def open_torch(
    checkpoint: str, options: Mapping[str, str | None] | None = None, beside: Manifest | None = None
) -> tuple[Contestant, tuple[ModalitySpec, ...]]:
    """Open a checkpoint for an evaluation in PyTorch.

    Args:
        checkpoint: A checkpoint file with its description, ``demo`` or ``demo-small`` for one that ships with the
            package, or ``hf:owner/name[@revision][/file]`` for one on the hub. A file with several sets of weights
            takes the name of one after it, as in ``FILE#ema``.
        options: Options to record beside the results.
        beside: The manifest of a bundle that the network is compared with. If it was made of this very file, the
            network is built as the bundle's description says, which an export may have changed (``--size``).

    Returns:
        What an evaluation takes, and the modalities of the network.

    Raises:
        CheckpointError: The checkpoint or its description cannot be used.
        ImportError: A package of the ``[export]`` extra is not installed.
    """
    import torch

    from mmms_deploy.export.source import DEMOS, Source, demo_checkpoint, open_source

    name, _, weights = checkpoint.rpartition("#") if not Path(checkpoint).exists() else (checkpoint, "", "")
    name, weights = (name, weights) if name else (weights, "")
    file = demo_checkpoint(name) if name in DEMOS else name
    overrides = None
    if beside is not None and Path(file).is_file() and sha256_of(Path(file)) == beside.provenance.checkpoint_sha256:
        overrides = dict(beside.provenance.description)
    source = Source(checkpoint=file, weights=weights or None, overrides=overrides)
    sourced = open_source(source)
    facts = PredictorFacts(
        name=f"{source.name} in PyTorch",
        source=f"torch:{checkpoint}",
        identity=sourced.hashes["checkpoint"],
        engine=f"PyTorch {torch.__version__} on cpu, fp32, {torch.get_num_threads()} threads",
        options=dict(options or {}),
    )
    return Contestant(lambda: torch_predictor(sourced.network), facts), sourced.network.config.modalities

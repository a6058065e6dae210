"""The same network in eager PyTorch, used as its authors' code uses it; the only file of this room that needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.workload import Picture
from mmms_deploy.bundle import Manifest, sha256_of
from mmms_deploy.contract import ClickChannel, PreviousMask
from mmms_deploy.geometry import to_network
from mmms_deploy.preprocess import load_modalities, prepare

if TYPE_CHECKING:
    from torch import Tensor


class EagerMMMS:
    """Image and clicks through PyTorch, end to end: from the image's pixels to a mask of the image's size.

    Args:
        manifest: A bundle's manifest; the network is built anew from its description.
        threads: Threads PyTorch computes with, in this whole process.

    Raises:
        NotMeasuredError: torch or timm is not installed, or the bundle does not describe its network.
    """

    def __init__(self, manifest: Manifest, threads: int) -> None:
        try:
            import torch

            from mmms_deploy.models.checkpoint import parse_description, random_network
        except ImportError as error:
            raise NotMeasuredError(f"PyTorch cannot be imported ({error})") from error
        description = manifest.provenance.description
        if not description:
            raise NotMeasuredError("the bundle does not describe its network")
        self._torch = torch
        torch.set_num_threads(threads)
        config = parse_description(description, manifest.name)
        self.weights = "random weights"
        self._network = random_network(config, manifest.provenance.random_seed or 0)
        if manifest.trained and _load_demo(self._network, manifest):
            self.weights = "the checkpoint's weights"
        # Sizes and preparation are the network's own: a deployed graph may have taken the normalisation in.
        self._config = config
        height, width = config.size
        self._columns = torch.arange(width, dtype=torch.float32)[None, :]
        self._rows = torch.arange(height, dtype=torch.float32)[:, None]

    @property
    def version(self) -> str:
        """Version of PyTorch."""
        return str(self._torch.__version__)

    @property
    def probability(self) -> npt.NDArray[np.float32]:
        """(H, W) float32: the newest answer at the network's own resolution."""
        return np.asarray(self._previous.numpy(), dtype=np.float32)

    def set_image(self, picture: Picture) -> None:
        """Prepare an image and compute its features."""
        torch = self._torch
        with torch.inference_mode():
            rgb = self._tensor(prepare(picture.rgb, self._config.image, self._config.size))
            loaded = load_modalities(picture.modalities, self._config.modalities, picture.rgb.shape[:2])
            modalities = {
                spec.name: self._tensor(prepare(loaded[spec.name], spec, self._config.size))
                for spec in self._config.modalities
            }
            self._features = self._network.features(rgb, modalities)
        self._size = (picture.rgb.shape[0], picture.rgb.shape[1])
        self._disks = {True: torch.zeros(self._config.size), False: torch.zeros(self._config.size)}
        self._previous = torch.zeros(self._config.size)

    def click(self, x: float, y: float, positive: bool) -> npt.NDArray[np.bool_]:
        """Answer a click at image pixel (x, y).

        Returns:
            (H0, W0) bool.
        """
        torch = self._torch
        rule = self._config.clicks
        column, row = to_network(x, y, image=self._size, network=self._config.size, rule=rule.coordinates)
        with torch.inference_mode():
            near = (self._columns - column) ** 2 + (self._rows - row) ** 2 <= rule.radius**2
            self._disks[positive][near] = 1.0
            previous = self._previous
            if rule.previous is PreviousMask.MASK:
                previous = (previous > rule.threshold).float()
            channels = {
                ClickChannel.POSITIVE: self._disks[True],
                ClickChannel.NEGATIVE: self._disks[False],
                ClickChannel.PREVIOUS: previous,
            }
            interaction = torch.stack([channels[name] for name in rule.channels])[None]
            probability = torch.sigmoid(self._network.respond(self._features, interaction))
            self._previous = probability[0, 0]
            mask = torch.nn.functional.interpolate(
                probability,
                size=self._size,
                mode=rule.mask_resize.interpolation.value,
                align_corners=rule.mask_resize.align_corners,
            )
            answer: npt.NDArray[np.bool_] = (mask[0, 0] > rule.threshold).numpy()
            return answer

    def _tensor(self, array: npt.NDArray[np.float32]) -> Tensor:
        return self._torch.from_numpy(array)


def _load_demo(network: Any, manifest: Manifest) -> bool:
    """Load the demo checkpoint when the bundle was made from it; other checkpoints are not at hand."""
    from importlib import resources

    from mmms_deploy.models.checkpoint import load_weights, read_checkpoint_file

    with resources.as_file(resources.files("mmms_deploy.demo") / "demo.safetensors") as path:
        if not path.is_file() or sha256_of(path) != manifest.provenance.checkpoint_sha256:
            return False
        load_weights(network, read_checkpoint_file(path))
    return True

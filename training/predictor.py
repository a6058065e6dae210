"""The network as a user uses it: images and clicks at the image's own resolution, under the demo's resize rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.export.source import DEMOS, Source, demo_checkpoint, open_source
from mmms_deploy.imaging.modality import measure
from mmms_deploy.models import MMMS
from mmms_deploy.training.clicks import draw_disk


def load_network(path: str | Path, size: int | None = None) -> MMMS:
    """The network of a checkpoint that describes itself, float32, ready for use.

    Args:
        path: A checkpoint as :func:`mmms_deploy.models.checkpoint.save_checkpoint` writes it, or the name of one that
            ships, such as ``demo``. A published backbone that it lacks is found.
        size: Side in pixels to run it at instead of its own; the position table is resampled.

    Raises:
        CheckpointError: It cannot be read, or does not fit.
        WeightsError: It lacks the backbone's weights, which are published, and no source has them.
        TypeError: It is of another family.
    """
    file = demo_checkpoint(str(path)) if str(path) in DEMOS else Path(path)
    overrides = None if size is None else {"size": (size, size)}
    network = open_source(Source(checkpoint=file, overrides=overrides)).network
    if not isinstance(network, MMMS):
        raise TypeError(f"{file} holds a {network.config.family} network, no MMMS")
    return network


def standardised(values: Tensor, spec: ImageSpec | ModalitySpec) -> Tensor:
    """Values (B, C, H, W) in the network's unit, minus their mean, over their deviation."""
    mean = torch.tensor(spec.mean, device=values.device).view(1, -1, 1, 1)
    std = torch.tensor(spec.std, device=values.device).view(1, -1, 1, 1)
    return (values - mean) / std


def normalised(pixels: Tensor, spec: ImageSpec | ModalitySpec) -> Tensor:
    """8-bit pixels (B, C, H, W) as the network wants them, float32."""
    scale = spec.scale if isinstance(spec, ImageSpec) else spec.factor("uint8")
    if scale is None:
        raise ValueError(f"modality {spec.name!r} is not taken as uint8")
    return standardised(pixels.float() * scale, spec)


class Predictor:
    """Segments one object of one image by clicks.

    Images are stretched to the network's size (bilinear with antialias), clicks are mapped by half-pixel centres, the
    previous mask is fed back as a probability, and the mask is the bilinearly enlarged probability above the threshold.

    Args:
        model: A network in evaluation mode, at its final size.
    """

    def __init__(self, model: MMMS) -> None:
        self.model = model
        self._device = next(model.parameters()).device
        self._features: tuple[Tensor, ...] = ()
        self._shape = (0, 0)
        self.reset()

    @torch.inference_mode()
    def set_image(self, image: NDArray[np.uint8], modalities: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Compute an image's features and forget all clicks.

        Args:
            image: (H0, W0, 3) uint8, RGB.
            modalities: (H0, W0) numbers as stored, by name; without them the network sees RGB alone.
        """
        config = self.model.config
        rgb = self._prepared(image.astype(np.float32) * np.float32(config.image.scale), config.image)
        given = {
            spec.name: self._prepared(measure(modalities[spec.name][..., None], spec), spec)
            for spec in config.modalities
            if modalities and spec.name in modalities
        }
        self._features = self.model.features(rgb, given)
        self._shape = (image.shape[0], image.shape[1])
        self.reset()

    def _prepared(self, values: NDArray[np.float32], spec: ImageSpec | ModalitySpec) -> Tensor:
        """(H0, W0, C) in the network's unit -> (1, C, H, W), normalised."""
        x = torch.tensor(values).permute(2, 0, 1)[None].to(self._device)
        x = F.interpolate(
            x, size=self.model.config.size, mode="bilinear", align_corners=False, antialias=spec.resize.antialias
        )
        return standardised(x, spec)

    def reset(self) -> None:
        """Forget all clicks."""
        height, width = self.model.config.size
        self._maps = np.zeros((2, height, width), np.float32)
        self._previous = torch.zeros((1, 1, height, width), device=self._device)

    @torch.inference_mode()
    def click(self, x: float, y: float, positive: bool) -> NDArray[np.bool_]:
        """Answer a click.

        Args:
            x: Column in the image's pixels, pixel centres at integers.
            y: Row.
            positive: Whether the click is on the object.

        Returns:
            (H0, W0) bool, the mask.
        """
        height, width = self.model.config.size
        net_x = (x + 0.5) * width / self._shape[1] - 0.5
        net_y = (y + 0.5) * height / self._shape[0] - 0.5
        draw_disk(self._maps[0 if positive else 1], net_x, net_y)
        interaction = torch.cat([torch.from_numpy(self._maps)[None].to(self._device), self._previous], 1)
        self._previous = torch.sigmoid(self.model.respond(self._features, interaction))
        enlarged = F.interpolate(self._previous, size=self._shape, mode="bilinear", align_corners=False)
        mask: NDArray[np.bool_] = (enlarged[0, 0] > self.model.config.clicks.threshold).cpu().numpy()
        return mask

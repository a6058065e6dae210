"""The reference that the gate compares with: the torch network, used as the paper describes it.

It shares no code with the exported graphs or with a session: torch resizes the images, the disks are drawn anew from
the list of all clicks (not by the recurrent network), and the previous mask is fed back. Where a map of labels takes
the place of both, each click is drawn into it and each answer moves its labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_deploy.bundle.contract import (
    ClickChannel,
    ClickLabel,
    ClickMemory,
    Coordinates,
    ModalitySpec,
    PreviousMask,
    ResizeRule,
)
from mmms_deploy.export.modulation import modulated
from mmms_deploy.models.network import InteractiveNetwork

HAIR = 1e-3
"""A pixel is certain when its probability is farther than this from the threshold."""


@dataclass(frozen=True)
class Answer:
    """The network's answer after a click.

    Attributes:
        probability: (H0, W0) float32 at the image's resolution.
        mask: (H0, W0) bool.
        certain: (H0, W0) bool: where the probability is farther than a hair from the threshold.
        network_probability: (1, 1, H, W) at the network's resolution.
        logits: (1, 1, H, W), of which it is the sigmoid.
    """

    probability: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    certain: npt.NDArray[np.bool_]
    network_probability: Tensor
    logits: Tensor


class TorchReference:
    """Answers clicks with the torch network in the paper's form.

    Args:
        network: The network, in evaluation mode, float32.
    """

    def __init__(self, network: InteractiveNetwork) -> None:
        self.network = network
        self.contract = network.config.clicks
        self._clicks: list[tuple[float, float, bool]] = []

    @torch.no_grad()
    def set_image(self, image: npt.NDArray[np.uint8], modalities: Mapping[str, npt.NDArray[Any]]) -> None:
        """Prepare a picture and compute its features.

        Args:
            image: (H0, W0, 3) uint8 RGB.
            modalities: (H0, W0) or (H0, W0, C_m) numbers as files store them, by name; optional ones may be left out.
        """
        config = self.network.config
        self.image_size = (image.shape[0], image.shape[1])
        rule = config.image
        self.rgb = self._prepare(torch.from_numpy(image) * rule.scale, rule.resize, rule.mean, rule.std)
        self.modalities = {
            m.name: self._prepare(_measured(modalities[m.name], m), m.resize, m.mean, m.std)
            for m in config.modalities
            if m.name in modalities
        }
        self.backbone_maps = self.network.encode(self.rgb)
        self.features = self.network.mix(self.backbone_maps, self.modalities)
        self.reset()

    def reset(self) -> None:
        """Forget the clicks, keep the picture and its features."""
        self._clicks = []
        self._previous = torch.zeros(1, 1, *self.network.config.size)
        self._labels = torch.full(self.network.config.size, int(ClickLabel.UNKNOWN))

    def _prepare(self, pixels: Tensor, rule: ResizeRule, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        x = resized(pixels.permute(2, 0, 1)[None].float(), self.network.config.size, rule)
        return (x - torch.tensor(mean).reshape(1, -1, 1, 1)) / torch.tensor(std).reshape(1, -1, 1, 1)

    @torch.no_grad()
    def click(self, x: float, y: float, positive: bool) -> Answer:
        """Answer a click at image pixel (x, y), after all clicks before it."""
        self._clicks.append((*self.to_network(x, y), positive))
        if self.contract.first_pass and not self._previous.any():
            first = self.network.respond(self.features, self._interaction(torch.zeros_like(self._previous)))
            self._previous = torch.sigmoid(first)
        labelled = self.contract.memory is ClickMemory.LABELS
        seen = self._labelled() if labelled else self._interaction(self.modulated(self._previous))
        logits = self.network.respond(self.features, seen)
        probability = torch.sigmoid(logits)
        self._labels = _moved(self._labels, probability[0, 0] > self.contract.threshold)
        enlarged = resized(probability, self.image_size, self.contract.mask_resize)
        reduce = self.contract.previous_resize
        self._previous = probability if reduce is None else resized(enlarged, self.network.config.size, reduce)
        at_image = enlarged[0, 0]
        return Answer(
            probability=at_image.numpy(),
            mask=(at_image > self.contract.threshold).numpy(),
            certain=((at_image - self.contract.threshold).abs() > HAIR).numpy(),
            network_probability=probability,
            logits=logits,
        )

    def to_network(self, x: float, y: float) -> tuple[float, float]:
        """Map image pixels to network pixels."""
        (height, width), (h0, w0) = self.network.config.size, self.image_size
        return self._coordinate(x, width, w0), self._coordinate(y, height, h0)

    def _coordinate(self, value: float, length: int, original: int) -> float:
        rule = self.contract.coordinates
        if rule is Coordinates.HALF_PIXEL:
            return (value + 0.5) * length / original - 0.5
        if rule is Coordinates.ALIGN_CORNERS:
            return value * (length - 1) / (original - 1) if original > 1 else 0.0
        return value * length / original

    def modulated(self, previous: Tensor) -> Tensor | None:
        """Modulate a previous probability (1, 1, H, W) around the newest click; None where the contract does not."""
        rule = self.contract.modulation
        return None if rule is None else modulated(previous, self._clicks, rule)

    def _labelled(self) -> Tensor:
        """Draw the newest click into the labels; (1, 1, H, W) float32."""
        x, y, positive = self._clicks[-1]
        height, width = self.network.config.size
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        near = (columns - x) ** 2 + (rows - y) ** 2 <= self.contract.radius**2
        self._labels = self._labels.masked_fill(near, ClickLabel.OBJECT if positive else ClickLabel.BACKGROUND)
        return self._labels[None, None].float()

    def _interaction(self, changed: Tensor | None) -> Tensor:
        height, width = self.network.config.size
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        disks = {True: torch.zeros(height, width), False: torch.zeros(height, width)}
        for x, y, positive in self._clicks:
            near = (columns - x) ** 2 + (rows - y) ** 2 <= self.contract.radius**2
            disks[positive][near] = 1.0
        previous = self._previous
        if self.contract.previous is PreviousMask.MASK:
            previous = (previous > self.contract.threshold).float()
        channels = {
            ClickChannel.POSITIVE: disks[True],
            ClickChannel.NEGATIVE: disks[False],
            ClickChannel.PREVIOUS: previous[0, 0],
        }
        if changed is not None:
            channels[ClickChannel.MODULATED] = changed[0, 0]
        return torch.stack([channels[name] for name in self.contract.channels])[None]


_MOVES = (
    (True, ClickLabel.UNKNOWN, ClickLabel.LIKELY_OBJECT),
    (True, ClickLabel.LIKELY_BACKGROUND, ClickLabel.UNKNOWN),
    (False, ClickLabel.UNKNOWN, ClickLabel.LIKELY_BACKGROUND),
    (False, ClickLabel.LIKELY_OBJECT, ClickLabel.UNKNOWN),
)
"""Whether a pixel is in the mask that was answered, its label before and after."""


def _moved(labels: Tensor, mask: Tensor) -> Tensor:
    """Return labels (H, W) after an answer (H, W)."""
    after = labels.clone()
    for inside, old, new in _MOVES:
        after[(mask == inside) & (labels == old)] = new
    return after


def _measured(stored: npt.NDArray[Any], spec: ModalitySpec) -> Tensor:
    """Convert stored numbers (H0, W0, C) to the network's unit, by the rules of ``ModalitySpec``."""
    raw = torch.from_numpy(np.atleast_3d(stored).astype(np.float64))
    invalid = torch.zeros_like(raw, dtype=torch.bool)
    for value in spec.invalid:
        invalid |= {"nan": raw.isnan, "inf": raw.isinf}[value]() if isinstance(value, str) else raw == value
    x = raw * spec.scale if isinstance(spec.scale, float | int) else raw * spec.scale[stored.dtype.name]
    if spec.clip is not None:
        x = x.clamp(*spec.clip)
    x = torch.where(invalid, spec.fill, x)
    return x.expand(-1, -1, spec.channels) if spec.repeat else x


def resized(x: Tensor, size: tuple[int, int], rule: ResizeRule) -> Tensor:
    """Resize maps (1, C, h, w) to (1, C, *size)."""
    return F.interpolate(
        x,
        size=size,
        mode=rule.interpolation.value,
        align_corners=rule.align_corners,
        antialias=rule.antialias,
    )

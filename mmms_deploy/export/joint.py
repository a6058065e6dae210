"""The reference for a network that answers for several objects at once: torch, used as DynaMITe's code uses it.

It shares no code with a session. Clicks are listed anew at every click; every row of the answer is enlarged, cut and
resized by torch, and the network's own decision takes the maximum over an object's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mmms_deploy.bundle.names import CLICK_LIST, RGB, ROW_LOGITS
from mmms_deploy.errors import GateError
from mmms_deploy.export.listed import ListedNetwork
from mmms_deploy.export.reference import HAIR, TorchReference
from mmms_deploy.export.samples import Sample
from mmms_deploy.models.dynamite import DynaMITe
from mmms_deploy.replay.golden import GoldenCase

Array = npt.NDArray[Any]

SURFACES = 3
"""Objects that the gate clicks on."""
OPEN_LOOP = (1, 4)
"""How many clicks the lists of the open loop hold."""


def surfaces_of(clicks: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the object that each of a sample's clicks is made on, from 1: every positive click turns to the next one.

    Args:
        clicks: (N, 3): x, y, positive; the first one is positive.
    """
    positive = np.cumsum(clicks[:, 2] > 0.5)
    return ((positive - 1) % SURFACES + 1).astype(np.uint8)


@dataclass(frozen=True)
class JointAnswer:
    """The network's answer after a click.

    Attributes:
        labels: (H0, W0) uint8 at the image's resolution: 0 background, i object i.
        certain: (H0, W0) bool: where the best object or background is more than a hair better than the second.
        logits: (1, Q + L, H, W) at the network's resolution.
    """

    labels: npt.NDArray[np.uint8]
    certain: npt.NDArray[np.bool_]
    logits: Tensor


class JointReference:
    """Answers clicks on several objects with the torch network.

    Args:
        network: The network, in evaluation mode, float32.
    """

    def __init__(self, network: DynaMITe) -> None:
        self.network = network
        self.image = TorchReference(network)
        self._clicks: list[tuple[float, ...]] = []

    def set_image(self, image: npt.NDArray[np.uint8], modalities: Mapping[str, npt.NDArray[Any]]) -> None:
        """Prepare a picture and compute its features, as :meth:`TorchReference.set_image`; forget the clicks."""
        self.image.set_image(image, modalities)
        self.reset()

    def reset(self) -> None:
        """Forget the clicks, keep the picture and its features."""
        self._clicks = []

    def listed(self) -> Tensor:
        """Return all clicks so far, (1, Q, 5)."""
        return torch.tensor([self._clicks], dtype=torch.float32)

    def add(self, x: float, y: float, positive: bool, surface: int) -> None:
        """Take note of a click at image pixel (x, y) on an object; a negative one is on the background."""
        place = self.image.to_network(x, y)
        self._clicks.append((*place, float(len(self._clicks)), float(surface if positive else 0), 1.0))

    @torch.no_grad()
    def click(self, x: float, y: float, positive: bool, surface: int) -> JointAnswer:
        """Answer a click, after all clicks before it."""
        self.add(x, y, positive, surface)
        clicks = self.listed()
        logits = self.network.respond(self.image.features, clicks)
        rule = self.network.config.clicks.mask_resize
        at_image = F.interpolate(
            logits, self.image.image_size, mode=rule.interpolation.value, align_corners=rule.align_corners
        )
        found = self.network.label(at_image, clicks, max(1, int(clicks[..., 3].max())))
        first, second = torch.cat((found.background, found.objects), dim=1)[0].topk(2, dim=0).values
        # Two logits that differ by four hairs give probabilities that differ by one.
        return JointAnswer(found.labels[0, 0].numpy(), (first - second > 4 * HAIR).numpy(), logits)


def joint_cases(network: DynaMITe, samples: Sequence[Sample]) -> list[GoldenCase]:
    """Click through every sample with the torch reference.

    Args:
        network: The network in the paper's form.
        samples: Pictures and clicks.

    Returns:
        The label maps after every click, and of each the mask of the click's object.

    Raises:
        GateError: The network answers NaN.
    """
    reference, cases = JointReference(network), []
    for sample in samples:
        reference.set_image(sample.image, sample.modalities)
        surfaces, answers = surfaces_of(sample.clicks), []
        for number, (x, y, positive) in enumerate(sample.clicks.tolist()):
            answers.append(reference.click(x, y, positive > 0.5, int(surfaces[number])))
            if not torch.isfinite(answers[-1].logits).all():
                raise GateError(
                    f"the checkpoint itself answers NaN or infinity on image {sample.name}, click {number + 1}",
                    expected="finite logits",
                    fix="check the checkpoint; nothing was written",
                )
        labels = np.stack([answer.labels for answer in answers])
        cases.append(
            GoldenCase(
                image=sample.image,
                clicks=sample.clicks,
                masks=labels == surfaces[:, None, None],
                certain=np.stack([answer.certain for answer in answers]),
                modalities=sample.modalities,
                surfaces=surfaces,
                labels=labels,
            )
        )
    return cases


@dataclass(frozen=True)
class ListStep:
    """One list of clicks, and torch's answer to it.

    Attributes:
        label: What it is called in messages.
        rows: Rows of the larger list that it is for; None for the smallest.
        feed: The inputs of the graph, by name; a larger list alone, without the image.
        outputs: Torch's outputs, by name.
        told: The rows of the answer that mean something: those of clicks, and the learned ones.
    """

    label: str
    rows: int | None
    feed: dict[str, Array]
    outputs: dict[str, Array]
    told: npt.NDArray[np.int64]


@torch.no_grad()
def list_steps(network: ListedNetwork, sample: Sample) -> list[ListStep]:
    """Return torch's answers to lists of the sample's first clicks; and to a full list of every larger size.

    Args:
        network: The network that is exported, with the smallest list.
        sample: The picture.
    """
    deployed: Any = network.network
    reference = JointReference(deployed)
    reference.set_image(sample.image, sample.modalities)
    surfaces, steps = surfaces_of(sample.clicks), []
    features = reference.image.features
    for count in sorted({min(count, network.length, len(sample.clicks)) for count in OPEN_LOOP}):
        reference.reset()
        for (x, y, positive), surface in zip(sample.clicks[:count].tolist(), surfaces.tolist(), strict=False):
            reference.add(x, y, positive > 0.5, surface)
        clicks = filled(reference.listed(), network.length)
        outputs = (*network.computed(features), *network.answered(features, {CLICK_LIST: clicks}))
        named = zip(network.output_names(), outputs, strict=True)
        feed = {RGB: reference.image.rgb.numpy(), CLICK_LIST: clicks.numpy()}
        label = f"{count} click{'s' if count > 1 else ''}"
        told = told_rows(network, network.length, count)
        steps.append(ListStep(label, None, feed, {name: tensor.numpy() for name, tensor in named}, told))
    for rows in network.listed.sizes[1:]:
        clicks = drawn_list(network, rows)
        (logits,) = network.answered(features, {CLICK_LIST: clicks})
        told = told_rows(network, rows, rows)
        feed = {CLICK_LIST: clicks.numpy()}
        steps.append(ListStep(f"a list of {rows} clicks", rows, feed, {ROW_LOGITS: logits.numpy()}, told))
    return steps


def filled(clicks: Tensor, rows: int) -> Tensor:
    """Fill a list (1, Q, 5) up with zeros to (1, rows, 5)."""
    return F.pad(clicks, (0, 0, 0, rows - clicks.shape[1]))


def told_rows(network: ListedNetwork, rows: int, clicks: int) -> npt.NDArray[np.int64]:
    """Return the places in an answer of those rows that mean something."""
    return np.array([*range(clicks), *range(rows, rows + network.listed.learned)], dtype=np.int64)


def drawn_list(network: ListedNetwork, rows: int) -> Tensor:
    """Return a full list of clicks at drawn places, (1, rows, 5), on several objects and on the background."""
    height, width = network.network.config.size
    rng = np.random.default_rng(rows)
    clicks = np.ones((1, rows, 5), dtype=np.float32)
    clicks[0, :, :2] = rng.random((rows, 2)) * (width - 1, height - 1)
    clicks[0, :, 2] = np.arange(rows)
    clicks[0, :, 3] = rng.integers(0, min(network.listed.objects, SURFACES) + 1, rows)
    return torch.from_numpy(clicks)

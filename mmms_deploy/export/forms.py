"""The gate's first comparison: the rewritten network against the paper's form, both in torch, on logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmms_deploy.bundle import GateCheck
from mmms_deploy.errors import GateError
from mmms_deploy.export.gate import Worst, difference
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites import NAMES
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import Sample
from mmms_deploy.models import InteractiveNetwork

FORM_CLICKS = 3
LOGIT_LIMIT = 1e-4
"""Rewrites change the order of float32 sums, about 1e-6 on logits; a wrong one is off by 1e-2 and more."""

Step = tuple[Tensor, Tensor]
"""Interaction tensor and logits of one click."""


def compare_forms(
    network: InteractiveNetwork, deployed: InteractiveNetwork, applied: Sequence[str], sample: Sample
) -> list[GateCheck]:
    """Compare the logits of both forms over a picture's first clicks, both fed the paper form's previous mask.

    Args:
        network: The network in the paper's form.
        deployed: The rewritten network.
        applied: Names of the rewrites; when there are none, there is nothing to compare.
        sample: The picture.

    Returns:
        What was measured.

    Raises:
        GateError: They differ; names the rewrite.
    """
    if not applied:
        return []
    steps = _paper_steps(network, sample)
    worst = Worst("deploy form against paper form", "largest difference of a logit", LOGIT_LIMIT)
    for number, value in enumerate(_differences(deployed, steps, sample), start=1):
        where = f"image {sample.name}, click {number}"
        if not value <= LOGIT_LIMIT:
            culprit = _blame(network, applied, steps, sample)
            raise GateError(
                f"{worst.name}: {worst.measure} is {value:.3g} at {where}; it comes with the rewrite {culprit}",
                expected=f"at most {LOGIT_LIMIT:g}",
                fix=f"export with --no-rewrite {culprit}, and please report the network; nothing was written",
            )
        worst.see(value, where)
    return [worst.check()]


@torch.no_grad()
def _paper_steps(network: InteractiveNetwork, sample: Sample) -> list[Step]:
    reference, cell = TorchReference(network), RecurrentNetwork(network)
    reference.set_image(sample.image, sample.modalities)
    height, width = network.config.size
    maps, prev = torch.zeros(1, 2, height, width), torch.zeros(1, 1, height, width)
    steps: list[Step] = []
    for x, y, positive in sample.clicks[:FORM_CLICKS].tolist():
        maps = cell.add_disk(maps, torch.tensor([[*reference.to_network(x, y), positive, 1.0]]))
        interaction = cell.interaction(maps, prev)
        logits = network.respond(reference.features, interaction)
        if not torch.isfinite(logits).all():
            raise GateError(
                f"the checkpoint itself answers NaN or infinity on image {sample.name}, click {len(steps) + 1}",
                expected="finite logits",
                fix="check the checkpoint; nothing was written",
            )
        steps.append((interaction, logits))
        prev = torch.sigmoid(logits)
    return steps


@torch.no_grad()
def _differences(network: InteractiveNetwork, steps: Sequence[Step], sample: Sample) -> list[float]:
    """Return the largest difference of a logit at each click."""
    reference = TorchReference(network)
    reference.set_image(sample.image, sample.modalities)
    answers = [network.respond(reference.features, interaction) for interaction, _ in steps]
    return [difference(a.numpy(), logits.numpy()) for a, (_, logits) in zip(answers, steps, strict=True)]


def _blame(network: InteractiveNetwork, applied: Sequence[str], steps: Sequence[Step], sample: Sample) -> str:
    """Return the first rewrite with which, added to those before it, the limit is broken."""
    for count in range(1, len(applied) + 1):
        rewritten, _ = deploy_form(network, set(NAMES) - set(applied[:count]))
        if not np.max(_differences(rewritten, steps, sample)) <= LOGIT_LIMIT:
            return applied[count - 1]
    return applied[-1]

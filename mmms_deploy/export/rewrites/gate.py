"""The gate of the rewrites: the rewritten network's logits against those of the paper's form, both in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmms_deploy.bundle import GateCheck
from mmms_deploy.bundle.names import CHOICE, CLICK_LIST, PREV
from mmms_deploy.errors import GateError
from mmms_deploy.export.comparison import ROW_LIMIT, Worst, difference, logit_scale
from mmms_deploy.export.joint import JointReference, surfaces_of
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.modulation import modulated
from mmms_deploy.export.proposing import ProposingNetwork
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.rewrites import NAMES
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.samples import Sample
from mmms_deploy.export.trace import decided_clicks
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.dynamite import DynaMITe

FORM_CLICKS = 3
LOGIT_LIMIT = 2e-5
"""Largest difference of a logit, divided by the largest logit of these clicks (at least 1).

Rewrites change the order of float32 sums, which round in proportion to what is added up: about 1e-6 of the largest
logit. A wrong rewrite changes logits by 1e-3 and more of it.
"""

Click = tuple[Tensor, Tensor]
"""Interaction tensor and logits of one click; for a network that takes a list, the list of all clicks, and the logits
of all rows, or all proposals and the refined best one as its logits."""


def compare_forms(
    network: InteractiveNetwork, deployed: InteractiveNetwork, applied: Sequence[str], sample: Sample
) -> list[GateCheck]:
    """Compare the logits of both forms at a picture's first clicks; both receive the paper form's previous mask.

    Args:
        network: The network in the paper's form.
        deployed: The rewritten network.
        applied: Names of the rewrites; when there are none, there is nothing to compare.
        sample: The picture.

    Returns:
        What was measured.

    Raises:
        GateError: They differ; the message names the rewrite.
    """
    if not applied:
        return []
    clicks = _paper_clicks(network, sample)
    measure, limit = _rule(network)
    worst = Worst("deploy form against paper form", measure, limit)
    for number, value in enumerate(_differences(deployed, clicks, sample), start=1):
        where = f"image {sample.name}, click {number}"
        if not value <= limit:
            culprit = _blame(network, applied, clicks, sample)
            raise GateError(
                f"{worst.name}: {worst.measure} is {value:.3g} at {where}; it comes with the rewrite {culprit}",
                expected=f"at most {limit:g}",
                fix=f'pass no_rewrite=["{culprit}"], and please report the network; nothing was written',
                command_fix=f"pass --no-rewrite {culprit}, and please report the network; nothing was written",
            )
        worst.see(value, where)
    return [worst.check()]


def _rule(network: InteractiveNetwork) -> tuple[str, float]:
    """Return what is measured, and its limit."""
    if isinstance(network, DynaMITe):
        return "largest mean difference of the rows' logits, over the largest one", ROW_LIMIT
    return "largest difference of a logit, over the largest one", LOGIT_LIMIT


@torch.no_grad()
def _paper_clicks(network: InteractiveNetwork, sample: Sample) -> list[Click]:
    if isinstance(network, DynaMITe):
        return _joint_clicks(network, sample)
    reference, recurrent = TorchReference(network), recurrent_network(network)
    reference.set_image(sample.image, sample.modalities)
    if isinstance(recurrent, ProposingNetwork):
        return _proposed_clicks(recurrent, reference, sample)
    state = recurrent.start()
    clicks: list[Click] = []
    points: list[tuple[float, float, bool]] = []
    rule = network.config.clicks.modulation
    for x, y, positive in sample.clicks[:FORM_CLICKS].tolist():
        points.append((*reference.to_network(x, y), positive > 0.5))
        changed = None if rule is None else modulated(state[PREV], points, rule)
        drawn = recurrent.draw(state, torch.tensor([[*points[-1], 1.0]]), changed)
        interaction = recurrent.sees(drawn)
        logits = network.respond(reference.features, interaction)
        _check_finite(logits, sample, len(clicks) + 1)
        clicks.append((interaction, logits))
        outputs = dict(zip(recurrent.click_names(), recurrent.outcome(drawn, logits), strict=True))
        state = {link.input: outputs[link.output] for link in recurrent.links}
    return clicks


def _joint_clicks(network: DynaMITe, sample: Sample) -> list[Click]:
    """Return the lists of a picture's first clicks, and the logits of all rows."""
    reference, clicks = JointReference(network), []
    reference.set_image(sample.image, sample.modalities)
    surfaces = surfaces_of(sample.clicks)
    for (x, y, positive), surface in zip(sample.clicks[:FORM_CLICKS].tolist(), surfaces.tolist(), strict=False):
        answer = reference.click(x, y, positive > 0.5, surface)
        clicks.append((reference.listed(), answer.logits))
    return clicks


def _proposed_clicks(network: ProposingNetwork, reference: TorchReference, sample: Sample) -> list[Click]:
    """Answer the list of one click, of two, and so on."""
    listed = decided_clicks(network, reference, sample)[:FORM_CLICKS]
    clicks = []
    for number in range(1, len(listed) + 1):
        seen = torch.tensor([listed[:number]])
        clicks.append((seen, _answers(network, reference.features, seen)))
        _check_finite(clicks[-1][1], sample, number)
    return clicks


def _answers(network: ProposingNetwork, features: tuple[Tensor, ...], clicks: Tensor) -> Tensor:
    """Return all proposals (1, N, h, w) for the first click; with more clicks also each of them refined."""
    proposed = network.propose(features, clicks[:, 0])
    count = proposed[0].shape[1] if clicks.shape[1] > 1 else 0
    chosen = [{CHOICE: torch.tensor([[float(choice)]]), CLICK_LIST: clicks} for choice in range(count)]
    refined = [network.answered(network.read(proposed), given)[0] for given in chosen]
    return torch.cat([proposed[0], *refined], dim=1)


def _check_finite(logits: Tensor, sample: Sample, click: int) -> None:
    if not torch.isfinite(logits).all():
        raise GateError(
            f"the checkpoint itself answers NaN or infinity on image {sample.name}, click {click}",
            expected="finite logits",
            fix="check the checkpoint; nothing was written",
        )


@torch.no_grad()
def _differences(network: InteractiveNetwork, clicks: Sequence[Click], sample: Sample) -> list[float]:
    """Return the largest difference of a logit at each click, divided by the largest logit of all clicks."""
    reference = TorchReference(network)
    reference.set_image(sample.image, sample.modalities)
    form = recurrent_network(network)
    if isinstance(form, ProposingNetwork):
        answers = [_answers(form, reference.features, interaction) for interaction, _ in clicks]
    else:
        answers = [network.respond(reference.features, interaction) for interaction, _ in clicks]
    scale = logit_scale([logits for _, logits in clicks])
    if isinstance(network, DynaMITe):
        pairs = zip(answers, (logits for _, logits in clicks), strict=True)
        return [float((answer - logits).abs().mean()) / scale for answer, logits in pairs]
    return [difference(a.numpy(), logits.numpy()) / scale for a, (_, logits) in zip(answers, clicks, strict=True)]


def _blame(network: InteractiveNetwork, applied: Sequence[str], clicks: Sequence[Click], sample: Sample) -> str:
    """Return the rewrite that breaks the limit when it is added to those before it."""
    for count in range(1, len(applied) + 1):
        rewritten, _ = deploy_form(network, set(NAMES) - set(applied[:count]))
        if not np.max(_differences(rewritten, clicks, sample)) <= _rule(network)[1]:
            return applied[count - 1]
    return applied[-1]

"""Networks with logits as spread as a trained network's."""

from __future__ import annotations

import torch

from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.samples import sample_images
from mmms_deploy.models import InteractiveNetwork

_LAST = ("linear_pred.weight", "linear_pred.bias", "conv_seg.weight", "conv_seg.bias")


@torch.no_grad()
def spread_logits(network: InteractiveNetwork, deviation: float) -> float:
    """Scale the last layer so that the logits of the first sample's first click have this deviation, and mean 0.

    Returns the largest absolute logit.
    """
    reference, sample = TorchReference(network), sample_images(network.config.modalities)[0]
    reference.set_image(sample.image, sample.modalities)
    x, y, _ = sample.clicks[0].tolist()
    logits = reference.click(x, y, positive=True).logits
    factor = deviation / logits.std()
    for name, parameter in network.named_parameters():
        if name.endswith(_LAST):
            parameter.mul_(factor)
            if name.endswith("bias"):
                parameter.sub_(factor * logits.mean())
    return float((factor * (logits - logits.mean())).abs().max())

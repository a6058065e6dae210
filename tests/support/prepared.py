"""Made-up inputs of a network, prepared as the network itself says."""

from __future__ import annotations

import torch

from mmms_deploy.models import InteractiveNetwork, NetworkConfig

Inputs = tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]


def pixels(config: NetworkConfig, batch: int = 1) -> Inputs:
    """Images of 0..255, modalities, and interaction tensors."""
    generator = torch.Generator().manual_seed(1)
    rgb = 255 * torch.rand(batch, 3, *config.size, generator=generator)
    modalities = {m.name: torch.randn(batch, m.channels, *config.size, generator=generator) for m in config.modalities}
    return rgb, modalities, (torch.rand(batch, 3, *config.size, generator=generator) > 0.9).float()


@torch.no_grad()
def logits(network: InteractiveNetwork, inputs: Inputs) -> torch.Tensor:
    """Run a network on images that are prepared as it says; a rewrite may have changed how."""
    rgb, modalities, interaction = inputs
    image = network.config.image
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (image.mean, image.std))
    return network.respond(network.features((rgb * image.scale - mean) / std, modalities), interaction)

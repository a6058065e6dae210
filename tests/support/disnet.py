"""Narrow DISNets, and the configurations of the golden files."""

from __future__ import annotations

from typing import Any

import torch

from mmms_deploy.models.config import ViTConfig
from mmms_deploy.models.disnet import DISNet
from mmms_deploy.models.disnet_config import DISNetConfig, PixelDecoderConfig, ProposalConfig, RefinementConfig


def tiny_disnet(
    pixels: dict[str, Any] | None = None,
    proposals: dict[str, Any] | None = None,
    refinement: dict[str, Any] | None = None,
    **fields: Any,
) -> DISNetConfig:
    """A narrow network at 64 x 96; keyword arguments replace fields, dicts those of its parts."""
    settings: dict[str, Any] = {
        "size": (64, 96),
        "vit": ViTConfig(dim=24, depth=4, heads=3),
        "width": 16,
        "neck_widths": (16, 16, 16, 16),
        "pixel_decoder": PixelDecoderConfig(**{"layers": 1, "heads": 4, "ffn": 16, "groups": 4, **(pixels or {})}),
        "proposals": ProposalConfig(**{"count": 5, "heads": 4, "ffn": 16, **(proposals or {})}),
        "refinement": RefinementConfig(
            **{"attention_heads": 4, "relation_heads": 4, "ffn": 16, "gate_reduction": 4, **(refinement or {})}
        ),
    }
    return DISNetConfig(**(settings | fields))


def golden_config(name: str) -> DISNetConfig:
    """The network of a golden file: ``tiny`` or ``base``."""
    if name == "base":
        return DISNetConfig()
    return DISNetConfig(
        size=(224, 224),
        vit=ViTConfig(dim=96, heads=3),
        width=64,
        neck_widths=(64, 64, 64, 64),
        pixel_decoder=PixelDecoderConfig(ffn=128),
        proposals=ProposalConfig(ffn=128),
        refinement=RefinementConfig(ffn=128),
    )


def random_disnet(config: DISNetConfig, seed: int = 0) -> DISNet:
    """An untrained network whose weights are all different."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DISNet(config)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.empty_like(parameter).uniform_(-0.2, 0.2))
    return network.eval().requires_grad_(False)


def click_list(*clicks: tuple[float, float, int], rows: int | None = None) -> torch.Tensor:
    """(1, rows, 4): clicks (x, y, positive), and rows that hold none but have other numbers."""
    listed = [(x, y, float(positive), 1.0) for x, y, positive in clicks]
    padding = [(7.0 * row, 3.0 * row, float(row % 2), 0.0) for row in range(len(listed), rows or 0)]
    return torch.tensor([listed + padding])


def centred_disnet(config: DISNetConfig, seed: int = 0) -> DISNet:
    """An untrained network whose masks are neither empty nor full: maps of pixels have a mean of 0 in each channel."""
    network = random_disnet(config, seed)
    last, kept = network.refine.layers[-1], list[torch.Tensor]()
    height, width = config.size
    clicks = click_list((width / 2, height / 2, 1), (width / 4, height / 4, 0))
    with torch.no_grad():
        patches = network.encode(torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed)))[0]
        features = network.propose(patches, clicks[:, 0]).features
        network.pixel_decoder.mask_feature.bias -= features.mean((0, 2, 3))
        proposals = network.propose(patches, clicks[:, 0])
        handle = last.register_forward_hook(lambda *call: kept.append(call[2][1]))
        network.answer(proposals.tokens[:, 0], proposals.features, proposals.masks[:, :1].sigmoid(), clicks)
        handle.remove()
        last.conv_ffn.fc2.bias -= kept[0].mean((0, 2))
    return network

"""Apply the rewrites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch

from mmms_deploy.export.rewrites import names_for, remaining
from mmms_deploy.export.rewrites.attention import fold_attention, plain_attention, split_queries
from mmms_deploy.export.rewrites.deployed import Deployed, DeployedMMMS
from mmms_deploy.export.rewrites.disnet import DeployedDISNet, fold_click_attention, gather_clicks
from mmms_deploy.export.rewrites.dynamite import DeployedDynaMITe, fold_pixel_attention
from mmms_deploy.export.rewrites.ffn import ffn_as_convs
from mmms_deploy.export.rewrites.fpn import small_convolutions
from mmms_deploy.export.rewrites.head import fold_head, matrix_resize
from mmms_deploy.export.rewrites.icmformer import deployed_icmformer, fold_cross_attention, fold_swin_attention
from mmms_deploy.export.rewrites.interformer import DeployedInterFormer, keys_once, label_planes
from mmms_deploy.export.rewrites.ritm import DeployedSimpleClick, deployed_mfp
from mmms_deploy.export.rewrites.simple_head import pixel_shuffle, split_fusion
from mmms_deploy.export.rewrites.skipclick import DeployedSkipClick, fold_mix_attention, split_skips
from mmms_deploy.export.rewrites.stream import feature_biases, token_stream
from mmms_deploy.export.rewrites.vit import fold_layer_scale, fold_normalisation, fold_positions, fold_vit_attention
from mmms_deploy.models import InteractiveNetwork

FUNCTIONS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            fold_head,
            matrix_resize,
            plain_attention,
            fold_attention,
            split_queries,
            ffn_as_convs,
            token_stream,
            feature_biases,
            small_convolutions,
            split_skips,
            split_fusion,
            pixel_shuffle,
            fold_mix_attention,
            fold_cross_attention,
            fold_swin_attention,
            fold_pixel_attention,
            keys_once,
            label_planes,
            fold_click_attention,
            gather_clicks,
            fold_vit_attention,
            fold_layer_scale,
            fold_positions,
            fold_normalisation,
        )
    }
)
"""The function of each rewrite, by name. It returns whether there was anything to rewrite."""

DEPLOYED: Mapping[str, Callable[[Any], Deployed]] = MappingProxyType(
    {
        "mmms": DeployedMMMS,
        "skipclick": DeployedSkipClick,
        "simpleclick": DeployedSimpleClick,
        "icmformer": deployed_icmformer,
        "mfp": deployed_mfp,
        "interformer": DeployedInterFormer,
        "disnet": DeployedDISNet,
        "dynamite": DeployedDynaMITe,
    }
)
"""The class that rewrites change, by the network's family."""


@torch.no_grad()
def deploy_form(network: InteractiveNetwork, skip: Collection[str] = frozenset()) -> tuple[Deployed, tuple[str, ...]]:
    """Rewrite a network.

    Args:
        network: The network in the paper's form, in evaluation mode; it is left as it is, and its weights are shared
            where no rewrite changed them.
        skip: Names of rewrites to leave out, or ``all``; a rewrite that builds on one of them is left out too.

    Returns:
        The rewritten network, in evaluation mode, and the names of the rewrites that found something to rewrite. Its
        ``config.image`` says how to prepare its image, which may differ from the paper's form.

    Raises:
        ValueError: A name is unknown.
    """
    deployed = DEPLOYED[network.config.family](network)
    meant = names_for(network.config.family)
    applied = tuple(name for name in remaining(skip) if name in meant and FUNCTIONS[name](deployed))
    return deployed.eval(), applied

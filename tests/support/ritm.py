"""Narrow SimpleClicks and MFPs, and official files of them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmms_deploy.models.checkpoint import random_network, release_state
from mmms_deploy.models.config import SimpleClickConfig, ViTConfig
from mmms_deploy.models.mfp_config import HRNetConfig, MFPConfig
from mmms_deploy.models.network import InteractiveNetwork
from tests.support.official import config_of, head_params, vit_params
from tests.support.skipclick import official_software

CLASSES = {
    "simpleclick": "isegm.model.is_plainvit_model.PlainVitModel",
    "mfp": "isegm.model.is_plainvit_model_prevMod.PlainVitModel_prevMod",
    "mfp-hrnet": "isegm.model.is_hrnet_model_prevMod.HRNetModel_prevMod",
}
NARROW = ViTConfig(dim=24, depth=4, heads=3)


def tiny_simpleclick(**fields: Any) -> SimpleClickConfig:
    """A narrow network at 64 x 96."""
    settings: dict[str, Any] = {"size": (64, 96), "vit": NARROW, "neck_widths": (8, 8, 16, 16), "head_width": 8}
    return SimpleClickConfig(**(settings | fields))


def tiny_mfp(kind: str = "vit", **fields: Any) -> MFPConfig:
    """A narrow network at 64 x 96, on a ``vit`` or an ``hrnet``."""
    vit: dict[str, Any] = {"vit": NARROW, "neck_widths": (8, 8, 16, 16), "head_width": 8}
    hrnet = {"hrnet": HRNetConfig(width=4, ocr_width=8, small=True)}
    return MFPConfig(**({"size": (64, 96)} | (vit if kind == "vit" else hrnet) | fields))


def official_state(network: InteractiveNetwork) -> OrderedDict[str, Tensor]:
    """A state dict with what the official files hold besides."""
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict((name, tensor.clone()) for name, tensor in release_state(network).items())
    if "backbone.pos_embed" in state:
        dim = state["backbone.pos_embed"].shape[2]
        extra = {"cls_token": (1, 1, dim), "fc_norm.weight": (dim,), "fc_norm.bias": (dim,), "head.weight": (10, dim)}
        state |= {f"backbone.{n}": torch.randn(*s, generator=generator) for n, s in extra.items()}
        state["backbone.head.bias"] = torch.zeros(10)
        for name in ("up_conv1", "up_conv2"):
            state |= {f"head.{name}.0.weight": torch.zeros(8, 4, 2, 2), f"head.{name}.0.bias": torch.zeros(4)}
    else:
        block = "feature_extractor.ocr_distri_head.object_context_block"
        state |= {f"{block}.{part}.0.weight": torch.zeros(8, 16, 1, 1) for part in ("f_pixel", "f_object")}
    for name in list(state):
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return state


def official_values(config: SimpleClickConfig | MFPConfig, loss: object = None) -> dict[str, Any]:
    """The parameters that the official software stores beside the weights."""
    values: dict[str, Any] = {"use_disks": True, "norm_radius": 5, "with_prev_mask": True, "use_rgb_conv": False}
    values |= {"norm_mean_std": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), "clicks_groups": None}
    if isinstance(config, MFPConfig):
        values |= {"N": 7, "R_max": 100, "norm_layer": "torch.nn.modules.batchnorm.BatchNorm2d"}
        if config.hrnet is not None:
            width, ocr, small = config.hrnet.width, config.hrnet.ocr_width, config.hrnet.small
            return values | {"width": width, "ocr_width": ocr, "small": small, "use_leaky_relu": config.hrnet.leaky}
    vit = config.vit or ViTConfig()
    values["backbone_params"] = vit_params(config.size, dim=vit.dim, depth=vit.depth, heads=vit.heads, patch=vit.patch)
    values["neck_params"] = {"in_dim": vit.dim, "out_dims": list(config.neck_widths)}
    values["head_params"] = head_params(config.neck_widths, config.head_width, loss)
    return values | {"random_split": False}


def official_class(config: SimpleClickConfig | MFPConfig) -> str:
    """The name of the class of a network's official software."""
    return CLASSES["mfp-hrnet" if isinstance(config, MFPConfig) and config.hrnet is not None else config.family]


def save_official(path: Path, config: SimpleClickConfig | MFPConfig, **changes: Any) -> InteractiveNetwork:
    """Write an official file of random weights, and return the network; keyword arguments replace parameters."""
    network = random_network(config, 0)
    with official_software() as loss:
        values = official_values(config, loss()) | changes
        content = {"state_dict": official_state(network), "config": config_of(official_class(config), values)}
        torch.save(content, path)
    return network

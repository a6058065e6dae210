"""Narrow SkipClicks, and official checkpoint files as the official software writes them."""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.models import BackboneConfig, EncoderConfig, FuserConfig, SkipClickConfig
from mmms_deploy.models.checkpoint import random_network, release_state
from mmms_deploy.models.skipclick import SkipClick
from tests.support.official import config_of, head_params, vit_params

NARROW = {"embed_dim": 24, "depth": 12, "num_heads": 2}
"""What makes a DINOv2-B14 narrow: all of its blocks, a few channels."""
DEEP_CLASS = "isegm.model.is_featurevit_model.FeatureVitModel"
LOSS_MODULE = "isegm.model.modeling.transformer_helper.cross_entropy_loss"


def tiny_skipclick(*modalities: ModalitySpec, **fields: Any) -> SkipClickConfig:
    """A narrow network: at 56 x 84 with patches of 14, or with modalities at 64 x 96 with patches of 8."""
    encoder = EncoderConfig(heads=(1, 2, 2, 2), depths=(1, 1, 1, 1))
    settings: dict[str, Any] = {
        "size": (64, 96) if modalities else (56, 84),
        "backbone": BackboneConfig(overrides={**NARROW, "patch_size": 8} if modalities else NARROW),
        "modalities": modalities,
        "mix_depth": 2,
        "mix_heads": 3,
        "neck_widths": (8, 16, 16, 32),
        "head_width": 16,
        "widths": (8, 16, 16, 32),
        "fuser": FuserConfig(encoder=encoder),
    }
    return SkipClickConfig(**(settings | fields))


def official_state(network: SkipClick, seed: int = 0) -> OrderedDict[str, Tensor]:
    """A state dict with every key of the official files, DINOv2's position table of 37 x 37 among them.

    It is a network of its own: the table, and the class token's position, are random.
    """
    generator = torch.Generator().manual_seed(seed)
    dim = network.backbone.dim

    def random(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    state = OrderedDict()
    for name, tensor in release_state(network).items():
        prefix = "backbone."
        official = f"feature_extractor.dinov2.{name.removeprefix(prefix)}" if name.startswith(prefix) else name
        state[official] = tensor.clone()
    state["feature_extractor.dinov2.pos_embed"] = random(1, 1 + 37 * 37, dim)
    state["feature_extractor.dinov2.mask_token"] = random(1, dim)
    width, out = network.config.head_width, network.config.head_width
    for name in ("up_conv1", "up_conv2"):
        width, out = out, out // 2
        state |= {
            f"head.{name}.0.weight": random(width, out, 2, 2),
            f"head.{name}.0.bias": random(out),
            f"head.{name}.1.weight": random(out),
            f"head.{name}.1.bias": random(out),
            f"head.{name}.2.weight": random(out, out, 1, 1),
            f"head.{name}.2.bias": random(out),
            f"head.{name}.3.weight": random(out),
            f"head.{name}.3.bias": random(out),
        }
    return state


@contextlib.contextmanager
def official_software() -> Iterator[type[nn.Module]]:
    """Stand-ins for the official modules while a file is written; gives the loss's class."""
    names = LOSS_MODULE.split(".")
    modules = {".".join(names[: i + 1]): ModuleType(".".join(names[: i + 1])) for i in range(len(names))}

    def cross_entropy() -> None:
        raise AssertionError("the loss was called")

    class CrossEntropyLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss_weight, self.cls_criterion = 1.0, cross_entropy

        def __setstate__(self, state: object) -> None:
            raise AssertionError("the loss was unpickled")

    for made in (cross_entropy, CrossEntropyLoss):
        made.__module__, made.__qualname__ = LOSS_MODULE, made.__name__
        setattr(modules[LOSS_MODULE], made.__name__, made)
    sys.modules.update(modules)
    try:
        yield CrossEntropyLoss
    finally:
        for name in modules:
            del sys.modules[name]


def official_config(config: SkipClickConfig, loss: object = None, **changes: Any) -> dict[str, Any]:
    """The config of an official file, for a network; keyword arguments replace values of parameters."""
    dim = config.backbone.overrides.get("embed_dim", 768)
    values: dict[str, Any] = {
        "use_disks": True,
        "norm_radius": 5,
        "with_prev_mask": True,
        "extractor_type": "dinov2",
        "backbone_params": vit_params(
            config.size, dim=dim, depth=config.mix_depth, heads=config.mix_heads, patch=(14, 14)
        ),
        "neck_params": {"in_dim": dim, "out_dims": list(config.neck_widths)},
        "head_params": head_params(config.neck_widths, config.head_width, loss),
        "random_split": False,
        "trained_extractor": False,
        "use_intermediate": [2, 5, 8, 11] if len(config.levels) == 4 else [11],
        "backbone_weight_path": "/weights/dinov2_vitb14_reg4_pretrain.pth",
        "backbone_repo_path": None,
        "use_conv_stack": False,
        "with_aux_output": False,
        "cpu_dist_maps": False,
        "use_rgb_conv": False,
        "use_leaky_relu": False,
        "norm_mean_std": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }
    if config.skips:
        values["skip_connections"] = True
    values |= changes
    return config_of(DEEP_CLASS, values)


def save_official(path: Path, state: dict[str, Tensor], config: SkipClickConfig, **changes: Any) -> None:
    """Write a file as the official software does: the config holds a loss of a class that is gone afterwards."""
    with official_software() as loss:
        torch.save({"state_dict": state, "config": official_config(config, loss(), **changes)}, path)


def tiny_official(path: Path, config: SkipClickConfig | None = None, **changes: Any) -> OrderedDict[str, Tensor]:
    """Write a narrow official file; returns its state dict."""
    config = config or tiny_skipclick(size=(56, 56))
    network = random_network(config, 0)
    assert isinstance(network, SkipClick)
    state = official_state(network)
    save_official(path, state, config, **changes)
    return state

"""DISNet's checkpoints: which network a file holds.

No weights of its authors are public, so a file is always of someone who trained this reconstruction. Its weights have
the names of :class:`~mmms_deploy.models.disnet.DISNet`. Shapes say widths and numbers of layers. What they do not say,
such as most choices of :mod:`mmms_deploy.models.disnet_config`, a description says, in the file or beside it; without
one the defaults hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmms_deploy.models.disnet_config import DISNetConfig
from mmms_deploy.models.fpn import hidden_widths
from mmms_deploy.models.ritm_params import Params
from mmms_deploy.models.vit_checkpoint import count, describe_vit, side

State = Mapping[str, Tensor]

_MARKS = ("patch_embed_first.proj.weight", "proposal.query_feat", "refine.indicator")


def is_disnet(names: Mapping[str, Any]) -> bool:
    """Whether weights are a DISNet's, by names that no other network has."""
    return all(mark in names for mark in _MARKS)


def describe_disnet(state: State) -> dict[str, Any]:
    """Return the description of the network that these weights belong to.

    Heads and samples, radii, orders and activations are the defaults: shapes do not say them. What cannot be read,
    because a weight is missing or has another shape, is a default, too; the comparison of all keys names it afterwards.

    Args:
        state: A DISNet's weights.

    Returns:
        A description for :func:`~mmms_deploy.models.description.convert_description`.
    """
    usual = DISNetConfig()
    width = side(state, "pixel_decoder.mask_feature.weight", 0, 4) or usual.width
    inside = side(state, "refine.layers.0.se.fc1.weight", 0, 2)
    conv = side(state, "refine.layers.0.conv_ffn.fc1.weight", 0, 4)
    described = {
        name: value
        for name, value in describe_vit(state, Params({}, "", "", usual.family)).items()
        if name != "head_width"
    }

    def ffn(part: str, default: int) -> int:
        return side(state, f"{part}.layers.0.fc1.weight", 0, 2) or default

    pixels, proposals, refinement = usual.pixel_decoder, usual.proposals, usual.refinement
    return {
        "family": usual.family,
        **described,
        "width": width,
        "neck_hidden": _hidden(state, described["vit"]["dim"], described["neck_widths"]),
        "pixel_decoder": {
            "layers": count(state, r"pixel_decoder\.encoder\.layers\.(\d+)\.") or pixels.layers,
            "ffn": ffn("pixel_decoder.encoder", pixels.ffn),
        },
        "proposals": {
            "count": side(state, "proposal.query_feat", 0, 2) or proposals.count,
            "layers": count(state, r"proposal\.layers\.(\d+)\.") or proposals.layers,
            "ffn": ffn("proposal", proposals.ffn),
        },
        "refinement": {
            "layers": count(state, r"refine\.layers\.(\d+)\.") or refinement.layers,
            "attention_bias": "refine.layers.0.mca.q.bias" in state,
            "ffn": ffn("refine", refinement.ffn),
            "relations": "separate" if "refine.layers.0.relation_positive.in_proj_weight" in state else "shared",
            "gate_reduction": width // inside if inside else refinement.gate_reduction,
            "conv_ratio": conv // width if conv and conv % width == 0 else refinement.conv_ratio,
            "conv_norm": "refine.layers.0.conv_ffn.norm.weight" in state,
        },
    }


def _hidden(state: State, dim: int, widths: list[int]) -> list[int] | None:
    """Return the hidden widths of the neck; None where they are the usual ones, or missing."""
    # A convolution has its outputs in front, a transposed one behind.
    layers = (("down_4", 1), ("down_8", 1), ("down_32", 0))
    hidden = [side(state, f"neck.{name}.0.weight", axis, 4) or 0 for name, axis in layers]
    w4, w8, w16, w32 = widths
    h4, h8, _, h32 = hidden_widths((w4, w8, w16, w32), dim)
    return None if hidden == [h4, h8, h32] or not all(hidden) else hidden

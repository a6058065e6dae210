"""What the weights and the config of an official MFP file say of its network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.models.mfp_config import MFP_CLICKS, HRNetConfig
from mmms_deploy.models.ritm_params import Params
from mmms_deploy.models.vit_checkpoint import describe_vit, side

HRNET_UNREAD = re.compile(r"feature_extractor\.ocr_distri_head\.object_context_block\.f_(pixel|object)\..*")
"""OCR's queries and keys: with a single object region its attention is 1 everywhere."""
OWN = ("N", "R_max", "backbone_params", "neck_params", "head_params")
HRNET_OWN = ("N", "R_max", "width", "ocr_width", "small", "use_leaky_relu")


def describe_mfp(state: Mapping[str, Tensor], params: Params) -> dict[str, Any]:
    """Describe an MFP on a ViT; see :func:`~mmms_deploy.models.vit_checkpoint.describe_vit`."""
    params.check_outermost(OWN)
    return {**describe_vit(state, params), **_clicks(params)}


def describe_mfp_hrnet(state: Mapping[str, Tensor], params: Params) -> dict[str, Any]:
    """Describe an MFP on HRNet: the config's word counts, and the weights' where it says nothing."""
    params.check_outermost(HRNET_OWN)
    usual = HRNetConfig()
    ocr = side(state, "feature_extractor.cls_head.weight", 1, 4)
    small, leaky = params.flag("small"), params.flag("use_leaky_relu")
    blocks = {name for name in state if name.startswith("feature_extractor.layer1.2.")}
    return {
        "size": [448, 448],
        "hrnet": {
            "width": params.whole("width")
            or side(state, "feature_extractor.transition1.0.0.weight", 0, 4)
            or usual.width,
            "ocr_width": params.whole("ocr_width") or (ocr // 2 if ocr else usual.ocr_width),
            "small": small if small is not None else not blocks,
            "leaky": usual.leaky if leaky is None else leaky,
        },
        **_clicks(params),
    }


def _clicks(params: Params) -> dict[str, Any]:
    """Return the click contract with the file's N and R_max."""
    contract = to_builtins(MFP_CLICKS)
    modulation = dict(contract["modulation"])
    if (similar := params.whole("N")) is not None:
        modulation["similar_clicks"] = similar
    if (radius := params.number("R_max")) is not None:
        modulation["radius"] = float(radius)
    return {"clicks": {**contract, "modulation": modulation}}

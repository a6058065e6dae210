"""Official checkpoints of the families that are built on RITM's code: which network a file holds.

The names of the weights say the family. The config beside them says the rest, and what it leaves out the shapes of the
weights say. A file without a config is recognised, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.config import RITM_CLICKS, RITM_IMAGE
from mmms_deploy.models.icmformer_checkpoint import (
    ICMFORMER_UNREAD,
    MARK,
    SWIN_CLASS,
    SWIN_STAGES,
    VIT_CLASS,
    describe_icmformer_swin,
    describe_icmformer_vit,
)
from mmms_deploy.models.mfp_checkpoint import HRNET_UNREAD, describe_mfp, describe_mfp_hrnet
from mmms_deploy.models.ritm_params import Params, short
from mmms_deploy.models.skipclick_checkpoint import MODEL_CLASS
from mmms_deploy.models.vit_checkpoint import UNREAD, describe_vit

State = dict[str, Tensor]
Describe = Callable[[Mapping[str, Tensor], Params], dict[str, Any]]

PACKAGE = "isegm."


@dataclass(frozen=True)
class Layout:
    """How the official files of a family are laid out.

    Attributes:
        family: The family.
        classes: Names of the classes that their configs name.
        marks: Names of weights that together only these networks have.
        absent: Beginnings of names that these networks do not have.
        begins: Beginnings of names, of which these networks have some each.
        unread: Full-match pattern of names that files hold and the network does not run.
        describe: Returns the family's fields of a description.
    """

    family: str
    classes: tuple[str, ...]
    marks: tuple[str, ...]
    describe: Describe
    absent: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    unread: re.Pattern[str] = UNREAD

    def fits(self, names: Collection[str]) -> bool:
        """Whether weights of these names are such a network's."""
        if not all(mark in names for mark in self.marks) or any(name.startswith(self.absent) for name in names):
            return False
        return all(any(name.startswith(beginning) for name in names) for beginning in self.begins)


def _simpleclick(state: Mapping[str, Tensor], params: Params) -> dict[str, Any]:
    params.check_outermost(("backbone_params", "neck_params", "head_params"))
    return describe_vit(state, params)


_VIT = ("patch_embed_coords.proj.weight", "backbone.pos_embed", "backbone.blocks.0.attn.qkv.weight")
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "simpleclick",
        ("isegm.model.is_plainvit_model.PlainVitModel",),
        (*_VIT, "neck.down_4.0.weight"),
        _simpleclick,
        ("backbone.blocks2.", "head.conv_prevMod.", "feature_extractor.", "backbone_mix."),
    ),
    Layout(
        "mfp",
        ("isegm.model.is_plainvit_model_prevMod.PlainVitModel_prevMod",),
        (*_VIT, "head.conv_prevMod.0.conv.weight"),
        describe_mfp,
    ),
    Layout(
        "mfp",
        ("isegm.model.is_hrnet_model_prevMod.HRNetModel_prevMod",),
        ("conv_prevMod.0.conv.weight", "feature_extractor.conv3x3_ocr.0.weight", "maps_transform.0.weight"),
        describe_mfp_hrnet,
        unread=HRNET_UNREAD,
    ),
    Layout(
        "icmformer",
        (VIT_CLASS,),
        (MARK,),
        describe_icmformer_vit,
        absent=(SWIN_STAGES,),
        unread=ICMFORMER_UNREAD,
    ),
    Layout(
        "icmformer",
        (SWIN_CLASS,),
        (MARK,),
        describe_icmformer_swin,
        begins=(SWIN_STAGES,),
        unread=ICMFORMER_UNREAD,
    ),
)
"""The layouts that are known."""


def layout_of(names: Collection[str], config: object = None) -> Layout | None:
    """Return the layout of a file, by the names of its weights, or else by the class that its config names."""
    found = next((layout for layout in LAYOUTS if layout.fits(names)), None)
    return found or next((layout for layout in LAYOUTS if _class(config) in layout.classes), None)


def is_ritm(config: object, names: Collection[str]) -> bool:
    """Whether RITM's code, or what is built on it, saved a file."""
    return layout_of(names, config) is not None or str(_class(config)).startswith(PACKAGE)


def without_unread(state: State, config: object) -> State:
    """Leave out what official files hold and no network runs.

    Args:
        state: Any network's weights; those of other networks are returned unchanged.
        config: The entry ``config`` beside them; None when there is none.
    """
    layout = layout_of(state, config)
    return state if layout is None else {n: t for n, t in state.items() if not layout.unread.fullmatch(n)}


def describe_ritm(config: object, state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Describe the network of an official file.

    Args:
        config: The file's entry ``config``; None when it has none.
        state: The weights, under the official names.
        source: Where they come from, for messages.

    Returns:
        A description for :func:`~mmms_deploy.models.checkpoint.parse_description`.

    Raises:
        DescriptionError: The config is of another class than the weights, or of one that is not known; or it has
            values that no published network has.
    """
    layout, named = layout_of(state, config), _class(config)
    if layout is None or (named is not None and named not in layout.classes):
        known = ", ".join((*(name for one in LAYOUTS for name in one.classes), MODEL_CLASS))
        found = "" if layout is None else f", and its weights are named as those of {layout.classes[0]}"
        raise DescriptionError(
            f"{source}: its config names the class {short(named)}{found}",
            expected=f"a class of which networks are known here: {known}",
            fix="take the official file of one of these networks, or describe yours where it is one of them",
        )
    read = Params.of(config, source, layout.family) if isinstance(config, Mapping) else None
    params = read or Params({}, "", source, layout.family)
    described: dict[str, Any] = {"family": layout.family, "clicks": to_builtins(RITM_CLICKS)}
    described |= layout.describe(state, params)
    described["image"] = to_builtins(RITM_IMAGE)
    if (radius := params.number("norm_radius")) is not None:
        described["clicks"]["radius"] = float(radius)
    if (statistics := params.statistics()) is not None:
        described["image"] |= {"mean": statistics[0], "std": statistics[1]}
    return described


def _class(config: object) -> str | None:
    name = config.get("class") if isinstance(config, Mapping) else None
    return name if isinstance(name, str) else None

"""The description of a DISNet.

No code and no weights of DISNet are public, and its manuscript lacks the supplement. What the manuscript leaves open is
chosen here after the works that it says it follows: PiClick, Mask2Former, SAM, SENet and RITM. Every such choice has a
number, U1 to U21. A choice that is a number or a switch is a field below, so that a network that was trained with
another one can be described. A choice of structure stands where the network builds it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mmms_deploy.bundle.contract import (
    AnswerForm,
    AnswerSpec,
    ClickContract,
    ClickList,
    ClickMemory,
    Coordinates,
    ImageSpec,
    ResizeRule,
    Struct,
)
from mmms_deploy.models.config import RITM_IMAGE, NetworkConfig, Scales, ViTConfig

DISNET_CLICKS = ClickContract(
    memory=ClickMemory.CLICKS,
    listed=ClickList(),
    coordinates=Coordinates.SCALE,
    mask_resize=ResizeRule(align_corners=True),
)
"""All clicks as a list, and no previous mask; coordinates and sizes as in RITM's code. A description adds its answers
(:attr:`DISNetConfig.clicks`)."""


class PixelDecoderConfig(Struct, frozen=True, kw_only=True):
    """The deformable pixel decoder (U5: PiClick's, which is Mask2Former's).

    Attributes:
        layers: Its layers.
        heads: Attention heads.
        points: Samples of each head on each of the three levels.
        ffn: Width inside its MLPs.
        groups: Groups of its GroupNorms.
    """

    layers: int = 6
    heads: int = 8
    points: int = 4
    ffn: int = 1024
    groups: int = 32

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.points, self.ffn, self.groups) < 1:
            raise ValueError("layers, heads, points, ffn and groups of the pixel decoder must be at least 1")


class ProposalConfig(Struct, frozen=True, kw_only=True):
    """The decoder that proposes masks for the first click.

    Attributes:
        count: N, learned queries, and so proposals (U6: not stated; PiClick has 7).
        layers: Its layers (manuscript: 3); layer i attends to the scales 32, 16, 8 in turn.
        heads: Attention heads (Mask2Former).
        ffn: Width inside its MLPs (Mask2Former).
        order: Which attention a layer begins with (U7: the manuscript lists self-attention first; Mask2Former and
            PiClick, and so the default, cross-attention). A layer's norms are numbered in the order in which they run.
    """

    count: int = 7
    layers: int = 3
    heads: int = 8
    ffn: int = 2048
    order: Literal["cross_first", "self_first"] = "cross_first"

    def __post_init__(self) -> None:
        if self.count < 2 or min(self.layers, self.heads, self.ffn) < 1:
            raise ValueError("count of the proposals must be at least 2, their layers, heads and ffn at least 1")


class RefinementConfig(Struct, frozen=True, kw_only=True):
    """The refinement, which runs from the second click on.

    Attributes:
        layers: Its modules (manuscript: 2).
        first_radius: r of the first click in the decay maps (equation 5), in network pixels (U12: the unit is not
            stated; for radii in cells of F give four times as many).
        radius: r of all other clicks.
        attention_heads: Heads of the masked click attention (U13: not stated; the decoder's number).
        attention_bias: Whether its linears for queries, keys and values have a bias (U13).
        mask_margin: The selected mask is kept this far from 0 and 1 before its logarithm is taken (U14: not stated).
        ffn: Width inside the token's MLP (U15: not stated; SAM has 2048).
        click_sampling: How F is sampled at a click (U17: not stated).
        relation_heads: Heads of the attention between clicks (U18: not stated).
        relations: Whether positive and negative clicks share this attention's weights (U18: not stated).
        gate_reduction: Width of F over the width inside of the gates (U20: SENet's 16).
        conv_ratio: Width inside the convolutional MLP over its input's (U21: not stated, like the next three).
        conv_norm: Whether the convolutional MLP begins with a norm over channels and places.
        conv_residual: Whether its input is added to its output.
        conv_activation: Its activation.
    """

    layers: int = 2
    first_radius: float = 15.0
    radius: float = 5.0
    attention_heads: int = 8
    attention_bias: bool = True
    mask_margin: float = 1e-6
    ffn: int = 2048
    click_sampling: Literal["bilinear", "nearest"] = "bilinear"
    relation_heads: int = 8
    relations: Literal["shared", "separate"] = "shared"
    gate_reduction: int = 16
    conv_ratio: int = 4
    conv_norm: bool = True
    conv_residual: bool = True
    conv_activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        least = min(self.layers, self.attention_heads, self.ffn, self.relation_heads, self.gate_reduction)
        if min(least, self.conv_ratio) < 1:
            raise ValueError("layers, heads, ffn, gate_reduction and conv_ratio of the refinement must be at least 1")
        if not (self.first_radius > 0 and self.radius > 0):
            raise ValueError(f"radii must be positive, got {self.first_radius} and {self.radius}")
        if not 0 < self.mask_margin < 0.5:
            raise ValueError(f"mask_margin must be between 0 and 0.5, got {self.mask_margin}")


class DISNetConfig(NetworkConfig, frozen=True, kw_only=True):
    """A DISNet ("Interactive Segmentation by Considering First-Click Intentional Ambiguity", MM 2024), reconstructed.

    The defaults are the manuscript's network on ViT-B at 448 x 448, with our choices where it says nothing.

    Attributes:
        family: Always ``disnet``.
        vit: The encoder, SimpleClick's.
        disk_radius: Radius of the first click's disk in the encoder's input, in network pixels (U1: RITM's 5).
        width: d, the width of everything after the neck; a multiple of 4.
        neck_widths: Channels of the neck's maps at 4, 2, 1 and 1/2 times the ViT's grid (U3: PiClick's, all d).
        neck_hidden: Hidden widths of the neck's branches at 4, 2 and 1/2 times the grid; None takes PiClick's rule
            (U4): max(2 * 256, dim / 2), max(256, dim / 2), max(256, 2 * dim).
        pixel_decoder: What turns the neck's maps into F and three levels.
        proposals: What proposes masks for the first click.
        refinement: What answers later clicks.
        image: Normalised as RITM does (U1).
        clicks: How clicks are listed, and masks are read. Its ``answers`` follow from the rest: ``proposals.count``
            logits at four times the ViT's grid, of which the first click's answer is one.
    """

    family: Literal["disnet"] = "disnet"
    vit: ViTConfig = ViTConfig()
    disk_radius: float = 5.0
    width: int = 256
    neck_widths: Scales = (256, 256, 256, 256)
    neck_hidden: tuple[int, int, int] | None = None
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    proposals: ProposalConfig = ProposalConfig()
    refinement: RefinementConfig = RefinementConfig()
    image: ImageSpec = RITM_IMAGE
    clicks: ClickContract = DISNET_CLICKS
    logits_resize: ResizeRule = ResizeRule(align_corners=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modalities:
            raise ValueError("a DISNet takes RGB alone; leave out modalities")
        if self.clicks.listed is None or self.clicks.listed.objects != 1:
            raise ValueError(
                "a DISNet takes all clicks on one object at every click; clicks.memory must be 'clicks', with"
                " clicks.listed, whose objects is 1, and without clicks.points"
            )
        rows, columns = (max(1, 4 * (n // patch)) for n, patch in zip(self.size, self.vit.patch, strict=True))
        answers = AnswerSpec(
            form=AnswerForm.LOGITS, size=(rows, columns), candidates=self.proposals.count, proposals=True
        )
        msgspec.structs.force_setattr(self, "clicks", msgspec.structs.replace(self.clicks, answers=answers))
        if not self.disk_radius > 0:
            raise ValueError(f"disk_radius must be positive, got {self.disk_radius}")
        if min(*self.neck_widths, *(self.neck_hidden or (2,))) < 1 or (self.neck_hidden or (2,))[0] < 2:
            raise ValueError("neck_widths must be at least 1, and neck_hidden at least 2, 1 and 1")
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {self.width}")
        refine = self.refinement
        parts = {
            "heads of the pixel decoder": self.pixel_decoder.heads,
            "groups of the pixel decoder's norms": self.pixel_decoder.groups,
            "heads of the proposals": self.proposals.heads,
            "attention_heads of the refinement": refine.attention_heads,
            "relation_heads of the refinement": refine.relation_heads,
            "gate_reduction": refine.gate_reduction,
        }
        for name, number in parts.items():
            if self.width % number:
                raise ValueError(f"width {self.width} cannot be split by {name}, {number}")

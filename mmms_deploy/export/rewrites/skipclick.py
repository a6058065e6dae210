"""SkipClick in a form that engines run faster, and the rewrites for SkipClick alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import Deployed, replace_modules
from mmms_deploy.export.rewrites.vit import fold_plain_attention
from mmms_deploy.models.skipclick import SkipClick, SkipNeck


class DeployedSkipClick(Deployed, SkipClick):
    """SkipClick in a form that engines run faster.

    Args:
        network: The network in the paper's form.

    Attributes:
        skip_layers: Layers that run on the skips once an image; empty for none.
    """

    def __init__(self, network: SkipClick) -> None:
        super().__init__(network)
        self.skip_layers = nn.ModuleList()
        height, width = network.backbone_mix.grid
        self.coarse_size = (4 * height, 4 * width)

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Everything between the backbone and the clicks; returns the features for :meth:`respond`."""
        fused, *skips = super().mix(maps, modalities, present)
        if len(self.skip_layers):
            skips = [layer(skip) for layer, skip in zip(self.skip_layers, skips, strict=True)]
        return (fused, *skips)


class SplitNeck(nn.Module):
    """The neck without the part of its first layers that runs on the skips; each branch adds that part's result.

    A branch begins with a convolution of the concatenation [x, s]. With its weight as [V, U],

        [V, U] * [x, s] + b = V * x + (U * s + b),

    for transposed convolutions too. U * s + b depends on the image alone.

    Args:
        neck: The neck in the paper's form, with skips.
        dim: d, channels of x.
    """

    def __init__(self, neck: SkipNeck, dim: int) -> None:
        super().__init__()
        self.first, self.rest = nn.ModuleList(), nn.ModuleList()
        for branch in neck.branches():
            conv, *others = branch.children()
            self.first.append(_on_channels(conv, slice(None, dim), with_bias=False))
            self.rest.append(nn.Sequential(*others))

    def forward(self, x: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """From x, (B, d, h, w), and the results of the skips' layers to four maps."""
        return tuple(rest(conv(x) + part) for conv, rest, part in zip(self.first, self.rest, parts, strict=True))


def _on_channels(conv: Any, channels: slice, *, with_bias: bool) -> nn.Module:
    """Return the part of a convolution, transposed or not, that reads some of its input channels."""
    transposed = type(conv) is nn.ConvTranspose2d
    weight: Tensor = (conv.weight[channels] if transposed else conv.weight[:, channels]).contiguous()
    inputs, outputs = weight.shape[:2] if transposed else (weight.shape[1], weight.shape[0])
    part = type(conv)(inputs, outputs, conv.kernel_size, conv.stride, bias=with_bias, device="meta")
    part.weight = nn.Parameter(weight, requires_grad=False)
    if with_bias:
        part.bias = conv.bias
    return part  # type: ignore[no-any-return]


def split_skips(network: DeployedSkipClick) -> bool:
    """Apply the neck's first layers to the skips once an image; see :class:`SplitNeck`."""
    if not network.config.skips:
        return False
    dim = network.backbone.dim
    for branch in network.neck.branches():
        network.skip_layers.append(_on_channels(next(branch.children()), slice(dim, None), with_bias=True))
    network.neck = SplitNeck(network.neck, dim)  # type: ignore[assignment]
    return True


def fold_mix_attention(network: DeployedSkipClick) -> bool:
    """Fold the factor and two of the three biases of the mixing blocks' attention.

    See :class:`~mmms_deploy.export.rewrites.vit.PlainViTAttention`.
    """
    return replace_modules(network.backbone_mix, Attention, fold_plain_attention)

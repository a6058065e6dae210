"""SkipClick in a form that engines run faster, and the rewrites for SkipClick alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.export.rewrites.deployed import Deployed, pointwise_of, replace_modules
from mmms_deploy.export.rewrites.vit import fold_plain_attention
from mmms_deploy.models.skipclick import MLPHead, SkipClick, SkipNeck


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

    def respond(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a click.

        Args:
            features: From this network's :meth:`features`.
            interaction: (B, 3, H, W) float32, as for the network in the paper's form.

        Returns:
            Logits (B, 1, H, W) float32.
        """
        logits: Tensor = self.enlarge(self.coarse_logits(features, interaction))
        return logits


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


class SplitFusionHead(nn.Module):
    """The head with its fusing convolution before the enlargement, level by level.

    The fusing convolution is 1x1, so with its weight as [W_0 .. W_3] it is sum_i W_i up(r_i) + b of the enlarged
    levels. A 1x1 convolution mixes channels, the same way at every pixel, and bilinear enlargement mixes pixels, the
    same way in every channel, so the two commute: sum_i up(W_i r_i) + b. Level 0 is not enlarged.

    Args:
        head: The head in the paper's form.
    """

    def __init__(self, head: MLPHead) -> None:
        super().__init__()
        self.convs = head.convs
        weight, bias = head.fusion_conv.conv.weight[:, :, 0, 0], head.fusion_conv.conv.bias
        blocks = weight.chunk(len(head.convs), dim=1)
        self.fusion = nn.ModuleList(pointwise_of(block, None if i else bias) for i, block in enumerate(blocks))
        self.conv_seg = head.conv_seg

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Four maps, finest first -> logits (B, 1, 4h, 4w)."""
        levels = [fuse(conv(x)) for fuse, conv, x in zip(self.fusion, self.convs, maps, strict=True)]
        total: Tensor = levels[0]
        for level in levels[1:]:
            total = total + F.interpolate(level, size=total.shape[2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.conv_seg(F.relu(total))
        return logits


def split_fusion(network: DeployedSkipClick) -> bool:
    """Fuse the head's levels before enlarging them; see :class:`SplitFusionHead`."""
    network.head = SplitFusionHead(network.head)  # type: ignore[assignment]
    return True


class ShuffledConv(nn.Module):
    """A transposed convolution with kernel = stride = 2, as a 1x1 convolution and a pixel shuffle.

    Each pixel of the input gives 2x2 pixels of its own: output (o, 2i + a, 2j + b) is sum_c W[c, o, a, b] x[c, i, j].
    That is channel (o, a, b) of a 1x1 convolution.

    Args:
        conv: The transposed convolution.
    """

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        bias = None if conv.bias is None else conv.bias.repeat_interleave(4)
        self.conv = pointwise_of(conv.weight.flatten(1).T, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2 H, 2 W)."""
        return F.pixel_shuffle(self.conv(x), 2)


def pixel_shuffle(network: DeployedSkipClick) -> bool:
    """Run transposed convolutions as 1x1 convolutions; see :class:`ShuffledConv`."""

    def make(conv: nn.ConvTranspose2d) -> nn.Module | None:
        return ShuffledConv(conv) if conv.kernel_size == conv.stride == (2, 2) else None

    return replace_modules(network, nn.ConvTranspose2d, make)


def fold_mix_attention(network: DeployedSkipClick) -> bool:
    """Fold the factor and two of the three biases of the mixing blocks' attention.

    See :class:`~mmms_deploy.export.rewrites.vit.PlainViTAttention`.
    """
    return replace_modules(network.backbone_mix, Attention, fold_plain_attention)

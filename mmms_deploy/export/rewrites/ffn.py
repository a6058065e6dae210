"""Mix-FFN in the layout of maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.export.rewrites.deployed import Deployed, pointwise_of, replace_modules
from mmms_deploy.models.segformer import MixFFN, as_map, tokens


class ConvMixFFN(nn.Module):
    """Mix-FFN with its linears as 1x1 convolutions.

    A linear over the channels of tokens is a 1x1 convolution over the same numbers as a map. So tokens become a map
    before the first linear and tokens again after the second, where they have C channels. In the paper's form they
    change on both sides of the depthwise convolution, where they have 4 C channels.

    Args:
        ffn: Mix-FFN in the paper's form.
    """

    def __init__(self, ffn: MixFFN) -> None:
        super().__init__()
        self.fc1 = pointwise_of(ffn.fc1.weight, ffn.fc1.bias)
        self.fc2 = pointwise_of(ffn.fc2.weight, ffn.fc2.bias)
        self.dwconv = ffn.dwconv.dwconv

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H*W, C) -> (B, H*W, C)."""
        return tokens(self.fc2(F.gelu(self.dwconv(self.fc1(as_map(x, height, width))))))


def ffn_as_convs(network: Deployed) -> bool:
    """Run Mix-FFN's linears as 1x1 convolutions; see :class:`ConvMixFFN`."""
    return replace_modules(network, MixFFN, ConvMixFFN)

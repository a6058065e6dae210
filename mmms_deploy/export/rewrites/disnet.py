"""DISNet in a form that engines run faster, and the rewrites for DISNet alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import Deployed, linear_of, replace_modules
from mmms_deploy.models.disnet import DISNet
from mmms_deploy.models.disnet_refinement import ClickSampling, MaskedClickAttention


class DeployedDISNet(Deployed, DISNet):
    """DISNet in a form that engines run faster.

    Args:
        network: The network in the paper's form.
    """

    def __init__(self, network: DISNet) -> None:
        super().__init__(network)
        self.grid = self.coarse_size = network.grid
        for name in self.in_float32:
            self.register_buffer(name, network.get_buffer(name), persistent=False)


class FoldedClickAttention(nn.Module):
    """The masked click attention with its linears on the token's side, not on every place of F.

    There is one query for all places. With a head's rows of the linears, its score at a place is q . (W_k f + b_k) =
    (W_k' q) . f + q . b_k, where W_k' is W_k transposed, and its result is sum a_i (W_v f_i + b_v) = W_v (sum a_i f_i)
    + b_v sum a_i. So the linears see a vector a head in the place of h*w vectors: at 448 x 448 and d = 256 that is 0.1
    in the place of 3.3 GFLOP, and keys and values, as large as F, need not be kept. The key's bias stays: scores are
    multiplied by the decay maps before the softmax. The sum of a softmax is one, and there are two of them.

    Args:
        attention: The attention in the paper's form.
    """

    def __init__(self, attention: MaskedClickAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        query, out = attention.q, attention.out
        bias = None if query.bias is None else query.bias * attention.scale
        self.q = linear_of(query.weight * attention.scale, bias)
        self.register_buffer("keys", self._split(attention.k.weight))
        self.register_buffer("values", self._split(attention.v.weight).transpose(1, 2).contiguous())
        if attention.k.bias is not None:
            self.register_buffer("key_bias", attention.k.bias.reshape(self.heads, -1, 1))
        projected = out.bias if attention.v.bias is None else out.bias + 2 * (out.weight @ attention.v.bias)
        self.out = linear_of(out.weight, projected)

    def _split(self, weight: Tensor) -> Tensor:
        """(d, d) -> (heads, d / heads, d)."""
        return weight.detach().reshape(self.heads, -1, weight.shape[1])

    def forward(self, token: Tensor, features: Tensor, decay: Tensor, log_masks: Tensor) -> Tensor:
        """As :meth:`MaskedClickAttention.forward`."""
        q = self.q(token).reshape(token.shape[0], self.heads, 1, -1)
        scores = (q @ self.get_buffer("keys")).flatten(1, 2) @ features
        if hasattr(self, "key_bias"):
            scores = scores + (q @ self.get_buffer("key_bias")).flatten(1, 2)
        attention = torch.softmax(scores[:, :, None] * decay[:, None] + log_masks[:, None], dim=3).sum(2)
        mixed = (features @ attention.to(features.dtype).transpose(1, 2)).transpose(1, 2)
        heads = mixed[:, :, None] @ self.get_buffer("values")
        out: Tensor = self.out(heads.flatten(1)[:, None])
        return out


def fold_click_attention(network: DeployedDISNet) -> bool:
    """Move the linears of the masked click attention to the token's side; see :class:`FoldedClickAttention`."""
    return replace_modules(network.refine, MaskedClickAttention, FoldedClickAttention)


class GatheredClicks(nn.Module):
    """F at clicks as a gathering of the cells around them, with F as one table of places.

    Sampling a map reads all of it into another layout in some engines, and a half-precision map would have to be
    float32 as a whole, because coordinates of clicks are. Here only four cells a click are read, or one. A place (x, y)
    from -1 to 1 lies at ((x + 1) w - 1) / 2 cells from the first one's centre. Cells outside are those at the border.

    Args:
        sampling: The sampling in the paper's form.
    """

    def __init__(self, sampling: ClickSampling) -> None:
        super().__init__()
        self.nearest = sampling.mode == "nearest"

    def forward(self, features: Tensor, grid: tuple[int, int], places: Tensor) -> Tensor:
        """As :meth:`ClickSampling.forward`, for one picture."""
        (height, width), wide = grid, places.dtype
        x, y = (((places[0, :, n] + 1) * side - 1) / 2 for n, side in ((0, width), (1, height)))
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        if self.nearest:
            return self._read(features, width, x.round(), y.round()).to(wide).transpose(1, 2)
        left, top = x.floor(), y.floor()
        right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
        across, down = x - left, y - top
        columns, rows = torch.cat([left, right, left, right]), torch.cat([top, top, bottom, bottom])
        weights = torch.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down])
        four = self._read(features, width, columns, rows).to(wide)
        mixed = four.reshape(*features.shape[:2], *weights.shape) * weights
        return mixed.sum(2).transpose(1, 2)

    @staticmethod
    def _read(features: Tensor, width: int, columns: Tensor, rows: Tensor) -> Tensor:
        """(1, d, h*w) -> (1, d, M), at whole places (M,)."""
        return features.index_select(2, (rows * width + columns).to(torch.int64))


def gather_clicks(network: DeployedDISNet) -> bool:
    """Read F at clicks by gathering; see :class:`GatheredClicks`."""
    return replace_modules(network.refine, ClickSampling, GatheredClicks)

"""DISNet's refinement: what answers every click after the first (manuscript, equations 5 to 13).

It starts from what the first click and the choice among its proposals left: a token Q_s, the map F, and the selected
mask M_s. There is no previous mask, only the list of clicks grows. A list is padded to any length: a row that holds no
click changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.disnet_config import RefinementConfig
from mmms_deploy.models.disnet_proposals import attended, mask_embedding
from mmms_deploy.models.fpn import layer_norm
from mmms_deploy.models.masked_attention import Attention
from mmms_deploy.models.sine_position import sine_angle, sine_code

CLICK_FIELDS = 4
"""Numbers of a click: x, y in network pixels; 1 positive or 0 negative; 1 for a click or 0 for none."""


class ClickList:
    """A padded list of clicks, taken apart.

    Args:
        clicks: (B, K, 4) float32, oldest first, see :data:`CLICK_FIELDS`. The first row is a positive click.

    Attributes:
        x: (B, K), network pixels.
        y: (B, K), network pixels.
        positive: (B, K) bool: positive clicks, without padding.
        negative: (B, K) bool: negative clicks, without padding.
    """

    def __init__(self, clicks: Tensor) -> None:
        self.x, self.y, sign, present = clicks.unbind(2)
        self.positive = (present > 0.5) & (sign > 0.5)
        self.negative = (present > 0.5) & (sign <= 0.5)

    @property
    def later(self) -> tuple[Tensor, Tensor]:
        """(B, K - 1) bool, twice: the positive clicks after the first, and the negative ones."""
        return self.positive[:, 1:], self.negative[:, 1:]


class DecayMaps(nn.Module):
    """G_p and G_n: how near the next positive, and the next negative click is (equation 5).

    The distance is counted in network pixels from the centre of a cell of F (U12), in float32 in every precision.

    Args:
        size: Network size (H, W).
        grid: Size (h, w) of F.
        first_radius: Radius of the first click.
        radius: Radius of all others.
    """

    in_float32 = ("rows", "columns")
    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], grid: tuple[int, int], first_radius: float, radius: float) -> None:
        super().__init__()
        self.first_radius = first_radius
        self.radius = radius
        for name, pixels, cells in zip(("rows", "columns"), size, grid, strict=True):
            stride = pixels / cells
            centres = (torch.arange(cells, dtype=torch.float32) + 0.5) * stride - 0.5
            self.register_buffer(name, centres, persistent=False)

    def forward(self, clicks: ClickList) -> Tensor:
        """Return G_p and G_n, (B, 2, h, w) float32: 1 at a click, 0 from its radius on, and without a click."""
        down = self.rows[:, None] - clicks.y.float()[:, :, None, None]
        across = self.columns - clicks.x.float()[:, :, None, None]
        distance = torch.sqrt(down * down + across * across)
        near = torch.cat([self._cone(distance[:, :1], self.first_radius), self._cone(distance[:, 1:], self.radius)], 1)
        maps = [(near * kind[:, :, None, None]).amax(1) for kind in (clicks.positive, clicks.negative)]
        return torch.stack(maps, dim=1)

    @staticmethod
    def _cone(distance: Tensor, radius: float) -> Tensor:
        return 1 - distance.clamp(max=radius) / radius


class MaskedClickAttention(nn.Module):
    """Attention from the token to F, inside of the mask near positive clicks, outside of it near negative ones.

    Scores are scaled first, then multiplied by a decay map, and the logarithm of the mask is added last (equations 6 to
    8). Where no click is near, the mask itself is the attention, so that it is never empty. Both attentions share
    linears with a bias, and several heads (U13).

    In the first module keys, values and scores depend on Q_s and F alone, and not on any later click.

    Args:
        dim: d.
        heads: Attention heads.
        bias: Whether the linears for queries, keys and values have a bias.
    """

    def __init__(self, dim: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale: float = (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias)
        self.k = nn.Linear(dim, dim, bias)
        self.v = nn.Linear(dim, dim, bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, token: Tensor, features: Tensor, decay: Tensor, log_masks: Tensor) -> Tensor:
        """Attend.

        Args:
            token: (B, 1, d).
            features: F, (B, d, h*w), rows first.
            decay: G_p and G_n, (B, 2, h*w) float32.
            log_masks: log M and log (1 - M), (B, 2, h*w) float32.

        Returns:
            (B, 1, d).
        """
        places = features.transpose(1, 2)
        q, k, v = self._heads(self.q(token)), self._heads(self.k(places)), self._heads(self.v(places))
        scores = self.scale * (q @ k.transpose(2, 3))
        attention = torch.softmax(scores * decay[:, None] + log_masks[:, None], dim=3)
        mixed = (attention.to(v.dtype) @ v).sum(2, keepdim=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, heads, N, d / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Gate(nn.Module):
    """A factor in (0, 1) for every channel, from a vector (SENet, Hu et al. 2018; U20)."""

    def __init__(self, dim: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim // reduction)
        self.fc2 = nn.Linear(dim // reduction, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x))))


class ConvFFN(nn.Module):
    """An MLP over channels with a depthwise 3x3 convolution inside; norm, residual, width and activation are U21.

    Args:
        dim: d.
        config: The fields that begin with ``conv_``.
    """

    def __init__(self, dim: int, config: RefinementConfig) -> None:
        super().__init__()
        hidden = config.conv_ratio * dim
        self.residual = config.conv_residual
        self.norm: nn.Module = layer_norm(dim) if config.conv_norm else nn.Identity()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation: nn.Module = nn.GELU() if config.conv_activation == "gelu" else nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, h, w) -> (B, d, h, w)."""
        y: Tensor = self.fc2(self.activation(self.dw(self.fc1(self.norm(x)))))
        return x + y if self.residual else y


class ClickSampling(nn.Module):
    """Reads F at clicks (U17).

    Args:
        mode: ``bilinear`` or ``nearest``.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, features: Tensor, grid: tuple[int, int], places: Tensor) -> Tensor:
        """Read.

        Args:
            features: F, (B, d, h*w), rows first.
            grid: (h, w).
            places: (B, K, 2) float32: x and y from -1 to 1 between the edges of the picture.

        Returns:
            (B, K, d) float32.
        """
        sampled = F.grid_sample(
            features.to(places.dtype).reshape(*features.shape[:2], *grid),
            places[:, :, None],
            mode=self.mode,
            padding_mode="border",
            align_corners=False,
        )
        return sampled.squeeze(3).transpose(1, 2)


class RefinementLayer(nn.Module):
    """One module of the refinement: the token attends to F, then the clicks gate F.

    Args:
        dim: d.
        config: The refinement's description.
    """

    def __init__(self, dim: int, config: RefinementConfig) -> None:
        super().__init__()
        self.sample: nn.Module = ClickSampling(config.click_sampling)
        self.mca = MaskedClickAttention(dim, config.attention_heads, bias=config.attention_bias)
        self.norm1 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.ffn)
        self.fc2 = nn.Linear(config.ffn, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.click_proj = nn.Linear(2 * dim, dim)
        self.shared = config.relations == "shared"
        if self.shared:
            self.relation = Attention(dim, config.relation_heads)
        else:
            self.relation_positive = Attention(dim, config.relation_heads)
            self.relation_negative = Attention(dim, config.relation_heads)
        self.se = Gate(dim, config.gate_reduction)
        self.conv_ffn = ConvFFN(dim, config)

    def attend(self, token: Tensor, features: Tensor, decay: Tensor, log_masks: Tensor) -> Tensor:
        """Update the token (B, 1, d); post-norm (U15: SAM's order).

        Args:
            token: (B, 1, d).
            features: F, (B, d, h*w), rows first.
            decay: (B, 2, h*w) float32, from :class:`DecayMaps`.
            log_masks: (B, 2, h*w) float32, see :class:`MaskedClickAttention`.
        """
        token = self.norm1(token + self.mca(token, features, decay, log_masks))
        out: Tensor = self.norm2(token + self.fc2(F.relu(self.fc1(token))))
        return out

    def click_features(self, features: Tensor, grid: tuple[int, int], places: Tensor, vectors: Tensor) -> Tensor:
        """Return A_i, what a module knows of each click (equation 9).

        Args:
            features: F, (B, d, h*w), rows first.
            grid: (h, w).
            places: (B, K, 2) float32, where to sample F: x and y from -1 to 1 between the edges of the picture.
            vectors: P_i, (B, K, d).

        Returns:
            (B, K, d).
        """
        sampled = self.sample(features, grid, places).to(vectors.dtype)
        out: Tensor = self.click_proj(torch.cat([sampled, vectors], dim=2))
        return out

    def guide(self, features: Tensor, mask: Tensor, places: Tensor, vectors: Tensor, clicks: ClickList) -> Tensor:
        """Update F: the first click's relation to the others of each polarity gates it (equations 9 to 13).

        Without another click of a polarity its vector is 0 (U19).

        Args:
            features: F, (B, d, h*w), rows first.
            mask: M_s, (B, 1, h, w).
            places: As for :meth:`click_features`.
            vectors: P_i, (B, K, d).
            clicks: The clicks.

        Returns:
            (B, d, h*w).
        """
        grid = (mask.shape[2], mask.shape[3])
        known = self.click_features(features, grid, places, vectors)
        first, others = known[:, :1], known[:, 1:]
        attentions = [self.relation] * 2 if self.shared else [self.relation_positive, self.relation_negative]
        gates = []
        for attention, there in zip(attentions, clicks.later, strict=True):
            some = there.any(1)[:, None, None]
            blocked = ~there[:, None] & some  # a softmax of nothing is no number
            related = torch.where(some, attended(attention, first, others, others, blocked[:, None]), 0.0)
            gates.append(self.se(related).transpose(1, 2))
        inside = mask.flatten(2)
        gated = features * (gates[0] * inside + gates[1] * (1 - inside))
        out: Tensor = self.conv_ffn(gated.unflatten(2, grid))
        return out.flatten(2)

    def forward(
        self,
        token: Tensor,
        features: Tensor,
        mask: Tensor,
        decay: Tensor,
        log_masks: Tensor,
        places: Tensor,
        vectors: Tensor,
        clicks: ClickList,
    ) -> tuple[Tensor, Tensor]:
        """Return the next token, from the old F, and the next F; see :meth:`attend` and :meth:`guide`."""
        return self.attend(token, features, decay, log_masks), self.guide(features, mask, places, vectors, clicks)


class Refinement(nn.Module):
    """All modules, and the head.

    Args:
        dim: d.
        size: Network size (H, W).
        grid: Size (h, w) of F.
        config: The refinement's description.
    """

    def __init__(self, dim: int, size: tuple[int, int], grid: tuple[int, int], config: RefinementConfig) -> None:
        super().__init__()
        self.size = size
        self.margin = config.mask_margin
        self.decay = DecayMaps(size, grid, config.first_radius, config.radius)
        self.indicator = nn.Parameter(torch.empty(2, dim).normal_(std=0.02))
        self.layers = nn.ModuleList(RefinementLayer(dim, config) for _ in range(config.layers))
        self.mask_embed = mask_embedding(dim)

    def click_vectors(self, clicks: ClickList) -> Tensor:
        """Return P_i, (B, K, d): the sine position of a click's pixel, and what says its polarity (U16: PiClick's).

        The pixel is the one that the click lies in, clamped into the picture.
        """
        dim = self.indicator.shape[1]
        axes = [
            sine_code(sine_angle(place.float().floor().clamp(0, length - 1), length), dim // 2)
            for place, length in zip((clicks.y, clicks.x), self.size, strict=True)
        ]
        positions = torch.cat(axes, dim=2).to(self.indicator.dtype)
        return positions + torch.where(clicks.negative[:, :, None], self.indicator[1], self.indicator[0])

    def places(self, clicks: ClickList) -> Tensor:
        """Return where to sample at clicks (U17), (B, K, 2): x and y from -1 to 1 between the picture's edges."""
        axes = [
            (2 * place + 1) / length - 1 for place, length in zip((clicks.x, clicks.y), self.size[::-1], strict=True)
        ]
        return torch.stack(axes, dim=2)

    def log_masks(self, mask: Tensor) -> Tensor:
        """M_s (B, 1, h, w) -> log M and log (1 - M), (B, 2, h*w); M is kept from 0 and 1 by a margin (U14)."""
        inside = mask.clamp(self.margin, 1 - self.margin)
        return torch.log(torch.cat([inside, 1 - inside], dim=1)).flatten(2)

    def forward(self, token: Tensor, features: Tensor, mask: Tensor, clicks: Tensor) -> Tensor:
        """Answer.

        Args:
            token: Q_s, (B, d).
            features: F, (B, d, h, w), or (B, d, h*w).
            mask: M_s, (B, 1, h, w) float32, probabilities.
            clicks: (B, K, 4) float32, see :class:`ClickList`; K is at least 2.

        Returns:
            Logits (B, 1, h, w).
        """
        listed = ClickList(clicks)
        # In half precision 1 - M would be 0, and places of clicks would move by parts of a cell.
        decay, log_masks = self.decay(listed).flatten(2).to(mask.dtype), self.log_masks(mask)
        places, vectors = self.places(listed), self.click_vectors(listed)
        x, features, inside = token[:, None], features.flatten(2), mask.to(features.dtype)
        for layer in self.layers:
            x, features = layer(x, features, inside, decay, log_masks, places, vectors, listed)
        logits: Tensor = self.mask_embed(x) @ features
        return logits.reshape(mask.shape)

"""InterFormer's image part: a ViT with relative positions, and SimpleClick's feature pyramid on its last map.

The ViT is BEiT's (Bao et al. 2022) with a class token, absolute and relative positions. Modules have the names that
the official checkpoints use; the pyramid lies in the backbone there, and here, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.backbone import check_size
from mmms_deploy.models.backbone_names import NameStyle, Size, State
from mmms_deploy.models.config import Scales
from mmms_deploy.models.fpn import layer_norm
from mmms_deploy.models.frozen_backbone import FrozenBackbone, Shape
from mmms_deploy.models.interformer_config import PATCH, InterFormerConfig
from mmms_deploy.models.segformer import as_map, tokens

NORM_EPS = 1e-6


def position_index(grid: int) -> Tensor:
    """Return which entry of a table of relative positions belongs to a pair of query and key.

    The table has (2 G - 1)^2 entries for pairs of patches, then one for the class token to any key, one for any query
    to the class token, and one for the class token to itself.

    Args:
        grid: G; the patches are G x G.

    Returns:
        (1 + G^2, 1 + G^2) int64, queries first; the class token comes first on either axis.
    """
    rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"))
    side = 2 * grid - 1
    index = torch.empty(1 + grid**2, 1 + grid**2, dtype=torch.int64)
    down, across = rows[:, None] - rows[None, :], columns[:, None] - columns[None, :]
    index[1:, 1:] = (down + grid - 1) * side + across + grid - 1
    index[0, :] = side**2
    index[:, 0] = side**2 + 1
    index[0, 0] = side**2 + 2
    return index


def nearest_places(trained: int, grid: Size) -> Tensor:
    """Return, for every place of a grid (h, w), the place in the trained square grid that "nearest" takes, (h * w,)."""
    places = torch.arange(trained**2, dtype=torch.float32).reshape(1, 1, trained, trained)
    return F.interpolate(places, size=grid, mode="nearest").flatten().long()


class RelativeAttention(nn.Module):
    """Global self-attention with a learned bias for every relative position.

    Args:
        dim: d.
        heads: Attention heads.
        entries: Length of the table of relative positions.
    """

    def __init__(self, dim: int, heads: int, entries: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty(entries, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """(B, N, d), entries of the table for pairs (N, N) -> (B, N, d)."""
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2))
        bias = self.relative_position_bias_table.T[:, index]
        scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3) + bias
        mixed = torch.softmax(scores, dim=3) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class FFN(nn.Module):
    """Two linears with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU()), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        out: Tensor = self.layers(x)
        return out


class ViTBlock(nn.Module):
    """A pre-norm block whose branches are scaled channel by channel.

    Args:
        dim: d.
        heads: Attention heads.
        entries: Length of the table of relative positions.
    """

    def __init__(self, dim: int, heads: int, entries: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = RelativeAttention(dim, heads, entries)
        self.ln2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ffn = FFN(dim)
        self.gamma_1 = nn.Parameter(torch.full((dim,), 0.1))
        self.gamma_2 = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """(B, N, d), entries of the table of relative positions (N, N) -> (B, N, d)."""
        x = x + self.gamma_1 * self.attn(self.ln1(x), index)
        out: Tensor = x + self.gamma_2 * self.ffn(self.ln2(x))
        return out


class PatchEmbed(nn.Module):
    """A convolution with kernel = stride = patch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/16 * W/16, d)."""
        return tokens(self.projection(rgb))


class SimpleFPN(nn.Module):
    """SimpleClick's feature pyramid: four branches from one map.

    Args:
        dim: d, channels of the map.
        widths: C_i.
    """

    def __init__(self, dim: int, widths: Scales) -> None:
        super().__init__()
        w4, w8, w16, w32 = widths
        h4, h8, h32 = max(2 * w4, dim // 2), max(w8, dim // 2), max(w32, 2 * dim)
        self.rescale_ops = nn.ModuleList(
            (
                nn.Sequential(
                    nn.ConvTranspose2d(dim, h4, 2, 2),
                    layer_norm(h4),
                    nn.GELU(),
                    nn.ConvTranspose2d(h4, h4 // 2, 2, 2),
                    layer_norm(h4 // 2),
                    nn.Conv2d(h4 // 2, w4, 1),
                    layer_norm(w4),
                    nn.GELU(),
                ),
                nn.Sequential(
                    nn.ConvTranspose2d(dim, h8, 2, 2), layer_norm(h8), nn.Conv2d(h8, w8, 1), layer_norm(w8), nn.GELU()
                ),
                nn.Sequential(nn.Conv2d(dim, w16, 1), layer_norm(w16), nn.GELU()),
                nn.Sequential(
                    nn.Conv2d(dim, h32, 2, 2), layer_norm(h32), nn.Conv2d(h32, w32, 1), layer_norm(w32), nn.GELU()
                ),
            )
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, d, h, w) -> (B, C_i, ...) at 4, 2, 1 and 1/2 times its size."""
        return tuple(branch(x) for branch in self.rescale_ops)


class InterFormerViT(nn.Module):
    """The ViT, with the pyramid's weights beside it as in the official files; :meth:`forward` runs the ViT alone.

    At another grid than the trained one, positions are taken by "nearest": the map of absolute positions, and of the
    relative ones' bias the class token's row, its column, and the pairs of patches, over keys and over queries. As
    every value is copied from one place, all of it is one choice of places.

    Args:
        config: The network's description.
    """

    def __init__(self, config: InterFormerConfig) -> None:
        super().__init__()
        trained = config.trained_size // PATCH
        self.grid = (config.size[0] // PATCH, config.size[1] // PATCH)
        entries = (2 * trained - 1) ** 2 + 3
        self.patch_embed = PatchEmbed(config.dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + trained**2, config.dim))
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        self.layers = nn.ModuleList(ViTBlock(config.dim, config.heads, entries) for _ in range(config.depth))
        self.fpn = SimpleFPN(config.dim, config.widths)
        index, places = position_index(trained), torch.arange(1 + trained**2)
        self.at_trained_grid = self.grid == (trained, trained)
        if not self.at_trained_grid:
            places = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + nearest_places(trained, self.grid)])
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("index", index[places[:, None], places[None, :]], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, d, H/16, W/16), the last block's patch tokens; there is no norm at the end."""
        x = self.patch_embed(rgb)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        positions = self.pos_embed if self.at_trained_grid else self.pos_embed[:, self.get_buffer("places")]
        x = x + positions
        for layer in self.layers:
            x = layer(x, self.get_buffer("index"))
        return as_map(x[:, 1:], *self.grid)


class OwnNames(NameStyle):
    """The official names; tables stay at the trained grid, because positions are chosen when the network is built."""

    def reads(self, name: str) -> bool:
        """Return True: everything is used."""
        return True

    def to_timm(self, state: State, model: Any, stored: Size | None = None) -> State:
        """Return the weights as they are."""
        return dict(state)


class InterFormerBackbone(FrozenBackbone):
    """The ViT as a backbone: one map, and the pyramid's weights.

    Args:
        config: The network's description.

    Raises:
        SizeError: The network size is no multiple of 32.
    """

    part = "vit"
    patch = (PATCH, PATCH)

    def __init__(self, config: InterFormerConfig) -> None:
        super().__init__()
        check_size(config.size, self.patch)
        self.names = OwnNames()
        self.vit = InterFormerViT(config)
        self._shape = (config.dim, *self.vit.grid)

    def map_shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of the one map."""
        return (self._shape,)

    def watched(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.vit.layers)

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one map (B, d, H/16, W/16)."""
        return (self.vit(rgb),)

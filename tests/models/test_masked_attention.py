"""Masked attention against torch's own attention, and which pixels a query may see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmms_deploy.models.masked_attention import (
    Attention,
    CrossAttentionLayer,
    FFNLayer,
    MaskEmbedding,
    SelfAttentionLayer,
    blocked_by,
    mask_logits,
)

DIM, HEADS = 16, 4


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def pair() -> tuple[Attention, nn.MultiheadAttention]:
    """Ours and torch's, with the same weights under the same names."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = Attention(DIM, HEADS).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@torch.no_grad()
def test_torchs_attention(pair) -> None:
    ours, theirs = pair
    query, key, value = numbers(2, 5, DIM), numbers(2, 7, DIM, seed=1), numbers(2, 7, DIM, seed=2)
    blocked = numbers(2, 1, 5, 7, seed=3) > 0.5
    expected, _ = theirs(query, key, value, attn_mask=blocked.expand(2, HEADS, 5, 7).flatten(0, 1), need_weights=False)
    found = ours(ours.queries(query), ours.keys(key), ours.values(value), blocked)
    torch.testing.assert_close(found, expected)
    assert (ours(ours.queries(query), ours.keys(key), ours.values(value)) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_layers_add_and_normalise(pair) -> None:
    ours, theirs = pair
    x, positions, image = numbers(2, 5, DIM), numbers(2, 5, DIM, seed=1), numbers(2, 9, DIM, seed=2)
    cross, own, ffn = CrossAttentionLayer(DIM, HEADS), SelfAttentionLayer(DIM, HEADS), FFNLayer(DIM, 24)
    for layer, name in ((cross, "multihead_attn"), (own, "self_attn")):
        layer.double().get_submodule(name).load_state_dict(theirs.state_dict())
    found = cross(x, ours.queries(x + positions), ours.keys(image), ours.values(image))
    torch.testing.assert_close(found, cross.norm(x + theirs(x + positions, image, image)[0]))
    torch.testing.assert_close(own(x, positions), own.norm(x + theirs(x + positions, x + positions, x)[0]))
    ffn.double()
    assert ffn(x).mean(dim=2).abs().max() < 1e-9
    assert torch.equal(ffn(x), ffn.norm(x + ffn.linear2(ffn.linear1(x).clamp(min=0))))


def test_a_query_sees_its_mask_and_an_empty_one_everything() -> None:
    masks = torch.full((1, 3, 4, 8), -1.0)
    masks[0, 0, :, 4:] = 1.0
    masks[0, 2] = 0.0
    blocked = blocked_by(masks, (2, 4))
    assert blocked.shape == (1, 1, 3, 8)
    assert blocked[0, 0, 0].reshape(2, 4).tolist() == [[True, True, False, False]] * 2
    assert not blocked[0, 0, 1].any(), "outside everywhere: nothing is blocked"
    assert not blocked[0, 0, 2].any(), "a probability of one half counts as inside"


@torch.no_grad()
def test_masks_of_queries() -> None:
    embed = MaskEmbedding(4).double()
    queries, pixels = numbers(1, 2, 4), numbers(1, 4, 3, 5, seed=1)
    first, second, third = embed.layers
    by_hand = third(second(first(queries).clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(embed(queries), by_hand)
    logits = mask_logits(by_hand, pixels)
    assert logits.shape == (1, 2, 3, 5)
    torch.testing.assert_close(logits[0, 1, 2, 4], by_hand[0, 1] @ pixels[0, :, 2, 4])

"""DISNet against golden numbers of another implementation of the same reading, and its parts by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models import DISNet, DISNetConfig
from mmms_deploy.models.description import convert_description
from mmms_deploy.models.disnet import selected
from mmms_deploy.models.disnet_config import RefinementConfig
from mmms_deploy.models.disnet_proposals import Proposals, best_proposal, object_scores
from mmms_deploy.models.disnet_refinement import (
    ClickList,
    ConvFFN,
    DecayMaps,
    MaskedClickAttention,
    RefinementLayer,
)
from tests.support.disnet import click_list, golden_config, random_disnet, tiny_disnet
from tests.support.families import GoldenFile, probe

TOLERANCE = 2e-4
CLICKS = ((40.25, 30.5, 1), (70.0, 12.0, 0), (20.0, 50.0, 1), (5.0, 6.0, 0))


def kept_outputs(network: DISNet) -> dict[str, Any]:
    """Outputs of modules by name; each run replaces those of the run before."""
    kept: dict[str, Any] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *call, at=name: kept.update({at: call[2]}))
    return kept


@pytest.mark.parametrize("name", ["tiny", pytest.param("base", marks=pytest.mark.slow)])
def test_golden_numbers(name: str) -> None:
    """They come from our own reading of the manuscript, not from its authors."""
    golden = GoldenFile(f"disnet-{name}")
    network = DISNet(golden_config(name)).eval()
    weights = {key: torch.from_numpy(values) for key, values in golden.weights().items()}
    network.load_state_dict(network.adapt(weights, None))
    kept = kept_outputs(network)
    spec, size = network.config.image, network.config.size
    pixels = torch.from_numpy(golden.image()).float() * spec.scale
    rgb = ((pixels - torch.tensor(spec.mean)) / torch.tensor(spec.std)).permute(2, 0, 1)[None]
    clicks = click_list(*((x, y, positive) for y, x, positive in golden.meta["clicks"]))

    def check(key: str, values: Tensor) -> None:
        expected = golden.arrays[key]
        found = probe(values.numpy(), expected.size) if ".probe" in key else values.numpy()
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=TOLERANCE, err_msg=key)

    with torch.no_grad():
        proposals = network.propose(network.encode(rgb)[0], clicks[:, 0])
        for key in (key for key in golden.arrays if key.endswith(".probe0") and not key.startswith("multi_scale")):
            at = key.removesuffix(".probe0")
            values = kept["pixel_decoder.mask_feature" if at == "mask_feature" else at]
            windowed = values.shape[0] > 1  # of one picture
            check(key, network.backbone.out_of_windows(values) if windowed else values)
        for number, level in enumerate(kept["pixel_decoder"][1]):
            check(f"multi_scale{number}.probe0", level)
        step = 1 if name == "tiny" else 2
        check("proposals_low", proposals.masks[:, :, ::step, ::step])
        check("proposals.probe", proposals.masks)
        check("object_logits", proposals.classes)
        check("tokens", proposals.tokens)
        token, logits = selected(proposals, torch.tensor([golden.meta["selected"]]))
        check("selected.probe", logits.sigmoid())
        for number in range(1, clicks.shape[1]):
            low = network.answer(token, proposals.features, logits.sigmoid(), clicks[:, : number + 1])
            for channel, polarity in enumerate(("positive", "negative")):
                check(f"decay_{polarity}.probe{number}", kept["refine.decay"][:, channel])
            for layer in ("refine.layers.0", "refine.layers.1"):
                check(f"{layer}.token.probe{number}", kept[f"{layer}.norm2"])
                check(f"{layer}.click_features.probe{number}", kept[f"{layer}.click_proj"])
                check(f"{layer}.features.probe{number}", kept[f"{layer}.conv_ffn"])
            check(f"logits_low{number}", low)
            large = network.enlarge_logits(low)[0, 0].numpy()
            rows = [7, size[0] // 2, size[0] - 3]
            np.testing.assert_allclose(large[rows], golden.arrays[f"rows{number}"], rtol=0, atol=TOLERANCE)
            mask = np.unpackbits(golden.arrays[f"mask{number}"], count=large.size).reshape(large.shape)
            assert ((large > 0) != mask).sum() <= 2


# --- the first click --------------------------------------------------------------------------------------------------


def test_the_first_click_is_a_disk() -> None:
    """Coordinates are not rounded; the radius counts."""
    network = random_disnet(tiny_disnet(disk_radius=2.0))
    disk = network.disk(torch.tensor([[10.5, 4.0, 1.0, 1.0]]))
    assert disk.shape == (1, 1, 64, 96)
    rows, columns = np.nonzero(disk[0, 0].numpy())
    expected = {(y, x) for y in range(64) for x in range(96) if (x - 10.5) ** 2 + (y - 4) ** 2 <= 4}
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_the_proposals_of_a_first_click() -> None:
    """Shapes, and that only the first click moves them."""
    network = random_disnet(tiny_disnet())
    (patches,) = network.encode(torch.randn(2, 3, 64, 96))
    first = torch.tensor([[20.0, 30.0], [60.0, 10.0]])
    proposals = network.propose(patches, first)
    shapes = [tuple(x.shape) for x in proposals]
    assert shapes == [(2, 5, 16, 24), (2, 5, 16), (2, 5, 2), (2, 16, 16, 24)]
    assert not torch.equal(network.propose(patches, first.flip(0)).masks, proposals.masks)
    alone = network.propose(patches[1:], first[1:])
    torch.testing.assert_close(alone.masks[0], proposals.masks[1], rtol=1e-4, atol=1e-5)


def test_the_best_proposal() -> None:
    """The probability of the object decides, not its logit; of equal ones the first is taken."""
    classes = torch.tensor([[[5.0, 5.0], [1.0, 0.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    assert best_proposal(classes).tolist() == [1, 0]
    even, sure = 0.5, 1 / (1 + math.exp(-1))
    torch.testing.assert_close(object_scores(classes)[0], torch.tensor([even, sure, sure]))


def test_taking_a_proposal() -> None:
    proposals = Proposals(torch.randn(2, 5, 3, 4), torch.randn(2, 5, 8), torch.randn(2, 5, 2), torch.randn(2, 8, 3, 4))
    token, logits = selected(proposals, torch.tensor([4, 1]))
    assert torch.equal(token, torch.stack([proposals.tokens[0, 4], proposals.tokens[1, 1]]))
    assert torch.equal(logits, torch.stack([proposals.masks[0, 4:5], proposals.masks[1, 1:2]]))


# --- later clicks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen() -> tuple[DISNet, Tensor, Tensor, Tensor]:
    """A narrow network, Q_s, F and M_s."""
    generator = torch.Generator().manual_seed(3)
    token, features, mask = (
        torch.randn(1, *shape, generator=generator) for shape in ((16,), (16, 16, 24), (1, 16, 24))
    )
    return random_disnet(tiny_disnet()), token, features, torch.sigmoid(3 * mask)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_padding_changes_nothing(chosen, count) -> None:
    network, *state = chosen
    exact = network.answer(*state, click_list(*CLICKS[:count]))
    for rows in (4, 8, 16):
        padded = network.answer(*state, click_list(*CLICKS[:count], rows=rows))
        torch.testing.assert_close(padded, exact, rtol=1e-5, atol=1e-5)
    more = network.answer(*state, click_list(*CLICKS[:count], (50.0, 40.0, 1)))
    assert (more - exact).abs().max() > 1e-3


@pytest.mark.parametrize("polarity", [0, 1])
def test_without_another_click_of_a_polarity_its_vector_is_zero(chosen, polarity) -> None:
    """By hand: attention to a single click is its value."""
    network, _, features, mask = chosen
    clicks = ClickList(click_list(CLICKS[0], (70.0, 12.0, polarity), rows=4))
    layer, places, vectors = (
        network.refine.layers[0],
        network.refine.places(clicks),
        network.refine.click_vectors(clicks),
    )
    flat = features.flatten(2)
    other = layer.click_features(flat, (16, 24), places, vectors)[:, 1]
    related = layer.relation.out_proj(torch.nn.functional.linear(other, *layer.relation.part(2)))
    there, absent = (layer.se(x)[:, :, None, None] for x in (related, torch.zeros(1, 16)))
    positive, negative = (there, absent) if polarity else (absent, there)
    expected = layer.conv_ffn(features * (positive * mask + negative * (1 - mask)))
    torch.testing.assert_close(layer.guide(flat, mask, places, vectors, clicks), expected.flatten(2))


def test_decay_maps() -> None:
    """Cells are 4 pixels wide, and the first one's centre is 1.5; the first click reaches farther than the others."""
    maps = DecayMaps((64, 96), (16, 24), 15.0, 5.0)
    decay = maps(ClickList(click_list((5.5, 1.5, 1), (41.5, 41.5, 1), (5.5, 1.5, 0), (9.5, 1.5, 0), rows=6)))
    positive, negative = decay[0]
    assert decay.shape == (1, 2, 16, 24)
    torch.testing.assert_close(positive[0, :7], torch.tensor([11.0, 15, 11, 7, 3, 0, 0]) / 15)
    torch.testing.assert_close(positive[1, 2], torch.tensor(1 - math.hypot(4, 4) / 15))
    torch.testing.assert_close(positive[10, 8:13], torch.tensor([0.0, 0.2, 1, 0.2, 0]))
    torch.testing.assert_close(negative[0, :5], torch.tensor([0.2, 1, 1, 0.2, 0]))
    assert not maps(ClickList(click_list(CLICKS[0])))[0, 1].any()


def test_attention_away_from_clicks_is_the_mask() -> None:
    torch.manual_seed(0)
    attention, features, mask = MaskedClickAttention(8, 2, bias=True), torch.randn(1, 8, 12), torch.rand(12)
    shares = torch.stack([mask, 1 - mask])
    found = attention(torch.randn(1, 1, 8), features, torch.zeros(1, 2, 12), shares.log()[None])
    values = attention.v(features[0].T)
    torch.testing.assert_close(found[0, 0], attention.out((shares / shares.sum(1, keepdim=True) @ values).sum(0)))


def test_clicks_scale_the_scores_before_the_mask_is_added() -> None:
    """One head, a token and two places, by hand."""
    torch.manual_seed(0)
    attention, token, features = MaskedClickAttention(4, 1, bias=False), torch.randn(1, 1, 4), torch.randn(1, 4, 2)
    decay, logs = torch.tensor([[[0.5, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]).log()
    scores = (attention.k(features[0].T) @ attention.q(token)[0, 0]) / 2
    weights = torch.softmax(scores * decay[0] + logs[0], dim=1)
    expected = attention.out((weights @ attention.v(features[0].T)).sum(0))
    torch.testing.assert_close(attention(token, features, decay, logs)[0, 0], expected)


def test_a_click_s_vector_is_its_pixel_s_position_and_its_polarity(chosen) -> None:
    """Between pixels the one above and to the left; outside of the picture the nearest."""
    refine = chosen[0].refine
    vectors = refine.click_vectors(ClickList(click_list((3.9, 7.2, 1), (3.0, 7.0, 0), (-4.0, 99.0, 1), (0.0, 63.0, 1))))
    torch.testing.assert_close(vectors[0, 0] - refine.indicator[0], vectors[0, 1] - refine.indicator[1])
    assert torch.equal(vectors[0, 2], vectors[0, 3])
    angle = 2 * math.pi * 8 / (64 + 1e-6)
    position = vectors[0, 0] - refine.indicator[0]
    torch.testing.assert_close(position[:2], torch.tensor([math.sin(angle), math.cos(angle)]))
    torch.testing.assert_close(position[8], torch.tensor(math.sin(2 * math.pi * 4 / (96 + 1e-6))))


def test_what_depends_on_the_first_click_alone(chosen) -> None:
    """Keys and values of the first attention, and the mask's logarithm, see no later click; the second module's do."""
    network, *state = copy.deepcopy(chosen)
    moved: dict[str, bool] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda *call, at=name: moved.update({at: call[2].requires_grad}) if isinstance(call[2], Tensor) else None
        )
    clicks = click_list(*CLICKS).requires_grad_()
    network.answer(*state, clicks)
    for name in ("q", "k", "v"):
        assert not moved[f"refine.layers.0.mca.{name}"]
        assert moved[f"refine.layers.1.mca.{name}"]


def test_respond_runs_the_refinement_from_the_second_click_on() -> None:
    """In a batch each picture has its own number of clicks."""
    network = random_disnet(tiny_disnet())
    rgb = torch.randn(1, 3, 64, 96).expand(2, -1, -1, -1)
    one, three = click_list(CLICKS[0], rows=4), click_list(*CLICKS[:3], rows=4)
    answers = network(rgb, torch.cat([one, three]))
    proposals = network.propose(network.encode(rgb[:1])[0], one[:, 0])
    token, logits = selected(proposals, best_proposal(proposals.classes))
    refined = network.answer(token, proposals.features, logits.sigmoid(), three)
    assert answers.shape == (2, 1, 64, 96)
    torch.testing.assert_close(answers[:1], network.enlarge_logits(logits), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answers[1:], network.enlarge_logits(refined), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(rgb[:1], one[:, :1]), answers[:1], rtol=1e-4, atol=1e-4)


# --- the description --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "expected"), [("cross_first", "cross self"), ("self_first", "self cross")])
def test_the_order_of_a_proposal_layer(order, expected) -> None:
    network = random_disnet(tiny_disnet(proposals={"order": order, "layers": 2}))
    ran: list[str] = []
    for layer in network.proposal.layers:
        for name in ("cross", "self"):
            getattr(layer, f"{name}_attn").register_forward_hook(lambda *_, at=name: ran.append(at))
    network.propose(network.encode(torch.randn(1, 3, 64, 96))[0], torch.tensor([[5.0, 5.0]]))
    assert " ".join(ran) == f"{expected} {expected}"


def layer_of(**fields: Any) -> RefinementLayer:
    torch.manual_seed(0)
    return RefinementLayer(16, RefinementConfig(ffn=16, gate_reduction=4, **fields))


def test_how_f_is_sampled_at_a_click() -> None:
    """At the corner of four cells the mean of them, or one of them."""
    features, places = torch.randn(1, 16, 4, 4), torch.zeros(1, 1, 2)
    given = (features.flatten(2), (4, 4), places, torch.zeros(1, 1, 16))
    mean = layer_of().click_features(*given)
    one = layer_of(click_sampling="nearest").click_features(*given)
    project, none = layer_of().click_proj, torch.zeros(16)
    torch.testing.assert_close(mean[0, 0], project(torch.cat([features[0, :, 1:3, 1:3].mean((1, 2)), none])))
    corners = [project(torch.cat([features[0, :, y, x], none])) for y in (1, 2) for x in (1, 2)]
    assert any(torch.allclose(one[0, 0], corner, atol=1e-6) for corner in corners)


def test_the_switches_of_the_convolutional_mlp() -> None:
    torch.manual_seed(0)
    whole, x = ConvFFN(16, RefinementConfig()), torch.randn(1, 16, 4, 5)
    for fields in ({"conv_residual": False}, {"conv_norm": False}, {"conv_activation": "relu"}):
        other = ConvFFN(16, RefinementConfig(**fields))
        other.load_state_dict(whole.state_dict(), strict="conv_norm" not in fields)
        inside = whole.fc1(whole.norm(x) if "conv_norm" not in fields else x)
        activation = torch.relu if "conv_activation" in fields else torch.nn.functional.gelu
        expected = whole.fc2(activation(whole.dw(inside))) + (0 if "conv_residual" in fields else x)
        torch.testing.assert_close(other(x), expected)
        assert not torch.allclose(other(x), whole(x), atol=1e-3)


def test_switches_that_change_the_weights() -> None:
    usual = set(layer_of().state_dict())
    assert usual - set(layer_of(attention_bias=False).state_dict()) == {f"mca.{name}.bias" for name in "qkv"}
    assert usual - set(layer_of(conv_norm=False).state_dict()) == {"conv_ffn.norm.weight", "conv_ffn.norm.bias"}
    separate = layer_of(relations="separate")
    assert len(set(separate.state_dict()) - usual) == 2 * len([name for name in usual if name.startswith("relation.")])
    assert layer_of(conv_ratio=2).conv_ffn.dw.weight.shape[0] == 32
    assert tuple(layer_of().se.fc1.weight.shape) == (4, 16)
    network = DISNet(tiny_disnet(neck_hidden=(6, 7, 9), pixels={"points": 3, "groups": 8}))
    assert [network.neck.down_4[0].out_channels, network.neck.down_8[0].out_channels] == [6, 7]
    assert network.neck.down_32[0].out_channels == 9
    assert network.pixel_decoder.lateral_conv.gn.num_groups == 8
    assert network.pixel_decoder.encoder.layers[0].self_attn.attention_weights.out_features == 4 * 3 * 3


def test_separate_relations_answer_for_their_polarity(chosen) -> None:
    features, mask = chosen[2].flatten(2), chosen[3]
    network = random_disnet(tiny_disnet(refinement={"relations": "separate"}))
    layer = network.refine.layers[0]

    def guided(*clicks: tuple[float, float, int]) -> Tensor:
        listed = ClickList(click_list(*clicks))
        return layer.guide(features, mask, network.refine.places(listed), network.refine.click_vectors(listed), listed)

    both = [(CLICKS[0], CLICKS[2]), (CLICKS[0], CLICKS[1])]
    before = [guided(*clicks) for clicks in both]
    layer.relation_negative.out_proj.bias += 1.0
    after = [guided(*clicks) for clicks in both]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_radii_and_the_margin_of_the_mask() -> None:
    network = random_disnet(tiny_disnet(refinement={"first_radius": 60.0, "radius": 20.0, "mask_margin": 0.125}))
    decay = network.refine.decay(ClickList(click_list((1.5, 1.5, 1), (1.5, 1.5, 0))))[0]
    torch.testing.assert_close(decay[:, 0, 1], torch.tensor([1 - 4 / 60, 1 - 4 / 20]))
    logs = network.refine.log_masks(torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3))[0].exp()
    torch.testing.assert_close(logs, torch.tensor([[0.125, 0.5, 0.875], [0.875, 0.5, 0.125]]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities": [{"name": "depth"}]}, "RGB alone"),
        ({"clicks": {}}, "clicks.memory must be 'clicks'"),
        ({"clicks": {"points": {}}}, "without clicks.points"),
        ({"proposals": {"count": 1}}, "count of the proposals must be at least 2"),
        ({"disk_radius": 0.0}, "disk_radius must be positive"),
        ({"width": 30}, "multiple of 4"),
        ({"width": 36}, "cannot be split by heads of the pixel decoder"),
        ({"neck_hidden": [1, 1, 1]}, "neck_hidden"),
        ({"pixel_decoder": {"points": 0}}, "points"),
        ({"proposals": {"count": 0}}, "count"),
        ({"proposals": {"order": "both"}}, "order"),
        ({"refinement": {"radius": 0.0}}, "radii must be positive"),
        ({"refinement": {"mask_margin": 0.5}}, "mask_margin"),
        ({"refinement": {"conv_ratio": 0}}, "conv_ratio"),
        ({"refinement": {"relations": "none"}}, "relations"),
    ],
)
def test_impossible_descriptions(fields, message) -> None:
    with pytest.raises(DescriptionError, match=message):
        convert_description({"family": "disnet", **fields}, DISNetConfig, "a test")


# --- as graphs --------------------------------------------------------------------------------------------------------


class Image(torch.nn.Module):
    """The image's part alone."""

    def __init__(self, network: DISNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> Tensor:
        return self.network.encode(rgb)[0]


class FirstClick(Image):
    """The first click's part alone."""

    def forward(self, patches: Tensor, click: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(self.network.propose(patches, click))


class LaterClick(Image):
    """The later clicks' part alone."""

    def forward(self, token: Tensor, features: Tensor, mask: Tensor, clicks: Tensor) -> Tensor:  # type: ignore[override]
        return self.network.answer(token, features, mask, clicks)


@pytest.mark.slow
def test_the_three_parts_as_onnx(tmp_path) -> None:
    """ONNX Runtime answers as torch does, with and without a click of a polarity."""
    import onnxruntime

    network = random_disnet(tiny_disnet())
    rgb, clicks = torch.randn(1, 3, 64, 96), click_list(*CLICKS[:3], rows=6)
    patches = network.encode(rgb)[0]
    proposals = network.propose(patches, clicks[:, 0])
    token, logits = selected(proposals, best_proposal(proposals.classes))
    state = (token, proposals.features, logits.sigmoid())
    positive, negative = (click_list(CLICKS[0], CLICKS[at], rows=6) for at in (2, 1))
    parts: list[tuple[torch.nn.Module, list[tuple[Tensor, ...]]]] = [
        (Image(network), [(rgb,), (torch.randn(1, 3, 64, 96),)]),
        (FirstClick(network), [(patches, clicks[:, 0]), (patches, torch.tensor([[80.0, 50.0, 1.0, 1.0]]))]),
        (LaterClick(network), [(*state, clicks), (*state, positive), (*state, negative)]),
    ]
    for part, cases in parts:
        path = tmp_path / f"{type(part).__name__}.onnx"
        torch.onnx.export(part.eval(), cases[0], str(path), dynamo=True, opset_version=21, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        for case in cases:
            expected = part(*case)
            found = session.run(None, {name: x.numpy() for name, x in zip(names, case, strict=True)})
            for ours, theirs in zip([expected] if isinstance(expected, Tensor) else expected, found, strict=True):
                np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-4)

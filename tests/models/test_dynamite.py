"""DynaMITe: its authors' numbers, padded lists of clicks, the folded form, the decision, and its graphs in ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmms_deploy.export.network import OPSET
from mmms_deploy.models.dynamite import DynaMITe, Labelled
from mmms_deploy.models.dynamite_config import DynaMITeConfig, MiTConfig
from mmms_deploy.models.families import build_network
from mmms_deploy.models.masked_attention import Attention, FoldedAttention, FoldedValues
from tests.support.dynamite import Click, click_list, golden_steps, random_dynamite, tiny_dynamite
from tests.support.families import GoldenFile, probe

CLICKS: list[Click] = [(10.0, 20.0, 0, 1), (50.5, 8.25, 1, 2), (30.0, 33.0, 2, 0), (22.0, 12.0, 3, 1)]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module", params=["swin", "mit"])
def network(request) -> DynaMITe:
    return random_dynamite(request.param).double()


@pytest.fixture(scope="module")
def features(network) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return network.features(numbers(1, 3, 40, 60))


# --- the authors' numbers ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mit_b0", "swin_tiny"])
@torch.no_grad()
def test_the_authors_numbers(name) -> None:
    """All layers, masks and labels, closed loop, in both forms of the attention of pixels."""
    golden = GoldenFile(f"dynamite-{name}")
    mit = MiTConfig() if name == "mit_b0" else None
    network = build_network(DynaMITeConfig(size=tuple(golden.meta["size"]), mit=mit)).eval()
    assert isinstance(network, DynaMITe)
    weights = {key: torch.from_numpy(value) for key, value in golden.weights().items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not missing
    assert unexpected == ["sem_seg_head.interactive_transformer.bg_query"]
    ran: dict[str, Any] = {}
    for part, module in network.sem_seg_head.named_modules():
        module.register_forward_hook(lambda _, __, out, part=part: ran.__setitem__(part, out))
    image = network.config.image
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (image.mean, image.std))
    maps = network.encode((torch.from_numpy(golden.image()).permute(2, 0, 1)[None] - mean) / std)
    features = network.mix(maps, {})
    stages = [f"mit{n}" for n in range(1, 5)] if mit else [f"res{n}" for n in range(2, 6)]
    inner = {**dict(zip(stages, maps, strict=True)), "mask_features": features[0].unflatten(2, maps[0].shape[2:])}
    inner |= {f"multi_scale{n}": features[2 + n] for n in range(3)}
    for part, found in inner.items():
        expected = golden.arrays[f"{part}.probe"]
        np.testing.assert_allclose(probe(found.numpy(), len(expected)), expected, rtol=0, atol=5e-5, err_msg=part)
    for form in ("as written", "folded"):
        if form == "folded":
            network.fold(100)
        for step, (rows, objects) in enumerate(golden_steps(golden.meta)):
            clicks = click_list(rows)
            coarse = network.coarse_logits(features, clicks)
            probed = [part for part in ran if f"{part}.probe{step}" in golden.arrays]
            assert len(probed) >= 37, "three layers of nine, two of five"
            for part in probed:
                expected = golden.arrays[f"{part}.probe{step}"]
                np.testing.assert_allclose(probe(ran[part].numpy(), len(expected)), expected, rtol=0, atol=5e-5)
            expected = golden.arrays[f"pred_masks.probe{step}"]
            worst = float(np.abs(probe(coarse.numpy(), len(expected)) - expected).max())
            labels = network.label(network.enlarge_logits(coarse), clicks, objects).labels[0, 0].numpy()
            shape = (objects, *golden.meta["original_size"])
            theirs = np.unpackbits(golden.arrays[f"masks{step}"])[: np.prod(shape)].reshape(shape).astype(bool)
            differing = sum(int(((labels == n + 1) != mask).sum()) for n, mask in enumerate(theirs))
            print(f"{name}, {form}, step {step}: {worst:.1e}, {differing} pixels")
            assert worst <= 2e-4
            assert differing <= 6


# --- a list with a fixed number of rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_rows_without_a_click_change_nothing(network, features, folded) -> None:
    network = build_folded(network) if folded else network
    short, learned = click_list(CLICKS).double(), network.config.background_queries
    expected = network.respond(features, short)
    decided = network.label(expected, short, 2)
    for rows in (8, 16, 32):
        clicks = click_list(CLICKS, rows).double()
        found = network.respond(features, clicks)
        torch.testing.assert_close(found[:, : len(CLICKS)], expected[:, : len(CLICKS)], rtol=0, atol=1e-9)
        torch.testing.assert_close(found[:, -learned:], expected[:, -learned:], rtol=0, atol=1e-9)
        again = network.label(found, clicks, 2)
        assert torch.equal(again.labels, decided.labels)
        for one, other in zip(again[1:], decided[1:], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
        clicks[:, len(CLICKS) :, :4] = torch.nan
        assert torch.equal(network.respond(features, clicks)[:, : len(CLICKS)], found[:, : len(CLICKS)])


@torch.no_grad()
def test_the_order_of_rows_does_not_matter(network, features) -> None:
    order = [2, 0, 3, 1]
    expected = network.respond(features, click_list(CLICKS).double())
    found = network.respond(features, click_list([CLICKS[n] for n in order]).double())
    torch.testing.assert_close(found[:, : len(order)], expected[:, order], rtol=0, atol=1e-9)


@torch.no_grad()
def test_every_number_of_a_click_counts(network, features) -> None:
    expected = network.respond(features, click_list(CLICKS).double())
    for changed in ((12.0, 20.0, 0, 1), (10.0, 22.0, 0, 1), (10.0, 20.0, 4, 1)):
        other = network.respond(features, click_list([changed, *CLICKS[1:]]).double())
        assert (other - expected).abs().max() > 1e-5
    moved = network.respond(features, click_list([(10.0, 20.0, 0, 0), *CLICKS[1:]]).double())
    assert torch.equal(moved, expected), "the object matters where it is decided, not before"


@torch.no_grad()
def test_no_click_at_all(network, features) -> None:
    clicks = click_list([], 8).double()
    answer = network.label(network.respond(features, clicks), clicks, 3)
    assert not answer.labels.any()
    assert bool((answer.objects == -torch.inf).all())
    assert bool(answer.background.isfinite().all())


# --- image and clicks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "blocks"), [("swin", 5), ("mit", 4)])
def test_the_backbones_blocks_are_watched(kind, blocks) -> None:
    watched = random_dynamite(kind).watched()
    assert len(watched) == len(set(watched)) == blocks


@torch.no_grad()
def test_what_crosses_to_the_clicks(network, features) -> None:
    levels = [(1, 32, 2, 2), (1, 32, 4, 4), (1, 32, 8, 8)]
    pairs = [shape for n in (4, 16, 64) for shape in ((1, 8, 4, n), (1, 8, n, 4))]
    assert [tuple(x.shape) for x in features] == [(1, 32, 256), (1, 256, 32), *levels, (1, 8, 256, 4), *pairs]
    assert len(network.feature_names) == len(set(network.feature_names)) == len(features)


@torch.no_grad()
def test_a_click_runs_nothing_of_the_images(network, features, monkeypatch) -> None:
    """Neither backbone nor pixel decoder, nor a key or value of an attention to the image."""
    transformer = network.sem_seg_head.interactive_transformer

    def forbidden(*_: object) -> Tensor:
        raise AssertionError("computed at a click")

    for layer in transformer.encoder.cross_attention_layers:
        monkeypatch.setattr(layer.multihead_attn, "keys", forbidden)
        monkeypatch.setattr(layer.multihead_attn, "values", forbidden)
    monkeypatch.setattr(transformer.decoder.cross_attention_layers[0].multihead_attn, "queries", forbidden)
    monkeypatch.setattr(network.backbone, "forward", forbidden)
    monkeypatch.setattr(network.sem_seg_head.pixel_decoder, "forward", forbidden)
    assert network.respond(features, click_list(CLICKS).double()).shape == (1, 6, 40, 60)


@torch.no_grad()
def test_a_picture_is_filled_up_and_cut_again() -> None:
    """Zeros after the normalisation, at the right and at the bottom: as a network of the filled-up size sees them."""
    small = random_dynamite("mit").double()
    whole = build_network(tiny_dynamite("mit", size=(64, 64))).eval().double()
    whole.load_state_dict(small.state_dict())
    rgb, clicks = numbers(1, 3, 40, 60), click_list(CLICKS).double()
    filled = nn.functional.pad(rgb, (0, 4, 0, 24))
    torch.testing.assert_close(small(rgb, clicks), whole(filled, clicks)[..., :40, :60])


# --- the folded form --------------------------------------------------------------------------------------------------


def build_folded(network: DynaMITe) -> DynaMITe:
    folded = build_network(network.config).eval().double()
    assert isinstance(folded, DynaMITe)
    folded.load_state_dict(network.state_dict())
    folded.fold(100)
    return folded


@pytest.mark.parametrize("form", [FoldedValues, FoldedAttention])
@torch.no_grad()
def test_a_folded_attention_answers_the_same(form) -> None:
    plain = Attention(16, 4).double()
    for parameter in plain.parameters():
        parameter.copy_(numbers(*parameter.shape))
    folded = form(plain)
    x, y, blocked = numbers(2, 9, 16), numbers(2, 5, 16, seed=1), torch.tensor([0, 0, 1, 0, 1], dtype=torch.bool)
    one, other = (a(a.queries(x), a.keys(y), a.values(x[:, :5]), blocked) for a in (plain, folded))
    assert one.std() > 0.5
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert dict(folded.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert all(a is b for a, b in zip(plain.parameters(), folded.parameters(), strict=True)), "shared, not copied"


@torch.no_grad()
def test_the_folded_network_answers_the_same(network, features) -> None:
    folded, clicks = build_folded(network), click_list(CLICKS, 8).double()
    layers = folded.sem_seg_head.interactive_transformer.decoder.cross_attention_layers
    assert [type(layer.multihead_attn) for layer in layers] == [FoldedValues, FoldedAttention]
    found, expected = folded.respond(features, clicks), network.respond(features, clicks)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert folded.state_dict().keys() == network.state_dict().keys()


@torch.no_grad()
def test_many_queries_are_not_folded() -> None:
    """Eight heads and 256 channels: the folded form saves multiplications for up to 36 keys."""
    plain = Attention(256, 8)
    folded = FoldedAttention(plain)
    assert folded.form(36) is folded
    many = folded.form(37)
    assert type(many) is Attention
    assert all(a is b for a, b in zip(many.parameters(), plain.parameters(), strict=True)), "shared, not copied"
    x, y = (torch.rand(1, n, 256) for n in (3, 37))
    expected = plain(plain.queries(x), plain.keys(y), plain.values(y))
    assert torch.equal(many(many.queries(x), many.keys(y), many.values(y)), expected)


# --- the decision -----------------------------------------------------------------------------------------------------


class TestDecision:
    """On maps of 1 x 1 pixel; the tiny network has two learned background queries."""

    CLICKS: tuple[Click, ...] = ((0, 0, 0, 1), (0, 0, 1, 2), (0, 0, 2, 0), (0, 0, 3, 1))

    def decide(self, logits: list[float], objects: int = 2, clicks: tuple[Click, ...] = CLICKS) -> Labelled:
        network = random_dynamite()
        return network.label(torch.tensor(logits).reshape(1, -1, 1, 1), click_list(clicks), objects)

    @pytest.mark.parametrize(
        ("logits", "label"),
        [
            ([0, 1, 2, 5, 3, 4], 1),  # the second click on object 1
            ([0, 6, 2, 5, 3, 4], 2),
            ([0, 6, 7, 5, 3, 4], 0),  # a background click
            ([0, 6, 2, 5, 3, 8], 0),  # a learned query
            ([6, 6, 2, 5, 3, 4], 1),  # a tie of objects
            ([0, 4, 2, 3, 3, 4], 2),  # a tie with the background
            ([-9, -8, -9, -9, -9, -9], 2),  # no threshold
        ],
    )
    def test_the_largest_map_wins(self, logits, label) -> None:
        answer = self.decide(logits)
        assert answer.labels.dtype == torch.uint8
        assert answer.labels.shape == (1, 1, 1, 1)
        assert answer.labels.item() == label
        assert answer.objects.flatten().tolist() == [max(logits[0], logits[3]), logits[1]]
        assert answer.background.item() == max(logits[2], *logits[4:])

    def test_an_object_without_a_click_never_wins(self) -> None:
        answer = self.decide([-5, -5, -9, -5, -9, -9], objects=3)
        assert answer.labels.item() == 1
        assert answer.objects[0, 2].item() == -torch.inf

    def test_clicks_on_objects_beyond_the_last_are_left_out(self) -> None:
        assert self.decide([0, 9, 2, 1, 0, 0], objects=1).labels.item() == 0

    @pytest.mark.parametrize("objects", [0, 256])
    def test_impossible_numbers_of_objects(self, objects) -> None:
        with pytest.raises(ValueError, match="from 1 to 255"):
            self.decide([0.0] * 6, objects=objects)


# --- graphs -----------------------------------------------------------------------------------------------------------


class ImagePart(nn.Module):
    """RGB to features."""

    def __init__(self, network: DynaMITe) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        return self.network.features(rgb)


class ClickPart(ImagePart):
    """Clicks and features to the decision."""

    def forward(self, clicks: Tensor, *features: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return self.network.label(self.network.respond(features, clicks), clicks, 2)


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_both_parts_as_graphs(folded, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    network = random_dynamite()
    if folded:
        network.fold(100)
    rgb, clicks = numbers(1, 3, 40, 60).float(), click_list(CLICKS, 8)
    features = network.features(rgb)
    for part, given in ((ImagePart(network), (rgb,)), (ClickPart(network), (clicks, *features))):
        program = torch.onnx.export(part.eval(), given, dynamo=True, opset_version=OPSET, verbose=False)
        assert program is not None
        program.save(str(tmp_path / "part.onnx"))
        operators = {node.op_type for node in program.model.graph}
        assert not operators & {"NonZero", "Loop", "If"}
        session = ort.InferenceSession(str(tmp_path / "part.onnx"), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        found = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        expected = part(*given)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-4)


# --- operations -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_operations_of_the_published_network() -> None:
    """Swin-T at 448 x 448 with 12 queries: what the image costs, what a click costs, and what folding saves."""

    def giga(part: Any, *given: Any) -> tuple[float, Any]:
        with FlopCounterMode(display=False) as counter:
            answer = part(*given)
        return counter.get_total_flops() / 1e9, answer

    with torch.device("meta"), torch.no_grad():
        network = build_network(DynaMITeConfig())
        assert isinstance(network, DynaMITe)
        image, features = giga(network.features, torch.empty(1, 3, 448, 448))
        click, _ = giga(network.coarse_logits, features, torch.empty(1, 3, 5))
        network.fold(100)
        folded, _ = giga(network.coarse_logits, features, torch.empty(1, 3, 5))
    print(f"image {image:.2f}, click {click:.2f}, folded {folded:.2f} GFLOP")
    assert image == pytest.approx(99.2, abs=0.5)
    assert click == pytest.approx(49.9, abs=0.5)
    assert folded == pytest.approx(40.0, abs=1.5)

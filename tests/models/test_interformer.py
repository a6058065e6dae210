"""InterFormer against golden numbers of its authors' network, and its parts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmms_deploy.errors import DescriptionError, SizeError
from mmms_deploy.evaluation.checkpoint_predictor import TorchPredictor
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import InterFormer, InterFormerConfig
from mmms_deploy.models.adaptive_pool import adaptive_max_pool, adaptive_mean_pool
from mmms_deploy.models.checkpoint import parse_description, random_network
from mmms_deploy.models.families import build_network
from mmms_deploy.models.interformer_neck import Downsample, PooledAttention, pooled_side
from mmms_deploy.models.interformer_vit import InterFormerViT, position_index
from tests.support.families import GoldenFile, probe
from tests.support.interformer import expected_labels, expected_mask, golden_file, tiny_interformer

TOLERANCE = 2e-4


def check_golden(name: str, path: Path) -> None:
    """Open the file, click through it and feed the authors' labels; compare everything that the golden file keeps."""
    golden = GoldenFile(name)
    golden_file(golden, path)
    network = open_source(Source(checkpoint=path, overrides={"size": golden.meta["size"]})).network
    assert isinstance(network, InterFormer)
    config = network.config
    kept: dict[str, torch.Tensor] = {}
    for module_name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, at=module_name: kept.update({at: out}))
    spec = config.image
    pixels = torch.from_numpy(golden.image()).float() * spec.scale
    rgb = ((pixels - torch.tensor(spec.mean)) / torch.tensor(spec.std)).permute(2, 0, 1)[None]
    probes = {key.partition(".probe")[0] for key in golden.arrays if ".probe" in key}
    with torch.no_grad():
        features = network.features(rgb)
        for step, box in enumerate(golden.meta["roi"]):
            labels = torch.from_numpy(expected_labels(golden, step))[None, None].float()
            logits = network.class_logits(features, labels, None if box is None else tuple(box))
            worst = np.abs(logits.numpy() - golden.arrays[f"logits_low{step}"]).max()
            print(f"{name} step {step}: largest difference of a logit {worst:.2g}")
            assert worst < TOLERANCE
            seen = 0
            for at in probes & kept.keys():
                np.testing.assert_allclose(
                    probe(kept[at].numpy()), golden.arrays[f"{at}.probe{step}"], atol=TOLERANCE, err_msg=at
                )
                seen += 1
            assert seen > 10
            margin = network.enlarge_logits(logits[:, 1:] - logits[:, :1])[0, 0].numpy()
            rows = golden.arrays[f"rows{step}"]
            places = [7, config.size[0] // 2, config.size[0] - 3]
            np.testing.assert_allclose(margin[places], rows[1] - rows[0], atol=TOLERANCE)
            assert ((margin > 0) != expected_mask(golden, step)).sum() <= 3
    predictor = TorchPredictor(network)
    predictor.set_image(golden.image())
    # Closed loop, its own labels fed back; the last step of the golden file refines a part of the picture only.
    for step, (row, column, positive) in enumerate(golden.meta["clicks"][: len(golden.meta["clicks"]) - 1]):
        answer = predictor.click(column, row, bool(positive))
        assert (answer.mask != expected_mask(golden, step)).sum() <= 3


def test_the_small_golden_network(tmp_path) -> None:
    """The grid differs from the trained one, and the last step refines a part of the picture only."""
    check_golden("interformer-mini", tmp_path / "mini.pth")


@pytest.mark.slow
def test_the_golden_network_at_full_size(tmp_path) -> None:
    check_golden("interformer-light", tmp_path / "light.pth")


@pytest.mark.parametrize(("size", "count"), [((48, 37), (4, 37)), ((16, 13), (11, 5)), ((10, 10), (10, 3))])
def test_adaptive_pooling_is_torch_s(size, count) -> None:
    x = torch.randn(2, 3, *size)
    assert torch.equal(adaptive_max_pool(x, count), functional.adaptive_max_pool2d(x, count))
    torch.testing.assert_close(adaptive_mean_pool(x, count), functional.adaptive_avg_pool2d(x, count))


def test_how_far_keys_are_pooled() -> None:
    """At 512 x 512 the first stage has 246 keys (11, 8, 6 and 5 squared); other sizes keep about as many."""
    assert [pooled_side(128, 128, ratio) for ratio in (12, 16, 20, 24)] == [11, 8, 6, 5]
    assert [pooled_side(16, 16, ratio) for ratio in (2, 3, 4)] == [8, 5, 4]
    assert pooled_side(4, 128, 12) == 4
    attention = PooledAttention(8, 2, (12, 16, 20, 24), 128)
    keys, values = attention.keys_and_values(torch.randn(1, 8, 128, 128))
    assert (keys.shape, values.shape) == ((1, 2, 4, 246), (1, 2, 246, 4))


def test_downsampling_is_an_unfolded_linear() -> None:
    layer, x = Downsample(4, 6), torch.randn(2, 4, 8, 10)
    unfolded = functional.unfold(x, 3, padding=1, stride=2).transpose(1, 2)
    expected = layer.reduction(layer.norm(unfolded)).transpose(1, 2).reshape(2, 6, 4, 5)
    torch.testing.assert_close(layer(x), expected)


def test_relative_positions_of_a_small_grid() -> None:
    index = position_index(2)
    assert index.tolist() == [
        [11, 9, 9, 9, 9],
        [10, 4, 3, 1, 0],
        [10, 5, 4, 2, 1],
        [10, 7, 6, 4, 3],
        [10, 8, 7, 5, 4],
    ]


def test_another_grid_takes_the_nearest_positions() -> None:
    """As resizing the maps themselves does: positions; the bias over keys, then over queries."""
    vit = InterFormerViT(tiny_interformer(size=(32, 96), trained_size=64))
    table = torch.randn(2, 17, 17)
    chosen = table[:, vit.places[:, None], vit.places[None, :]]
    over_keys = functional.interpolate(table[:, 1:, 1:].reshape(2, 16, 4, 4), (2, 6)).flatten(2)
    over_both = (
        functional.interpolate(over_keys.transpose(1, 2).reshape(2, 12, 4, 4), (2, 6)).flatten(2).transpose(1, 2)
    )
    assert torch.equal(chosen[:, 1:, 1:], over_both)
    row = functional.interpolate(table[:, 0, 1:].reshape(1, 2, 4, 4), (2, 6)).flatten(2)[0]
    assert torch.equal(chosen[:, 0, 1:], row)
    assert torch.equal(chosen[:, 0, 0], table[:, 0, 0])


def test_refining_blocks_leave_what_is_outside_of_the_box() -> None:
    network = random_network(tiny_interformer(refine_depths=(1, 1, 1, 1)), 0)
    assert isinstance(network, InterFormer)
    refine, x = network.neck.refine_stages[0], torch.randn(1, 8, 16, 24)
    with torch.no_grad():
        whole, part = refine(x), refine(x, (8, 4, 16, 12))
    outside = torch.ones(16, 24, dtype=torch.bool)
    outside[4:12, 8:16] = False
    assert torch.equal(part[..., outside], x[..., outside])
    assert not torch.equal(part[..., ~outside], x[..., ~outside])
    assert not torch.equal(part, whole)


def test_the_published_network_s_size() -> None:
    """97.37 M parameters in the official file, of which .07 M are the training's second head."""
    with torch.device("meta"):
        network = build_network(InterFormerConfig())
    count = sum(p.numel() for p in network.parameters())
    assert round(count / 1e6, 2) == 97.3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": {"name": "dinov2_b14_reg"}}, "unknown field `backbone`"),
        ({"modalities": [{"name": "depth"}]}, "takes RGB alone"),
        ({"clicks": {}}, "clicks.memory must be 'labels'"),
        ({"trained_size": 500}, "trained_size must be a positive multiple of 16"),
        ({"neck_heads": [3, 2, 4, 8]}, "width 32 cannot be split into 3 attention heads"),
        ({"depths": [0, 1, 2, 1]}, "must be at least 1"),
    ],
)
def test_descriptions_that_are_none(fields, message) -> None:
    with pytest.raises(DescriptionError, match=message):
        parse_description({"family": "interformer", **fields}, "this")


def test_a_size_that_does_not_fit() -> None:
    with pytest.raises(SizeError, match="network width 100"):
        build_network(tiny_interformer(size=(64, 100)))

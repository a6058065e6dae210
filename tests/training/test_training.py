"""The training tools on tiny data: scenes, clicks, losses, a few steps, and continuing after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("cv2")

from mmms_deploy.models import MMMS, BackboneConfig, EncoderConfig, FuserConfig, MMMSConfig
from mmms_deploy.training.clicks import RADIUS, ClickMaps, draw_disk, squared_depth
from mmms_deploy.training.losses import normalized_focal_loss, soft_iou_loss
from tests.support.davis import write_davis
from training.batches import Batch, Batches, collate
from training.davis import HELD_OUT, TrainingDataError, read_frames, split, with_regions
from training.evaluate import curve
from training.guides import Guides
from training.items import held_out_items, object_items
from training.predictor import Predictor, load_network
from training.publish import publish
from training.recipe import Phase, Recipe, build, demo_config
from training.samples import MIN_AREA, SampleMaker
from training.train import Run, run_training
from training.weights import resized_state

SIZE = 32


def tiny_config(size: int = SIZE) -> MMMSConfig:
    stages = EncoderConfig(depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), reductions=(8, 4, 2, 1), mlp_ratio=2)
    overrides = {"patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2}
    return MMMSConfig(
        size=(size, size),
        widths=(8, 8, 16, 16),
        fpn_hidden=(16, 16, 16, 16),
        backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides=overrides),
        csnet=stages,
        fuser=FuserConfig(encoder=stages),
        head_width=16,
    )


def tiny_recipe(**changes: object) -> Recipe:
    settings: dict[str, object] = {
        "phases": (Phase(SIZE, 4, 4),),
        "targets": 2,
        "rounds": (2, 3),
        "round_weights": (0.5, 0.5),
        "warmup": 2,
        "learning_rate": 2e-3,
        "seed": 7,
    }
    return Recipe(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training sequences and a held-out one, three small frames each."""
    return write_davis(tmp_path_factory.mktemp("davis"), ("cows", "soapbox", HELD_OUT[0]), 3)


# --- data -------------------------------------------------------------------------------------------------------------


def test_held_out_sequences_are_never_trained_on(davis: Path) -> None:
    training, held = split(davis)
    assert training == ("cows", "soapbox")
    assert held == (HELD_OUT[0],)
    batches = Batches(tiny_recipe(), davis, davis / "cache.npz")
    assert {frame.sequence for frame in batches._maker(SIZE).frames} == {"cows", "soapbox"}


def test_a_missing_folder_or_mask_is_named(davis: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="no folder"):
        split(tmp_path)
    (tmp_path / "images" / "cows").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "cows" / "00000.jpg")
    with pytest.raises(TrainingDataError, match="has no mask"):
        read_frames(tmp_path, ["cows"])


def test_regions_leave_out_the_object_and_are_cached(davis: Path, tmp_path: Path) -> None:
    frames = read_frames(davis, ["cows"])
    cache = tmp_path / "regions.npz"
    first = with_regions(frames, cache, every=2)
    assert [frame.regions is not None for frame in first] == [True, False, True]
    regions = first[0].regions
    assert regions is not None
    assert regions.shape[1:] == (36, 64)
    assert not regions[:, 12:24, 18:38].any()  # the object, well inside
    assert regions[:, :5].all()  # far from it every pixel has a region
    written = cache.stat().st_mtime_ns
    again = with_regions(frames, cache, every=2)
    assert cache.stat().st_mtime_ns == written
    np.testing.assert_array_equal(again[2].regions, first[2].regions)


@pytest.mark.parametrize("drawn_only", [True, False])
def test_samples_are_valid_and_functions_of_seed_and_index(davis: Path, tmp_path: Path, drawn_only: bool) -> None:
    frames = [] if drawn_only else with_regions(read_frames(davis, ["cows", "soapbox"]), tmp_path / "r.npz")
    maker, same, other = (SampleMaker(frames, 64, 3, seed) for seed in (3, 3, 4))
    samples = [maker(i) for i in range(25)]
    for index, sample in enumerate(samples):
        assert sample.image.shape == (64, 64, 3)
        assert sample.image.dtype == np.uint8
        assert sample.targets.shape == (3, 64, 64)
        assert set(np.unique(sample.targets)) == {0, 1}
        assert sample.regions.shape == (3,)
        for target in sample.targets:
            assert MIN_AREA < target.mean() < 0.9
        repeated = same(index)
        np.testing.assert_array_equal(repeated.image, sample.image)
        np.testing.assert_array_equal(repeated.targets, sample.targets)
    assert any((other(i).image != samples[i].image).any() for i in range(3))
    assert len({sample.image.tobytes() for sample in samples}) == 25


def test_a_pasted_object_hides_what_lies_below() -> None:
    for index in range(30):
        targets = SampleMaker([], 64, 3, 1)(index).targets
        for a, b in ((0, 1), (0, 2), (1, 2)):
            if (targets[a] != targets[b]).any():
                assert (targets[a] & targets[b]).mean() < 0.02  # soft edges only


def test_the_batch_of_a_step_does_not_depend_on_earlier_steps(davis: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(phases=(Phase(32, 2, 2), Phase(64, 2, 1)))
    a, b = (Batches(recipe, davis, tmp_path / "r.npz") for _ in range(2))
    assert [a[step].images.shape for step in range(4)] == [(2, 3, 32, 32)] * 2 + [(1, 3, 64, 64)] * 2
    assert torch.equal(b[3].images, a[3].images)
    assert not a[0].present.any()
    assert recipe.first_image(3) == 5


# --- clicks -----------------------------------------------------------------------------------------------------------


def test_a_disk_holds_the_pixels_within_five() -> None:
    channel = np.zeros((40, 40), np.float32)
    draw_disk(channel, 20.3, 18.6)
    yy, xx = np.mgrid[:40, :40]
    np.testing.assert_array_equal(channel, ((xx - 20.3) ** 2 + (yy - 18.6) ** 2 <= RADIUS**2).astype(np.float32))


def test_a_disk_at_the_border_is_cut_off() -> None:
    channel = np.zeros((10, 10), np.float32)
    draw_disk(channel, -0.4, 9.2)
    yy, xx = np.mgrid[:10, :10]
    np.testing.assert_array_equal(channel, ((xx + 0.4) ** 2 + (yy - 9.2) ** 2 <= RADIUS**2).astype(np.float32))


def test_training_clicks_fall_on_errors() -> None:
    targets = np.zeros((3, 64, 64), np.uint8)
    targets[:, 10:50, 10:40] = 1
    maps = ClickMaps(targets, np.random.default_rng(0))
    maps.first()
    assert (maps.maps[:, 0].reshape(3, -1).sum(1) >= 60).all()
    before = maps.maps.copy()
    everything = np.ones((3, 64, 64), bool)
    maps.correct(everything)
    np.testing.assert_array_equal(maps.maps[:, 0], before[:, 0])  # no object is missing: only negative clicks
    assert (maps.maps[:, 1].reshape(3, -1).sum(1) > before[:, 1].reshape(3, -1).sum(1)).all()
    assert maps.iou(targets.astype(bool)) == 1
    assert maps.iou(everything) == pytest.approx(1200 / 4096)


def test_depth_counts_the_border_and_is_squared_and_whole() -> None:
    assert squared_depth(np.ones((5, 5), bool)).max() == 9
    plus = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    np.testing.assert_array_equal(squared_depth(plus), [[0, 1, 0], [1, 2, 1], [0, 1, 0]])


# --- losses -----------------------------------------------------------------------------------------------------------


def test_normalized_focal_loss_by_hand() -> None:
    probabilities = torch.tensor([0.9, 0.2, 0.6, 0.5], dtype=torch.float64)
    truth = torch.tensor([1.0, 0.0, 0.0, 1.0])
    p_t = torch.tensor([0.9, 0.8, 0.4, 0.5], dtype=torch.float64)
    focal = (1 - p_t) ** 2
    expected = (0.5 * focal / focal.sum() * 4 * -p_t.log()).mean()
    logits = torch.logit(probabilities).float().view(1, 1, 2, 2)
    assert normalized_focal_loss(logits, truth.view(1, 1, 2, 2)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_losses_are_one_number_a_mask_and_finite_for_certain_logits() -> None:
    logits = torch.tensor([80.0, -80.0]).repeat(2, 1, 4, 4).requires_grad_()
    truth = (torch.arange(8) % 2).repeat(2, 1, 4, 1)
    for loss in (normalized_focal_loss(logits, truth), soft_iou_loss(logits, truth)):
        assert loss.shape == (2,)
        assert torch.isfinite(loss).all()
        (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_soft_iou_loss_falls_with_the_overlap() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    good, bad = (truth * 2 - 1) * 9, (truth.flip(3) * 2 - 1) * 9
    assert soft_iou_loss(good, truth).item() < 0.01
    assert soft_iou_loss(bad, truth).item() > 0.95


def test_the_guides_loss_is_small_where_features_tell_targets_apart() -> None:
    truth = torch.zeros(2, 1, SIZE, SIZE)
    truth[0, :, :16, :16] = truth[1, :, 16:, 8:24] = 1
    seeds = torch.zeros_like(truth)
    seeds[0, :, 4:8, 4:8] = seeds[1, :, 20:28, 12:20] = 1
    owner = torch.zeros(2, dtype=torch.long)
    guides = Guides((8, 8, 16, 16), dim=4)
    with torch.no_grad():
        for convolution in guides.embed:
            convolution.weight.zero_()
            convolution.bias.zero_()
            for channel in range(3):
                convolution.weight[channel, channel] = 1
        guides.boundary.weight.zero_()

    def features(separate: bool) -> tuple[torch.Tensor, ...]:
        maps = []
        for scale, width in ((4, 8), (8, 8), (16, 16), (32, 16)):
            share = torch.nn.functional.avg_pool2d(truth, scale)[:, 0]
            label = torch.stack([1 - share[0] - share[1], share[0], share[1]])
            if not separate:
                label = torch.ones_like(label)
            maps.append(torch.cat([label, torch.zeros(width - 3, *label.shape[1:])])[None])
        return tuple(maps)

    assert guides(features(True), owner, truth, seeds) < 0.7 * guides(features(False), owner, truth, seeds)


def test_the_click_part_starts_by_comparing_features() -> None:
    from mmms_deploy.models.segformer import EfficientAttention

    found = [m for m in build(tiny_config()).csnet.modules() if isinstance(m, EfficientAttention)]
    assert len(found) == 4
    for attention in found:
        width = attention.q.out_features
        assert torch.equal(attention.kv.weight[:width], attention.q.weight)
        assert not torch.equal(attention.kv.weight[width:], attention.q.weight)


def test_plain_scenes_come_first_and_fade() -> None:
    def plain(index: int) -> bool:
        image = SampleMaker([], 64, 1, 5, plain_until=100)(index).image
        return bool((image[1:] == image[:-1]).all(-1).mean() > 0.5)

    early, late = sum(map(plain, range(40))), sum(map(plain, range(100, 140)))
    assert early > late + 5


# --- training ---------------------------------------------------------------------------------------------------------


def batch_of(count: int = 4, targets: int = 2) -> Batch:
    return collate([SampleMaker([], SIZE, targets, 11)(i) for i in range(count)])


def states_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_loss_falls_on_one_batch() -> None:
    recipe = tiny_recipe(phases=(Phase(SIZE, 40, 4),), learning_rate=3e-3, rounds=(2,), round_weights=(1.0,), gamma=0.0)
    run = Run(recipe, tiny_config(), torch.device("cpu"), threads=2)
    batch = batch_of()
    results = [run.train_step(batch) for _ in range(40)]
    first, last = (np.mean([rounds[1].loss for rounds in part]) for part in (results[:4], results[-4:]))
    assert last < 0.8 * first
    assert results[-1][1].iou > results[0][1].iou + 0.1


def test_replicas_share_weights_and_collect_the_whole_gradient() -> None:
    runs = [Run(tiny_recipe(), tiny_config(), torch.device("cpu"), threads=n) for n in (1, 2)]
    assert all(
        a.data_ptr() == b.data_ptr()
        for a, b in zip(runs[1]._replicas[0].parameters(), runs[1]._replicas[1].parameters(), strict=True)
    )
    for run in runs:
        run.train_step(batch_of())
        assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())
    assert states_equal(dict(runs[1]._replicas[0].named_buffers()), dict(runs[1]._replicas[1].named_buffers()))


def test_a_step_forgets_the_gradients_of_the_step_before() -> None:
    run = Run(tiny_recipe(learning_rate=0.0, clip=1e9), tiny_config(), torch.device("cpu"), threads=2)
    batch = batch_of()
    gradients = []
    for _ in range(2):
        run.step = 0  # the same clicks again
        run.train_step(batch)
        gradients.append({n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None})
    assert states_equal(*gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients[0].values())


def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    recipe = tiny_recipe(phases=(Phase(32, 3, 4), Phase(64, 3, 2)))
    batches = Batches(recipe, None, tmp_path / "none.npz")

    def fresh() -> Run:
        return Run(recipe, tiny_config(64), torch.device("cpu"), threads=2)

    whole = fresh()
    for step in range(recipe.steps):
        whole.train_step(batches[step])
    for stop in (2, 4):  # within the first phase, and within the second
        part = fresh()
        for step in range(stop):
            part.train_step(batches[step])
        part.save(tmp_path / "state.pt")
        resumed = fresh()
        resumed.load(tmp_path / "state.pt")
        assert resumed.step == stop
        for step in range(stop, recipe.steps):
            resumed.train_step(batches[step])
        assert states_equal(resumed.model.state_dict(), whole.model.state_dict())
        assert states_equal(resumed.average.state_dict(), whole.average.state_dict())
    assert not list(tmp_path.glob("*.part"))


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    Run(tiny_recipe(), tiny_config(), torch.device("cpu")).save(tmp_path / "state.pt")
    other = Run(tiny_recipe(seed=8), tiny_config(), torch.device("cpu"))
    with pytest.raises(ValueError, match="other settings"):
        other.load(tmp_path / "state.pt")


def test_averaged_weights_follow_and_their_batch_statistics_too() -> None:
    run = Run(tiny_recipe(ema_decay=0.5), tiny_config(), torch.device("cpu"))
    name = "csnet.decode_head.linear_fuse.bn.running_var"
    before = run.average.state_dict()[name].clone()
    run.train_step(batch_of())
    decay = min(0.5, 2 / 11)
    expected = before + (1 - decay) * (run.model.state_dict()[name] - before)
    torch.testing.assert_close(run.average.state_dict()[name], expected)
    assert not torch.equal(before, expected)


def test_resizing_changes_the_position_table_only() -> None:
    small, large = build(tiny_config(32)), MMMS(tiny_config(64))
    state = small.state_dict()
    resized = resized_state(state, large)
    large.load_state_dict(resized)
    changed = {name for name in state if state[name].shape != resized[name].shape}
    assert changed == {"backbone.vit.pos_embed"}


def test_rates_warm_up_hold_and_come_down() -> None:
    recipe = Recipe(phases=(Phase(32, 100, 1), Phase(64, 50, 1)), warmup=10, learning_rate=1.0, final_rate=0.1)
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(9) == 1.0
    assert recipe.rate(99) == recipe.rate(100) == 1.0
    assert recipe.rate(125) == pytest.approx(0.55)
    assert recipe.rate(150) == pytest.approx(0.1)


def test_a_run_from_the_command_to_measured_weights(davis: Path, tmp_path: Path) -> None:
    from rich.console import Console

    recipe = tiny_recipe(phases=(Phase(32, 1, 2), Phase(64, 1, 1)), targets=1)
    out = tmp_path / "runs" / "tiny"
    quiet = Console(quiet=True)
    run_training(recipe, davis, out, config=tiny_config(64), workers=0, console=quiet)
    again = run_training(recipe, davis, out, config=tiny_config(64), workers=0, console=quiet)
    assert again.step == recipe.steps
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == recipe.steps
    size = publish(out / "weights.safetensors", tmp_path / "demo.safetensors")
    exact, stored = (load_network(path) for path in (out / "weights.safetensors", tmp_path / "demo.safetensors"))
    assert exact.config == stored.config == tiny_config(64)
    assert size < (out / "weights.safetensors").stat().st_size * 0.7
    for name, value in exact.state_dict().items():
        assert stored.state_dict()[name].dtype == value.dtype
        torch.testing.assert_close(stored.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    predictor = Predictor(stored)
    (item, *_) = held_out_items(davis)
    values = curve(predictor, item, max_clicks=3)
    assert 1 <= len(values) <= 3
    assert all(0 <= value <= 1 for value in values)


# --- prediction and the data to measure on ----------------------------------------------------------------------------


def test_the_predictor_follows_the_demos_rules() -> None:
    model = build(tiny_config(SIZE)).eval()
    predictor = Predictor(model)
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    predictor.set_image(image)
    mask = predictor.click(89, 0, True)
    assert mask.shape == (50, 90)
    # Half-pixel centres: (89 + 0.5) * 32 / 90 - 0.5 = 31.32, (0 + 0.5) * 32 / 50 - 0.5 = -0.18.
    expected = np.zeros((SIZE, SIZE), np.float32)
    draw_disk(expected, 89.5 * SIZE / 90 - 0.5, 0.5 * SIZE / 50 - 0.5)
    np.testing.assert_array_equal(predictor._maps[0], expected)
    assert not predictor._maps[1].any()
    predictor.click(3, 3, False)
    assert predictor._maps[1].any()
    second = predictor.click(40, 25, True)
    predictor.reset()
    assert not predictor._maps.any()
    assert (predictor.click(89, 0, True) == mask).all()
    predictor.click(3, 3, False)
    assert (predictor.click(40, 25, True) == second).all()


def test_object_masks_have_void(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.array([[0, 128, 255], [255, 0, 128]], np.uint8)).save(tmp_path / "masks" / "a.png")
    (item,) = object_items(tmp_path)
    np.testing.assert_array_equal(item.truth, [[False, False, True], [True, False, False]])
    np.testing.assert_array_equal(item.void, [[False, True, False], [False, False, True]])


def test_the_demo_network_fits_into_ten_megabytes() -> None:
    state = MMMS(demo_config()).state_dict()
    assert sum(value.numel() for value in state.values()) * 2 < 9_950_000

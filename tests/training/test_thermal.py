"""The demo with a thermal image: conditions, drawn thermal images, starting from the RGB demo, learning to use heat."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("cv2")

from mmms_deploy.models import MMMS, BackboneConfig, EncoderConfig, FuserConfig, MMMSConfig
from mmms_deploy.models.checkpoint import save_checkpoint
from mmms_deploy.training.mixing import mix_batch
from training import evaluate as evaluate_module
from training import predictor as predictor_module
from training.batches import Batches, collate
from training.conditions import Condition, disguise, draw_condition, expose
from training.davis import HELD_OUT
from training.evaluate import curve, evaluate, summaries_of
from training.evaluate import main as measure_checkpoints
from training.items import Item, drawn_items, mfnet_items, thermal_frame_items
from training.predictor import Predictor, load_network
from training.recipe import Demo, Phase, Recipe, build, config_for, initial_network, recipe_for
from training.samples import Sample, SampleMaker
from training.thermal import THERMAL, thermal_image
from training.train import Run, parameter_groups
from training.weights import warm_start

SIZE = 32


def tiny(*, thermal: bool, size: int = SIZE) -> MMMSConfig:
    stages = EncoderConfig(depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), reductions=(8, 4, 2, 1), mlp_ratio=2)
    return MMMSConfig(
        size=(size, size),
        widths=(8, 8, 16, 16),
        fpn_hidden=(16, 16, 16, 16),
        backbone=BackboneConfig(
            name="timm:vit_tiny_patch16_224",
            overrides={"patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2},
        ),
        modalities=(THERMAL,) if thermal else (),
        csnet=stages,
        fuser=FuserConfig(encoder=stages),
        head_width=16,
    )


def tiny_recipe(**changes: object) -> Recipe:
    settings: dict[str, object] = {
        "phases": (Phase(SIZE, 40, 6),),
        "targets": 1,
        "rounds": (1,),
        "round_weights": (1.0,),
        "warmup": 2,
        "learning_rate": 3e-3,
        "plain_until": 0,
        "thermal": 0.6,
        "seed": 7,
    }
    return Recipe(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Bright noise with a dark disk: (96, 128, 3) float32 and the disk (96, 128) float32."""
    yy, xx = np.mgrid[:96, :128]
    disk = (((xx - 60) ** 2 + (yy - 50) ** 2) < 25**2).astype(np.float32)
    ground = np.random.default_rng(1).uniform(120, 200, (96, 128, 3)).astype(np.float32)
    return ground * (1 - 0.8 * disk[..., None]), disk


# --- conditions -------------------------------------------------------------------------------------------------------


def contrast(rgb: np.ndarray, disk: np.ndarray) -> float:
    """Difference of the mean colours inside and outside, 0..255."""
    inside = disk > 0.5
    return float(np.abs(rgb[inside].mean(0) - rgb[~inside].mean(0)).max())


@pytest.mark.parametrize("condition", list(Condition))
def test_a_condition_hides_what_good_light_shows(scene: tuple[np.ndarray, np.ndarray], condition: Condition) -> None:
    rgb, disk = scene
    plain, hidden = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ground = np.random.default_rng(1).uniform(120, 200, rgb.shape).astype(np.float32)
        seen = disguise(rng, rgb, ground, [disk], 0) if condition is Condition.CAMOUFLAGE else rgb
        seen = expose(rng, seen, condition)
        assert seen.shape == rgb.shape
        assert seen.dtype == np.float32
        assert 0 <= seen.min() <= seen.max() <= 255
        plain.append(contrast(rgb, disk))
        hidden.append(contrast(seen, disk))
    if condition is Condition.PLAIN:
        assert hidden == plain
    else:
        assert np.median(hidden) < 0.5 * np.median(plain)


def test_a_disguise_leaves_the_background_alone(scene: tuple[np.ndarray, np.ndarray]) -> None:
    rgb, disk = scene
    changed = 0
    for seed in range(20):
        cloaked = disguise(np.random.default_rng(seed), rgb, rgb, [disk], own=1)
        np.testing.assert_array_equal(cloaked[disk == 0], rgb[disk == 0])
        changed += bool((cloaked[disk > 0] != rgb[disk > 0]).any())
    assert 8 < changed < 20  # some objects keep their own look


def test_conditions_are_drawn_as_often_as_asked(rng: np.random.Generator) -> None:
    drawn = [draw_condition(rng, 0.6) for _ in range(600)]
    assert 0.53 < np.mean([condition is not Condition.PLAIN for condition in drawn]) < 0.67
    assert set(drawn) == set(Condition)
    assert all(draw_condition(rng, 0.0) is Condition.PLAIN for _ in range(20))


# --- thermal images ---------------------------------------------------------------------------------------------------


def test_telling_objects_differ_from_their_background(scene: tuple[np.ndarray, np.ndarray]) -> None:
    rgb, disk = scene
    inside = disk > 0.5

    def differences(telling: float) -> list[float]:
        found = []
        for seed in range(30):
            image = thermal_image(np.random.default_rng(seed), rgb, [disk], telling)
            assert image.shape == disk.shape
            assert image.dtype == np.uint8
            found.append(float(image[inside].mean()) - float(image[~inside].mean()))
        return found

    told, untold = differences(1.0), differences(0.0)
    assert np.median(np.abs(told)) > 2 * np.median(np.abs(untold))
    assert min(told) < -10 < 10 < max(told)  # colder objects and warmer ones


def test_no_threshold_finds_the_objects() -> None:
    """The best threshold of each picture, chosen with the true mask, is far from a mask."""
    from mmms_deploy.replay.metrics import iou

    best = []
    for item in drawn_items(6, side=64):
        thermal = item.modalities["thermal"]
        levels = np.percentile(thermal, np.arange(2, 100, 4))
        masks = [side for level in levels for side in (thermal > level, thermal <= level)]
        best.append(max(iou(mask, item.truth) for mask in masks))
    assert len(best) == 30
    assert np.mean(best) < 0.75


def test_pictures_with_and_without_thermal_images_are_mixed() -> None:
    maker, again, rgb_only = (SampleMaker([], 64, 2, 3, thermal=t) for t in (0.7, 0.7, None))
    samples = [maker(i) for i in range(60)]
    share = np.mean([sample.thermal is not None for sample in samples])
    assert 0.5 < share < 0.9
    for index, sample in enumerate(samples[:10]):
        same, plain = again(index), rgb_only(index)
        np.testing.assert_array_equal(same.image, sample.image)
        assert plain.thermal is None
        np.testing.assert_array_equal(plain.targets, sample.targets)  # the scene itself is the same
        if sample.thermal is not None:
            assert sample.thermal.shape == (64, 64)
            np.testing.assert_array_equal(same.thermal, sample.thermal)
    assert any((rgb_only(i).image != samples[i].image).any() for i in range(10))


def test_a_mirrored_picture_has_its_thermal_image_mirrored() -> None:
    """Heat lies on the objects in every picture, mirrored or not."""
    differences = []
    for index in range(40):
        sample = SampleMaker([], 64, 1, 5, thermal=1.0, condition=Condition.NIGHT)(index)
        assert sample.thermal is not None
        truth = sample.targets[0].astype(bool)

        def difference(mask: np.ndarray, thermal: np.ndarray = sample.thermal) -> float:
            return abs(float(thermal[mask].mean()) - float(thermal[~mask].mean()))

        differences.append((difference(truth), difference(truth[:, ::-1])))
    right, wrong = np.mean(differences, axis=0)
    assert right > 1.5 * wrong


def test_a_condition_can_be_asked_for() -> None:
    night = [SampleMaker([], 64, 1, 5, thermal=1.0, condition=Condition.NIGHT)(i).image.mean() for i in range(12)]
    glare = [SampleMaker([], 64, 1, 5, thermal=1.0, condition=Condition.GLARE)(i).image.mean() for i in range(12)]
    assert np.mean(night) < 60 < 180 < np.mean(glare)


# --- the network and its start ----------------------------------------------------------------------------------------


def inputs(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 3, SIZE, SIZE, generator=generator),
        torch.randn(count, 1, SIZE, SIZE, generator=generator),
    )


def test_a_quiet_fuser_hardly_changes_the_features_and_still_learns() -> None:
    torch.manual_seed(0)
    loud, model = MMMS(tiny(thermal=True)), build(tiny(thermal=True))
    rgb, heat = inputs()

    def change(network: MMMS) -> float:
        plain, fused = network.features(rgb), network.features(rgb, {"thermal": heat})
        return max(
            float((a - b).abs().mean().detach() / a.abs().mean().detach()) for a, b in zip(plain, fused, strict=True)
        )

    assert change(model) < 0.4 < change(loud)
    sum(feature.square().sum() for feature in model.features(rgb, {"thermal": heat})).backward()
    assert model.fuser is not None
    silent = [n for n, p in model.fuser.encoders.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias moves all of a query's scores alike; softmax ignores it.
    assert not [name for name in silent if not name.endswith("kv.bias")]
    assert model.fuser.cross_4.attn["thermal"].proj.weight.grad.any()  # type: ignore[union-attr, index]


def test_a_warm_start_answers_as_the_checkpoint_without_thermal_image(tmp_path: Path) -> None:
    start = build(tiny(thermal=False, size=64)).eval()
    save_checkpoint(tmp_path / "rgb.safetensors", start)
    recipe = tiny_recipe(start=str(tmp_path / "rgb.safetensors"))
    model = initial_network(tiny(thermal=True, size=64), recipe).eval()
    rgb = torch.randn(1, 3, 64, 64)
    for a, b in zip(model.features(rgb), start.features(rgb), strict=True):
        torch.testing.assert_close(a, b)
    smaller = initial_network(tiny(thermal=True), recipe)  # the position table is resampled
    assert torch.equal(smaller.csnet.decode_head.linear_pred.weight, start.csnet.decode_head.linear_pred.weight)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    other = msgspec.structs.replace(tiny(thermal=False), head_width=8)
    save_checkpoint(tmp_path / "other.safetensors", build(other))
    with pytest.raises(ValueError, match="another network"):
        warm_start(MMMS(tiny(thermal=True)), tmp_path / "other.safetensors")


def test_what_comes_from_the_checkpoint_learns_at_its_own_rate(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "rgb.safetensors", build(tiny(thermal=False)))
    recipe = tiny_recipe(start=str(tmp_path / "rgb.safetensors"), start_rate=0.25)
    model = initial_network(tiny(thermal=True), recipe)
    groups = parameter_groups(model, recipe)
    assert model.fuser is not None
    fresh = {id(p) for p in model.fuser.parameters()}
    for group in groups:
        own = {id(p) for p in group["params"]}
        assert group["share"] == (1.0 if own & fresh else 0.25)
        assert not own & fresh or own <= fresh
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    run = Run(recipe, tiny(thermal=True), torch.device("cpu"), threads=1)
    run.train_step(collate([SampleMaker([], SIZE, 1, 1, thermal=0.5)(i) for i in range(4)]))
    assert sorted({round(group["lr"] / recipe.rate(0), 6) for group in run.optimizer.param_groups}) == [0.25, 1.0]


def test_pictures_without_a_thermal_image_pass_by_the_fuser() -> None:
    model = build(tiny(thermal=True)).eval()
    assert model.fuser is not None
    for parameter in model.fuser.parameters():
        torch.nn.init.normal_(parameter)
    rgb, heat = inputs()
    present = torch.tensor([True, False, True, False])

    def image_features(present: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return mix_batch(model, model.encode(rgb), {"thermal": heat}, {"thermal": present})

    mixed = image_features(present)
    with_it, without = model.features(rgb, {"thermal": heat}), model.features(rgb)
    for ours, full, plain in zip(mixed, with_it, without, strict=True):
        torch.testing.assert_close(ours[[0, 2]], full[[0, 2]])
        torch.testing.assert_close(ours[[1, 3]], plain[[1, 3]])
    for given, expected in ((torch.ones(4, dtype=torch.bool), with_it), (torch.zeros(4, dtype=torch.bool), without)):
        for ours, theirs in zip(image_features(given), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


# --- training ---------------------------------------------------------------------------------------------------------


def hot_sample(index: int) -> Sample:
    """A black picture with a small or a large hot square; a click in its middle does not tell how large it is."""
    rng = np.random.default_rng(index)
    half = int(rng.choice((4, 13)))
    target = np.zeros((SIZE, SIZE), np.uint8)
    target[16 - half : 16 + half, 16 - half : 16 + half] = 1
    heat = np.full((SIZE, SIZE), 60, np.uint8) + np.uint8(120) * target
    return Sample(np.zeros((SIZE, SIZE, 3), np.uint8), target[None], np.zeros(1, bool), heat)


def test_a_short_training_learns_to_use_the_heat() -> None:
    torch.manual_seed(0)
    run = Run(tiny_recipe(guide_weight=0.0), tiny(thermal=True), torch.device("cpu"), threads=1)
    for step in range(40):
        run.train_step(collate([hot_sample(6 * step + i) for i in range(6)]))
    predictor = Predictor(run.averaged())
    means: dict[bool, list[float]] = {True: [], False: []}
    for index in range(1000, 1012):
        sample = hot_sample(index)
        assert sample.thermal is not None
        truth = sample.targets[0] > 0
        item = Item(str(index), sample.image, truth, np.zeros_like(truth), {"thermal": sample.thermal})
        for given, values in means.items():
            values.append(curve(predictor, item, 1, modalities=given)[0])
    assert np.mean(means[True]) > np.mean(means[False]) + 0.1


def test_a_batch_says_which_pictures_have_a_thermal_image(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    batch = Batches(recipe, None, tmp_path / "none.npz")[0]
    assert batch.thermal.shape == (6, 1, SIZE, SIZE)
    assert batch.thermal.dtype == torch.uint8
    assert [bool(heat.any()) for heat in batch.thermal] == batch.present.tolist()
    assert 0 < batch.present.sum() < 6
    halves = [batch.share(k, 2) for k in range(2)]
    assert torch.equal(halves[1].thermal, batch.thermal[1::2])


def test_the_demos_have_recipes_of_their_own() -> None:
    assert recipe_for(Demo.RGB) == Recipe()
    assert recipe_for(Demo.RGB).thermal is None
    assert not config_for(Demo.RGB).modalities
    config, recipe = config_for(Demo.THERMAL), recipe_for(Demo.THERMAL)
    assert recipe.start == "demo-small"
    assert recipe.thermal is not None
    assert 0.6 < recipe.thermal < 0.9
    assert [spec.name for spec in config.modalities if spec.optional] == ["thermal"]
    assert sum(value.numel() for value in MMMS(config).state_dict().values()) * 2 < 12_000_000


# --- what is measured -------------------------------------------------------------------------------------------------


def test_held_out_scenes_are_not_those_of_the_training() -> None:
    items = list(drawn_items(2, side=64))
    assert [item.kind for item in items[::2]] == [condition.value for condition in Condition]
    assert all(item.modalities["thermal"].shape == item.truth.shape == (64, 64) for item in items)
    maker = SampleMaker([], 64, 1, recipe_for(Demo.THERMAL).seed, thermal=1.0)
    assert all((maker(i).image != items[i].image).any() for i in range(2))
    again = next(iter(drawn_items(1, side=64)))
    np.testing.assert_array_equal(again.modalities["thermal"], items[0].modalities["thermal"])


def test_frames_get_thermal_images_of_their_objects(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder / HELD_OUT[0]).mkdir(parents=True)
    (tmp_path / "images" / "cows").mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:40, 20:50] = 255
    for index in range(6):
        Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(
            tmp_path / "images" / HELD_OUT[0] / f"{index:05d}.jpg"
        )
        Image.fromarray(mask).save(tmp_path / "masks" / HELD_OUT[0] / f"{index:05d}.png")
    items = list(thermal_frame_items(tmp_path))
    assert [item.kind for item in items] == [*(c.value for c in Condition), "plain"]
    assert items[1].image.mean() < 100 < 150 < items[0].image.mean()
    assert all(item.modalities["thermal"].shape == (48, 64) for item in items)


def test_mfnet_objects_are_connected_parts_of_a_class(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    label = np.zeros((60, 80), np.uint8)
    label[5:25, 5:25] = 1
    label[5:25, 40:60] = 1
    label[40:44, 40:44] = 2  # too small
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[..., 3] = 77
    Image.fromarray(label).save(tmp_path / "labels" / "00001N.png")
    Image.fromarray(pixels).save(tmp_path / "images" / "00001N.png")
    items = list(mfnet_items(tmp_path))
    assert [item.name for item in items] == ["00001N/car 1", "00001N/car 2"]
    assert [int(item.truth.sum()) for item in items] == [400, 400]
    assert all(item.kind == "night" and (item.modalities["thermal"] == 77).all() for item in items)


def test_everything_is_measured_with_and_without_the_modality() -> None:
    items = list(drawn_items(1, side=48))
    with_it = evaluate(Predictor(build(tiny(thermal=True)).eval()), {"drawn": items}, "", 2)
    without = evaluate(Predictor(build(tiny(thermal=False)).eval()), {"drawn": items}, "rgb", 2)
    assert list(with_it) == [("drawn", "RGB+thermal"), ("drawn", "RGB alone")]
    assert list(without) == [("drawn", "rgb")]
    summaries = summaries_of(with_it | without, {"drawn": items})
    assert summaries["drawn, RGB alone"].objects == 5
    assert summaries["drawn (night), rgb"].objects == 1


def test_checkpoints_are_measured_by_their_file_or_by_their_name(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, build(tiny(thermal=True)), dtype=torch.float16)
    monkeypatch.setattr(predictor_module, "demo_checkpoint", lambda name: {"demo-thermal": path}[name])
    monkeypatch.setattr(evaluate_module, "drawn_items", lambda each: drawn_items(each, side=48))
    by_file, by_name = load_network(path), load_network("demo-thermal")
    assert by_file.config == by_name.config == tiny(thermal=True)
    assert load_network("demo-thermal", 64).config.size == (64, 64)
    report = tmp_path / "report.json"
    options = ["--weights", str(path), "--baseline", "demo-thermal", "--drawn", "1", "--stride", "5", "--threads", "1"]
    result = CliRunner().invoke(measure_checkpoints, [*options, "--json", str(report)])
    assert result.exit_code == 0, result.output
    ways = {"drawn, run, RGB+thermal", "drawn, run, RGB alone"}
    ways |= {way.replace("run", "demo-thermal") for way in ways}
    assert set(json.loads(report.read_text())["curves"]) == ways
    same = CliRunner().invoke(measure_checkpoints, [*options, "--baseline", str(path)])
    assert "both networks are named run" in same.output


def test_the_predictor_prepares_a_modality_as_its_spec_says() -> None:
    model = build(tiny(thermal=True)).eval()
    predictor = Predictor(model)
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    heat = np.random.default_rng(1).integers(0, 256, (50, 90), dtype=np.uint8)
    seen: list[torch.Tensor] = []
    assert model.fuser is not None
    model.fuser.encoders["thermal"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    predictor.set_image(image, {"thermal": heat})
    predictor.set_image(image, {"thermal": heat.astype(np.uint16) * 257})
    predictor.set_image(image, {"thermal": heat.astype(np.float32) / 255})
    predictor.set_image(image)
    assert len(seen) == 3
    shrunk = torch.nn.functional.interpolate(
        torch.from_numpy(heat)[None, None].float(), size=(SIZE, SIZE), mode="bilinear", antialias=True
    )
    for given in seen:
        torch.testing.assert_close(given, (shrunk / 255 - 0.45) / 0.2, rtol=0, atol=1e-5)

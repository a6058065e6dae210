"""Features on disk: exact to half precision, computed once, and never half written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.training.batches import Batches, stream
from mmms_deploy.training.errors import FeatureCacheError
from mmms_deploy.training.feature_cache import FeatureCache, backbone_hash
from tests.support.tiny import PYRAMIDS
from tests.support.trainable import CPU, HEAT, Squares, filled_cache, narrow_network, small_recipe


@pytest.mark.parametrize("kind", ["vit", "hiera", "convnext"])
def test_the_maps_are_the_backbones_to_half_precision(tmp_path: Path, kind: str) -> None:
    fields = {} if kind == "vit" else {"backbone": PYRAMIDS[kind]}
    network, views = narrow_network(**fields), Squares(1)
    cache = FeatureCache(tmp_path, network.backbone, network.config, "weights", CPU)
    cache.fill(views)
    stored = cache.load(views.key(0))
    with torch.no_grad():
        expected = network.encode(torch.from_numpy(prepare(views[0].image, network.config.image, (64, 64))))
    assert [m.dtype for m in stored.maps] == [torch.float16] * 4
    assert tuple(tuple(m.shape) for m in stored.maps) == network.backbone.map_shapes()
    for ours, theirs in zip(stored.maps, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs[0], rtol=1e-3, atol=1e-3)
    assert cache.path(views.key(0)).stat().st_size <= cache.entry * 1.3


def test_a_view_comes_back(tmp_path: Path) -> None:
    cache, views = filled_cache(tmp_path, HEAT)
    for index in range(len(views)):
        stored, view = cache.load(views.key(index)), views[index]
        assert stored.targets.shape == (2, 64, 64)
        assert stored.targets.mean() == pytest.approx(view.targets.mean(), abs=0.02)
        assert list(stored.weights) == [1.0, 0.5]
        assert stored.size == (80, 100)
        assert (stored.void is None) == (view.void is None)
        assert set(stored.modalities) == set(view.modalities)
        if "thermal" in view.modalities:
            expected = prepare(view.modalities["thermal"], HEAT, (64, 64))[0]
            np.testing.assert_allclose(stored.modalities["thermal"].float().numpy(), expected, atol=2e-3)
    assert cache.load(views.key(3)).void[:4].all()


def test_an_interrupted_computation_goes_on_where_it_was(tmp_path: Path) -> None:
    network = narrow_network()

    class Stopping(Squares):
        def __getitem__(self, index: int):
            if index == 4:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    cache = FeatureCache(tmp_path, network.backbone, network.config, "weights", CPU)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(Stopping())
    again, done = Squares(), []
    first = cache.missing(again)
    assert first == [3, 4, 5] or first == [4, 5]
    cache.fill(again, lambda step: done.append((step.done, step.total)))
    assert again.made == first
    assert done == [(k, 6) for k in range(6 - len(first), 7)]
    assert cache.missing(again) == []
    assert not list(cache.folder.glob(".*.partial"))


def test_other_weights_and_sizes_have_other_folders(tmp_path: Path) -> None:
    a, b = narrow_network(), narrow_network()
    assert backbone_hash(a.backbone) == backbone_hash(b.backbone)
    with torch.no_grad():
        b.backbone.vit.blocks[0].mlp.fc1.weight[0, 0] += 1e-3
    assert backbone_hash(a.backbone) != backbone_hash(b.backbone)
    other = narrow_network(size=(96, 64))
    folders = {
        FeatureCache(tmp_path, n.backbone, n.config, backbone_hash(n.backbone), CPU).folder for n in (a, b, other)
    }
    assert len(folders) == 3


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache, views = filled_cache(tmp_path, views=Squares(2))
    path = cache.path(views.key(1))
    path.write_bytes(path.read_bytes()[:-100])
    for read in (lambda: cache.load(views.key(1)), lambda: cache.usable(views)):
        with pytest.raises(FeatureCacheError, match=path.name):
            read()


def test_numbers_that_half_precision_cannot_hold_stay_in_float32(tmp_path: Path) -> None:
    network = narrow_network()
    with torch.no_grad():
        network.backbone.vit.blocks[-1].mlp.fc2.bias[0] = 1e6
    cache = FeatureCache(tmp_path, network.backbone, network.config, "weights", CPU)
    views = Squares(1)
    cache.fill(views)
    maps = cache.load(views.key(0)).maps
    assert [m.dtype for m in maps] == [torch.float16] * 3 + [torch.float32]
    assert float(maps[-1].max()) > 9e5


def test_a_step_has_its_batch_whatever_ran_before(tmp_path: Path) -> None:
    cache, views = filled_cache(tmp_path, HEAT)
    recipe = small_recipe(targets=1, modality_dropout=0.5)
    batches = [Batches(cache, cache.usable(views), recipe, (HEAT,)) for _ in range(2)]
    streamed = list(stream(batches[0], 2, 6))
    assert len(streamed) == 4
    shown = 0
    for step, batch in enumerate(streamed, start=2):
        for a, b in zip(batch, batches[1][step], strict=True):
            np.testing.assert_array_equal(a.targets, b.targets)
            assert a.targets.shape[0] == 1
            assert torch.equal(a.maps[0], b.maps[0])
            assert set(a.modalities) == set(b.modalities)
            shown += "thermal" in a.modalities
    assert 0 < shown < 8


def test_every_view_is_shown_once_before_one_is_shown_again(tmp_path: Path) -> None:
    cache, views = filled_cache(tmp_path)
    batches = Batches(cache, cache.usable(views), small_recipe())
    places = [batches._key(place) for place in range(12)]
    assert len(set(places[:6])) == len(set(places[6:])) == 6
    assert places[:6] != places[6:]


def test_targets_that_are_too_small_are_gone_and_views_without_any_are_never_shown(tmp_path: Path) -> None:
    network = narrow_network()

    class Specks(Squares):
        def __getitem__(self, index: int):
            view = super().__getitem__(index)
            targets = view.targets.copy()
            targets[0] = False
            targets[0, 40, 50] = True  # a pixel, of less than one of the network's
            if index % 2:
                targets[1] = False
            return replace(view, targets=targets)

    cache = FeatureCache(tmp_path, network.backbone, network.config, "weights", CPU)
    views = Specks(4)
    cache.fill(views)
    assert cache.usable(views) == [views.key(0), views.key(2)]
    assert cache.load(views.key(0)).targets.shape == (1, 64, 64)
    assert list(cache.load(views.key(0)).weights) == [0.5]
    assert cache.load(views.key(1)).targets.shape == (0, 64, 64)

"""The network that a run starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("cv2")

from mmms_deploy.bundle.contract import PreviousMask, to_builtins
from mmms_deploy.errors import CheckpointKeysError, DescriptionError, WeightsError
from mmms_deploy.models import MMMS, BackboneConfig, save_checkpoint
from mmms_deploy.models.checkpoint import read_checkpoint_file
from mmms_deploy.training.errors import TrainingSettingsError
from mmms_deploy.training.network import compact_config, continued_network, described_config, new_network
from mmms_deploy.training.recipe import Recipe
from tests.support.tiny import HIERA, tiny_config
from tests.support.trainable import HEAT, SIZE, narrow_network, write_backbone


@pytest.mark.parametrize("kind", ["vit", "hiera"])
def test_a_new_head_stands_on_the_files_backbone(tmp_path: Path, kind: str) -> None:
    config = tiny_config(size=SIZE) if kind == "vit" else tiny_config(size=SIZE, backbone=HIERA)
    file = write_backbone(tmp_path / "backbone.safetensors", config)
    network, same, other = new_network(config, file, 0), new_network(config, file, 0), new_network(config, file, 1)
    released = read_checkpoint_file(file).state
    loaded = network.backbone.names.to_release(network.backbone.model.state_dict(), network.backbone.model)
    assert all(torch.equal(loaded[name], value) for name, value in released.items())
    assert torch.equal(network.patch_embed.proj_4.weight, same.patch_embed.proj_4.weight)
    assert not torch.equal(network.patch_embed.proj_4.weight, other.patch_embed.proj_4.weight)
    attention = network.csnet.block1[0].attn
    assert torch.equal(attention.kv.weight[:8], attention.q.weight)  # it starts by comparing features
    assert not network.training


def test_without_a_file_published_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(size=SIZE, backbone=HIERA)
    file = write_backbone(tmp_path / "published.safetensors", config)
    asked = []

    def find(name: str) -> Path:
        asked.append(name)
        return file

    with pytest.raises(WeightsError, match=r"no published weights are known that .* takes"):
        new_network(config, None, 0, find)
    monkeypatch.setattr("mmms_deploy.models.backbone_checkpoint.is_published", lambda backbone: True)
    monkeypatch.setattr("mmms_deploy.training.network.is_published", lambda backbone: True)
    found, given = new_network(config, None, 0, find), new_network(config, file, 0)
    save_checkpoint(tmp_path / "head.safetensors", found, backbone=False)
    again = continued_network(tmp_path / "head.safetensors", None, (), 0, None, find)
    for network in (found, again):
        assert all(torch.equal(network.state_dict()[n], value) for n, value in given.state_dict().items())
    assert asked == [config.backbone.name] * 2
    save_checkpoint(tmp_path / "whole.safetensors", found)
    continued_network(tmp_path / "whole.safetensors", None, (), 0, None, find)
    assert len(asked) == 2  # it has a backbone of its own


def test_a_backbone_of_another_kind_does_not_fit(tmp_path: Path) -> None:
    file = write_backbone(tmp_path / "backbone.safetensors", tiny_config(size=SIZE, backbone=HIERA))
    with pytest.raises(CheckpointKeysError, match=r"a new head with .*backbone\.safetensors"):
        new_network(tiny_config(size=SIZE), file, 0)


def test_a_checkpoint_is_trained_further_with_what_it_lacks(tmp_path: Path) -> None:
    start = narrow_network()
    save_checkpoint(tmp_path / "start.safetensors", start)
    network = continued_network(tmp_path / "start.safetensors", None, (), 0)
    assert network.config == start.config
    assert all(torch.equal(network.state_dict()[name], value) for name, value in start.state_dict().items())
    more = continued_network(tmp_path / "start.safetensors", None, (HEAT,), 0, (96, 64))
    assert more.config.modalities == (HEAT,)
    assert more.config.size == (96, 64)
    rgb, heat = torch.rand(1, 3, 96, 64), torch.rand(1, 1, 96, 64)
    with torch.no_grad():
        plain, warm = more.features(rgb), more.features(rgb, {"thermal": heat})
    for a, b in zip(plain, warm, strict=True):
        assert 0 < float((a - b).std()) < 0.5 * float(a.std())  # the fuser hardly speaks at first
    again = continued_network(tmp_path / "start.safetensors", None, (HEAT,), 0)
    save_checkpoint(tmp_path / "warm.safetensors", again)
    kept = continued_network(tmp_path / "warm.safetensors", None, (), 5)
    assert all(torch.equal(kept.state_dict()[name], value) for name, value in again.state_dict().items())


def test_a_checkpoint_must_describe_itself(tmp_path: Path) -> None:
    torch.save(narrow_network().state_dict(), tmp_path / "bare.pt")
    with pytest.raises(DescriptionError, match="does not describe its network"):
        continued_network(tmp_path / "bare.pt", None, (), 0)


def test_an_onnx_file_trains_nothing(tmp_path: Path) -> None:
    outputs = [{"name": f"m{s}", "stride": s, "channels": 8} for s in (4, 8, 16, 32)]
    encoder = {"name": "onnx", "onnx": {"size": [64, 64], "outputs": outputs}}
    raw = to_builtins(tiny_config(size=SIZE)) | {"backbone": encoder}
    (tmp_path / "net.json").write_text(json.dumps(raw))
    file = write_backbone(tmp_path / "backbone.safetensors", tiny_config(size=SIZE))
    with pytest.raises(TrainingSettingsError, match="ONNX"):
        new_network(described_config(tmp_path / "net.json", {}), file, 0)


def test_the_small_head_is_small_and_feeds_probabilities_back() -> None:
    config = compact_config(BackboneConfig(name="sam2_hiera_t"), (448, 448))
    with torch.device("meta"):
        network = MMMS(config)
    count = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("backbone."))
    assert count < 5e6  # 10 MB in float16
    assert config.clicks.previous is PreviousMask.PROBABILITY


def test_rates_warm_up_and_come_down() -> None:
    recipe = Recipe(steps=110, warmup=10, learning_rate=1.0, final_rate=0.1)
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(10) == pytest.approx(1.0)
    assert recipe.rate(60) == pytest.approx(0.55)
    assert recipe.rate(110) == pytest.approx(0.1)
    assert recipe.decay(0) == pytest.approx(0.1)
    assert recipe.decay(10**6) == recipe.ema_decay


@pytest.mark.parametrize(
    "changes",
    [{"steps": 0}, {"guard_share": 1.5}, {"learning_rate": 0.0}, {"rounds": (1, 2)}, {"round_weights": (0.5,) * 4}],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict) -> None:
    with pytest.raises(TrainingSettingsError, match="a recipe with"):
        Recipe(**changes)

"""Where a network comes from: undescribed clicks, and which weights are taken."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mmms_deploy import Bundle
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.commands.export import main
from mmms_deploy.errors import CheckpointKeysError, MMMSDeployWarning
from mmms_deploy.evaluation.checkpoint_predictor import open_torch
from mmms_deploy.export.source import Source, demo_checkpoint, open_source
from mmms_deploy.models import BackboneConfig, MMMSConfig
from mmms_deploy.models.backbone_checkpoint import is_published
from mmms_deploy.models.checkpoint import random_network, release_state, save_checkpoint
from mmms_deploy.models.config import SimpleClickConfig
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import HIERA, tiny_config
from tests.support.trainable import write_backbone


def description(folder: Path, config, *left_out: str) -> Path:
    path = folder / "net.json"
    path.write_text(json.dumps({n: v for n, v in to_builtins(config).items() if n not in left_out}))
    return path


def test_clicks_that_are_not_described_are_warned_of(tmp_path) -> None:
    torch.save(release_state(random_network(tiny_config(), 0)), tmp_path / "net.pt")
    with pytest.warns(MMMSDeployWarning, match=r"net\.pt: its description has no section clicks.*RITM"):
        open_source(Source(checkpoint=tmp_path / "net.pt", description=description(tmp_path, tiny_config(), "clicks")))


def test_nothing_else_is_warned_of(tmp_path) -> None:
    """Described clicks, an empty section, SkipClick's own defaults, random weights, a checkpoint of ours."""
    config = tiny_config()
    torch.save(release_state(random_network(config, 0)), tmp_path / "net.pt")
    torch.save(release_state(random_network(tiny_skipclick(), 0)), tmp_path / "skip.pt")
    without = {name: value for name, value in to_builtins(config).items() if name != "clicks"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", MMMSDeployWarning)
        open_source(Source(checkpoint=tmp_path / "net.pt", description=description(tmp_path, config)))
        open_source(Source(checkpoint=tmp_path / "net.pt", overrides={**without, "clicks": {}}))
        open_source(Source(random_seed=0, overrides=without))
        open_source(Source(checkpoint=demo_checkpoint("demo-small")))
        skip = description(tmp_path, tiny_skipclick(), "clicks")
        open_source(Source(checkpoint=tmp_path / "skip.pt", description=skip))


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("averaged")
    trained, average = (release_state(random_network(tiny_config(), seed)) for seed in (0, 1))
    torch.save({"model": trained, "model_ema": {f"module.{n}": t for n, t in average.items()}}, folder / "net.pt")
    return folder / "net.pt", description(folder, tiny_config())


def test_the_command_takes_the_averages_and_says_so(averaged, tmp_path) -> None:
    checkpoint, described = averaged
    arguments = ["--ckpt", str(checkpoint), "--description", str(described), "--weights", "ema"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "The weights are averages (EMA), from model_ema" in result.output
    provenance = Bundle(tmp_path / "out").manifest.provenance
    assert (provenance.weights, provenance.averaged) == ("model_ema", True)


def test_a_set_that_is_not_there(averaged) -> None:
    checkpoint, described = averaged
    arguments = ["--ckpt", str(checkpoint), "--description", str(described), "--weights", "emma"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "has no weights 'emma'" in result.output
    assert "--weights model" in result.output


def test_an_evaluation_takes_them_by_name(tmp_path) -> None:
    networks = [random_network(tiny_config(), seed) for seed in (0, 1)]
    for network, name in zip(networks, ("trained", "average"), strict=True):
        save_checkpoint(tmp_path / f"{name}.safetensors", network)
    contestant, _ = open_torch(f"{tmp_path / 'trained.safetensors'}")
    assert contestant.facts.source == f"torch:{tmp_path / 'trained.safetensors'}"
    with pytest.raises(Exception, match="no averaged weights"):
        open_torch(f"{tmp_path / 'trained.safetensors'}#ema")


def test_published_weights_are_found_where_a_checkpoint_lacks_its_backbone(tmp_path, monkeypatch) -> None:
    config = tiny_config(backbone=HIERA)
    network = random_network(config, 0)
    save_checkpoint(tmp_path / "head.safetensors", network, backbone=False)
    file = write_backbone(tmp_path / "published.safetensors", config)
    asked = []

    def find(name: str) -> Path:
        asked.append(name)
        return file

    source = Source(checkpoint=tmp_path / "head.safetensors", find_backbone=find)
    with pytest.raises(CheckpointKeysError, match="pass its release file"):
        open_source(source)  # narrow: none are published
    monkeypatch.setattr("mmms_deploy.export.source.is_published", lambda backbone: True)
    monkeypatch.setattr("mmms_deploy.models.backbone_checkpoint.is_published", lambda backbone: True)
    found = open_source(source)
    given = open_source(Source(checkpoint=tmp_path / "head.safetensors", backbone_checkpoint=file))
    assert asked == [config.backbone.name]
    assert (found.backbone, found.hashes) == (file, given.hashes)
    assert all(torch.equal(found.network.state_dict()[n], t) for n, t in given.network.state_dict().items())
    assert open_source(source, black_box=True).backbone is None  # a provider runs it
    save_checkpoint(tmp_path / "whole.safetensors", network)
    assert open_source(Source(checkpoint=tmp_path / "whole.safetensors", find_backbone=find)).backbone is None
    assert len(asked) == 1


def test_which_backbones_have_published_weights() -> None:
    assert is_published(MMMSConfig(backbone=BackboneConfig(name="sam2_hiera_t")))
    assert not is_published(SimpleClickConfig())  # it has no frozen backbone
    for other in (
        BackboneConfig(name="sam2_hiera_t", maps="neck"),
        BackboneConfig(name="sam2_hiera_t", overrides={"embed_dim": 8}),
        BackboneConfig(name="dinov2_b14_reg"),
    ):
        assert not is_published(MMMSConfig(backbone=other))

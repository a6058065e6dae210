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
from mmms_deploy.errors import MMMSDeployWarning
from mmms_deploy.evaluation.checkpoint_predictor import open_torch
from mmms_deploy.export.source import Source, demo_checkpoint, open_source
from mmms_deploy.models.checkpoint import random_network, release_state, save_checkpoint
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import tiny_config


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

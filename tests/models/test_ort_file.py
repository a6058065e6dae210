"""Weights in ONNX Runtime's own format: names, transposed matrices, the two position tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmms_deploy.errors import CheckpointCorruptError
from mmms_deploy.models import MMMS
from mmms_deploy.models.checkpoint import load_weights, random_network, read_checkpoint_file, release_state
from tests.support.hiera import TRUNK, expected_neck, expected_stages, sam2
from tests.support.ort_files import write_ort
from tests.support.tiny import PYRAMIDS, tiny_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_ort(tmp_path / "encoder.ort", sam2(memory=False))


def test_names_and_values(file) -> None:
    found = read_checkpoint_file(file)
    assert found.description is None
    assert found.state.keys() == sam2(memory=False).keys()
    for name, tensor in sam2(memory=False).items():
        if "pos_embed" not in name:
            assert torch.equal(found.state[name], tensor), name
        else:
            assert found.state[name].shape == tensor.shape


@torch.no_grad()
def test_it_loads_as_a_backbone_checkpoint(file, tmp_path) -> None:
    """At another grid than the one whose positions lie in the file."""
    config = tiny_config(backbone=PYRAMIDS["hiera_neck"])
    rest = {n: t for n, t in release_state(random_network(config, 0)).items() if not n.startswith("backbone.")}
    torch.save(rest, tmp_path / "rest.pt")
    network, rgb = MMMS(config).eval(), torch.randn(1, 3, 64, 96)
    load_weights(network, read_checkpoint_file(tmp_path / "rest.pt"), read_checkpoint_file(file))
    wanted = expected_neck(sam2(), expected_stages(sam2(), rgb))
    for ours, theirs in zip(network.backbone(rgb), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_damaged_files(file, tmp_path) -> None:
    content = file.read_bytes()
    (tmp_path / "short.ort").write_bytes(content[:200])
    with pytest.raises(CheckpointCorruptError, match=r"short\.ort is no readable file of ONNX Runtime"):
        read_checkpoint_file(tmp_path / "short.ort")


def test_other_networks(tmp_path) -> None:
    path = write_ort(tmp_path / "other.ort", {})
    with pytest.raises(CheckpointCorruptError, match="holds no weights under the names of a PyTorch network"):
        read_checkpoint_file(path)


def test_positions_that_are_none(tmp_path) -> None:
    state = sam2(memory=False)
    path = write_ort(tmp_path / "odd.ort", state, positions=torch.randn(1, 8, 64, 64))
    with pytest.raises(CheckpointCorruptError, match=r"its positions are none of SAM 2's"):
        read_checkpoint_file(path)
    assert f"{TRUNK}pos_embed" in state

"""What the package says of published weights fits together, and positions are compared by what they add."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mmms_deploy.weights import PUBLISHED
from mmms_deploy.weights.positions import map_of, same_positions
from mmms_deploy.weights.published import known
from mmms_deploy.weights.safetensors_file import safetensors_bytes
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_known_fits_together(name) -> None:
    one = known(name)
    weights = one.weights
    assert weights.name == name
    zeros = {n: np.zeros(t.shape, np.float16) for n, t in weights.tensors.items()}
    assert len(safetensors_bytes(zeros)) == weights.size
    assert set(one.tables) == set(weights.positions)
    for table, values in one.tables.items():
        assert values.dtype == np.float16
        assert hashlib.sha256(values.tobytes()).hexdigest().startswith(weights.tensors[table].sha256)
    assert weights.npm in {file.name for file in one.package.files}
    assert f"`{name}`" in (ROOT / "mmms_deploy" / "weights" / "NOTICE.md").read_text()
    assert weights.holder in (ROOT / "mmms_deploy" / "weights" / "NOTICE.md").read_text()


def test_the_names_are_those_of_the_network() -> None:
    """154 tensors of timm's trunk, under the release's names."""
    import torch

    from mmms_deploy.models import BackboneConfig
    from mmms_deploy.models.pyramid_backbone import PyramidBackbone

    with torch.device("meta"):
        made = PyramidBackbone(BackboneConfig(name="sam2_hiera_t"), (64, 64))
    state = made.names.to_release(made.model.state_dict(), made.model)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in PUBLISHED["sam2_hiera_t"].tensors.items()
    }


def test_rounding_is_all_that_may_differ() -> None:
    rng = np.random.default_rng(0)
    table, window = (rng.standard_normal((1, 4, n, n), dtype=np.float32) for n in (7, 8))
    halves = table.astype(np.float16), window.astype(np.float16)
    exact = map_of(table, window, (32, 32))
    assert same_positions(*halves, exact)
    for factor in (1.02, 0.98, -1.0):
        assert not same_positions(*halves, exact * np.float32(factor))
    assert not same_positions(*halves, exact[:, :2])
    assert not same_positions(*halves, exact[:, :, :30])

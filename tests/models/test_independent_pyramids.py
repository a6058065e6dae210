"""SAM 2's encoder against transformers' own, with the same weights; see ``test_independent``."""

from __future__ import annotations

import re

import pytest
import torch

from mmms_deploy.models import BackboneConfig
from mmms_deploy.models.pyramid_backbone import PyramidBackbone
from tests.support.hiera import GLOBAL, NECK, STAGES, TRUNK, WINDOWS, sam2
from tests.support.tiny import HIERA

transformers = pytest.importorskip("transformers", minversion="5.23")

EXACT = 1e-9
"""On values of about 1, in float64."""
NECK_SUM = 1e-7
"""In float64 too: transformers enlarges the neck's map of stride 32 in float32."""
FLOAT32 = 1e-4
"""Largest difference over largest value, in float32."""
TRUNK_NAMES = [
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"mlp\.layers\.0\.", "mlp.proj_in."),
    (r"mlp\.layers\.1\.", "mlp.proj_out."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
]


def theirs(size: tuple[int, int], state: dict, rgb: torch.Tensor, **settings) -> tuple[list, list]:
    """The trunk's four maps and the neck's maps of transformers' network, finest first."""
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
    from transformers.models.sam2.modeling_sam2 import Sam2VisionModel

    dim = state[f"{TRUNK}pos_embed"].shape[1]
    widths = [dim * 2**k for k in range(4)]
    trunk = Sam2HieraDetConfig(
        hidden_size=dim,
        image_size=list(size),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 2, 4, 8],
        layer_norm_eps=1e-6,
        # Its plain attention rounds softmax to float32.
        attn_implementation="eager" if rgb.dtype == torch.float32 else "sdpa",
        **settings,
    )
    config = Sam2VisionConfig(
        backbone_config=trunk,
        backbone_channel_list=widths[::-1],
        num_feature_levels=3,
        backbone_feature_sizes=[[size[0] // s, size[1] // s] for s in (4, 8, 16)],
    )
    model = Sam2VisionModel(config).to(rgb.dtype).eval()
    names = {}
    for name, tensor in state.items():
        if name.startswith(TRUNK):
            short = name.removeprefix(TRUNK)
            for pattern, replacement in TRUNK_NAMES:
                short = re.sub(pattern, replacement, short)
            names[f"backbone.{short}"] = tensor
        elif name.startswith(NECK):
            names["neck." + name.removeprefix(NECK).replace(".conv.", ".")] = tensor
    model.load_state_dict(names, strict=True)
    with torch.no_grad():
        stages = model.backbone(rgb).intermediate_hidden_states
        levels = model(rgb).fpn_hidden_states
    return [x.permute(0, 3, 1, 2) for x in stages], sorted(levels, key=lambda x: -x.shape[2])


def compare(
    size: tuple[int, int], config: BackboneConfig, state: dict, dtype: torch.dtype, **settings
) -> tuple[float, float]:
    """Largest difference over largest value, of the trunk's maps and of the neck's map of stride 16."""
    rgb = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    wanted, levels = theirs(size, state, rgb, **settings)
    found = []
    for maps in ("stages", "neck"):
        made = PyramidBackbone(BackboneConfig(name=config.name, maps=maps, overrides=config.overrides), size).eval()
        made.model.load_state_dict(made.names.to_timm(state, made.model), strict=True)
        with torch.no_grad():
            ours = made.to(dtype)(rgb)
        pairs = zip(ours, wanted, strict=True) if maps == "stages" else [(ours[2], levels[2])]
        found += [((x - y).abs().max() / y.abs().max()).item() for x, y in pairs]
    print(f"{config.name} at {size}: {', '.join(f'{value:.1e}' for value in found)}")
    return max(found[:4]), found[4]


@pytest.mark.parametrize("size", [(64, 96), (128, 64)], ids=str)
def test_narrow(size) -> None:
    settings = {
        "blocks_per_stage": list(STAGES),
        "window_size_per_stage": list(WINDOWS),
        "global_attention_blocks": list(GLOBAL),
    }
    trunk, neck = compare(size, HIERA, sam2(memory=False), torch.float64, **settings)
    assert trunk < EXACT
    assert neck < NECK_SUM


@pytest.mark.slow
def test_full_size() -> None:
    state = sam2(dim=96, stages=(1, 2, 7, 2), memory=False)
    config = BackboneConfig(name="sam2_hiera_t")
    assert max(compare((448, 448), config, state, torch.float32)) < FLOAT32

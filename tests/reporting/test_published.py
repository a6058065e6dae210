"""The table of published figures: what is in it, and which network a description is."""

from __future__ import annotations

import pytest

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.evaluation.datasets import DATASETS
from mmms_deploy.models.config import MMMSConfig, SimpleClickConfig, SkipClickConfig, ViTConfig
from mmms_deploy.models.dynamite_config import DynaMITeConfig, MiTConfig
from mmms_deploy.reporting.published import figures_of, published_figures, published_network


def test_every_figure_has_a_source_and_a_data_set_that_can_be_read() -> None:
    figures = published_figures()
    assert len(figures) > 100
    for figure in figures:
        assert figure.source
        assert figure.value > 0
        assert figure.dataset in {"", *DATASETS}
    assert len(set(figures)) == len(figures)


def test_figures_of_a_network_on_a_data_set() -> None:
    found = figures_of("SimpleClick, ViT-B", "davis")
    assert {figure.measure: figure.value for figure in found} == {"NoC@85": 3.66, "NoC@90": 5.06, "NoC@95": 10.04}
    assert {figure.trained_on for figure in found} == {"COCO+LVIS"}
    assert figures_of(None) == figures_of("") == ()


@pytest.mark.parametrize(
    ("description", "network"),
    [
        (to_builtins(SimpleClickConfig()), "SimpleClick, ViT-B"),
        (to_builtins(SimpleClickConfig(vit=ViTConfig(dim=1024, depth=24, heads=16))), "SimpleClick, ViT-L"),
        (to_builtins(SimpleClickConfig(vit=ViTConfig(dim=160, depth=8, heads=4))), None),
        (to_builtins(MMMSConfig()), "MMMS, DINOv2-B14"),
        (to_builtins(SkipClickConfig()), "SkipClick, DINOv2-B14"),
        ({"family": "icmformer", "swin": {"width": 128, "depths": [2, 2, 18, 2]}, "vit": None}, "iCMFormer, Swin-B"),
        ({"family": "icmformer", "swin": None, "vit": {"dim": 768, "depth": 12}}, "iCMFormer, ViT-B"),
        (to_builtins(DynaMITeConfig()), "DynaMITe, Swin-T"),
        (to_builtins(DynaMITeConfig(mit=MiTConfig())), "DynaMITe, SegF-B0"),
        ({"family": "dynamite", "mit": {"widths": 3}}, None),
        ({"family": "interformer", "dim": 1024, "depth": 24}, "InterFormer, ViT-L"),
        ({"family": "mmms", "backbone": {"name": "dinov2_b14_reg", "overrides": {"depth": 4}}}, None),
        ({"family": "another", "dim": 768, "depth": 12}, None),
        ({"family": ["odd"], "swin": {"depths": 3}}, None),
        ({}, None),
    ],
)
def test_a_description_is_the_network_of_a_paper(description: dict[str, object], network: str | None) -> None:
    assert published_network(description) == network

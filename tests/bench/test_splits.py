"""Counting what a split gains without exporting; ``test_export_table.py`` compares with an export's counts."""

from __future__ import annotations

import pytest

from mmms_deploy.models.checkpoint import parse_description
from mmms_deploy.models.families import FAMILIES
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def splits():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import splits

        yield splits


def test_icmformer_s_numbers_are_those_of_the_specification(splits) -> None:
    """77.3 and 202.3 GFLOP with all waste removed, of which fusing before enlarging saves 4.4."""
    counted = splits.count("iCMFormer", dict(splits.NETWORKS)["iCMFormer ViT-B"])
    assert counted.image == pytest.approx(77.3, abs=0.1)
    assert counted.click == pytest.approx(202.3 - 4.4, abs=0.2)
    assert counted.boundary == pytest.approx(16.9, abs=0.1)


def test_every_family_is_counted(splits) -> None:
    fields = [fields for _, fields in splits.NETWORKS if fields.get("family", "mmms") in FAMILIES]
    assert {parse_description(one, "test").family for one in fields} == set(FAMILIES)


def test_the_table(splits) -> None:
    lines = splits.table([splits.Counted("a", 1.0, 30.0, 10.0, 2.0)])
    assert lines[-1] == "| a | 1.0 | 30.0 | 10.0 | 4.00x | 2.0 |"


def test_disnet_s_numbers_are_those_of_the_specification(splits) -> None:
    """0.92, 210.2 and 33.4 GFLOP, of which the folded click attention saves 3.3 twice; tokens, masks and F are read."""
    counted = splits.count("DISNet", dict(splits.NETWORKS)["DISNet ViT-B, reconstructed, 16 clicks"])
    assert (counted.image, counted.first) == (pytest.approx(0.92, abs=0.01), pytest.approx(210.2, abs=0.3))
    assert counted.click == pytest.approx(33.4 - 2 * 3.2, abs=0.4)
    assert counted.boundary == pytest.approx(4e-6 * (7 * 112**2 + 7 * 256 + 256 * 112**2), abs=0.01)


def test_interformer_s_numbers_are_those_of_the_specification(splits) -> None:
    """224.5 and 10.84 GFLOP; keys of the image are computed once, and labels are embedded at a quarter of the size."""
    counted = splits.count("InterFormer", dict(splits.NETWORKS)["InterFormer-Light, 512 x 512"])
    assert counted.image == pytest.approx(224.5, abs=0.2)
    assert counted.click == pytest.approx(10.84, abs=0.2)
    assert counted.boundary < 3.9

"""What the split into stages gains, in numbers and in the texts that show it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mmms_deploy.bundle import Bundle, Manifest, Precision, Rate, Role
from mmms_deploy.bundle.card import card_of
from mmms_deploy.bundle.notebook import bundle_view
from mmms_deploy.bundle.split import boundary_bytes, feature_bytes, split_of
from tests.support.sized import SIZES, write_sized


def counted(manifest: Manifest, **flops: float | None) -> Manifest:
    """Return a manifest with operations for each stage, by its name."""
    stages = tuple(msgspec.structs.replace(stage, flops=flops[stage.name]) for stage in manifest.stages)
    return msgspec.structs.replace(manifest, stages=stages)


def test_the_gain_is_the_whole_over_a_click(paint: Bundle) -> None:
    split = split_of(counted(paint.manifest, image=30e9, click=10e9))
    assert split is not None
    assert (split.before, split.click, split.gain) == (30e9, 10e9, 4.0)
    assert split.sentence == "The split gains 4.00x: a click computes 10.0 of the network's 40.0 GFLOP."
    assert split.boundary == boundary_bytes(paint.manifest) > 0


def test_early_fusion_is_said(paint: Bundle) -> None:
    split = split_of(counted(paint.manifest, image=0.92e9, click=160.6e9))
    assert split is not None
    assert "gains only 1.01x" in split.sentence
    assert "fused early, and 0.6% of it depends on the image alone" in split.sentence
    assert "a small part at every click" not in card_of(counted(paint.manifest, image=1e9, click=2e9))
    assert "a small part at every click" in card_of(counted(paint.manifest, image=2e9, click=1e9))


@pytest.mark.parametrize("flops", [{"image": None, "click": 1e9}, {"image": 1e9, "click": None}])
def test_what_was_not_counted_has_no_gain(paint: Bundle, flops: dict[str, float | None]) -> None:
    manifest = counted(paint.manifest, **flops)
    assert split_of(manifest) is None
    assert "not counted" in card_of(manifest)
    assert "The split gains" not in card_of(manifest)
    assert "The split gains" not in bundle_view(manifest, Path("folder"))


def test_old_manifests_have_no_operations(paint: Bundle) -> None:
    raw = msgspec.to_builtins(paint.manifest)
    for stage in raw["stages"]:
        del stage["flops"]
    assert all(stage.flops is None for stage in msgspec.convert(raw, Manifest).stages)


def test_the_boundary_is_what_crosses(paint: Bundle) -> None:
    click = next(stage for stage in paint.manifest.stages if stage.rate is Rate.CLICK).graphs[Precision.FP32]
    features = [spec for spec in click.inputs if spec.role is Role.FEATURE]
    assert features
    assert boundary_bytes(paint.manifest) == feature_bytes(click.inputs) == sum(spec.nbytes for spec in features)


def test_card_and_notebook_show_it(paint: Bundle) -> None:
    manifest = counted(paint.manifest, image=30e9, click=10e9)
    card = card_of(manifest)
    assert "| image | once an image | 30.0 |" in card
    assert "| click | at every click | 10.0 | - |" in card
    assert "The split gains 4.00x" in card
    assert "The split gains 4.00x" in bundle_view(manifest, Path("folder"))
    assert "10.0 GFLOP" in bundle_view(manifest, Path("folder"))


def test_of_several_sizes_the_smallest_counts(tmp_path: Path) -> None:
    manifest = write_sized(tmp_path / "sized").manifest
    larger = f"click_{SIZES[1]}"
    assert manifest.larger == {larger}
    split = split_of(counted(manifest, image=30e9, click=10e9, **{larger: 90e9}))
    assert split is not None
    assert (split.before, split.click) == (30e9, 10e9)
    assert split.boundary == 4, "one feature, once"
    for text in (card_of(manifest), bundle_view(manifest, tmp_path)):
        assert f"at every click, of up to {SIZES[1]}" in text

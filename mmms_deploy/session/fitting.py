"""Whether encoded images are what a bundle's stages read: features come from files, stores and other programs."""

from __future__ import annotations

from collections.abc import Iterable

from mmms_deploy.bundle import Manifest, Rate
from mmms_deploy.errors import FeatureError
from mmms_deploy.session.features import Features, read_after_image
from mmms_deploy.session.pipeline import StagePipeline


def check_fitting(features: Features, manifest: Manifest, pipeline: StagePipeline) -> None:
    """Check that features name and hold what the stages after the image read; their numbers are not looked at.

    Args:
        features: The features; of the bundle, by their digest.
        manifest: The bundle's manifest.
        pipeline: Its stages.

    Raises:
        FeatureError: They name a tensor, stage or modality that the bundle does not have, or lack a tensor.
    """
    resident = features.resident
    there = set((features.arrays if resident is None else resident.values).keys())
    wanted = read_after_image(manifest)
    known = {name for name in wanted if pipeline.spec(name) is not None}
    _check_names("tensors", there | features.aliases.keys(), known)
    if not manifest.click_only:
        # A click bundle has neither these stages nor these modalities: the names are of the bundle that made them.
        _check_names("stages to leave out", features.bypassed, pipeline.bypassable)
        _check_names("modalities", features.present | features.awaited, {one.name for one in manifest.modalities})
    if features.present & features.awaited:
        both = ", ".join(sorted(features.present & features.awaited))
        raise _unfitting(f"say of {both} that it is there, and that it comes later")
    for name, source in features.aliases.items():
        one, other = pipeline.spec(name), pipeline.spec(source)
        if name in there or source not in there:
            raise _unfitting(f"have {name} as another name of {source}, which they do not hold as it should be")
        if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
            raise _unfitting(f"have {name} as another name of {source}, a tensor of another shape or type")
    missing = pipeline.needed(ran_up_to(features)) - there - features.aliases.keys()
    if missing:
        raise _unfitting(f"are without {', '.join(sorted(missing))}")


def ran_up_to(features: Features) -> Rate:
    """Return up to which rate the stages ran."""
    return Rate.IMAGE if features.awaited else Rate.MODALITY


def _check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        shown = ", ".join(f"{name!r:.60}" for name in unknown[:3])
        raise _unfitting(f"name {what} that this bundle does not have: {shown}")


def _unfitting(problem: str) -> FeatureError:
    return FeatureError(
        f"the features {problem}",
        expected="what Model.encode or Session.features made with this bundle",
        fix="encode the image again with this bundle",
    )

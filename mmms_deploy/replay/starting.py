"""How a session starts on a golden case: with its pixels, with its backbone's features, or with encoded features."""

from __future__ import annotations

from mmms_deploy.bundle import Manifest, Precision
from mmms_deploy.replay.golden import GoldenCase
from mmms_deploy.session import Features, Session


def set_golden(session: Session, case: GoldenCase) -> None:
    """Set the picture of a golden case: its pixels, its backbone's features, or what a click bundle starts on.

    Raises:
        SessionError: It does not fit the session's bundle.
    """
    manifest = session.bundle.manifest
    if manifest.click_only:
        session.use(_golden_features(case, manifest))
    elif case.features:
        session.set_features(case.features, (case.image.shape[0], case.image.shape[1]), **case.modalities)
    else:
        session.set_image(case.image, **case.modalities)


def _golden_features(case: GoldenCase, manifest: Manifest) -> Features:
    """Return the features on which a golden case of a click bundle starts.

    Args:
        case: The case.
        manifest: The click bundle's.
    """
    height, width, _ = case.image.shape
    assert manifest.features_of is not None
    features = Features(size=(height, width), parts={}, bundle=manifest.features_of, precision=Precision.FP32)
    return features.with_arrays(case.features)

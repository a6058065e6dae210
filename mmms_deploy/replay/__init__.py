"""Replaying a bundle's golden clicks, and measuring how far masks differ.

golden: the file of pictures, clicks and the checkpoint's own masks.
starting: how a session starts on one of its cases.
verification: replaying it with one engine or with all, and the report.
metrics: intersection over union.
click_bundle: making a bundle of the click stage alone, for an annotation service.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.replay.click_bundle import write_click_bundle
    from mmms_deploy.replay.golden import GoldenCase, load_golden
    from mmms_deploy.replay.metrics import iou
    from mmms_deploy.replay.verification import VerificationReport, replay, replay_engines, verify

__all__ = [
    "GoldenCase",
    "VerificationReport",
    "iou",
    "load_golden",
    "replay",
    "replay_engines",
    "verify",
    "write_click_bundle",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GoldenCase": "golden",
        "VerificationReport": "verification",
        "iou": "metrics",
        "load_golden": "golden",
        "replay": "verification",
        "replay_engines": "verification",
        "verify": "verification",
        "write_click_bundle": "click_bundle",
    },
)

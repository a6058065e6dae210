"""Replaying a bundle's golden clicks, and measuring how far masks differ.

golden: the file of pictures, clicks and the checkpoint's own masks.
verification: replaying it with one engine or with all, and the report.
metrics: intersection over union.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.replay.golden import GoldenCase, load_golden
    from mmms_deploy.replay.metrics import iou
    from mmms_deploy.replay.verification import VerificationReport, replay, replay_engines, verify

__all__ = ["GoldenCase", "VerificationReport", "iou", "load_golden", "replay", "replay_engines", "verify"]

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
    },
)

"""What a user holds: a session on one image, its clicks and its results."""

from mmms_deploy.session.inputs import LATER
from mmms_deploy.session.result import Click, ClickResult, ImageTimings, Timings
from mmms_deploy.session.session import HISTORY_LIMIT, Session

__all__ = ["HISTORY_LIMIT", "LATER", "Click", "ClickResult", "ImageTimings", "Session", "Timings"]

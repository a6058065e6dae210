"""Requests that carry all points of an object, as tools send them at every click."""

from __future__ import annotations

from collections.abc import Sequence

from mmms_deploy.session import Click, ClickResult, Session


def answer_all(
    session: Session, clicks: Sequence[Click], box: tuple[float, float, float, float] | None = None
) -> ClickResult:
    """Return the answer to all points of the current object, and to a box before them.

    Points alone go on from the longest beginning that the session has of them.

    Args:
        session: The session, on the picture.
        clicks: The points, oldest first.
        box: The box, x0, y0, x1, y1 in image pixels; None without one.

    Raises:
        ClickError: A point is outside of the picture, or the network takes no box.
        EngineError: The click stage failed.
    """
    if box is None:
        return session.set_clicks(clicks)
    places = [(one.x, one.y) for one in clicks]
    labels = [int(one.positive) for one in clicks]
    session.predict(places or None, labels or None, box=box, multimask_output=False)
    return session.result

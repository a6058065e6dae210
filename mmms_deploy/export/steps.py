"""The steps of an export, as progress bars show them."""

from __future__ import annotations

import itertools
from dataclasses import replace

from mmms_deploy.progress import OnProgress, Progress


def announce(on_progress: OnProgress | None, step: str) -> None:
    """Report that a step starts.

    Args:
        on_progress: Receives it; None for nothing.
        step: Its name.
    """
    if on_progress is not None:
        on_progress(Progress(step))


def counted(on_progress: OnProgress | None, total: int) -> OnProgress:
    """Return a callback that passes steps on with their number: ``done`` steps are over, of ``total``.

    Steps inside of a step are passed on as they are.
    """
    done = itertools.count()

    def count(step: Progress) -> None:
        if on_progress is not None:
            on_progress(step if step.depth else replace(step, done=next(done), total=total))

    return count

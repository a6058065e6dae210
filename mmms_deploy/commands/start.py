"""Where the commands start, so that a signal during the imports ends them in one line too."""

from __future__ import annotations

import sys
from importlib import import_module

from mmms_deploy.commands import signals


def _start(name: str) -> None:
    signals.handle_until_exit()
    try:
        main = import_module(f"mmms_deploy.commands.{name}").main
    except BaseException as error:
        stopped = signals.stopped_by(error)
        if stopped is None:
            raise
        print(f"error: {stopped}", file=sys.stderr)
        signals.leave(stopped)
    main()


def export() -> None:
    """``mmms-export``."""
    _start("export")


def build() -> None:
    """``mmms-build``."""
    _start("build")


def verify() -> None:
    """``mmms-verify``."""
    _start("verify")


def segment() -> None:
    """``mmms-segment``."""
    _start("segment")


def bench() -> None:
    """``mmms-bench``."""
    _start("bench")


def evaluate() -> None:
    """``mmms-eval``."""
    _start("eval")


def demo() -> None:
    """``mmms-demo``."""
    _start("demo")


def train() -> None:
    """``mmms-train``."""
    _start("train")


def doctor() -> None:
    """``mmms-doctor``."""
    _start("doctor")


def push() -> None:
    """``mmms-push``."""
    _start("push")


def precompute() -> None:
    """``mmms-precompute``."""
    _start("precompute")


def replay() -> None:
    """``mmms-replay``."""
    _start("replay")


def package() -> None:
    """``mmms-package``."""
    _start("package")


def weights() -> None:
    """``mmms-weights``."""
    _start("weights")


def serve() -> None:
    """``mmms-serve``."""
    _start("serve")

"""mmms-deploy: from an interactive segmentation checkpoint to milliseconds a click.

The names below load on first use, so that ``import mmms_deploy`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.errors import MMMSDeployError, MMMSDeployWarning
    from mmms_deploy.session import LATER, Click, ClickResult, Session

__version__ = "0.1.0"

_HOME = {
    "LATER": "mmms_deploy.session",
    "Bundle": "mmms_deploy.bundle",
    "Click": "mmms_deploy.session",
    "ClickResult": "mmms_deploy.session",
    "MMMSDeployError": "mmms_deploy.errors",
    "MMMSDeployWarning": "mmms_deploy.errors",
    "Session": "mmms_deploy.session",
}

__all__ = [
    "LATER",
    "Bundle",
    "Click",
    "ClickResult",
    "MMMSDeployError",
    "MMMSDeployWarning",
    "Session",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mmms_deploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

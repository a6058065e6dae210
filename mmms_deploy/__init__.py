"""mmms-deploy: from an interactive segmentation checkpoint to milliseconds a click.

The names below load on first use, so that ``import mmms_deploy`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names
from mmms_deploy.version import __version__

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.engines import CudaOptions, Engine, EngineInfo, open_engine
    from mmms_deploy.errors import MMMSDeployError, MMMSDeployWarning
    from mmms_deploy.session import LATER, Click, ClickResult, ImageTimings, Session, Timings, draw_overlay

__all__ = [
    "LATER",
    "Bundle",
    "Click",
    "ClickResult",
    "CudaOptions",
    "Engine",
    "EngineInfo",
    "ImageTimings",
    "MMMSDeployError",
    "MMMSDeployWarning",
    "Session",
    "Timings",
    "__version__",
    "draw_overlay",
    "open_engine",
]

_MODULES = {
    "LATER": "session",
    "Bundle": "bundle",
    "Click": "session",
    "ClickResult": "session",
    "CudaOptions": "engines",
    "Engine": "engines",
    "EngineInfo": "engines",
    "ImageTimings": "session",
    "MMMSDeployError": "errors",
    "MMMSDeployWarning": "errors",
    "Session": "session",
    "Timings": "session",
    "draw_overlay": "session",
    "open_engine": "engines",
}

__getattr__, _ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)

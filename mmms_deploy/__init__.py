"""mmms-deploy: from an interactive segmentation checkpoint to milliseconds a click.

The names below load on first use, so that ``import mmms_deploy`` costs next to nothing.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names
from mmms_deploy.version import __version__

if TYPE_CHECKING:
    from mmms_deploy.annotations import Annotation, CocoWriter, Detections, Polygon, read_annotation
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.engines import CudaOptions, Engine, EngineInfo, open_engine
    from mmms_deploy.errors import MMMSDeployError, MMMSDeployWarning
    from mmms_deploy.session import (
        LATER,
        Click,
        ClickResult,
        Features,
        ImageTimings,
        Model,
        Session,
        Timings,
        draw_overlay,
    )
    from mmms_deploy.store import FeatureStore, Prefetcher

__all__ = [
    "LATER",
    "Annotation",
    "Bundle",
    "Click",
    "ClickResult",
    "CocoWriter",
    "CudaOptions",
    "Detections",
    "Engine",
    "EngineInfo",
    "FeatureStore",
    "Features",
    "ImageTimings",
    "MMMSDeployError",
    "MMMSDeployWarning",
    "Model",
    "Polygon",
    "Prefetcher",
    "Session",
    "Timings",
    "__version__",
    "draw_overlay",
    "open_engine",
    "read_annotation",
]

_MODULES = {
    "LATER": "session",
    "Annotation": "annotations",
    "Bundle": "bundle",
    "Click": "session",
    "ClickResult": "session",
    "CocoWriter": "annotations",
    "CudaOptions": "engines",
    "Detections": "annotations",
    "Engine": "engines",
    "EngineInfo": "engines",
    "FeatureStore": "store",
    "Features": "session",
    "ImageTimings": "session",
    "MMMSDeployError": "errors",
    "MMMSDeployWarning": "errors",
    "Model": "session",
    "Polygon": "annotations",
    "Prefetcher": "store",
    "Session": "session",
    "Timings": "session",
    "draw_overlay": "session",
    "open_engine": "engines",
    "read_annotation": "annotations",
}

__getattr__, _ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)

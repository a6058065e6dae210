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
    from mmms_deploy.imaging import MaskCleaning
    from mmms_deploy.session import (
        LATER,
        AsyncSession,
        Click,
        ClickResult,
        Features,
        ImageTimings,
        Journal,
        Model,
        Session,
        Timings,
        Work,
        Workers,
        draw_overlay,
        read_work,
    )
    from mmms_deploy.store import FeatureStore, Prefetcher

__all__ = [
    "LATER",
    "Annotation",
    "AsyncSession",
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
    "Journal",
    "MMMSDeployError",
    "MMMSDeployWarning",
    "MaskCleaning",
    "Model",
    "Polygon",
    "Prefetcher",
    "Session",
    "Timings",
    "Work",
    "Workers",
    "__version__",
    "draw_overlay",
    "open_engine",
    "read_annotation",
    "read_work",
]

_MODULES = {
    "LATER": "session",
    "Annotation": "annotations",
    "AsyncSession": "session",
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
    "Journal": "session",
    "MMMSDeployError": "errors",
    "MMMSDeployWarning": "errors",
    "MaskCleaning": "imaging",
    "Model": "session",
    "Polygon": "annotations",
    "Prefetcher": "store",
    "Session": "session",
    "Timings": "session",
    "Work": "session",
    "Workers": "session",
    "draw_overlay": "session",
    "open_engine": "engines",
    "read_annotation": "annotations",
    "read_work": "session",
}

__getattr__, _ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)

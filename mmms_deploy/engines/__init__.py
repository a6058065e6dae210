"""What executes a bundle's stages: one small protocol, one folder a library, and the choice between them.

The names below load on first use; an engine's library is imported when the engine is opened.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.engines.cuda.options import CudaOptions
    from mmms_deploy.engines.protocol import Engine, EngineInfo, Runner
    from mmms_deploy.engines.select import open_engine

__all__ = ["CudaOptions", "Engine", "EngineInfo", "Runner", "open_engine"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CudaOptions": "cuda.options",
        "Engine": "protocol",
        "EngineInfo": "protocol",
        "Runner": "protocol",
        "open_engine": "select",
    },
)

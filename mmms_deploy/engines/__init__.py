"""What executes a bundle's stages: one small protocol, one folder a library, and the choice between them.

protocol, base: what a session needs of an engine, and what every engine keeps.
registry: the engines of this version.
request: what a caller requests.
choice, select, explain: the facts of a choice, the choice, and the sentences about it.
verdicts: how each engine did on this machine.
cache, wheels, cores, cpu, machine: kept files, installed wheels, cores, the processor, and the whole machine in words.
cuda, tensorrt, onnxruntime, openvino: one folder a library; ``cuda`` is what the engines on a GPU share.

The names below load on first use; an engine's library is imported when the engine is opened.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.engines.cuda.engine import CudaEngine
    from mmms_deploy.engines.cuda.options import CudaOptions
    from mmms_deploy.engines.protocol import Engine, EngineInfo, Runner
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.engines.select import open_engine

__all__ = ["CudaEngine", "CudaOptions", "Engine", "EngineInfo", "EngineRequest", "Runner", "open_engine"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CudaEngine": "cuda.engine",
        "CudaOptions": "cuda.options",
        "Engine": "protocol",
        "EngineInfo": "protocol",
        "EngineRequest": "request",
        "Runner": "protocol",
        "open_engine": "select",
    },
)

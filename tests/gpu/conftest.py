"""The engines on a real GPU; everything here is marked ``gpu`` and skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.registry import BACKENDS, Backend
from mmms_deploy.errors import EngineError
from tests.support.engines import Open

GPU_ENGINES = [backend for backend in BACKENDS if backend.device == "cuda"]
FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(params=GPU_ENGINES, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every engine for CUDA, in turn."""
    found: Backend = request.param
    try:
        found.usable()
    except EngineError as error:
        pytest.skip(error.given)
    return found


@pytest.fixture
def opened(backend: Backend) -> Iterator[Open]:
    """Open that engine for a bundle, and close it afterwards."""
    from importlib import import_module

    engines: list[CudaEngine] = []

    def open_it(bundle: Bundle, precision: Precision = Precision.FP32, **options: Any) -> CudaEngine:
        factory = getattr(import_module(backend.module), backend.factory)
        engines.append(factory(bundle, precision, None, "tested", **options))
        return engines[-1]

    yield open_it
    for engine in engines:
        engine.close()

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmms_deploy.bundle import Bundle
from tests.support.standin_engine import StandInEngine, tidy


@pytest.fixture(params=[False, True], ids=["own-stream", "shared-stream"])
def engine(request: pytest.FixtureRequest, paint: Bundle) -> Iterator[StandInEngine]:
    """An engine as with TensorRT, and one as with ONNX Runtime."""
    with tidy(paint, shared=request.param) as engine:
        yield engine


@pytest.fixture
def capturing(paint: Bundle) -> Iterator[StandInEngine]:
    """An engine as with TensorRT, where we capture clicks as CUDA graphs."""
    with tidy(paint) as engine:
        yield engine

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmms_deploy import Model
from mmms_deploy.bundle import Bundle
from tests.standins import label_studio as standin
from tests.standins.label_studio import Service


@pytest.fixture
def service() -> Iterator[Service]:
    """A Label Studio."""
    with standin.running() as service:
        yield service


@pytest.fixture
def elsewhere() -> Iterator[Service]:
    """Another host with pictures, which asks for no token."""
    with standin.running() as service:
        service.asks = False
        yield service


@pytest.fixture(scope="module")
def model(paint: Bundle) -> Iterator[Model]:
    with Model(paint, engine="onnxruntime") as model:
        yield model

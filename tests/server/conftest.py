from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle
from mmms_deploy.engines import Engine, open_engine
from mmms_deploy.server import Settings, create_app
from tests.support.server import Client, Running, png, running_server

SIZE = (90, 160)


@pytest.fixture(scope="session")
def running(small_engine: Engine) -> Iterator[Running]:
    """A server as it is, on the small demo."""
    with running_server(small_engine) as running:
        yield running


@pytest.fixture(scope="session")
def client(running: Running) -> Client:
    return Client(running.api)


@pytest.fixture(scope="session")
def picture() -> Any:
    """A disk on a slope, (90, 160, 3) uint8."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    disk = (np.hypot(rows - 45, columns - 60) < 30) * 180
    return np.stack([disk, rows, columns], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def upload(picture: Any) -> bytes:
    return png(picture)


@pytest.fixture
def reference(small_engine: Engine, upload: bytes) -> Iterator[Session]:
    """What the server's answers are compared with."""
    with Session(small_engine.bundle, engine=small_engine) as session:
        session.set_image(upload)
        yield session


@pytest.fixture
def session(client: Client, upload: bytes) -> Iterator[str]:
    """A session with an image."""
    name = client.open(image=upload)
    yield name
    client("DELETE", f"sessions/{name}")


Opener = Callable[..., TestClient]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens the application itself, without a socket, on any bundle: ``opened(bundle, clock=..., most_sessions=2)``."""
    closing: list[Callable[[], object]] = []

    def open_app(bundle: Bundle, pictures: Any = (), clock: Any = None, **settings: Any) -> TestClient:
        engine = open_engine(bundle, engine="onnxruntime")
        clocked = {} if clock is None else {"clock": clock}
        app = create_app(engine, Settings(**settings), pictures, **clocked)
        client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.__enter__()
        closing.extend((lambda: client.__exit__(None, None, None), engine.close))
        return client

    yield open_app
    for close in closing:
        close()

"""The application: the API, the page's files, and the guard before both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import mmms_deploy.page
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.page.model import browser_model
from mmms_deploy.page.runtime import runtime_files
from mmms_deploy.server import file_routes, live, model_routes, picture_routes, session_routes
from mmms_deploy.server.errors import RequestError, TooLargeError, UnknownPlaceError, answered, error_body, status_of
from mmms_deploy.server.guard import API, Guard
from mmms_deploy.server.saving import Results
from mmms_deploy.server.settings import ServedPicture, Settings
from mmms_deploy.server.state import State, json_answer
from mmms_deploy.server.tabs import Tabs
from mmms_deploy.version import __version__

PAGE = Path(mmms_deploy.page.__file__).parent / "files"
"""The page's files."""


def create_app(
    engine: Engine,
    settings: Settings | None = None,
    pictures: Sequence[ServedPicture] = (),
    *,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the application, for any ASGI server; :func:`~mmms_deploy.server.serve` runs it.

    It keeps its sessions in memory: run it in one process.

    Args:
        engine: The engine that all sessions share; it is not closed.
        settings: What the server may do; None takes the defaults.
        pictures: The pictures that it offers; a picture's id is its place.
        clock: Seconds that only grow, by which sessions are idle.
    """
    settings = Settings() if settings is None else settings
    tabs = Tabs(engine, settings, clock)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(tabs.sweep_for_ever())
        try:
            yield
        finally:
            sweeping.cancel()
            await tabs.close_all()

    app = FastAPI(
        title="mmms-deploy",
        summary="Click-based segmentation over HTTP",
        version=__version__,
        openapi_url=f"{API}/openapi.json",
        # Both load scripts from the network.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.shared = State(
        engine=engine,
        settings=settings,
        pictures=tuple(pictures),
        tabs=tabs,
        results=Results(settings.out, pictures),
        browser=browser_model(engine.bundle),
        runtime=file_routes.listed(runtime_files()),
        page=file_routes.listed(PAGE),
    )
    for routes in (model_routes, picture_routes, session_routes, live):
        app.include_router(routes.router, prefix=API)
    app.include_router(file_routes.router)
    app.add_exception_handler(MMMSDeployError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_middleware(Guard, settings=settings)
    return app


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, MMMSDeployError)
    seen = answered(error)
    # What is left of a body that was refused is not read.
    headers = {"Connection": "close"} if isinstance(seen, TooLargeError) else None
    return json_answer(error_body(seen), status_of(seen), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return await _known(
        request,
        RequestError(
            f"{place}: {str(first['msg']).lower()}",
            expected="what /api/v1/openapi.json describes",
            fix="correct the address",
        ),
    )


async def _of_the_framework(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: a method that an address does not have, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    wrong: type[MMMSDeployError] = UnknownPlaceError if error.status_code == 404 else RequestError
    seen = wrong(
        f"{request.method}: {str(error.detail).lower()}",
        expected="a call that /api/v1/openapi.json describes",
        fix="correct the address or the method",
    )
    return json_answer(error_body(seen), error.status_code, error.headers)

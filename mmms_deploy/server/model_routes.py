"""The calls about the server itself: whether it is there, its network, and the click stage for a browser."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from mmms_deploy.page.features import UNCLEANED
from mmms_deploy.page.network import described_network
from mmms_deploy.page.runtime import NO_RUNTIME
from mmms_deploy.server.file_routes import ASKED, given
from mmms_deploy.server.shapes import BrowserAnswer, HealthAnswer, ModelAnswer, cleaning_fields
from mmms_deploy.server.state import ERRORS, json_answer, state_of

router = APIRouter(tags=["server"], responses=ERRORS)


@router.get("/health", summary="Say that the server is there", response_model=HealthAnswer)
async def health() -> Response:
    """Needs no token."""
    return json_answer({"status": "ok"})


@router.get("/model", summary="Describe the network, its engine and the limits", response_model=ModelAnswer)
async def model(request: Request) -> Response:
    """Say what a program has to know before it asks for clicks."""
    state = state_of(request)
    info, settings = state.engine.info, state.settings
    return json_answer(
        {
            **described_network(state.engine.bundle.manifest),
            "engine": {
                "library": info.library,
                "version": info.version,
                "device": info.device,
                "precision": str(info.precision),
                "threads": info.threads,
                "reason": info.reason,
            },
            "limits": {
                "upload_bytes": settings.upload_bytes,
                "pixels": settings.most_pixels,
                "idle_seconds": settings.idle_seconds,
                "sessions": settings.most_sessions,
            },
            "saves": settings.out is not None,
            "cleaning": cleaning_fields(settings.cleaning),
        }
    )


@router.get("/browser", summary="Describe the click stage for a browser", response_model=BrowserAnswer)
async def browser(request: Request) -> Response:
    """Say whether clicks can be answered in the browser, and why not."""
    state = state_of(request)
    cleaned = UNCLEANED if state.settings.cleaning is not None else ""
    why = state.browser.why or cleaned or ("" if state.runtime else NO_RUNTIME)
    return json_answer({"available": not why, "why": why, "model": state.browser.to_json()})


@router.get("/browser/model/{file}", summary="Get a file of the click stage", response_class=FileResponse)
async def browser_file(request: Request, file: str) -> Response:
    """Give the ONNX file of the click stage, or its external data."""
    state = state_of(request)
    bundle = state.engine.bundle
    return given(request, {one.name: bundle.file(one.name) for one in state.browser.files}, file, ASKED)

"""The application: what Label Studio asks of a model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mmms_deploy.doors.label_studio.fetching import Fetcher
from mmms_deploy.doors.label_studio.guard import BackendGuard
from mmms_deploy.doors.label_studio.markup import Markup, parse_markup, picture_of
from mmms_deploy.doors.label_studio.prompts import prompts_of
from mmms_deploy.doors.label_studio.regions import region_of
from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.doors.label_studio.shapes import Context, Prediction, Setup, Task, Validation, read_shape
from mmms_deploy.doors.label_studio.tasks import Tasks
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.server.errors import RequestError, TooLargeError, UnknownPlaceError, error_body, status_of
from mmms_deploy.server.settings import Settings
from mmms_deploy.server.state import json_answer
from mmms_deploy.session import Model
from mmms_deploy.session.boxes import takes_boxes
from mmms_deploy.version import __version__

REASON = "x-mmms-reason"
"""A header of our own between the application and the connection: what the status line says in the place of the usual
words. Label Studio shows the status line of an error, and nothing of its body."""
_MOST_PROJECTS = 1000
_CALLS = "GET /health, POST /setup, POST /predict, POST /webhook, GET /versions, POST /validate"
_log = logging.getLogger("mmms_deploy.doors.label_studio")

T = TypeVar("T")


class Backend:
    """What the calls share.

    Args:
        model: The open bundle; it is not closed.
        opening: How sessions are opened.
        label_studio: The Label Studio that is served.
        settings: The limits.

    Attributes:
        version: What Label Studio shows as the model's version.
        tasks: The sessions.
    """

    def __init__(self, model: Model, opening: Opening, label_studio: LabelStudio, settings: Settings) -> None:
        manifest = model.bundle.manifest
        self.version = f"{manifest.name} {manifest.digest[:12]}"
        self.boxes = takes_boxes(manifest.clicks)
        self.tasks = Tasks(
            model,
            opening,
            Fetcher(label_studio, settings.upload_bytes).picture,
            most=settings.most_sessions,
            most_pixels=settings.most_pixels,
            idle_seconds=settings.idle_seconds,
        )
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._markup: tuple[str, Markup] | None = None

    def setup(self, given: Setup) -> dict[str, Any]:
        """Take a project, and keep the token that comes with it.

        Raises:
            DoorError: Its labelling configuration cannot be used.
        """
        self._parsed(given.schema or "").check(boxes=self.boxes)
        if given.project is not None and given.access_token:
            with self._lock:
                self._tokens[given.project] = given.access_token
                self._tokens.move_to_end(given.project)
                while len(self._tokens) > _MOST_PROJECTS:
                    self._tokens.popitem(last=False)
        return {"model_version": self.version}

    def validate(self, given: Validation) -> dict[str, Any]:
        """Check a labelling configuration.

        Raises:
            DoorError: It cannot be used.
        """
        self._parsed(given.config).check(boxes=self.boxes)
        return {"status": "ok"}

    def predict(self, given: Prediction) -> dict[str, Any]:
        """Answer points and boxes with regions. Without a context there is nothing to answer, and no prediction.

        Raises:
            MMMSDeployError: Something in the request does not fit, or the picture cannot be had.
        """
        context = given.context
        if context is None:
            # Label Studio asks so when a task is opened. It would store and show a prediction without regions.
            return {"results": [[] for _ in given.tasks]}
        return {"results": [self._predicted(given, task, context) for task in given.tasks]}

    def _predicted(self, given: Prediction, task: Task, context: Context) -> dict[str, Any]:
        regions: list[dict[str, Any]] = []
        scores: list[float] = []
        if context.result:
            markup = self._parsed(given.label_config or "")
            with self._lock:
                token = self._tokens.get(given.project or "")
            for prompts in prompts_of(context.result):
                address = picture_of(markup, prompts.picture, task.data)
                control = markup.mask_for(prompts.picture, prompts.labels)
                key = (given.project, task.id if task.id is not None else address, prompts.picture)
                mask, score = self.tasks.answer(key, address, token, prompts)
                if mask.any():
                    regions.append(region_of(mask, control, prompts.labels))
                    scores.append(score)
        return {"model_version": self.version, "score": min(scores, default=0.0), "result": regions}

    def _parsed(self, text: str) -> Markup:
        held = self._markup
        if held is None or held[0] != text:
            self._markup = held = (text, parse_markup(text))
        return held[1]


def create_app(
    model: Model,
    opening: Opening | None = None,
    label_studio: LabelStudio | None = None,
    settings: Settings | None = None,
) -> FastAPI:
    """Return the application, for any ASGI server; :func:`~mmms_deploy.doors.label_studio.serving.serve` runs it.

    Args:
        model: The open bundle; it is not closed.
        opening: How sessions are opened; None takes the defaults.
        label_studio: The Label Studio that is served; None takes the one on this machine.
        settings: Where it listens, and its limits; None takes the defaults.
    """
    settings = Settings() if settings is None else settings
    backend = Backend(model, opening or Opening(), label_studio or LabelStudio(), settings)
    limiter = CapacityLimiter(settings.calls_at_once)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(min(30.0, max(0.05, settings.idle_seconds / 4)))
            await to_thread.run_sync(backend.tasks.free_idle)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            await to_thread.run_sync(backend.tasks.close)

    app = FastAPI(
        title="mmms-deploy for Label Studio",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.backend = backend

    async def answered(request: Request, kind: type[T], call: Callable[[T], dict[str, Any]]) -> Response:
        given = read_shape(await request.body(), kind)
        return json_answer(await to_thread.run_sync(call, given, limiter=limiter))

    async def health(request: Request) -> Response:
        return json_answer({"status": "UP", "model_class": "mmms-deploy", "model_version": backend.version})

    async def versions(request: Request) -> Response:
        return json_answer({"versions": [backend.version]})

    async def webhook(request: Request) -> Response:
        # Nothing is learnt from annotations: they are read past, within the limit on bodies.
        async for _ in request.stream():
            pass
        return json_answer({})

    async def setup(request: Request) -> Response:
        return await answered(request, Setup, backend.setup)

    async def predict(request: Request) -> Response:
        return await answered(request, Prediction, backend.predict)

    async def validate(request: Request) -> Response:
        return await answered(request, Validation, backend.validate)

    for path, method, call in (
        ("/", "GET", health),
        ("/health", "GET", health),
        ("/versions", "GET", versions),
        ("/setup", "POST", setup),
        ("/predict", "POST", predict),
        ("/webhook", "POST", webhook),
        ("/validate", "POST", validate),
    ):
        app.add_route(path, call, methods=[method])
    app.add_exception_handler(MMMSDeployError, _known)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_middleware(BackendGuard, settings=settings)
    return app


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, MMMSDeployError)
    _log.warning("%s %s: %s", request.method, request.url.path, error)
    headers = {REASON: reason_of(error)}
    if isinstance(error, TooLargeError):
        # What is left of a body that was refused is not read.
        headers["Connection"] = "close"
    return json_answer(error_body(error), status_of(error), headers)


async def _of_the_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    wrong: type[MMMSDeployError] = UnknownPlaceError if error.status_code == 404 else RequestError
    seen = wrong(
        f"{request.method} {request.url.path[:200]}: {str(error.detail).lower()}",
        expected=_CALLS,
        fix="call one of these",
    )
    return json_answer(error_body(seen), error.status_code, error.headers)


def reason_of(error: MMMSDeployError) -> str:
    """Return an error in one line of ASCII, short enough for a status line."""
    line = "; ".join(part.strip() for part in str(error).splitlines())
    plain = "".join(one if " " <= one <= "~" else "?" for one in line)
    return plain if len(plain) <= 600 else plain[:597] + "..."

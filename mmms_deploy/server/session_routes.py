"""The calls about a session: its image, its clicks, what is taken out of it."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mmms_deploy.errors import AnnotationError
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.page.features import encode_features
from mmms_deploy.server.answers import answer, checked_mask_form, framed, http_answer, probability, with_mask
from mmms_deploy.server.calls import CALLS, Call, checked, decoded
from mmms_deploy.server.errors import RequestError, UnknownImageError
from mmms_deploy.server.layers import image_layer, modality_layer
from mmms_deploy.server.saving import Saved
from mmms_deploy.server.shapes import MaskAnswer, OpenCall, OpenedAnswer, SessionAnswer, SessionCall, cleaning_fields
from mmms_deploy.server.state import ERRORS, State, json_answer, state_of
from mmms_deploy.server.tabs import Source, Tab
from mmms_deploy.server.uploads import IMAGE, check_picture, check_pixels, read_form, shown_name
from mmms_deploy.session import LATER, Features

router = APIRouter(tags=["sessions"], responses=ERRORS)
_PIXEL_BYTES = 5
"""Of the label map and the mask of one object."""
_BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


def _body(content: str, schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {content: {"schema": dict(schema)}}}}


def _form(*fields: str) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    return _body(
        "multipart/form-data",
        {"type": "object", "properties": dict.fromkeys(fields, file), "additionalProperties": file},
    )


# --- opening ----------------------------------------------------------------------------------------------------------


@router.post(
    "/sessions",
    status_code=201,
    summary="Open a session",
    response_model=SessionAnswer,
    openapi_extra=_body("application/json", SessionCall.model_json_schema(), required=False),
)
async def open_session(request: Request) -> Response:
    """Open a session, which holds one image at a time."""
    asked = checked(SessionCall, decoded(await request.body())).cleaning
    cleaning = None if asked is None else MaskCleaning(**asked.model_dump())
    tab = await state_of(request).tabs.open(cleaning)
    return json_answer({"session": tab.id, "cleaning": cleaning_fields(tab.session.cleaning)}, 201)


@router.delete("/sessions/{session}", status_code=204, summary="Close a session")
async def close_session(request: Request, session: str) -> Response:
    """Free all that a session holds."""
    await state_of(request).tabs.close(session)
    return Response(status_code=204)


# --- the image --------------------------------------------------------------------------------------------------------


@router.put(
    "/sessions/{session}/image",
    summary="Set an image from files",
    response_model=OpenedAnswer,
    openapi_extra=_form(IMAGE),
)
async def put_image(request: Request, session: str, later: str = "") -> Response:
    """Set a new image: the field ``image``, and one field for each modality, with its file.

    An image alone may be the body itself, as ``application/octet-stream`` or of an image's type.

    Args:
        request: The request.
        session: The session.
        later: Names of modalities that PUT modalities sends later, with commas.
    """
    state = state_of(request)
    tab = state.tabs.get(session)
    names = [spec.name for spec in state.engine.bundle.manifest.modalities]
    upload = await read_form(request, (IMAGE, *names))
    if IMAGE not in upload.files:
        raise RequestError("the form has no image", expected="a file in the field image", fix="add it")
    return await _set(state, tab, upload.files, upload.name, later=[name for name in later.split(",") if name])


@router.post(
    "/sessions/{session}/open",
    summary="Set one of the server's pictures",
    response_model=OpenedAnswer,
    openapi_extra=_body("application/json", OpenCall.model_json_schema()),
)
async def open_image(request: Request, session: str) -> Response:
    """Set a new image: one that GET images lists."""
    state = state_of(request)
    tab = state.tabs.get(session)
    number = checked(OpenCall, decoded(await request.body())).image
    picture = state.picture(number)
    sources: dict[str, Source] = {IMAGE: picture.path, **picture.modalities}
    return await _set(state, tab, sources, shown_name(picture.name, whole=True), number=number)


async def _set(
    state: State,
    tab: Tab,
    sources: Mapping[str, Source],
    name: str,
    *,
    later: list[str] | None = None,
    number: int | None = None,
) -> Response:
    pixels = await state.tabs.compute(lambda: check_pixels(sources, state.settings.most_pixels))
    files = sum(len(source) for source in sources.values() if isinstance(source, bytes))
    await state.tabs.make_room(tab, files + _PIXEL_BYTES * pixels)

    def run() -> dict[str, Any]:
        start = perf_counter()
        modalities = {layer: source for layer, source in sources.items() if layer != IMAGE}
        features = None if number is None else state.pictures[number].features
        if features is None:
            tab.session.set_image(sources[IMAGE], **modalities, **dict.fromkeys(later or (), LATER))
        else:
            encoded = Features.load(features)
            encoded.check_image(load_rgb(sources[IMAGE]), name)
            tab.session.use(encoded.without_picture())
        milliseconds = 1e3 * (perf_counter() - start)
        tab.sources, tab.name, tab.picture = dict(sources), name, number
        tab.seen.forget()
        tab.extents.forget()
        return _opened(tab, milliseconds, Saved() if number is None else state.results.read(state.pictures[number]))

    return json_answer(await state.tabs.call(tab, run))


def _opened(tab: Tab, milliseconds: float, saved: Saved) -> dict[str, Any]:
    return {
        "size": tab.session.image_size,
        "name": tab.name,
        "layers": list(tab.sources),
        "milliseconds": milliseconds,
        "annotation": saved.annotation,
        "problem": saved.problem,
    }


@router.put(
    "/sessions/{session}/modalities",
    summary="Set modalities of the image that is there",
    response_model=OpenedAnswer,
    openapi_extra=_form(),
)
async def put_modalities(request: Request, session: str) -> Response:
    """Set modalities that come later than their image, or anew: one field for each. All clicks are answered again."""
    state = state_of(request)
    tab = state.tabs.get(session)
    upload = await read_form(request, [spec.name for spec in state.engine.bundle.manifest.modalities])
    await state.tabs.compute(lambda: check_pixels(upload.files, state.settings.most_pixels))

    def run() -> dict[str, Any]:
        start = perf_counter()
        tab.session.set_modalities(**upload.files)
        tab.sources = {**tab.sources, **upload.files}
        return _opened(tab, 1e3 * (perf_counter() - start), Saved())

    return json_answer(await state.tabs.call(tab, run, grows=True))


@router.get("/sessions/{session}/layers/{layer}", summary="Get a layer as PNG", responses=_PNG)
async def layer_png(request: Request, session: str, layer: str) -> Response:
    """Give the image, upright, or a modality, in grey or as colours."""
    state = state_of(request)
    tab = state.tabs.get(session)

    def drawn() -> bytes:
        _ = tab.session.image_size
        source = tab.sources.get(layer)
        if source is None:
            raise UnknownImageError(
                "there is no such layer", expected=f"one of {', '.join(tab.sources)}", fix="check its name"
            )
        if layer == IMAGE:
            return image_layer(source)
        specs = {spec.name: spec for spec in state.engine.bundle.manifest.modalities}
        return modality_layer(source, specs[layer])

    return Response(await state.tabs.call(tab, drawn), media_type="image/png")


# --- clicks -----------------------------------------------------------------------------------------------------------


def _endpoint(call: Call) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request, session: str, mask: str = "rle") -> Response:
        state = state_of(request)
        tab, form = state.tabs.get(session), checked_mask_form(mask)
        content = await request.body()

        def run() -> dict[str, Any]:
            return http_answer(tab, call, checked(call.fields, decoded(content)), form)

        return json_answer(await state.tabs.call(tab, run, grows=call.grows))

    return endpoint


for _name, _call in CALLS.items():
    router.add_api_route(
        f"/sessions/{{session}}/{_name}",
        _endpoint(_call),
        methods=["POST"],
        name=_name,
        summary=_call.summary,
        response_model=MaskAnswer,
        openapi_extra=_body("application/json", _call.fields.model_json_schema()),
    )


@router.put(
    "/sessions/{session}/labels",
    summary="Put a label map in the place of all objects",
    response_model=MaskAnswer,
    openapi_extra=_body("application/octet-stream", {"type": "string", "format": "binary"}),
)
async def put_labels(request: Request, session: str, mask: str = "rle") -> Response:
    """Every label of the picture becomes an object; labels.png of a session brings their names along."""
    state = state_of(request)
    tab, form = state.tabs.get(session), checked_mask_form(mask)
    content = await request.body()

    def run() -> dict[str, Any]:
        check_picture(content, AnnotationError, "the labels", state.settings.most_pixels)
        tab.session.load_labels(content)
        return with_mask(tab, answer(tab, tab.seen, whole=True)[0], form)

    return json_answer(await state.tabs.call(tab, run, grows=True))


# --- what is taken out ------------------------------------------------------------------------------------------------


@router.get("/sessions/{session}/annotation", summary="Get the annotation", response_model=dict[str, Any])
async def annotation(request: Request, session: str) -> Response:
    """Give all objects with their clicks, for restore."""
    state = state_of(request)
    tab = state.tabs.get(session)
    return json_answer(await state.tabs.call(tab, tab.session.to_dict))


@router.get("/sessions/{session}/labels.png", summary="Get the label map", responses=_PNG)
async def labels_png(request: Request, session: str) -> Response:
    """Give the label map as a palette PNG, with the names of the objects in it."""
    state = state_of(request)
    tab = state.tabs.get(session)

    def written() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.png"
            tab.session.save_labels(path)
            return path.read_bytes()

    return Response(await state.tabs.call(tab, written), media_type="image/png")


@router.get("/sessions/{session}/coco.json", summary="Get a COCO data set", response_model=dict[str, Any])
async def coco(request: Request, session: str, polygons: bool = False) -> Response:
    """Give all objects as a COCO data set of one image.

    Args:
        request: The request.
        session: The session.
        polygons: Whether masks are polygons, where these are exact.
    """
    state = state_of(request)
    tab = state.tabs.get(session)
    return json_answer(await state.tabs.call(tab, lambda: tab.session.to_coco(tab.name, polygons=polygons)))


@router.get("/sessions/{session}/features", summary="Get the features in half precision", responses=_BINARY)
async def features(request: Request, session: str) -> Response:
    """Give what the click stage needs in a browser: a frame with float16 tensors."""
    state = state_of(request)
    tab = state.tabs.get(session)
    content = await state.tabs.call(tab, lambda: encode_features(tab.session))
    return Response(content, media_type="application/octet-stream")


@router.get("/sessions/{session}/probability", summary="Get the probability of the current object", responses=_BINARY)
async def probability_bytes(request: Request, session: str) -> Response:
    """Give a frame: the size of the network's answer, and round(255 p) of every pixel."""
    state = state_of(request)
    tab = state.tabs.get(session)
    content = await state.tabs.call(tab, lambda: framed(*probability(tab)))
    return Response(content, media_type="application/octet-stream")

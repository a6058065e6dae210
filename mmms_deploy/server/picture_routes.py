"""The calls about the server's own pictures."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mmms_deploy.server.errors import StateError
from mmms_deploy.server.layers import thumbnail
from mmms_deploy.server.shapes import ImageFields, SavedAnswer
from mmms_deploy.server.state import ERRORS, json_answer, state_of
from mmms_deploy.server.uploads import IMAGE, check_pixels, shown_name

router = APIRouter(tags=["images"], responses=ERRORS)
_MOST_THUMBNAILS = 2000


@router.get("/images", summary="List the server's pictures", response_model=list[ImageFields])
async def images(request: Request) -> Response:
    """List the pictures that were named when the server was started."""
    state = state_of(request)

    def listed() -> list[dict[str, object]]:
        return [
            {"id": number, "name": shown_name(picture.name, whole=True), "annotated": state.results.has(picture)}
            for number, picture in enumerate(state.pictures)
        ]

    return json_answer(await state.tabs.compute(listed))


@router.get("/images/{image}/thumbnail", summary="Get a small JPEG of a picture")
async def small(request: Request, image: int) -> Response:
    """Give a JPEG of at most 160 pixels a side."""
    state = state_of(request)
    picture = state.picture(image)
    content = state.thumbnails.get(image)
    if content is None:

        def made() -> bytes:
            check_pixels({IMAGE: picture.path}, state.settings.most_pixels)
            return thumbnail(picture.path)

        content = await state.tabs.compute(made)
        if len(state.thumbnails) < _MOST_THUMBNAILS:
            state.thumbnails[image] = content
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


@router.put("/images/{image}/annotation", summary="Save an annotation on the server", response_model=SavedAnswer)
async def save(request: Request, image: int, session: str) -> Response:
    """Write the label map and the annotation of a session into the server's folder for results.

    Args:
        request: The request.
        image: The picture.
        session: The session that holds it.
    """
    state = state_of(request)
    picture, tab = state.picture(image), state.tabs.get(session)

    def saved() -> list[str]:
        if tab.picture != image:
            raise StateError(
                f"the session holds another image than {image}",
                expected="the session that opened this image",
                fix="open it with POST sessions/{session}/open",
            )
        return state.results.save(picture, tab.session)

    return json_answer({"files": await state.tabs.call(tab, saved)})

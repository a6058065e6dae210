"""The page's own files, and those of onnxruntime-web. Both are listed once; no path of a caller is ever opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from mmms_deploy.server.errors import UnknownPlaceError
from mmms_deploy.server.state import state_of

router = APIRouter(include_in_schema=False)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
"""Types of files by suffix. What the system knows of suffixes differs, and browsers run no module of another type."""
_KEPT = "public, max-age=604800"
ASKED = "no-cache"
"""A browser keeps a file, and asks each time whether it is still right."""


def listed(folder: Path | None) -> dict[str, Path]:
    """Return all files of a folder by their path below it, with ``/``; none where there is no folder."""
    if folder is None or not folder.is_dir():
        return {}
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


@router.api_route("/runtime/{file}", methods=["GET", "HEAD"])
async def runtime(request: Request, file: str) -> Response:
    """Give a file of onnxruntime-web."""
    return given(request, state_of(request).runtime, file, _KEPT)


@router.api_route("/{path:path}", methods=["GET", "HEAD"])
async def page(request: Request, path: str) -> Response:
    """Give a file of the page."""
    return given(request, state_of(request).page, path or "index.html", ASKED)


def given(request: Request, files: Mapping[str, Path], name: str, caching: str) -> Response:
    """Return a file that is listed, or that the browser's copy of it is still right.

    Args:
        request: The request.
        files: The files by name.
        name: What was asked for.
        caching: What browsers may do with it.

    Raises:
        UnknownPlaceError: It is not listed.
    """
    path = files.get(name)
    if path is None:
        raise UnknownPlaceError(
            "there is nothing at this address", expected="the page at /, or a call of the API", fix="open /"
        )
    found = path.stat()
    tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
    headers = {"ETag": tag, "Cache-Control": caching}
    if tag in (one.strip() for one in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=TYPES.get(path.suffix, "application/octet-stream"), headers=headers)

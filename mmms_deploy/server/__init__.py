"""The HTTP API: sessions for annotators elsewhere, behind the page or a program of your own (docs/server.md).

In reading order:

- ``settings``: what the server may do, and the pictures that it offers
- ``packages``: whether what it needs is installed
- ``serving``: ``serve``, which listens until a signal stops it
- ``app``: ``create_app``, which joins the parts below
- ``guard``: who may ask, and how much: hosts, origins, the token, the length of a body; headers of every answer
- ``errors``: the API's own errors, and how any error is answered
- ``tabs``: the sessions: one a tab, their order, their limits, and the freeing of idle ones
- ``calls``: what a session is asked by name, over HTTP or the live socket
- ``answers``: what it answers
- ``changes``: where a label map changed, as run lengths, and the areas of its labels
- ``shapes``: the fields of requests and answers, as OpenAPI describes them
- ``model_routes``, ``picture_routes``, ``session_routes``, ``file_routes``: the calls over HTTP
- ``live``: the live socket
- ``uploads``: files that come in: their parts, their names, their pixels
- ``layers``: pictures and modalities as PNG
- ``saving``: annotations in the folder for results
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.server.app import create_app
    from mmms_deploy.server.serving import serve
    from mmms_deploy.server.settings import ServedPicture, Settings

__all__ = ["ServedPicture", "Settings", "create_app", "serve"]

_MODULES = {"ServedPicture": "settings", "Settings": "settings", "create_app": "app", "serve": "serving"}

__getattr__, _ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)

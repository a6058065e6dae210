"""A stand-in of a CVAT server on 127.0.0.1, for the real ``cvat-cli``: one task with pictures, and a function's queue.

It answers what an agent asks, in the forms that the SDK's models take; they refuse an answer that lacks a field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import serving

TASK = 5
_WHEN = "2026-01-01T00:00:00Z"


class Cvat:
    """The state of the stand-in.

    Attributes:
        url: Its address.
        token: What every request must carry.
        frames: The pictures' files, with (width, height).
        functions: What was created, by number.
        queue: Parameters of annotation requests that no agent has taken.
        completed: Shapes of the requests that were answered, in order.
        failed: What was said of those that were not.
        downloads: Numbers of the frames that were downloaded.
        unknown: Requests that the stand-in does not know.
    """

    def __init__(self, frames: list[tuple[bytes, tuple[int, int]]]) -> None:
        self.url = ""
        self.token = "token-of-the-stand-in"
        self.frames = frames
        self.functions: dict[int, dict[str, Any]] = {}
        self.queue: list[dict[str, Any]] = []
        self.completed: list[list[dict[str, Any]]] = []
        self.failed: list[str] = []
        self.downloads: list[int] = []
        self.unknown: list[str] = []

    def ask(self, positives: list[Any], negatives: list[Any], *, frame: int = 0, **more: Any) -> None:
        """Put a request into the queue, as the page's click does."""
        points = {"pos_points": positives, "neg_points": negatives, "obj_bbox": []}
        self.queue.append({"type": "interact", "task": TASK, "frame": frame, **points, **more})

    def get(self, path: str, query: dict[str, list[str]]) -> Any:
        """Return the answer to a GET: an object, a file's bytes, or None where nothing is known."""
        parts = path.strip("/").split("/")[1:]
        if parts == ["server", "about"]:
            return {"name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "", "subtitle": ""}
        if parts[:1] == ["functions"] and len(parts) == 2:
            return self.functions.get(int(parts[1]))
        if parts == ["labels"]:
            return {"count": 0, "next": None, "previous": None, "results": []}
        if parts == ["tasks", str(TASK)]:
            return self._task()
        if parts == ["tasks", str(TASK), "data", "meta"]:
            return self._meta()
        if parts == ["tasks", str(TASK), "data"] and query.get("type") == ["frame"]:
            number = int(query["number"][0])
            self.downloads.append(number)
            return self.frames[number][0]
        return None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer to a POST; None where nothing is known."""
        parts = path.strip("/").split("/")[1:]
        if parts == ["functions"]:
            number = len(self.functions) + 1
            # What the server adds by itself.
            given = {"min_neg_points": -1, "startswith_box": False, "startswith_box_optional": False, **body}
            self.functions[number] = {"id": number, **given}
            return self.functions[number]
        if parts[:2] != ["functions", "queues"]:
            return None
        if parts[-1] == "acquire":
            if body["request_category"] != "interactive" or not self.queue:
                return {"ar_assignment": None}
            return {"ar_assignment": {"ar_id": f"ar-{len(self.queue)}", "ar_params": self.queue.pop(0)}}
        if parts[-1] == "complete":
            self.completed.append(body["shapes"])
            return {}
        if parts[-1] == "fail":
            self.failed.append(body["exc_info"])
            self.completed.append([])
            return {}
        return None

    def _task(self) -> dict[str, Any]:
        storage = {"location": "local"}
        return {
            "url": f"{self.url}/api/tasks/{TASK}",
            "id": TASK,
            "name": "pictures",
            "project_id": None,
            "owner": None,
            "assignee": None,
            "bug_tracker": "",
            "created_date": _WHEN,
            "updated_date": _WHEN,
            "overlap": 0,
            "segment_size": len(self.frames),
            "status": "annotation",
            "data_chunk_size": 36,
            "data_compressed_chunk_type": "imageset",
            "data_original_chunk_type": "imageset",
            "size": len(self.frames),
            "image_quality": 70,
            "data": 1,
            "dimension": "2d",
            "mode": "annotation",
            "subset": "",
            "organization": None,
            "target_storage": storage,
            "source_storage": storage,
            "jobs": {"count": 1, "completed": 0, "validation": 0, "url": f"{self.url}/api/jobs?task_id={TASK}"},
            "labels": {"url": f"{self.url}/api/labels?task_id={TASK}"},
        }

    def _meta(self) -> dict[str, Any]:
        frames = [
            {"name": f"{number}.jpg", "width": width, "height": height, "related_files": 0}
            for number, (_, (width, height)) in enumerate(self.frames)
        ]
        return {
            "chunks_updated_date": _WHEN,
            "chunk_size": 36,
            "size": len(frames),
            "image_quality": 70,
            "start_frame": 0,
            "stop_frame": len(frames) - 1,
            "frame_filter": "",
            "deleted_frames": [],
            "frames": frames,
        }


@contextmanager
def running(frames: list[tuple[bytes, tuple[int, int]]]) -> Iterator[Cvat]:
    """Run a server until the context ends.

    Args:
        frames: The pictures of the task: a file's bytes, and (width, height).
    """
    cvat = Cvat(frames)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            target = urlsplit(self.path)
            self.reply(lambda: cvat.get(target.path, parse_qs(target.query)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            self.reply(lambda: cvat.post(urlsplit(self.path).path, body))

        def reply(self, answer: Any) -> None:
            status, found = 401, None
            if cvat.token in (self.headers.get("Authorization") or "") or self.path.endswith("/about"):
                found = answer()
                status = 404 if found is None else 200
            if found is None:
                cvat.unknown.append(f"{self.command} {self.path} {status}")
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            kind = "image/jpeg" if isinstance(found, bytes) else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as cvat.url:
        yield cvat

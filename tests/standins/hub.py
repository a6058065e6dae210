"""A stand-in of the Hugging Face hub on 127.0.0.1, for the real client ``huggingface_hub``: repositories in memory.

It speaks what the client asks for: information on a model, files with ETag and commit, large files by a redirect to
another address, and pushing: new repositories, what is uploaded how, the LFS batch, the commit. Every request is kept,
so that tests can count them and look at their headers.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_server import serving

TOKEN = "hf_standin"
LARGE = 2000
"""Files from this size on are large ones (LFS)."""


@dataclass
class Repository:
    """A model repository: its commits, and what branches lead to."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit with these files, and no others."""
        content = json.dumps([len(self.commits), sorted((n, hashlib.sha1(c).hexdigest()) for n, c in files.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch or a commit."""
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Request:
    """A request that was answered."""

    method: str
    path: str
    headers: dict[str, str]


class Hub:
    """The state of the stand-in, and how it misbehaves."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.uploaded: dict[str, bytes] = {}
        self.url = ""
        self.storage = ""
        """Another host, as the real hub's: the client keeps its token from it."""
        self.status: int | None = None
        """Answer every request with this."""
        self.cut_after: int | None = None
        """Close the connection after this many bytes of a file."""
        self.forbidden = False
        """Refuse to write."""

    def add(self, name: str, files: dict[str, bytes], **facts: bool) -> Repository:
        """Add a repository with one commit."""
        repository = self.repositories.setdefault(name, Repository(**facts))
        repository.commit(files)
        return repository

    def paths(self, method: str | None = None) -> list[str]:
        """Return the paths of the requests so far."""
        return [request.path for request in self.requests if method in (None, request.method)]


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(Request(self.command, unquote(parts.path), dict(self.headers)))
        try:
            if self.hub.status is not None:
                raise _Refusal(self.hub.status, message="the stand-in is out of order")
            self._route(unquote(parts.path).strip("/").split("/"), body)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, words: list[str], body: bytes) -> None:
        match words:
            case ["api", "models", owner, name]:
                self._info(self._repository(f"{owner}/{name}"), f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", *revision]:
                self._info(self._repository(f"{owner}/{name}"), f"{owner}/{name}", "/".join(revision))
            case [owner, name, "resolve", revision, *path] if owner != "api":
                self._file(self._repository(f"{owner}/{name}", content=True), revision, "/".join(path))
            case ["storage", oid]:
                self._storage(oid, body)
            case ["api", "whoami-v2"]:
                self._writer()
                self._json({"name": "tester", "type": "user"})
            case ["api", "repos", "create"]:
                self._writer(write=True)
                asked = json.loads(body)
                full = f"{asked.get('organization') or 'tester'}/{asked['name']}"
                if full in self.hub.repositories:
                    self._json({"url": f"{self.hub.url}/{full}", "error": "exists"}, 409)
                    return
                private = bool(asked.get("private")) or asked.get("visibility") == "private"
                self.hub.add(full, {".gitattributes": b"*.onnx filter=lfs\n"}, private=private)
                self._json({"url": f"{self.hub.url}/{full}", "name": full})
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "models", owner, name, "preupload", _]:
                self._writer(write=True)
                files = json.loads(body)["files"]
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in files
                ]
                self._json({"files": modes})
            case [owner, _, "info", "lfs", "objects", "batch"]:
                self._writer(write=True)
                objects = [
                    {
                        **file,
                        "actions": {"upload": {"href": f"{self.hub.storage}/storage/{file['oid']}", "header": {}}},
                    }
                    for file in json.loads(body)["objects"]
                ]
                self._json({"transfer": "basic", "objects": objects})
            case ["api", "models", owner, name, "commit", branch]:
                self._writer(write=True)
                self._commit(self._repository(f"{owner}/{name}"), f"{owner}/{name}", branch, body)
            case _:
                raise _Refusal(404, message=f"the stand-in has no {self.command} {self.path}")

    # --- reading --------------------------------------------------------------------------------------------------

    def _repository(self, name: str, *, content: bool = False) -> Repository:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token != TOKEN:
            raise _Refusal(401, message="Invalid credentials in Authorization header")
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not token):
            raise (
                _Refusal(404, "RepoNotFound", "Repository not found")
                if token
                else _Refusal(401, "RepoNotFound", "Repository not found")
            )
        if found.gated and content:
            raise _Refusal(403, "GatedRepo", "Access to model is restricted")
        return found

    def _info(self, found: Repository, name: str, revision: str) -> None:
        sha = found.find(revision)
        if sha is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                **(
                    {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
                    if len(content) >= LARGE
                    else {}
                ),
            }
            for path, content in found.commits[sha].items()
        ]
        facts = {"private": found.private, "gated": "manual" if found.gated else False, "tags": [], "downloads": 0}
        self._json({"_id": "1", "id": name, "modelId": name, "sha": sha, "siblings": siblings, **facts})

    def _file(self, found: Repository, revision: str, path: str) -> None:
        sha = found.find(revision)
        if sha is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = found.commits[sha].get(path)
        if content is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha}
        if len(content) >= LARGE:
            oid = hashlib.sha256(content).hexdigest()
            self.hub.uploaded[oid] = content
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self._send(302, b"", headers | {"Location": f"{self.hub.storage}/storage/{oid}"})
            return
        self._send(200, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _storage(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                raise _Refusal(400, message="other content than announced")
            self.hub.uploaded[oid] = body
            self._send(200, b"")
            return
        content = self.hub.uploaded[oid]
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {"ETag": f'"{oid}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers)

    # --- writing --------------------------------------------------------------------------------------------------

    def _writer(self, *, write: bool = False) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refusal(401, message="Invalid credentials in Authorization header")
        if write and self.hub.forbidden:
            raise _Refusal(403, message="You don't have the rights to write")

    def _commit(self, found: Repository, name: str, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, found.refs[branch]):
            raise _Refusal(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(found.commits[found.refs[branch]])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploaded[value["oid"]]
            else:
                files.pop(value["path"])
        sha = found.commit(files, branch)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    # --- answers --------------------------------------------------------------------------------------------------

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_after is not None and self.path.startswith("/storage") and len(content) > self.hub.cut_after:
            self.wfile.write(content[: self.hub.cut_after])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(content)


@contextmanager
def running() -> Iterator[Hub]:
    """Run a stand-in on a free port of 127.0.0.1."""
    hub = Hub()
    with serving(type("Handler", (_Handler,), {"hub": hub})) as hub.url:
        hub.storage = hub.url.replace("127.0.0.1", "localhost")
        yield hub

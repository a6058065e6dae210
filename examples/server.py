"""Clicks over HTTP: a session for each annotator, one engine for all of them; JSON goes in, masks come out as RLE.

    pip install ".[cpu]"  # in the clone; with a wheel, its file in place of the dot
    python examples/server.py [PORT]

    POST   /sessions             a picture's bytes                       -> {"session": ID, "size": [height, width]}
    POST   /sessions/ID/clicks   {"x": 320, "y": 240, "positive": true}  -> {"clicks": 1, "area": 24133, "rle": {...}}
    DELETE /sessions/ID                                                  -> {}

The RLE is COCO's: pycocotools.mask.decode(answer["rle"]) is the mask. The server listens on this machine only and knows
no users. For others, run `app` in a WSGI server with threads, in one process, behind TLS and a login.
"""

import json
import secrets
import sys
from collections import OrderedDict
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from mmms_deploy import MMMSDeployError, Session, open_engine
from mmms_deploy.imaging import load_rgb

MOST_SESSIONS, MOST_BYTES = 16, 64 << 20
engine = open_engine("demo")  # the weights are there once, however many sessions there are
sessions: OrderedDict[str, Session] = OrderedDict()  # the one that was used last is at the end
lock = Lock()


def answer(method: str, path: list[str], body: bytes) -> dict[str, Any]:
    """Return the answer to a request."""
    match method, path:
        case "POST", ["sessions"]:
            image = load_rgb(body)  # before anything is opened: the body may be no picture
            session, name = Session(engine.bundle, engine=engine), secrets.token_urlsafe()
            session.set_image(image)
            with lock:
                sessions[name] = session
                if len(sessions) > MOST_SESSIONS:  # the one that was not used for longest makes room
                    sessions.popitem(last=False)[1].close()
            return {"session": name, "size": image.shape[:2]}
        case "POST", ["sessions", name, "clicks"]:
            with lock:
                sessions.move_to_end(name)
                session = sessions[name]
            result = session.click(**json.loads(body))  # sessions are locked, each for itself
            return {"clicks": result.index, "area": result.area, "rle": result.rle()}
        case "DELETE", ["sessions", name]:
            with lock:
                sessions.pop(name).close()
            return {}
    raise KeyError(path)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Read a request and write the answer; a mistake of the caller is an answer too."""
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if not 0 <= length <= MOST_BYTES:
            raise ValueError(f"a body of {length} bytes; at most {MOST_BYTES} are taken")
        path = environ["PATH_INFO"].strip("/").split("/")
        status, said = "200 OK", answer(environ["REQUEST_METHOD"], path, environ["wsgi.input"].read(length))
    except KeyError:
        status, said = "404 Not Found", {"error": "no such session (any more); POST /sessions opens one"}
    except (MMMSDeployError, ValueError, TypeError, RecursionError) as error:
        status, said = "400 Bad Request", {"error": str(error)}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


class Server(ThreadingMixIn, WSGIServer):
    """Answers every request in a thread of its own."""

    daemon_threads = True


if __name__ == "__main__":
    with make_server("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8000, app, server_class=Server) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        with suppress(KeyboardInterrupt):  # Ctrl-C ends it
            server.serve_forever()

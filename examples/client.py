"""Clicks on a server elsewhere: uploads a picture, clicks once, and writes the mask; Python's standard library alone.

    pip install ".[cpu,demo]"     # where the server runs, in the clone; with a wheel, its file in place of the dot
    mmms-demo                       # the server; it prints its address
    python examples/client.py http://127.0.0.1:8000 photo.jpg 320 240 mask.png [TOKEN]

The token is the one in the printed address, where it has one. docs/server.md describes every call.
"""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

server, picture, x, y, out, *token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token[0]}"} if token else {}


def call(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """Send a request, and return the body of its answer."""
    with urlopen(Request(f"{server}/api/v1/{path}", body, {**headers, "Content-Type": kind}, method=method)) as answer:
        return bytes(answer.read())


place = "sessions/" + json.loads(call("POST", "sessions"))["session"]
call("PUT", f"{place}/image", Path(picture).read_bytes(), "application/octet-stream")
answer = json.loads(call("POST", f"{place}/click", json.dumps({"x": float(x), "y": float(y)}).encode()))
Path(out).write_bytes(call("GET", f"{place}/labels.png"))
call("DELETE", place)
print(f"{out}: {answer['surfaces'][0]['area']} pixels, {answer['timings']['total']:.1f} ms on the server")

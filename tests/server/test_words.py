"""Errors of the API speak its own words, and not those of Python."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.support.server import Client, form, png

PYTHON = re.compile(r"\w\(|\(\.\.\.\)|bytes object|Session\.|keyword|argument|None\b")
SAVED = {"format": "mmms-deploy-session", "version": 1, "image_size": [9, 9], "surface": "1", "labels_given": 1}
WRONG: list[tuple[str, Any]] = [
    ("click", {"x": 1e4, "y": 2}),
    ("click", {"x": "a", "y": 2}),
    ("click", {"x": 1}),
    ("clicks", {"clicks": [{"x": 1e4, "y": 2}]}),
    ("clicks", {"clicks": []}),
    ("clicks", {"clicks": [{"x": 1}]}),
    ("undo", {}),
    ("redo", {}),
    ("select", {"name": ""}),
    ("remove", {"name": "nothing"}),
    ("rename", {"name": "nothing", "to": "other"}),
    ("rename", {"name": "1", "to": ""}),
    ("choose", {"index": 1}),
    ("restore", {"annotation": {}}),
    ("restore", {"annotation": {"format": "other"}}),
    ("restore", {"annotation": {**SAVED, "surfaces": []}}),
    ("nothing", {}),
]


def _said(error: dict[str, str | None]) -> str:
    return " | ".join(text for name, text in error.items() if name != "kind" and text is not None)


@pytest.fixture(scope="module")
def session(client: Client) -> str:
    return client.open(image=png(np.full((60, 80, 3), 100, np.uint8)))


@pytest.mark.parametrize(("call", "fields"), WRONG, ids=lambda one: one if isinstance(one, str) else None)
def test_calls(client: Client, session: str, call: str, fields: Any) -> None:
    reply = client("POST", f"sessions/{session}/{call}", fields)
    assert reply.status >= 400
    assert not PYTHON.search(_said(reply.error)), reply.error


def test_a_session_without_an_image(client: Client) -> None:
    reply = client("POST", f"sessions/{client.open()}/click", {"x": 1, "y": 2})
    assert reply.status == 409
    assert reply.error["fix"] == "set an image first"


@pytest.mark.parametrize("content", [b"hello", b"", b"\x89PNG\r\n\x1a\nxxxx", b"\xff\xd8\xff\xe0junk"])
def test_files(client: Client, session: str, content: bytes) -> None:
    body, kind = form(image=("photo.jpg", content))
    replies = [
        client("PUT", f"sessions/{session}/image", body, {"Content-Type": kind}),
        client("PUT", f"sessions/{session}/labels", content),
    ]
    for reply in replies:
        assert reply.status == 400
        assert "the file" in reply.error["given"]
        assert not PYTHON.search(_said(reply.error)), reply.error

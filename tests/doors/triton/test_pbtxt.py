from __future__ import annotations

import pytest

from mmms_deploy.doors.triton.pbtxt import Value, Word, pbtxt
from tests.support.triton import read_pbtxt

MESSAGES: list[dict[str, Value]] = [
    {"name": "a", "count": 3, "yes": True, "no": False},
    {"dims": [1, -1], "none": [], "kind": Word("KIND_CPU")},
    {"outer": {"inner": {"empty": {}}, "list": [{"key": "a"}, {"key": "b", "value": {"text": "c"}}]}},
    {"text": 'say "a\\b"\n\tand\rü\x00\x7f\u2028', "odd": "\\101"},
]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_written_is_read_again(message: dict[str, Value]) -> None:
    text = pbtxt(message)
    assert text.isascii()
    assert all(32 <= ord(letter) < 127 or letter == "\n" for letter in text)
    assert read_pbtxt(text) == {name: value for name, value in message.items() if value != []}


def test_as_triton_writes_it() -> None:
    written = pbtxt({"backend": "python", "input": [{"name": "image", "dims": [-1, 3]}], "oldest": {"most": 4}})
    assert written == (
        'backend: "python"\ninput: [\n  {\n    name: "image"\n    dims: [-1, 3]\n  }\n]\noldest {\n  most: 4\n}\n'
    )

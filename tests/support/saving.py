"""Calls of the page's module ``/saving/saving.js`` in Chromium: many in one evaluation, with arrays, maps and files.

Arguments and answers are JSON with three additions, on both sides: a ``uint16`` array is a ``Uint16Array``, ``bytes``
are a ``Blob``, and a :class:`Named` is a ``Map`` from labels to names.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmms_deploy.annotations import bbox_of, polygons_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

_CALLS = """async ([name, calls]) => {
  const module = await import("/saving/saving.js");
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const textOf = (bytes) => {
    let text = "";
    for (let place = 0; place < bytes.length; place += 8192) {
      text += String.fromCharCode(...bytes.subarray(place, place + 8192));
    }
    return btoa(text);
  };
  const given = (value) => {
    if (Array.isArray(value)) return value.map(given);
    if (typeof value !== "object" || value === null) return value;
    if ("$numbers" in value) return new Uint16Array(bytesOf(value.$numbers).buffer);
    if ("$file" in value) return new Blob([bytesOf(value.$file)]);
    if ("$names" in value) return new Map(value.$names);
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, given(item)]));
  };
  const answered = async (value) => {
    if (value instanceof Uint16Array) return { $numbers: textOf(new Uint8Array(value.buffer)) };
    if (value instanceof Blob) return { $file: textOf(new Uint8Array(await value.arrayBuffer())) };
    if (value instanceof Map) return { $names: [...value] };
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    const made = {};
    for (const [key, item] of Object.entries(value)) made[key] = await answered(item);
    return made;
  };
  const answers = [];
  for (const call of calls) {
    try {
      answers.push({ value: await answered(await module[name](...given(call))) });
    } catch (error) {
      const { kind, given: was, expected, fix } = error;
      answers.push({ error: { name: error.constructor.name, kind, given: was ?? String(error), expected, fix } });
    }
  }
  return answers;
}"""


@dataclass(frozen=True)
class Named:
    """A ``Map`` from labels to names, as pairs in its order."""

    pairs: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Refused:
    """An error that a call ended with.

    Attributes:
        name: Name of its class.
        kind: Of an ``AnswerError``, as its other parts; None of other errors.
        given: What was given, or the error as a text.
        expected: What was expected.
        fix: How to fix it.
    """

    name: str
    kind: str | None
    given: str
    expected: str | None
    fix: str | None


def call_saving(page: Page, function: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
    """Call a function of the module once for each list of arguments.

    Returns:
        Every answer, or :class:`Refused`.
    """
    answers = page.evaluate(_CALLS, [function, [_given(list(call)) for call in calls]])
    return [Refused(**one["error"]) if "error" in one else _answered(one.get("value")) for one in answers]


def _given(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.dtype == np.uint16
        return {"$numbers": base64.b64encode(value.tobytes()).decode()}
    if isinstance(value, bytes):
        return {"$file": base64.b64encode(value).decode()}
    if isinstance(value, Named):
        return {"$names": [list(pair) for pair in value.pairs]}
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items()}
    return [_given(item) for item in value] if isinstance(value, list | tuple) else value


def _answered(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "$numbers" in value:
        return np.frombuffer(base64.b64decode(value["$numbers"]), np.uint16)
    if "$file" in value:
        return base64.b64decode(value["$file"])
    if "$names" in value:
        return Named(tuple((label, name) for label, name in value["$names"]))
    return {key: _answered(item) for key, item in value.items()}


def as_map(labels: np.ndarray) -> dict[str, Any]:
    """Return a label map (H, W) as the module takes it."""
    height, width = labels.shape
    return {"labels": labels.astype(np.uint16).reshape(-1), "width": width, "height": height}


def patches(size: tuple[int, int], labels: Sequence[int], seed: int) -> np.ndarray:
    """A label map (H, W) int32 of rectangles that lie over each other, with some noise."""
    random = np.random.default_rng(seed)
    found = np.zeros(size, np.int32)
    for label in labels:
        top, left = random.integers(0, size[0]), random.integers(0, size[1])
        bottom, right = random.integers(top, size[0]) + 1, random.integers(left, size[1]) + 1
        found[top:bottom, left:right] = label
    noise = random.random(size) < 0.05
    found[noise] = random.choice([0, *labels], int(noise.sum()))
    return found


def outlines_of(labels: np.ndarray, objects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects as a file of outlines has them, by the package's functions."""
    return [
        {
            "name": one["name"],
            "label": one["label"],
            "clicks": one.get("clicks", []),
            "area": int((labels == one["label"]).sum()),
            "bbox": list(bbox_of(labels == one["label"])),
            "polygons": [polygon.to_dict() for polygon in polygons_of(labels == one["label"])],
        }
        for one in objects
    ]

"""Clicks on the browser's side of the page, driven from Python, and what a session says of the same clicks."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from mmms_deploy import MMMSDeployError, Session
from mmms_deploy.errors import RegistryError
from mmms_deploy.page.features import encode_features
from mmms_deploy.page.model import browser_model
from mmms_deploy.page.runtime import ONNXRUNTIME_WEB, runtime_files
from mmms_deploy.weights.npm import npm_package
from tests.support.pages import ISOLATED, POLICY, Pages, served
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FILES = ROOT / "mmms_deploy" / "page" / "files"
CALL = """async ([call, args]) => {
  try {
    const result = await window.answers[call](...args);
    if (result?.labels ?? result?.data) {
      const array = result.labels ?? result.data;
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      let text = "";
      for (let i = 0; i < bytes.length; i += 4096) {
        text += String.fromCharCode(...bytes.subarray(i, i + 4096));
      }
      result[result.labels ? "labels" : "data"] = btoa(text);
    }
    return { result };
  } catch (error) {
    return { error: { name: error.constructor.name, kind: error.kind, given: error.given, text: String(error) } };
  }
}"""
OPEN = """async ([model, size, options]) => {
  const { BrowserAnswers } = await import("/browser/browser_answers.js");
  const features = await (await fetch("/features.bin")).arrayBuffer();
  const places = { runtimeUrl: "/runtime/", modelUrl: "/model/" };
  window.answers = await BrowserAnswers.open({ model, features, size, ...places, ...options });
  return window.answers.engine;
}"""


@lru_cache
def runtime_folder() -> Path:
    """Return the folder of onnxruntime-web's files: the package's own, or one of the tests that npm fills."""
    found = runtime_files()
    if found is not None:
        return found
    try:
        return next(iter(npm_package(ONNXRUNTIME_WEB).values())).parent
    except RegistryError as error:
        pytest.skip(f"onnxruntime-web is not here: {error.given}")


class BrowserError(Exception):
    """What a call in the browser was refused with."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(error["text"])
        self.kind = error["kind"]
        self.name = error["name"]


class BrowserClicks:
    """BrowserAnswers in a page, and the label map that its answers add up to.

    Attributes:
        page: The page.
        pages: What serves it.
        engine: What ran when it was opened.
        labels: (H0, W0) the label map.
    """

    def __init__(self, page: Page, pages: Pages, session: Session, options: Mapping[str, Any]) -> None:
        self.page, self.pages = page, pages
        page.goto(f"{pages.url}/empty.html")
        size = list(session.image_size)
        self.engine = page.evaluate(OPEN, [browser_model(session.bundle).to_json(), size, dict(options)])
        self.labels = np.zeros(session.image_size, dtype=np.uint16)

    def __call__(self, call: str, *args: object) -> dict[str, Any]:
        """Make a call, and return its answer; the label map follows it.

        Raises:
            BrowserError: It is refused.
        """
        said = self.page.evaluate(CALL, [call, list(args)])
        if "error" in said:
            raise BrowserError(said["error"])
        answer: dict[str, Any] = said["result"]
        if "labels" in answer:
            labels = np.frombuffer(base64.b64decode(answer.pop("labels")), dtype="<u2")
            box = answer["changed"]
            if box is not None:
                rows, columns = slice(box["y"], box["y"] + box["height"]), slice(box["x"], box["x"] + box["width"])
                self.labels[rows, columns] = labels.reshape(box["height"], box["width"])
            else:
                assert labels.size == 0
        if "data" in answer:
            answer["data"] = np.frombuffer(base64.b64decode(answer["data"]), dtype=np.uint8)
        return answer


@contextmanager
def browser_clicks(
    browser: Browser,
    session: Session,
    *,
    headers: Mapping[str, str] = ISOLATED,
    contents: Mapping[str, bytes | None] | None = None,
    **options: object,
) -> Iterator[BrowserClicks]:
    """Open the image of a session in a browser.

    Args:
        browser: The browser.
        session: A session with an image.
        headers: Sent with every file, beside the page's policy.
        contents: Contents by address, which take the place of files; None for a file that is not there.
        options: More options of ``BrowserAnswers.open``.
    """
    folders = {"/": FILES, "/runtime/": runtime_folder(), "/model/": session.bundle.path}
    every: dict[str, bytes | None] = {"/features.bin": encode_features(session), **(contents or {})}
    with served(folders, every, headers={**POLICY, **headers}) as pages:
        page = browser.new_page()
        try:
            yield BrowserClicks(page, pages, session, options)
        finally:
            page.close()


def described(session: Session) -> dict[str, Any]:
    """Return what an answer says of a session, but for pixels and timings."""
    clicks: dict[str, list[list[float]]] = {name: [] for name in session.surfaces}
    for name, click in session.all_clicks:
        clicks[name].append(click.to_list())
    result = session.result
    return {
        "surfaces": [{"name": n, "label": label, "clicks": clicks[n]} for n, label in session.surfaces.items()],
        "surface": session.surface,
        "can_undo": session.can_undo,
        "can_redo": session.can_redo,
        "candidates": [one.taken for one in result.candidates],
    }


def stripped(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same part of an answer of the browser."""
    return {
        "surfaces": [{key: one[key] for key in ("name", "label", "clicks")} for one in answer["surfaces"]],
        "surface": answer["surface"],
        "can_undo": answer["can_undo"],
        "can_redo": answer["can_redo"],
        "candidates": [one["taken"] for one in answer["candidates"]],
    }


def check_extents(answer: Mapping[str, Any], labels: npt.NDArray[np.uint16]) -> None:
    """Check areas and boxes of an answer against the label map."""
    for one in answer["surfaces"]:
        rows, columns = np.nonzero(labels == one["label"])
        assert one["area"] == rows.size
        x, y = (int(columns.min()), int(rows.min())) if rows.size else (0, 0)
        box = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1] if rows.size else None
        assert one["box"] == box


def in_session(session: Session, call: str, *args: Any) -> Any:
    """Make a call of the page on a session."""
    if call == "state":
        return None
    return getattr(session, call)(*args)


def same_calls(clicks: BrowserClicks, session: Session, call: str, *args: Any) -> dict[str, Any] | None:
    """Make a call on both sides, and check that they refuse it alike or describe their objects alike.

    Returns:
        The browser's answer; None where both refuse the call.
    """
    refused, answer, error = None, None, None
    try:
        in_session(session, call, *args)
    except MMMSDeployError as refusal:
        refused = type(refusal).__name__
    try:
        answer = clicks(call, *args)
    except BrowserError as refusal:
        error = refusal
    if error is not None:
        assert (error.kind, error.name) == (refused, "AnswerError"), f"{call}{args}: {error}"
        return None
    assert refused is None, f"{call}{args} is refused by the session alone: {refused}"
    assert answer is not None
    assert stripped(answer) == described(session), f"{call}{args}"
    check_extents(answer, clicks.labels)
    return answer

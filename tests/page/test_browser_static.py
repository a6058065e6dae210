"""The static export in a browser, from a web server that knows nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.page import static
from mmms_deploy.page.static import write_static
from tests.support.browser_clicks import runtime_folder
from tests.support.pages import ISOLATED, POLICY, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PIXELS = np.random.default_rng(2).integers(0, 60, (40, 60, 3), dtype=np.uint8)
CLICKS = [(20, 15, True), (40, 25, True), (24, 15, False)]
OPEN = """async (clicks) => {
  const { BrowserAnswers } = await import("./browser/browser_answers.js");
  const found = await (await fetch("static.json")).json();
  const features = await (await fetch(found.features)).arrayBuffer();
  const places = { runtimeUrl: found.runtime, modelUrl: found.files };
  const answers = await BrowserAnswers.open({ model: found.browser, features, size: found.image_size, ...places });
  for (const click of clicks) {
    await answers.click(...click);
  }
  const { labels, surfaces } = await answers.state();
  return [Array.from(labels), surfaces, answers.engine];
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, paint: Bundle) -> Path:
    """A static export of a toy."""
    folder = tmp_path_factory.mktemp("static")
    Image.fromarray(PIXELS).save(folder / "photo.png")
    runtime = runtime_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, "runtime_files", lambda: runtime)
        return write_static(folder / "site", paint, folder / "photo.png")


@pytest.mark.parametrize("headers", [pytest.param(ISOLATED, id="isolated"), pytest.param({}, id="plain")])
def test_it_clicks_from_any_web_server(
    chromium: Browser, site: Path, paint: Bundle, headers: Mapping[str, str]
) -> None:
    with Session(paint) as session:
        session.set_image(PIXELS)
        for click in CLICKS:
            session.click(*click)
        expected = session.labels
    # A folder of the server, because a page need not be at its top.
    with served(
        {"/some/folder/": site}, {"/some/folder/empty.html": b"<!doctype html>"}, headers={**POLICY, **headers}
    ) as p:
        page = chromium.new_page()
        missing: list[str] = []
        page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
        page.goto(f"{p.url}/some/folder/empty.html")
        labels, surfaces, engine = page.evaluate(OPEN, CLICKS)
        page.close()
    assert np.count_nonzero(np.reshape(labels, expected.shape) != expected) <= 4
    assert surfaces[0]["clicks"] == [[x, y, int(positive)] for x, y, positive in CLICKS]
    assert [url for url in missing if not url.endswith("favicon.ico")] == []
    said: dict[str, Any] = engine
    if headers:
        assert said["threads"] >= 1
        assert "cross-origin" not in said["reason"]
    else:
        assert said["threads"] == 1
        assert "not cross-origin isolated" in said["reason"]

"""The page as people see it: everything fits at three widths, in light and in dark.

The documents' pictures come from here.

``make demo-pictures`` runs these tests with the demo's network and keeps what they see in ``docs/images/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from mmms_deploy import open_engine
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.server import ServedPicture
from tests.support.page_driver import open_desk
from tests.support.paths import ROOT
from tests.support.server import Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KEEP = os.environ.get("MMMS_DEPLOY_PICTURES")
"""A folder that keeps the pictures; then the bundle is the demo."""
PHOTO = ROOT / "docs" / "images" / "photo.jpg"
VIEWS: dict[str, dict[str, Any]] = {
    "demo": {"viewport": {"width": 1280, "height": 800}},
    "demo-dark": {"viewport": {"width": 1024, "height": 768}, "color_scheme": "dark"},
    "demo-phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
CLICKS = {
    "astronaut": ((250, 400, True), (230, 130, True), (405, 235, False)),
    "shuttle": ((405, 110, True), (410, 220, True)),
}


@pytest.fixture(scope="module")
def server(small_engine: Engine) -> Iterator[Running]:
    engine = open_engine("demo") if KEEP else small_engine
    with running_server(engine, pictures=[ServedPicture(PHOTO, "photo.jpg", "photo")]) as running:
        yield running
    if KEEP:
        engine.close()


@pytest.mark.parametrize("name", list(VIEWS))
def test_everything_fits(chromium: Browser, server: Running, tmp_path: Path, name: str) -> None:
    with open_desk(chromium, server.url, **VIEWS[name]) as desk:
        page = desk.page
        for place, (called, clicks) in enumerate(CLICKS.items()):
            if place:
                desk.press("n")
            for x, y, positive in clicks:
                desk.click(x, y, positive=positive)
            page.keyboard.press("F2")
            page.keyboard.type(called)
            desk.press("Enter")
        width, height = page.evaluate("[innerWidth, innerHeight]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.scrollHeight") <= height
        canvas = page.get_by_role("application").bounding_box()
        assert canvas is not None
        assert canvas["width"] * canvas["height"] > 0.4 * width * height
        for control in page.get_by_role("button").all():
            box = control.bounding_box() if control.is_visible() else None
            if box is not None:
                assert box["x"] >= 0, control
                assert box["x"] + box["width"] <= width, control
        assert desk.labels().max() == 2
        shot = tmp_path / f"{name}.png"
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)  # what appears does so in a moment
        page.screenshot(path=shot)
    with Image.open(shot) as picture:
        assert picture.size == (width, height)
        if KEEP:
            picture.convert("RGB").save(Path(KEEP) / f"{name}.jpg", quality=82, optimize=True)

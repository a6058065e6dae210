"""The page by keyboard alone, by fingers on a phone, and by what a screen reader finds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.server import ServedPicture
from tests.support.page_driver import Desk, open_desk
from tests.support.paths import ROOT
from tests.support.server import Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTO = ROOT / "docs" / "images" / "photo.jpg"
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
AA = 4.5
"""Contrast that text must have."""


@pytest.fixture(scope="module")
def server(small_engine: Engine) -> Iterator[Running]:
    pictures = [ServedPicture(PHOTO, name, name) for name in ("photo.jpg", "again.jpg")]
    with running_server(small_engine, pictures=pictures) as running:
        yield running


def _focused(desk: Desk) -> str:
    name: str = desk.page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")
    return name


def test_from_loading_to_a_saved_file_by_keyboard_alone(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url) as desk:
        for _ in range(30):
            desk.press("Tab")
            if desk.page.evaluate("document.activeElement.id") == "canvas":
                break
        assert _focused(desk).startswith("Picture photo.jpg, 512 by 512 pixels")
        start = desk.page.inner_text("#status-pixel").split("·")[0].split(",")
        x, y = (int(part.split()[1]) for part in start)
        desk.press("ArrowUp", "Shift+ArrowUp", "Shift+ArrowLeft", "Enter")
        assert desk.clicks() == [[x - 10, y - 11, 1]]
        assert desk.said().startswith("Click 1 on 1: ")
        desk.press("Shift+ArrowDown", "Shift+Enter", "ArrowRight", "Backspace")
        assert desk.clicks()[1:] == [[x - 10, y - 1, 0], [x - 9, y - 1, 0]]
        desk.press("Control+z", "Control+z", "n", "Shift+ArrowRight", "Enter")
        assert desk.objects() == ["1", "2"]
        desk.press("F2")
        desk.page.keyboard.type("collar")
        desk.press("Enter")
        assert desk.objects() == ["1", "collar"]
        assert _focused(desk).startswith("Picture")
        labels = desk.labels()
        desk.press("Control+s")
        assert _focused(desk) == "Label map (PNG)"
        desk.press("ArrowDown", "ArrowUp")
        with desk.page.expect_download() as waiting:
            desk.page.keyboard.press("Enter")
        content = Path(waiting.value.path()).read_bytes()
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), labels)
        assert _focused(desk) == "save"


def test_help_lists_the_keys_and_keeps_the_focus(desk: Desk) -> None:
    desk.press("?")
    sheet = desk.page.get_by_role("dialog", name="Help and shortcuts")
    text = sheet.inner_text()
    for key in ("Ctrl+Z", "Shift+Enter", "PageDown", "Delete", "F2"):
        assert key in text
    desk.press("n")  # no shortcut works below the sheet
    assert desk.objects() == ["1"]
    for _ in range(6):
        desk.press("Tab")
        assert desk.page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    desk.press("Escape")
    assert sheet.is_hidden()


def test_single_keys_can_be_switched_off(desk: Desk) -> None:
    for wanted in (["1"], ["1", "2"]):
        desk.press("?") if wanted == ["1"] else desk.button("Help and shortcuts")
        desk.page.get_by_role("switch", name="Single keys are shortcuts").click()
        desk.press("Escape")
        desk.press("n")
        assert desk.objects() == wanted


def test_everything_has_a_name_and_no_id_is_there_twice(desk: Desk) -> None:
    desk.click(240, 130)
    desk.press("n", "Control+s")
    found = desk.page.evaluate("""() => {
      const shown = (element) => element.checkVisibility({ visibilityProperty: true });
      const named = (element) => element.getAttribute("aria-label") || element.textContent.trim()
        || element.labels?.[0]?.textContent.trim()
        || document.getElementById(element.getAttribute("aria-labelledby"))?.textContent;
      const controls = [...document.querySelectorAll("button, input, select, [role=application], dialog")];
      const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
      const refers = [...document.querySelectorAll("*")];
      const wanted = refers.flatMap((one) => ["aria-controls", "aria-labelledby", "aria-describedby", "for"]
        .map((name) => one.getAttribute(name)).filter(Boolean));
      return {
        count: controls.filter(shown).length,
        nameless: controls.filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 90)),
        twice: ids.filter((id, place) => ids.indexOf(id) !== place),
        dangling: wanted.filter((id) => !document.getElementById(id)),
        pictures: [...document.querySelectorAll("img")].filter((one) => !one.hasAttribute("alt")).length,
        uses: [...document.querySelectorAll("use")].map((one) => one.getAttribute("href").slice(1))
          .filter((id) => !document.getElementById(id)),
      };
    }""")
    assert found.pop("count") > 25
    assert found == {"nameless": [], "twice": [], "dangling": [], "pictures": 0, "uses": []}
    desk.press("Escape")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(desk: Desk, theme: str) -> None:
    desk.click(240, 130)
    for _ in range(3):
        if desk.page.evaluate("document.documentElement.dataset.theme") == theme:
            break
        desk.page.locator("#theme").click()
    desk.press("Control+s")
    poor = desk.page.evaluate(
        """(least) => {
      const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
      };
      const light = (colour) => {
        const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part(colour[0]) + 0.7152 * part(colour[1]) + 0.0722 * part(colour[2]);
      };
      const ground = (element) => {
        for (let one = element; one; one = one.parentElement) {
          const colour = rgba(getComputedStyle(one).backgroundColor);
          if (colour[3] > 250) return colour;
        }
        return [255, 255, 255, 255];
      };
      const poor = [];
      for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.closest(":disabled, [aria-disabled=true]")) continue;
        const pair = [light(rgba(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
        const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
        if (contrast < least) poor.push(`${contrast.toFixed(2)} ${element.textContent.trim().slice(0, 30)}`);
      }
      return poor;
    }""",
        AA,
    )
    desk.press("Escape")
    assert poor == []


def test_the_theme_follows_the_system_until_it_is_chosen(desk: Desk) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    while desk.page.evaluate("document.documentElement.dataset.theme") != "system":
        desk.page.locator("#theme").click()
    seen = set()
    for scheme in ("light", "dark"):
        desk.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        seen.add(desk.page.evaluate(ground))
    assert len(seen) == 2
    desk.page.locator("#theme").click()
    assert desk.page.evaluate("document.documentElement.dataset.theme") == "light"
    assert desk.page.evaluate(ground) in seen
    desk.page.emulate_media(color_scheme="light")


class Fingers:
    """Touches at places of the page."""

    def __init__(self, desk: Desk) -> None:
        self._session = desk.page.context.new_cdp_session(desk.page)

    def __call__(self, kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_a_phone_is_clicked_with_fingers(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url, **PHONE) as desk:
        page, touch = desk.page, Fingers(desk)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.touchscreen.tap(*desk.place(240, 130))
        desk.idle()
        page.get_by_role("button", name="Click removes").tap()
        page.touchscreen.tap(*desk.place(60, 60))
        desk.idle()
        page.get_by_role("button", name="Click adds").tap()
        # A finger that is held removes.
        touch("touchStart", desk.place(450, 450))
        desk.until("mmmsDemo.state.pending.length > 0 || mmmsDemo.state.answer.surfaces[0].clicks.length > 2")
        touch("touchEnd")
        desk.idle()
        clicks = desk.clicks()
        assert [one[2] for one in clicks] == [1, 0, 0]
        for (x, y, _), wanted in zip(clicks, ((240, 130), (60, 60), (450, 450)), strict=True):
            # A finger's place is whole CSS pixels.
            assert max(abs(x - wanted[0]), abs(y - wanted[1])) <= 2
        # Two fingers zoom and move, and do not click.
        before = desk.page.inner_text("#zoom-one")
        (x, y), apart = desk.place(256, 256), 30
        touch("touchStart", (x - apart, y), (x + apart, y))
        for apart in range(30, 91, 10):
            touch("touchMove", (x - apart, y), (x + apart, y))
        touch("touchEnd")
        desk.until("document.getElementById('zoom-one').textContent !== " + repr(before))
        assert int(desk.page.inner_text("#zoom-one").rstrip(" %")) > 2 * int(before.rstrip(" %"))
        assert len(desk.clicks()) == 3


def test_a_phone_has_tabs_and_targets_for_fingers(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url, **PHONE) as desk:
        page = desk.page
        small = []
        for tab in ("View", "Running", "Objects"):
            page.get_by_role("tab", name=tab).tap()
            assert page.get_by_role("tab", name=tab).get_attribute("aria-selected") == "true"
            small += page.evaluate("""() => [...document.querySelectorAll("button, input:not([type=file])")]
              .filter((one) => one.checkVisibility() && !one.matches(".switch, .visually-hidden"))
              .filter((one) => one.getBoundingClientRect().height < 43.5 || one.getBoundingClientRect().width < 43.5)
              .map((one) => one.id || one.getAttribute("aria-label") || one.textContent)""")
        assert small == []
        tall = page.evaluate("document.getElementById('stage').clientHeight")
        page.get_by_role("button", name="Fold the panel").tap()
        assert page.evaluate("document.getElementById('stage').clientHeight") > tall + 100
        page.get_by_role("button", name="Unfold the panel").tap()
        page.get_by_role("button", name="Save").tap()
        menu = page.get_by_role("menu").bounding_box()
        assert menu is not None
        assert menu["x"] >= 0
        assert menu["x"] + menu["width"] <= 390

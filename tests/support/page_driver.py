"""The page in Chromium, driven as its user does: by the mouse, by fingers, by keys; and what it shows, as arrays."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_SECONDS = 60
_BYTES = """
    const bytes = (array) => {
      const all = new Uint8Array(array.buffer);
      let text = "";
      for (let at = 0; at < all.length; at += 32768) text += String.fromCharCode(...all.subarray(at, at + 32768));
      return btoa(text);
    };
"""


@dataclass(frozen=True)
class Desk:
    """An open page.

    Attributes:
        page: Playwright's page.
        problems: What went wrong in it: exceptions that were not caught, and errors of the console.
    """

    page: Page
    problems: list[str]

    def idle(self) -> None:
        """Wait until nothing is being opened or answered."""
        # The page's policy lets nothing be evaluated in it, which Playwright's own way of waiting would do.
        self.until("Boolean(window.mmmsDemo?.idle())")

    def until(self, expression: str) -> None:
        """Wait until JavaScript's value is true."""
        end = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"it never happened: {expression}; {self.messages()}"
            time.sleep(0.01)

    def get(self, expression: str) -> Any:
        """Return a value of the page, such as ``state.mode``, which is in ``mmmsDemo``."""
        return self.page.evaluate(f"mmmsDemo.{expression}")

    def place(self, x: int, y: int) -> tuple[float, float]:
        """Return where a pixel of the picture is on the page."""
        left, top = self.page.evaluate("([x, y]) => mmmsDemo.clientOf(x, y)", [x, y])
        return left, top

    def click(self, x: int, y: int, *, positive: bool = True) -> None:
        """Click at a pixel with the mouse, and wait for the answer."""
        self.page.mouse.click(*self.place(x, y), button="left" if positive else "right")
        self.idle()

    def press(self, *keys: str) -> None:
        """Press keys, and wait after each of them."""
        for key in keys:
            self.page.keyboard.press(key)
            self.idle()

    def button(self, name: str) -> None:
        """Press a button by its name."""
        self.page.get_by_role("button", name=name, exact=True).click()
        self.idle()

    def labels(self) -> npt.NDArray[np.uint16]:
        """Return the label map, (H, W)."""
        height, width, text = self.page.evaluate(
            f"() => {{ {_BYTES} const found = mmmsDemo.labels();"
            " return [found.height, found.width, bytes(found.labels)]; }"
        )
        return np.frombuffer(base64.b64decode(text), np.uint16).reshape(height, width)

    def painted(self) -> npt.NDArray[np.uint8]:
        """Return the painted masks, (H, W, 4), RGBA."""
        height, width, text = self.page.evaluate(
            f"() => {{ {_BYTES} const found = mmmsDemo.painted();"
            " return [found.height, found.width, bytes(found.data)]; }"
        )
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)

    def clicks(self, name: str | None = None) -> list[list[int]]:
        """Return the clicks on an object; on the current one where no name is given."""
        found: list[list[int]] = self.page.evaluate(
            "(name) => { const { answer } = mmmsDemo.state;"
            " return answer.surfaces.find((one) => one.name === (name ?? answer.surface))?.clicks ?? []; }",
            name,
        )
        return found

    def objects(self) -> list[str]:
        """Return the names of the objects."""
        names: list[str] = self.get("state.answer.surfaces.map((one) => one.name)")
        return names

    def said(self) -> str:
        """Return what a screen reader was told last."""
        return (self.page.text_content("#said") or "").strip("\u00a0")

    def afresh(self, blank: Any) -> None:
        """Put the page back to an annotation, all of the picture in sight, and nothing else to be seen."""
        self.page.evaluate(
            "async (blank) => { document.activeElement?.blur(); await mmmsDemo.restore(blank);"
            " for (const toast of document.querySelectorAll('.toast')) toast.remove(); }",
            blank,
        )
        for control in ("#tool-add", "#view-fill", "#zoom-fit"):
            self.page.locator(control).evaluate("(control) => control.click()")
        for name in ("markers", "outline"):
            self.page.locator(f"#{name}").evaluate("(control) => control.checked || control.click()")
        self.idle()

    def messages(self) -> str:
        """Return the notices and errors that are shown."""
        return self.page.inner_text("#toasts")

    def open_files(self, *files: str | dict[str, Any]) -> None:
        """Choose files in the system's dialog, and wait until they are open or refused."""
        self.page.set_input_files("#file-input", list(files))  # type: ignore[arg-type]
        self.idle()


@contextmanager
def open_desk(chromium: Browser, url: str, **options: Any) -> Iterator[Desk]:
    """Open the page in a context of its own, and look at its console at the end.

    Args:
        chromium: The browser.
        url: Address of the page.
        options: Of the context, such as its viewport; ``expected`` is a pattern of problems that may be there.
    """
    expected = options.pop("expected", "(?!)")
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(f"{message.text} ({message.location.get('url')})") if message.type == "error" else None
        ),
    )
    page.goto(url)
    desk = Desk(page, problems)
    try:
        desk.idle()
        yield desk
    finally:
        context.close()
    unexpected = [one for one in problems if not re.search(expected, one)]
    assert unexpected == []

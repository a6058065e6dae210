"""Debian's Chromium without a window, for tests of the page (marked ``browser``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
"""With these it has a GPU made of software, which is slow."""


def chromium_path() -> str | None:
    """Return the program, or None where there is none; ``CHROMIUM`` names another one."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def open_chromium(*options: str) -> Iterator[Browser]:
    """Open Chromium, and close it at the end.

    Args:
        options: More options of its command line, such as those of :data:`WEBGPU`.
    """
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    assert path is not None
    with sync_playwright() as playwright:
        # Without --no-sandbox it does not start as root, which containers are.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *options])
        try:
            yield browser
        finally:
            browser.close()

"""Networks with several answers to a click, and with modalities beside the picture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy import Bundle, MMMSDeployWarning, open_engine
from mmms_deploy.bundle import ModalitySpec
from tests.support.page_driver import Desk, open_desk
from tests.support.proposing import SCORES, write_proposing
from tests.support.server import Client, Running, png, running_server
from tests.support.toy import write_toy

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = (128, 192)
GREY = png(np.full((*SIZE, 3), 51, np.uint8))


@contextmanager
def _serving(bundle: Bundle) -> Iterator[Running]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MMMSDeployWarning)
        engine = open_engine(bundle)
    with running_server(engine) as running:
        yield running
    engine.close()


@pytest.fixture(scope="module")
def proposing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with _serving(write_proposing(tmp_path_factory.mktemp("proposing") / "proposing")) as running:
        yield running


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    modalities = (ModalitySpec(name="thermal", optional=True),)
    with _serving(write_toy(tmp_path_factory.mktemp("modal") / "modal", modalities=modalities)) as running:
        yield running


def _file(name: str, content: bytes = GREY) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def _areas(desk: Desk, running: Running) -> int:
    reply = Client(running.api)("GET", f"sessions/{desk.get('session()')}/labels.png")
    np.testing.assert_array_equal(reply.pixels, desk.labels())
    return int(np.count_nonzero(desk.labels()))


def test_candidates_are_seen_side_by_side_and_chosen(chromium: Browser, proposing: Running) -> None:
    with open_desk(chromium, proposing.url) as desk:
        desk.open_files(_file("grey.png"))
        group = desk.page.get_by_role("group", name="Which one is meant?")
        assert group.is_hidden()
        desk.click(90, 60)
        buttons = group.get_by_role("button")
        assert [one.get_attribute("aria-label") for one in buttons.all()] == [
            f"Candidate {number}, score {score:.2f}" for number, score in enumerate(SCORES, 1)
        ]

        def taken() -> list[str | None]:
            return [one.get_attribute("aria-pressed") for one in buttons.all()]

        assert taken() == ["false", "true", "false"]
        areas = {1: _areas(desk, proposing)}
        desk.button(f"Candidate 1, score {SCORES[0]:.2f}")
        areas[0] = _areas(desk, proposing)
        desk.press(",")
        assert taken() == ["false", "false", "true"]
        areas[2] = _areas(desk, proposing)
        assert areas[0] < areas[2] < areas[1]
        drawn = "[...document.querySelectorAll('.candidate canvas')].every((one) => one.width === 120)"
        desk.until(drawn)
        desk.button("Undo")
        assert taken() == ["true", "false", "false"]
        # What it refuses is told, and nothing changes.
        desk.button("Reset object")
        desk.click(20, 20, positive=False)
        alert = desk.page.locator(".toast[role=alert]")
        assert alert.get_attribute("data-kind") == "ClickError"
        assert desk.clicks() == []
        assert desk.get("state.pending.length") == 0


def test_modalities_are_found_by_their_names_and_seen_as_layers(chromium: Browser, modal: Running) -> None:
    heat = np.zeros(SIZE, np.uint8)
    heat[:, 100:] = 200
    with open_desk(chromium, modal.url) as desk:
        desk.page.set_input_files(
            "#file-input",
            [_file("street_thermal.png", png(heat)), _file("street_rgb.png"), _file("yard.png"), _file("yard-ir.png")],
        )
        dialog = desk.page.get_by_role("dialog", name="Which file is what?")
        chosen = [one.evaluate("(one) => one.selectedOptions[0].text") for one in dialog.get_by_role("combobox").all()]
        assert chosen == ["street_rgb.png", "street_thermal.png", "yard.png", "yard-ir.png"]
        dialog.get_by_role("combobox", name="thermal of picture 2").select_option("None")
        dialog.get_by_role("button", name="Open", exact=True).click()
        desk.idle()
        assert desk.get("state.picture.layers") == ["image", "thermal"]
        assert desk.page.inner_text("#strip-count") == "1 of 2"
        plain = desk.page.get_by_role("application").screenshot()
        desk.button("thermal")
        desk.until("mmmsDemo.state.layer === 'thermal'")
        assert desk.page.get_by_role("application").screenshot() != plain
        desk.press("l")
        desk.until("mmmsDemo.state.layer === 'image'")

        desk.button("Next picture")
        assert desk.get("state.picture.layers") == ["image"]
        assert desk.page.get_by_role("group", name="Layer").is_hidden()
        desk.click(90, 60)
        before = desk.labels()
        with desk.page.expect_file_chooser() as waiting:
            desk.page.get_by_role("button", name="Add thermal…").click()
        waiting.value.set_files([_file("late.png", png(np.full(SIZE, 255, np.uint8)))])  # type: ignore[arg-type]
        desk.until("mmmsDemo.state.picture.layers.length === 2")
        desk.idle()
        assert desk.clicks() == [[90, 60, 1]]
        assert desk.labels().shape == before.shape
        _areas(desk, modal)


def test_cancelling_opens_nothing(chromium: Browser, modal: Running) -> None:
    with open_desk(chromium, modal.url) as desk:
        desk.page.set_input_files("#file-input", [_file("a.png"), _file("a_thermal.png")])
        desk.page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
        desk.idle()
        assert desk.get("state.picture") is None
        assert desk.page.get_by_text("Drop a picture here").is_visible()

"""Clicks on the page: what is painted is the server's mask, and every click is at the pixel that is under it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.engines.protocol import Engine
from mmms_deploy.server import ServedPicture
from tests.support.page_driver import Desk, open_desk
from tests.support.paths import ROOT
from tests.support.server import Client, Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTO = ROOT / "docs" / "images" / "photo.jpg"
FACE, ROCKET = (240, 130), (400, 150)


@pytest.fixture(scope="module")
def server(small_engine: Engine) -> Iterator[Running]:
    with running_server(small_engine, pictures=[ServedPicture(PHOTO, "photo.jpg", "photo")]) as running:
        yield running


def _served(server: Running, desk: Desk) -> np.ndarray:
    """The label map that the server has."""
    reply = Client(server.api)("GET", f"sessions/{desk.get('session()')}/labels.png")
    assert reply.status == 200
    return reply.pixels


def test_a_click_paints_the_servers_mask(desk: Desk, server: Running) -> None:
    assert not desk.labels().any()
    desk.click(*FACE)
    labels = desk.labels()
    assert 500 < np.count_nonzero(labels) < labels.size // 2
    np.testing.assert_array_equal(labels, _served(server, desk))
    painted = desk.painted()
    np.testing.assert_array_equal(painted[..., 3] == 255, labels == 1)
    assert not painted[labels == 0].any()
    assert desk.said() == f"Click 1 on 1: {np.count_nonzero(labels):,} pixels"

    desk.click(30, 480, positive=False)
    after = desk.labels()
    assert not np.array_equal(after, labels)
    np.testing.assert_array_equal(after, _served(server, desk))
    np.testing.assert_array_equal(desk.painted()[..., 3] == 255, after == 1)
    assert desk.clicks() == [[*FACE, 1], [30, 480, 0]]


def test_the_canvas_shows_the_mask_over_the_picture(desk: Desk) -> None:
    desk.click(*FACE)
    desk.page.get_by_role("switch", name="Clicks").uncheck()
    desk.page.get_by_role("switch", name="Outline").uncheck()
    desk.page.get_by_role("slider", name="Opacity").fill("100")
    desk.press("z")  # a picture pixel is a screen pixel
    desk.until("document.getElementById('zoom-one').textContent === '100 %'")
    shot = desk.page.get_by_role("application").screenshot()
    with Image.open(io.BytesIO(shot)) as opened:
        seen = np.asarray(opened.convert("RGB")).astype(int)
    labels, picture = desk.labels(), np.asarray(Image.open(PHOTO).convert("RGB")).astype(int)
    box = desk.page.get_by_role("application").bounding_box()
    assert box is not None
    left, top = (
        round(place - corner - 0.5) for place, corner in zip(desk.place(0, 0), (box["x"], box["y"]), strict=True)
    )
    rows, columns = slice(150, 400), slice(150, 400)  # away from the tools and the edges
    part = seen[top + 150 : top + 400, left + 150 : left + 400]
    inside = labels[rows, columns] == 1
    assert inside.any()
    assert not inside.all()
    np.testing.assert_array_equal((part == [37, 132, 255]).all(axis=2), inside)
    assert np.abs(part - picture[rows, columns])[~inside].max() <= 3


def _near(desk: Desk, x: int, y: int, turns: int) -> None:
    """Turn the wheel above a pixel."""
    # The wheel's place has no fractions in Chromium.
    desk.page.mouse.move(*map(round, desk.place(x, y)))
    before = desk.page.inner_text("#zoom-one")
    for _ in range(abs(turns)):
        desk.page.mouse.wheel(0, -240 if turns > 0 else 240)
    desk.until(f"document.getElementById('zoom-one').textContent !== '{before}'")


@pytest.mark.parametrize(
    ("turns", "pixels"),
    [
        (0, [(0, 0), (511, 511), (255, 256)]),
        (7, [(250, 250), (251, 250)]),
        (-3, [(100, 300), (511, 0)]),
    ],
    ids=["fitted", "near", "far"],
)
def test_clicks_are_exact_at_every_zoom(desk: Desk, turns: int, pixels: list[tuple[int, int]]) -> None:
    if turns:
        _near(desk, *pixels[0], turns)
    for x, y in pixels:
        desk.click(x, y)
    assert desk.clicks() == [[x, y, 1] for x, y in pixels]


def test_clicks_are_exact_at_the_edges_of_a_large_pixel(desk: Desk) -> None:
    _near(desk, 250, 250, 8)
    (left, top), (right, _) = desk.place(250, 250), desk.place(251, 250)
    side = right - left
    assert side > 20
    for dx, dy in ((-0.45, -0.45), (0.45, 0.45)):
        desk.page.mouse.click(left + dx * side, top + dy * side)
        desk.idle()
    desk.page.mouse.click(left + 0.55 * side, top)
    desk.idle()
    assert desk.clicks() == [[250, 250, 1], [250, 250, 1], [251, 250, 1]]


def test_the_wheel_keeps_what_is_under_the_pointer_and_drags_move_it(desk: Desk) -> None:
    x, y = map(round, desk.place(300, 200))
    _near(desk, 300, 200, 6)
    assert desk.page.inner_text("#status-pixel").startswith("x 300, y 200")
    desk.page.mouse.click(x, y)
    desk.idle()
    for button, key in (("middle", None), ("left", "Space")):
        left, top = desk.place(300, 200)
        if key:
            desk.page.keyboard.down(key)
        desk.page.mouse.move(x, y)
        desk.page.mouse.down(button=button)
        desk.page.mouse.move(x + 90, y - 40, steps=4)
        desk.page.mouse.up(button=button)
        if key:
            desk.page.keyboard.up(key)
        assert desk.place(300, 200) == pytest.approx((left + 90, top - 40), abs=1.5)
    desk.click(301, 202, positive=False)
    assert desk.clicks() == [[300, 200, 1], [301, 202, 0]]


def test_clicks_are_exact_on_a_screen_of_small_pixels(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url, device_scale_factor=1.5) as desk:
        desk.click(17, 33)
        desk.press("+", "+")
        desk.click(200, 201, positive=False)
        assert desk.clicks() == [[17, 33, 1], [200, 201, 0]]


def test_clicks_that_follow_at_once_are_answered_in_their_order(desk: Desk, server: Running) -> None:
    places = [(240, 130), (250, 200), (230, 100), (60, 60)]
    for place in places:
        desk.page.mouse.click(*desk.place(*place))
    desk.idle()
    assert desk.clicks() == [[*place, 1] for place in places]
    np.testing.assert_array_equal(desk.labels(), _served(server, desk))


def test_what_a_click_draws_is_what_is_drawn_whole(desk: Desk) -> None:
    canvas = desk.page.get_by_role("application")
    for x, y, positive in ((*FACE, True), (250, 300, True), (60, 60, False)):
        desk.click(x, y, positive=positive)
        part = canvas.screenshot()
        desk.press("o", "o")  # outlines away and back: everything is drawn anew
        assert canvas.screenshot() == part


def test_undo_redo_and_reset(desk: Desk, server: Running) -> None:
    desk.click(*FACE)
    first = desk.labels()
    desk.click(*ROCKET)
    second = desk.labels()
    assert not np.array_equal(first, second)
    desk.button("Undo")
    np.testing.assert_array_equal(desk.labels(), first)
    np.testing.assert_array_equal(desk.painted()[..., 3] == 255, first == 1)
    desk.press("Control+z")
    assert not desk.labels().any()
    assert desk.page.get_by_role("button", name="Undo").is_disabled()
    desk.press("Control+y")
    desk.button("Redo")
    np.testing.assert_array_equal(desk.labels(), second)
    desk.button("Reset object")
    assert desk.clicks() == []
    assert not desk.painted().any()
    desk.button("Take back")
    np.testing.assert_array_equal(desk.labels(), second)
    np.testing.assert_array_equal(_served(server, desk), second)


def test_a_second_object_takes_pixels_of_the_first(desk: Desk, server: Running) -> None:
    desk.click(*FACE)
    first = desk.labels()
    desk.button("New object")
    desk.click(FACE[0] + 3, FACE[1] + 4)
    both = desk.labels()
    assert set(np.unique(both)) >= {0, 2}
    assert np.any((first == 1) & (both == 2))
    np.testing.assert_array_equal(both, _served(server, desk))
    colours = {tuple(colour) for colour in desk.painted()[both > 0]}
    assert len(colours) == len(np.unique(both)) - 1
    listed = desk.page.locator("#objects .object")
    assert [int(one.get_attribute("data-area") or 0) for one in listed.all()] == [
        np.count_nonzero(both == label) for label in (1, 2)
    ]


def test_objects_are_renamed_hidden_selected_and_deleted(desk: Desk, server: Running) -> None:
    desk.click(*FACE)
    desk.press("n")
    desk.click(*ROCKET)
    desk.button("Rename 2")
    field = desk.page.get_by_role("textbox", name="New name of 2")
    field.fill("rocket <b>")
    field.press("Enter")
    desk.idle()
    assert desk.objects() == ["1", "rocket <b>"]
    labels = desk.labels()
    desk.button("Hide rocket <b>")
    np.testing.assert_array_equal(desk.painted()[..., 3] == 255, labels == 1)
    desk.button("Show rocket <b>")
    np.testing.assert_array_equal(desk.painted()[..., 3] == 255, labels > 0)
    desk.press("1")
    assert desk.get("state.answer.surface") == "1"
    desk.button("Delete rocket <b>")
    assert desk.objects() == ["1"]
    assert 2 not in desk.labels()
    desk.button("Take back")
    assert desk.objects() == ["1", "rocket <b>"]
    np.testing.assert_array_equal(_served(server, desk) == 2, labels == 2)


def test_a_name_that_is_taken_is_refused_and_told(desk: Desk) -> None:
    desk.click(*FACE)
    desk.press("n")
    desk.click(*ROCKET)
    desk.press("F2")
    desk.page.keyboard.type("1")
    desk.press("Enter")
    assert desk.objects() == ["1", "2"]
    alert = desk.page.get_by_role("alert").filter(has_text="1")
    assert alert.get_attribute("data-kind") == "SurfaceError"
    alert.get_by_role("button", name="Dismiss").click()
    assert alert.count() == 0


def test_the_confidence_of_the_current_object_is_a_heat_map(desk: Desk) -> None:
    desk.click(*FACE)
    before = desk.page.get_by_role("application").screenshot()
    desk.button("Confidence")
    desk.until("mmmsDemo.confidence() !== null")
    assert desk.get("confidence()") == [224, 224]
    assert desk.page.get_by_role("application").screenshot() != before
    desk.press("c")
    assert desk.page.get_by_role("button", name="Fill").get_attribute("aria-pressed") == "true"


def test_the_status_says_what_ran_and_how_long(desk: Desk) -> None:
    desk.click(*FACE)
    where, took = desk.page.inner_text("#status-where"), desk.page.inner_text("#status-time")
    engine = desk.get("state.model.engine")
    assert where.startswith(f"Server: {engine['library']} {engine['version']}")
    assert engine["precision"] in where
    for part in ("Last click", "engine", "mask", "round trip", "painting"):
        assert part in took
    facts = desk.page.inner_text("#facts")
    assert "Round trip" in facts
    assert "demo-small" in facts


def test_why_the_browser_cannot_answer_is_seen(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url) as desk:
        desk.page.route(
            "**/api/v1/browser",
            lambda route: route.fulfill(json={"available": False, "why": "onnxruntime-web is not here", "model": {}}),
        )
        desk.page.reload()
        desk.until("!document.getElementById('run-why').hidden")
        assert "onnxruntime-web is not here" in desk.page.inner_text("#run-why")
        assert desk.page.get_by_role("button", name="In this browser").is_disabled()
        assert desk.get("state.mode") == "server"

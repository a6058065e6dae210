"""Pictures are opened, refused, gone through, saved and taken up again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.server import ServedPicture, Settings
from tests.support.page_driver import Desk, open_desk
from tests.support.paths import ROOT
from tests.support.server import Running, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Download

PHOTO = ROOT / "docs" / "images" / "photo.jpg"
FACE = (240, 130)
EXPECTED = r"status of 4"
"""The console also tells of requests that the server refuses."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of other sizes, and a place for results."""
    made = tmp_path_factory.mktemp("pictures")
    with Image.open(PHOTO) as photo:
        photo.resize((96, 80)).save(made / "a.png")
        photo.resize((60, 100)).save(made / "b.png")
    (made / "out").mkdir()
    return made


@pytest.fixture(scope="module")
def server(small_engine: Engine, folder: Path) -> Iterator[Running]:
    pictures = [ServedPicture(folder / f"{name}.png", f"{name}.png", name) for name in "ab"]
    with running_server(small_engine, Settings(out=folder / "out"), pictures) as running:
        yield running


@pytest.fixture(scope="module")
def empty(small_engine: Engine) -> Iterator[Running]:
    """A server without pictures of its own."""
    with running_server(small_engine, Settings(upload_bytes=1 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def opened(chromium: Browser, empty: Running) -> Iterator[tuple[Desk, Any]]:
    with open_desk(chromium, empty.url, expected=EXPECTED) as desk:
        assert desk.page.get_by_text("Drop a picture here").is_visible()
        assert desk.page.get_by_role("button", name="New object").is_disabled()
        desk.open_files(str(PHOTO))
        yield desk, desk.get("annotation()")


def _saved(desk: Desk, item: str) -> tuple[Download, bytes]:
    with desk.page.expect_download() as waiting:
        desk.button("Save")
        desk.page.get_by_role("menuitem", name=item, exact=True).click()
    desk.idle()
    return waiting.value, Path(waiting.value.path()).read_bytes()


def test_the_picture_is_seen(desk: Desk) -> None:
    assert desk.get("state.picture.name") == "photo.jpg"
    assert not desk.page.get_by_text("Drop a picture here").is_visible()
    shot = desk.page.get_by_role("application").screenshot()
    box = desk.page.get_by_role("application").bounding_box()
    assert box is not None
    with Image.open(io.BytesIO(shot)) as seen, Image.open(PHOTO) as photo:
        for pixel in ((40, 400), (240, 60), (470, 20)):
            x, y = desk.place(*pixel)
            shown = np.array(seen.convert("RGB").getpixel((int(x - box["x"]), int(y - box["y"]))))
            wanted = np.asarray(photo.convert("RGB"))[pixel[1] - 1 : pixel[1] + 2, pixel[0] - 1 : pixel[0] + 2]
            assert np.abs(shown - wanted.astype(int)).max(axis=-1).min() < 24


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.png", b"these are no pixels", "ImageError"),
        ("empty.jpg", b"", "ImageError"),
        ("cut.jpg", PHOTO.read_bytes()[:3000], "ImageError"),
        ("large.png", b"\x89PNG\r\n\x1a\n" + bytes(2 << 20), "TooLargeError"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_the_picture_stays(
    desk: Desk, name: str, content: bytes, told: str
) -> None:
    desk.click(*FACE)
    labels = desk.labels()
    desk.open_files({"name": name, "mimeType": "image/png", "buffer": content})
    alert = desk.page.locator(".toast[role=alert]")
    assert alert.get_attribute("data-kind") == told
    assert len(alert.inner_text()) > 40
    assert desk.get("state.picture.name") == "photo.jpg"
    np.testing.assert_array_equal(desk.labels(), labels)
    desk.click(250, 240)
    assert desk.clicks() == [[*FACE, 1], [250, 240, 1]]
    assert alert.count() == 0


def test_a_label_map_is_saved_and_taken_up_again(desk: Desk, small_engine: Engine, tmp_path: Path) -> None:
    desk.click(*FACE)
    desk.press("n")
    desk.click(400, 150)
    labels = desk.labels()
    download, content = _saved(desk, "Label map (PNG)")
    assert download.suggested_filename == "photo-labels.png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), labels)
    (tmp_path / "labels.png").write_bytes(content)
    with Session(small_engine.bundle, engine=small_engine) as session:
        session.set_image(PHOTO)
        session.load_labels(tmp_path / "labels.png")
        np.testing.assert_array_equal(session.labels, labels)
        assert session.surfaces == {"1": 1, "2": 2}
    desk.press("r")
    desk.press("1", "r")
    assert not desk.labels().any()
    desk.page.set_input_files("#annotation-input", str(tmp_path / "labels.png"))
    desk.until("mmmsDemo.state.answer.surfaces.every((one) => one.area > 0)")
    desk.idle()
    np.testing.assert_array_equal(desk.labels(), labels)
    assert desk.objects() == ["1", "2"]


def test_coco_outlines_and_the_annotation_are_saved(desk: Desk, small_engine: Engine, tmp_path: Path) -> None:
    desk.click(*FACE)
    labels = desk.labels()
    coco = json.loads(_saved(desk, "COCO (JSON)")[1])
    assert coco["images"][0] | {"file_name": "photo.jpg", "width": 512, "height": 512} == coco["images"][0]
    assert [one["area"] for one in coco["annotations"]] == [np.count_nonzero(labels)]
    outlines = json.loads(_saved(desk, "Outlines (JSON polygons)")[1])
    assert outlines
    download, content = _saved(desk, "Annotation (JSON)")
    assert download.suggested_filename == "photo-annotation.json"
    (tmp_path / "annotation.json").write_bytes(content)
    desk.press("r")
    desk.page.set_input_files("#annotation-input", str(tmp_path / "annotation.json"))
    desk.until("mmmsDemo.state.answer.surfaces[0].area > 0")
    desk.idle()
    np.testing.assert_array_equal(desk.labels(), labels)
    assert desk.clicks() == [[*FACE, 1]]


def test_a_file_that_is_no_annotation_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.click(*FACE)
    with Image.open(PHOTO) as photo:
        photo.resize((40, 30)).convert("P").save(tmp_path / "other.png")
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    for file in ("other.json", "other.png"):
        desk.page.set_input_files("#annotation-input", str(tmp_path / file))
        desk.until("document.querySelector('.toast.error') !== null")
        desk.page.locator(".toast.error").get_by_role("button", name="Dismiss").click()
    assert desk.clicks() == [[*FACE, 1]]


def test_pictures_are_gone_through_and_saved_on_moving_on(chromium: Browser, server: Running, folder: Path) -> None:
    with open_desk(chromium, server.url) as desk:
        assert desk.get("state.picture.name") == "a.png"
        assert desk.page.get_by_role("button", name="Previous picture").is_disabled()
        desk.click(48, 30)
        labels = desk.labels()
        desk.button("Next picture")
        assert desk.get("state.picture.name") == "b.png"
        assert desk.labels().shape == (100, 60)
        assert not desk.labels().any()
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "out" / "a.png")), labels)
        assert json.loads((folder / "out" / "a.json").read_text())["surfaces"]
        assert desk.page.get_by_role("button", name="Open a.png, annotated").count() == 1
        desk.press("PageUp")
        assert desk.get("state.picture.name") == "a.png"
        np.testing.assert_array_equal(desk.labels(), labels)
        assert desk.clicks() == [[48, 30, 1]]
    # Another browser takes up what the server has.
    with open_desk(chromium, server.url) as other:
        np.testing.assert_array_equal(other.labels(), labels)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_files_are_dropped_and_pasted(desk: Desk, folder: Path, event: str) -> None:
    content = list((folder / "a.png").read_bytes())
    desk.page.evaluate(
        """([event, content]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(content)], `${event}.png`, { type: "image/png" }));
          window.dispatchEvent(event === "drop" ? new DragEvent("drop", { dataTransfer: files, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: files, cancelable: true }));
        }""",
        [event, content],
    )
    desk.idle()
    assert desk.get("state.picture.name") == f"{event}.png"
    assert desk.labels().shape == (80, 96)
    desk.open_files(str(PHOTO))


def test_the_token_is_taken_from_the_address_or_asked_for(chromium: Browser, small_engine: Engine) -> None:
    with running_server(small_engine, Settings(token="four-words-of-secret")) as running:
        plain = running.url.partition("#")[0]
        context = chromium.new_context()
        page = context.new_page()
        page.goto(plain)
        page.get_by_role("textbox", name="Token").fill("four-words-of-secret")
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("Drop a picture here").wait_for()
        context.close()
        with open_desk(chromium, running.url) as desk:
            assert "#" not in desk.page.url
            desk.open_files(str(PHOTO))
            desk.click(*FACE)
            assert desk.labels().any()


def test_several_files_are_a_list(chromium: Browser, empty: Running, folder: Path) -> None:
    with open_desk(chromium, empty.url, expected=EXPECTED) as desk:
        wrong = folder / "wrong.png"
        wrong.write_bytes(b"no pixels")
        desk.open_files(str(wrong), str(folder / "a.png"), str(folder / "b.png"))
        assert desk.page.locator(".toast[role=alert]").get_attribute("data-kind") == "ImageError"
        assert desk.page.inner_text("#strip-count") == "1 of 2"
        desk.click(48, 30)
        labels = desk.labels()
        desk.button("Next picture")
        assert desk.get("state.picture.name") == "b.png"
        desk.button("Previous picture")
        # Nothing but this browser has what was done.
        np.testing.assert_array_equal(desk.labels(), labels)
        desk.button("Start afresh")
        assert not desk.labels().any()


def test_a_reload_brings_the_annotation_back(chromium: Browser, server: Running) -> None:
    with open_desk(chromium, server.url) as desk:
        asked: list[str] = []
        desk.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        desk.button("Next picture")
        desk.click(30, 40)
        desk.press("n")
        desk.click(10, 90)
        desk.until("mmmsDemo.annotation().surfaces.filter((one) => one.interactions.length === 1).length === 2")
        labels = desk.labels()
        desk.page.reload()
        desk.idle()
        assert asked == ["beforeunload"]
        assert desk.get("state.picture.name") == "b.png"
        np.testing.assert_array_equal(desk.labels(), labels)
        assert desk.objects() == ["1", "2"]

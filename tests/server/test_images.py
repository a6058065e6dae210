"""Pictures of the server, modalities, layers, and annotations in the folder for results."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.annotations import read_labels
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.engines import Engine
from mmms_deploy.page.layers import drawn_modality
from mmms_deploy.server import ServedPicture, Settings
from mmms_deploy.server.shapes import ImageFields
from tests.support.server import Client, Running, png, running_server

API = "/api/v1"


@pytest.fixture
def folder(tmp_path: Path, picture: Any) -> Path:
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "in" / "a" / "disk.png")
    turned = Image.fromarray(picture).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "in" / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "in" / "broken.png").write_bytes(b"nothing")
    return tmp_path


@pytest.fixture
def pictures(folder: Path) -> list[ServedPicture]:
    names = ("a/disk.png", "turned.jpg", "broken.png")
    return [ServedPicture(folder / "in" / name, name, name.rpartition(".")[0]) for name in names]


@pytest.fixture
def serving(small_engine: Engine, folder: Path, pictures: list[ServedPicture]) -> Iterator[Running]:
    with running_server(small_engine, Settings(out=folder / "out"), pictures) as running:
        yield running


def test_pictures_are_listed_and_shown(serving: Running, picture: Any) -> None:
    client = Client(serving.api)
    listed = client("GET", "images").json
    for one in listed:
        ImageFields.model_validate(one)
    assert [(one["id"], one["name"], one["annotated"]) for one in listed] == [
        (0, "a/disk.png", False),
        (1, "turned.jpg", False),
        (2, "broken.png", False),
    ]
    small = client("GET", "images/0/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    assert small.pixels.shape == (90, 160, 3)
    assert np.abs(small.pixels.astype(int) - picture).mean() < 6
    assert client("GET", "images/1/thumbnail").pixels.shape[:2] == (90, 160), "upright"
    assert (client("GET", "images/2/thumbnail").status, client("GET", "images/3/thumbnail").status) == (400, 404)
    assert client("GET", "images/-1/thumbnail").status == 404


def test_large_pictures_have_small_thumbnails(serving: Running, folder: Path) -> None:
    Image.new("RGB", (1600, 900), (10, 200, 30)).save(folder / "in" / "a" / "disk.png")
    small = Client(serving.api)("GET", "images/0/thumbnail").pixels
    assert small.shape == (90, 160, 3)
    assert np.abs(small.astype(int) - (10, 200, 30)).max() < 6


def test_an_annotation_is_saved_and_taken_up_again(serving: Running, folder: Path, small_engine: Engine) -> None:
    client = Client(serving.api)
    session = client.open()
    opened = client("POST", f"sessions/{session}/open", {"image": 0}).json
    assert (opened["name"], opened["annotation"], opened["problem"]) == ("a/disk.png", None, None)
    client("POST", f"sessions/{session}/click", {"x": 60, "y": 45})
    reply = client("PUT", f"images/0/annotation?session={session}")
    assert reply.json == {"files": ["a/disk.png", "a/disk.json"]}
    assert sorted(path.name for path in (folder / "out").rglob("*")) == ["a", "disk.json", "disk.png"]
    assert [one["annotated"] for one in client("GET", "images").json] == [True, False, False]
    with Session(small_engine.bundle, engine=small_engine) as mine:
        mine.set_image(folder / "in" / "a" / "disk.png")
        mine.click(60, 45)
        labels, names = read_labels(folder / "out" / "a" / "disk.png")
        assert (labels == mine.labels).all()
        assert names == {"1": 1}
    again = client("POST", f"sessions/{client.open()}/open", {"image": 0}).json
    assert again["annotation"] == json.loads((folder / "out" / "a" / "disk.json").read_text())
    assert again["annotation"] == client("GET", f"sessions/{session}/annotation").json
    client("POST", f"sessions/{session}/click", {"x": 70, "y": 45})
    assert client("PUT", f"images/0/annotation?session={session}").status == 200, "it replaces its own"
    assert len(json.loads((folder / "out" / "a" / "disk.json").read_text())["surfaces"][0]["interactions"]) == 2


def test_only_what_a_session_holds_is_saved(serving: Running, folder: Path, upload: bytes) -> None:
    client = Client(serving.api)
    session = client.open(image=upload)
    reply = client("PUT", f"images/0/annotation?session={session}")
    assert (reply.status, reply.error["kind"]) == (409, "StateError")
    assert client("PUT", "images/0/annotation?session=none").status == 404
    assert client("PUT", f"images/9/annotation?session={session}").status == 404
    assert client("PUT", "images/0/annotation").status == 400
    assert not (folder / "out").exists()


def test_pictures_are_never_replaced(small_engine: Engine, folder: Path, pictures: list[ServedPicture]) -> None:
    before = (folder / "in" / "a" / "disk.png").read_bytes()
    with running_server(small_engine, Settings(out=folder / "in"), pictures) as running:
        client = Client(running.api)
        session = client.open()
        client("POST", f"sessions/{session}/open", {"image": 0})
        reply = client("PUT", f"images/0/annotation?session={session}")
        assert (reply.status, reply.error["kind"]) == (409, "StateError")
    assert (folder / "in" / "a" / "disk.png").read_bytes() == before
    assert not (folder / "in" / "a" / "disk.json").exists()


def test_what_cannot_be_written_is_not_there(serving: Running, folder: Path) -> None:
    """The label map is a folder: the annotation is not written either."""
    client = Client(serving.api)
    session = client.open()
    client("POST", f"sessions/{session}/open", {"image": 0})
    (folder / "out" / "a" / "disk.png").mkdir(parents=True)
    reply = client("PUT", f"images/0/annotation?session={session}")
    assert (reply.status, reply.error["kind"]) == (500, "OutputWriteError")
    assert [path.name for path in (folder / "out" / "a").iterdir()] == ["disk.png"]


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 500])
def test_a_damaged_annotation_is_told(serving: Running, folder: Path, content: str) -> None:
    (folder / "out" / "a").mkdir(parents=True)
    (folder / "out" / "a" / "disk.json").write_text(content)
    client = Client(serving.api)
    opened = client("POST", f"sessions/{client.open()}/open", {"image": 0}).json
    assert opened["annotation"] is None
    assert "disk.json" in opened["problem"]


def test_without_a_folder_nothing_is_saved(opened: Any, paint: Bundle, pictures: list[ServedPicture]) -> None:
    client = opened(paint, pictures)
    session = client.post(f"{API}/sessions").json()["session"]
    client.post(f"{API}/sessions/{session}/open", json={"image": 0})
    reply = client.put(f"{API}/images/0/annotation", params={"session": session})
    assert (reply.status_code, reply.json()["error"]["kind"]) == (409, "StateError")
    assert client.get(f"{API}/model").json()["saves"] is False


def test_layers_are_upright_and_exact(serving: Running, picture: Any, folder: Path) -> None:
    client = Client(serving.api)
    session = client.open()
    client("POST", f"sessions/{session}/open", {"image": 0})
    reply = client("GET", f"sessions/{session}/layers/image")
    assert reply.headers["content-type"] == "image/png"
    assert (reply.pixels == picture).all()
    opened = client("POST", f"sessions/{session}/open", {"image": 1}).json
    assert opened["size"] == [90, 160]
    assert client("GET", f"sessions/{session}/layers/image").pixels.shape == (90, 160, 3)
    assert client("GET", f"sessions/{session}/layers/thermal").error["kind"] == "UnknownImageError"
    refused = client("POST", f"sessions/{session}/open", {"image": 2})
    assert (refused.status, refused.error["kind"]) == (400, "ImageError")


# --- modalities -------------------------------------------------------------------------------------------------------


def test_modalities(opened: Any, modal: Bundle, upload: bytes) -> None:
    client = opened(modal)
    assert [one["name"] for one in client.get(f"{API}/model").json()["modalities"]] == ["depth", "event"]
    session = client.post(f"{API}/sessions").json()["session"]
    place = f"{API}/sessions/{session}"
    rows, columns = np.mgrid[:90, :160]
    depth = (rows * 100 + columns).astype(np.uint16)
    event = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    stream = io.BytesIO()
    np.save(stream, depth)
    files = {"image": ("a.png", upload), "depth": ("d.npy", stream.getvalue()), "event": ("e.png", png(event))}
    reply = client.put(f"{place}/image", files={"image": files["image"]})
    assert (reply.status_code, reply.json()["error"]["kind"]) == (400, "ModalityError")
    reply = client.put(f"{place}/image", files=files)
    assert reply.json()["layers"] == ["image", "depth", "event"]
    answer = client.post(f"{place}/click", json={"x": 60, "y": 45}).json()
    with Session(modal) as mine:
        mine.set_image(upload, depth=depth, event=event)
        result = mine.click(60, 45)
        assert answer["surfaces"][0]["area"] == result.area
        grey = np.asarray(Image.open(io.BytesIO(client.get(f"{place}/layers/depth").content)))
        assert grey.shape == (90, 160)
        assert (np.diff(grey.astype(int), axis=0) >= 0).all()
        assert (grey.min(), grey.max()) == (0, 255)
        shown = np.asarray(Image.open(io.BytesIO(client.get(f"{place}/layers/event").content)))
        assert (shown == event).all()
        # Another depth, later: the click is answered again.
        other = {"depth": ("d.png", png(depth[::-1].copy()))}
        reply = client.put(f"{place}/modalities", files=other)
        assert reply.json()["layers"] == ["image", "depth", "event"]
        mine.set_modalities(depth=depth[::-1].copy())
        state = client.post(f"{place}/state").json()
        assert (state["surfaces"][0]["area"], state["surfaces"][0]["clicks"]) == (mine.result.area, [[60, 45, 1]])
    assert client.put(f"{place}/modalities", files={"image": files["image"]}).status_code == 400
    other_session = client.post(f"{API}/sessions").json()["session"]
    assert client.put(f"{API}/sessions/{other_session}/modalities", files=other).status_code == 409


def test_modalities_that_come_later(opened: Any, modal: Bundle, upload: bytes) -> None:
    client = opened(modal)
    place = f"{API}/sessions/{client.post(f'{API}/sessions').json()['session']}"
    grey = png(np.zeros((90, 160), np.uint8))
    files = {"image": ("a.png", upload), "event": ("e.png", png(np.zeros((90, 160, 3), np.uint8)))}
    assert client.put(f"{place}/image?later=depth", files=files).json()["layers"] == ["image", "event"]
    reply = client.post(f"{place}/click", json={"x": 60, "y": 45})
    assert (reply.status_code, reply.json()["error"]["kind"]) == (400, "ModalityError")
    client.put(f"{place}/modalities", files={"depth": ("d.png", grey)})
    assert client.post(f"{place}/click", json={"x": 60, "y": 45}).status_code == 200


def test_numbers_are_drawn_modality() -> None:
    spec = ModalitySpec(name="depth", invalid=(0, "nan"))
    numbers = np.linspace(5, 900, 400, dtype=np.float32).reshape(20, 20, 1)
    numbers[0, 0], numbers[0, 1], numbers[5, 5] = 0, np.nan, 1e9
    shown = drawn_modality(numbers, spec)
    assert (shown.shape, shown.dtype) == ((20, 20), np.uint8)
    assert (shown[0, 0], shown[0, 1], shown[5, 5]) == (0, 0, 255)
    assert shown[10, 10] in range(110, 140), "one number that is far off makes nothing dark"
    assert not drawn_modality(np.full((4, 4, 1), 7.0), spec).any()
    assert not drawn_modality(np.zeros((4, 4, 5), np.uint16), spec).any()
    colours = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (drawn_modality(colours, spec) == colours).all()


def test_a_modality_is_no_bomb(opened: Any, modal: Bundle, upload: bytes) -> None:
    client = opened(modal, most_pixels=20_000)
    place = f"{API}/sessions/{client.post(f'{API}/sessions').json()['session']}"
    files = {"image": ("a.png", upload), "event": ("e.png", png(np.zeros((200, 200, 3), np.uint8)))}
    assert client.put(f"{place}/image", files=files).status_code == 413

"""A server with a click bundle: its pictures were encoded elsewhere, and it encodes none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmms_deploy import Bundle, Model, Session
from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.replay import write_click_bundle
from mmms_deploy.server import ServedPicture
from tests.support.server import png

API = "/api/v1"


@pytest.fixture
def served(tmp_path: Path, paint: Bundle, picture: Any) -> tuple[Bundle, list[ServedPicture]]:
    """A click bundle; a picture with its features, and one with those of another picture."""
    pictures = []
    with Model(paint, engine="onnxruntime") as model:
        features = model.encode(picture).for_clicks(paint.manifest)
        features.save(tmp_path / "disk.features")
    for name, pixels in (("disk", picture), ("other", picture[::-1])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        pictures.append(
            ServedPicture(tmp_path / f"{name}.png", f"{name}.png", name, features=tmp_path / "disk.features")
        )
    return write_click_bundle(paint, tmp_path / "clicks"), pictures


def test_pictures_that_were_encoded_before_can_be_clicked_on(
    served: tuple[Bundle, list[ServedPicture]], opened: Callable[..., Any], paint: Bundle, picture: Any
) -> None:
    client = opened(*served)
    session = client.post(f"{API}/sessions").json()["session"]
    place = f"{API}/sessions/{session}"
    found = client.post(f"{place}/open", json={"image": 0})
    assert found.status_code == 200, found.text
    assert (found.json()["size"], found.json()["layers"]) == ([90, 160], ["image"])
    answered = client.post(f"{place}/click?mask=rle", json={"x": 60, "y": 45, "positive": True})
    assert answered.status_code == 200, answered.text
    with Session(paint, engine="onnxruntime") as whole:
        whole.set_image(picture)
        expected = whole.click(60, 45)
    assert (mask_of_rle(answered.json()["mask"]) == expected.mask).all()
    assert client.get(f"{place}/layers/image").status_code == 200


def test_what_it_cannot_encode_is_refused_by_name(
    served: tuple[Bundle, list[ServedPicture]], opened: Callable[..., Any], picture: Any
) -> None:
    client = opened(*served)
    session = client.post(f"{API}/sessions").json()["session"]
    place = f"{API}/sessions/{session}"
    wrong = client.post(f"{place}/open", json={"image": 1})
    assert (wrong.status_code, "of another image than other.png" in wrong.json()["error"]["given"]) == (400, True)
    upload = client.put(f"{place}/image", content=png(picture), headers={"content-type": "image/png"})
    error = upload.json()["error"]
    assert (upload.status_code, "is a click bundle" in error["given"]) == (400, True)
    assert error["fix"] == "open one of the server's pictures"

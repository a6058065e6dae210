"""An image's features in half precision."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmms_deploy import LATER, Bundle, Session
from mmms_deploy.errors import FeatureError, ModalityError, NoImageError, SessionError
from mmms_deploy.page.features import decode_features, encode_features
from mmms_deploy.page.framing import frame, unframe

IMAGE = np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8)


def test_features_come_back_within_half_precision(paint: Bundle) -> None:
    with Session(paint) as session:
        session.set_image(IMAGE)
        size, tensors = decode_features(encode_features(session))
        exact = session.download_features(["f1"])
    assert size == (50, 70)
    assert list(tensors) == ["f1"]
    assert tensors["f1"].dtype == np.float16
    np.testing.assert_array_equal(tensors["f1"], exact["f1"].astype(np.float16))


def test_every_tensor_begins_at_a_multiple_of_four_bytes() -> None:
    with Session("demo-small") as session:
        session.set_image(IMAGE)
        content = encode_features(session)
    header = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    places = header["tensors"]
    assert int.from_bytes(content[:4], "little") % 4 == 0
    assert [place["offset"] % 4 for place in places] == [0] * len(places)
    assert all(place["values"] == int(np.prod(place["shape"])) for place in places)


def test_a_frame_is_padded_and_comes_back() -> None:
    for text in ("", "a", "ab", "abc", "ä"):
        content = frame({"text": text}, [b"12", b"345"])
        assert int.from_bytes(content[:4], "little") % 4 == 0
        header, payload = unframe(content)
        assert (header, bytes(payload)) == ({"text": text}, b"12345")
    with pytest.raises(ValueError, match="announces a header"):
        unframe(b"\xff\x00\x00\x00{}")


@pytest.mark.parametrize("number", [7e4, -7e4, np.nan, np.inf])
def test_numbers_that_half_precision_does_not_hold_are_refused(
    paint: Bundle, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    with Session(paint) as session:
        session.set_image(IMAGE)
        array = np.full((1, 1, 1, 1), number, dtype=np.float32)
        monkeypatch.setattr(session, "download_features", lambda names: dict.fromkeys(names, array))
        with pytest.raises(FeatureError, match="the features f1 reach"):
            encode_features(session)


def test_what_has_no_features_for_a_browser_says_why(paint: Bundle, proposing: Bundle, modal: Bundle) -> None:
    with Session(paint) as session, pytest.raises(NoImageError):
        encode_features(session)
    with Session(paint, zoom=True) as session:
        session.set_image(IMAGE)
        with pytest.raises(SessionError, match="zoom or flip"):
            encode_features(session)
    with Session(proposing) as session:
        session.set_image(IMAGE)
        with pytest.raises(FeatureError, match="takes all clicks as a list"):
            encode_features(session)
    with Session(modal) as session:
        session.set_image(IMAGE, depth=LATER, event=np.zeros((50, 70, 3), np.float32))
        with pytest.raises(ModalityError):
            encode_features(session)


@pytest.mark.parametrize("content", [b"", b"\x04\x00\x00\x00{}  ", frame({"image_size": [2, 3], "tensors": [{}]})])
def test_what_is_no_features_is_refused(content: bytes) -> None:
    with pytest.raises(FeatureError, match="these are no features"):
        decode_features(content)

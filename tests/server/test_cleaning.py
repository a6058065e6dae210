"""Masks that the server cleans, and the browser that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmms_deploy import MaskCleaning, Session
from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.engines import Engine
from mmms_deploy.errors import FeatureError
from mmms_deploy.page.features import UNCLEANED, encode_features
from mmms_deploy.server import Settings
from mmms_deploy.server.shapes import ModelAnswer, SessionAnswer
from tests.support.server import Client, form, running_server

CLEANING = MaskCleaning(fill_holes=50, drop_specks=50, simplify=3)
CLICK = {"x": 60, "y": 45}


def masks(engine: Engine, upload: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The network's own mask, and the cleaned one."""
    with Session(engine.bundle, engine=engine) as session:
        session.set_image(upload)
        raw = session.click(60, 45).mask
    cleaned = CLEANING.clean(raw, [(60, 45, 1)])
    assert not np.array_equal(raw, cleaned)
    return raw, cleaned


def opened(client: Client, upload: bytes, body: Any = None) -> tuple[str, SessionAnswer]:
    reply = client("POST", "sessions", body)
    assert reply.status == 201, reply.body
    answer = SessionAnswer.model_validate_json(reply.body)
    content, kind = form(image=("photo.png", upload))
    client("PUT", f"sessions/{answer.session}/image", content, {"Content-Type": kind})
    return answer.session, answer


def clicked(client: Client, session: str) -> np.ndarray:
    return mask_of_rle(client("POST", f"sessions/{session}/click", CLICK).json["mask"])


def test_a_session_says_how_its_masks_are_cleaned(client: Client, small_engine: Engine, upload: bytes) -> None:
    raw, cleaned = masks(small_engine, upload)
    wanted = {"fill_holes": 50, "drop_specks": 50, "simplify": 3}
    session, answer = opened(client, upload, {"cleaning": wanted})
    assert answer.cleaning is not None
    assert answer.cleaning.model_dump() == {**wanted, "keep_largest": 0}
    np.testing.assert_array_equal(clicked(client, session), cleaned)
    labels = client("GET", f"sessions/{session}/labels.png").pixels
    np.testing.assert_array_equal(labels == 1, cleaned)
    refused = client("GET", f"sessions/{session}/features")
    assert (refused.status, refused.error["kind"], refused.error["given"]) == (400, "FeatureError", UNCLEANED)
    session, answer = opened(client, upload)
    assert answer.cleaning is None
    np.testing.assert_array_equal(clicked(client, session), raw)
    assert client("GET", f"sessions/{session}/features").status == 200


@pytest.mark.parametrize(
    "body", [{"cleaning": {"fill_holes": -1}}, {"cleaning": {"simplify": "3"}}, {"cleaning": {"holes": 3}}, {"x": 1}]
)
def test_odd_cleanings_are_refused(client: Client, body: Any) -> None:
    reply = client("POST", "sessions", body)
    assert (reply.status, reply.error["kind"]) == (400, "RequestError")


def test_the_servers_own_cleaning_keeps_clicks_on_the_server(small_engine: Engine, upload: bytes) -> None:
    raw, cleaned = masks(small_engine, upload)
    with running_server(small_engine, Settings(cleaning=CLEANING)) as running:
        client = Client(running.api)
        model = ModelAnswer.model_validate_json(client("GET", "model").body)
        assert model.cleaning is not None
        assert model.cleaning.simplify == 3
        browser = client("GET", "browser").json
        assert (browser["available"], browser["why"]) == (False, UNCLEANED)
        session, answer = opened(client, upload)
        assert answer.cleaning == model.cleaning
        np.testing.assert_array_equal(clicked(client, session), cleaned)
        session, answer = opened(client, upload, {"cleaning": {}})
        assert answer.cleaning is None
        np.testing.assert_array_equal(clicked(client, session), raw)


def test_a_cleaning_that_does_nothing_is_none() -> None:
    assert Settings(cleaning=MaskCleaning()).cleaning is None


def test_features_of_a_session_that_cleans_go_to_no_browser(small_engine: Engine, upload: bytes) -> None:
    with Session(small_engine.bundle, engine=small_engine, cleaning=CLEANING) as session:
        session.set_image(upload)
        with pytest.raises(FeatureError, match="masks are cleaned"):
            encode_features(session)

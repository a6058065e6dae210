"""A click bundle of an encoder and a decoder: the decoder alone, with the same answers and choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.replay import write_click_bundle
from tests.support.click_bundles import kept_for_clicks

IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_decoder_alone_answers_as_the_pair(pair_bundle: Bundle, tmp_path: Path, engine: str) -> None:
    def answered(session: Session) -> list[bytes]:
        first = session.click(40, 30)
        other = session.choose(0)
        second = session.click(70, 10, False)
        assert len(first.candidates) == 3
        return [one.network_probability.tobytes() for one in (first, other, second)]

    clicks = write_click_bundle(pair_bundle, tmp_path / "clicks")
    with Session(pair_bundle, engine=engine) as session:
        session.set_image(IMAGE)
        features = kept_for_clicks(session, tmp_path / "image.features")
        expected = answered(session)
    with Session(clicks, engine=engine) as session:
        session.use(features)
        assert answered(session) == expected

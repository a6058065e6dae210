"""The replay of a network with proposals goes on from the proposal that the checkpoint took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.errors import VerificationError
from mmms_deploy.replay import verify
from mmms_deploy.replay.golden import GoldenCase, load_golden
from tests.support.proposing import SCORES, write_proposing

CLICKS = ((60.0, 40.0, 1.0), (100.0, 40.0, 1.0))


def case_of(path: Path, choice: int) -> GoldenCase:
    """What the network answers when a proposal is chosen after the first click."""
    image, masks = np.full((96, 144, 3), 51, dtype=np.uint8), []
    with Session(write_proposing(path), engine="onnxruntime") as session:
        session.set_image(image)
        for number, (x, y, positive) in enumerate(CLICKS):
            result = session.click(x, y, positive)
            masks.append((session.choose(choice) if number == 0 else result).mask)
    return GoldenCase(
        image=image,
        clicks=np.array(CLICKS, dtype=np.float32),
        masks=np.stack(masks),
        certain=np.ones((len(CLICKS), 96, 144), dtype=np.bool_),
        choice=choice,
    )


def test_a_score_that_is_as_large_may_win_elsewhere(tmp_path) -> None:
    """The session takes the first of two equal ones; the checkpoint's was the other."""
    assert SCORES[1] == SCORES[2] == max(SCORES)
    bundle = write_proposing(tmp_path / "bundle", golden=[case_of(tmp_path / "other", 2)])
    assert [case.choice for case in load_golden(bundle.file("golden.npz"))] == [2]
    assert verify(bundle).worst.iou == 1.0


def test_a_smaller_score_must_not_win(tmp_path) -> None:
    bundle = write_proposing(tmp_path / "bundle", golden=[case_of(tmp_path / "other", 0)])
    with pytest.raises(VerificationError, match="2 of 2 golden clicks"):
        verify(bundle)

"""What a network answers is checked: numbers that are no probabilities never become a mask."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.errors import AnswerError, Door
from tests.support.annotating import GREY, SIZE
from tests.support.toy import write_toy

pytestmark = pytest.mark.usefixtures("every_engine")


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), 3.0, -1.0])
def test_answers_that_are_no_probabilities(tmp_path: Path, gain: float) -> None:
    bundle = write_toy(tmp_path / "toy", gain=gain)
    with Session(bundle, threads=1) as session:
        session.set_image(GREY)
        before = session.result
        with pytest.raises(AnswerError, match="no probabilities") as caught:
            session.click(10, 10)
        assert "--precision fp32" in caught.value.message(Door.COMMAND_LINE)
        assert not re.search("--", caught.value.message(Door.PYTHON))
        assert session.clicks == ()
        assert session.result is before
        mask = np.zeros(SIZE, dtype=np.bool_)
        session.set_mask(mask)
        with pytest.raises(AnswerError):
            session.click(10, 10)


def test_answers_at_the_ends_of_the_range_pass(tmp_path: Path) -> None:
    with Session(write_toy(tmp_path / "toy", gain=1.0), threads=1) as session:
        session.set_image(GREY)
        assert session.click(10, 10).mask.any()

"""The previous mask in both forms: fed back at the network's size, or through the image's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.imaging.resize import resize_image
from tests.support.annotating import GREY, SIZE, check, reference
from tests.support.toy import write_toy

pytestmark = pytest.mark.usefixtures("every_engine")

ALIGNED = ResizeRule(align_corners=True)
CLICKS = [Click(10, 10), Click(60.25, 40.5), Click(14, 12, False), Click(33, 20)]


@pytest.fixture(scope="module")
def through_image(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("toy") / "through", mask_resize=ALIGNED, previous_resize=ALIGNED)


@pytest.fixture
def session(through_image: Bundle) -> Iterator[Session]:
    with Session(through_image, threads=1) as session:
        session.set_image(GREY)
        yield session


def test_every_click_sees_the_reduced_map(session: Session) -> None:
    for count, click in enumerate(CLICKS, start=1):
        result = session.click(click.x, click.y, click.positive)
        check(result, reference(session.bundle, CLICKS[:count]))


def test_the_forms_differ_from_the_second_click_on(session: Session, tmp_path: Path) -> None:
    plain = write_toy(tmp_path / "plain", mask_resize=ALIGNED)
    with Session(plain, threads=1) as other:
        other.set_image(GREY)
        first = [s.click(10, 10).network_probability for s in (session, other)]
        second = [s.click(60, 40).network_probability for s in (session, other)]
    np.testing.assert_array_equal(*first)
    assert np.abs(second[0] - second[1]).max() > 0.05


def test_undo_and_redo(session: Session) -> None:
    answers = [session.click(c.x, c.y, c.positive) for c in CLICKS[:3]]
    session.undo()
    session.undo()
    assert session.result.network_probability.tobytes() == answers[0].network_probability.tobytes()
    session.redo()
    check(session.click(33, 20), reference(session.bundle, [*CLICKS[:2], CLICKS[3]]))


def test_a_mask_is_reduced_by_the_same_rule(session: Session) -> None:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[10:30, 20:50] = True
    result = session.set_mask(mask)
    expected = resize_image(mask[:, :, None].astype(np.float32), session.bundle.manifest.size, ALIGNED)[0]
    np.testing.assert_array_equal(result.network_probability, expected)

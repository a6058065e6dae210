"""Masks that are put in by hand; on every engine."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.errors import MaskInputError, NoImageError
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import resize
from tests.support.annotating import GREY, SIZE, check, reference
from tests.support.toy import Reference

pytestmark = pytest.mark.usefixtures("every_engine")

BOX = np.zeros(SIZE, dtype=np.bool_)
BOX[10:40, 20:60] = True


def after(bundle: Bundle, before: list[Click], mask: np.ndarray, clicks: list[Click]) -> np.ndarray:
    """Return the answer of a NumPy network when a mask replaces its answer between clicks; torch shrinks the mask."""
    torch = pytest.importorskip("torch")
    network = Reference(bundle.manifest, 0.2, SIZE)
    contract = bundle.manifest.clicks
    for click in (*before, None, *clicks):
        if click is None:
            given = torch.from_numpy(mask.astype(np.float32))[None, None]
            network.prob = network.prev = torch.nn.functional.interpolate(
                given, bundle.manifest.size, mode="bilinear", antialias=True
            )[0, 0].numpy()
        else:
            x, y = to_network(click.x, click.y, image=SIZE, network=bundle.manifest.size, rule=contract.coordinates)
            network.click(x, y, click.positive)
    return resize(network.prob, SIZE, contract.mask_resize)


def test_masks_that_are_no_arrays(session: Session) -> None:
    class Remote:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise TypeError("the tensor is on a GPU")

    for mask in (np.ma.masked_array(BOX, mask=BOX), [[True], [True, False]], Remote(), None, "mask", 3):
        with pytest.raises(MaskInputError):
            session.set_mask(mask)  # type: ignore[arg-type]
    assert not session.can_undo


def test_a_mask_to_start_from(session: Session, paint: Bundle) -> None:
    result = session.set_mask(BOX)
    np.testing.assert_array_equal(result.mask, BOX)
    assert (result.index, result.click, session.clicks) == (0, None, ())
    assert session.runs == {"image": 1, "click": 0}
    click = Click(5, 5)
    check(session.click(5, 5), after(paint, [], BOX, [click]))
    assert not np.allclose(session.result.probability, reference(paint, [click]))


def test_clicks_stay_when_a_mask_is_edited(session: Session, paint: Bundle) -> None:
    first, second = Click(10, 10), Click(50, 30, False)
    session.click(10, 10)
    session.set_mask(BOX)
    assert session.clicks == (first,)
    check(session.click(50, 30, False), after(paint, [first], BOX, [second]))
    assert session.result.index == 2


def test_a_mask_can_be_undone(session: Session, paint: Bundle) -> None:
    session.click(10, 10)
    session.set_mask(BOX)
    check(session.undo(), reference(paint, [Click(10, 10)]))
    np.testing.assert_array_equal(session.redo().mask, BOX)
    session.undo()
    check(session.click(50, 30), reference(paint, [Click(10, 10), Click(50, 30)]))
    assert session.runs == {"image": 1, "click": 2}


def test_probabilities_are_taken_as_they_are(session: Session, paint: Bundle) -> None:
    soft = np.linspace(0, 1, BOX.size).reshape(SIZE).astype(np.float32)
    np.testing.assert_array_equal(session.set_mask(soft).mask, soft > 0.5)
    check(session.click(5, 5), after(paint, [], soft, [Click(5, 5)]))


def test_the_given_mask_may_change_afterwards(session: Session) -> None:
    mask = BOX.copy()
    session.set_mask(mask)
    mask[:] = True
    np.testing.assert_array_equal(session.mask, BOX)
    assert not session.mask.flags.writeable


def test_a_changed_modality_answers_again_from_the_mask(modal: Bundle) -> None:
    depth, event = np.zeros(SIZE), np.zeros((*SIZE, 3))
    with Session(modal) as session, Session(modal) as other:
        session.set_image(GREY, depth=depth, event=event)
        session.set_mask(BOX)
        session.click(5, 5)
        session.set_modalities(depth=depth + 20.0)
        other.set_image(GREY, depth=depth + 20.0, event=event)
        other.set_mask(BOX)
        np.testing.assert_array_equal(session.result.network_probability, other.click(5, 5).network_probability)
        np.testing.assert_array_equal(session.undo().mask, BOX)


@pytest.mark.parametrize(
    "wrong",
    [BOX[1:], BOX.astype(np.complex64), BOX * 2.0, BOX - 1.0, np.full(SIZE, np.nan), BOX[None]],
    ids=["size", "dtype", "above", "below", "nan", "batch"],
)
def test_a_refused_mask_changes_nothing(session: Session, wrong: np.ndarray) -> None:
    result = session.click(10, 10)
    with pytest.raises(MaskInputError, match="the mask has shape"):
        session.set_mask(wrong)
    assert session.result is result


def test_a_mask_needs_an_image(paint: Bundle) -> None:
    with Session(paint) as session, pytest.raises(NoImageError):
        session.set_mask(BOX)

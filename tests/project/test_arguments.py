"""What callers give, in words and as numbers; and the kinds of mistakes that drawn arguments found."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, CocoWriter, Features, Polygon, Session, draw_overlay
from mmms_deploy.annotations import (
    CocoObject,
    mask_of_polygons,
    mask_of_rle,
    mask_of_segmentation,
    polygons_of,
    read_labels,
    rle_of,
)
from mmms_deploy.arguments import flag, items, real, shown, whole
from mmms_deploy.errors import (
    AnnotationError,
    ChoiceError,
    ClickError,
    FeatureError,
    ImageError,
    MaskInputError,
    MMMSDeployError,
    OutputWriteError,
    SessionError,
)
from tests.support.annotating import GREY, SIZE
from tests.support.odd_values import Hostile, Longer, Unprintable

HUGE = 10**5000
ARRAY = np.zeros((2, 2))
SECOND = np.timedelta64(1, "s")
MASK = np.eye(*SIZE, dtype=bool)


def test_a_value_always_has_a_text() -> None:
    assert shown("x") == "'x'"
    assert shown("x" * 500, 10) == "'xxxxxxxxx ..."
    assert shown(HUGE) == "a int that cannot be shown"
    assert shown(Unprintable()) == "a Unprintable that cannot be shown"
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert "list" in shown(deep)


def test_flags() -> None:
    assert flag("x", 1, SessionError) is True
    assert flag("x", np.False_, SessionError) is False
    for value in (ARRAY, Hostile()):
        with pytest.raises(SessionError, match="x is"):
            flag("x", value, SessionError)


@pytest.mark.parametrize("given", ["x", b"x", {"x": 1}, None, 3, np.array(3), memoryview(np.zeros((2, 2)))])
def test_what_is_no_list(given: object) -> None:
    with pytest.raises(SessionError, match="the things are a"):
        items("the things are", given, SessionError, expected="things")


def test_lists() -> None:
    assert items("x", Longer([1, 2]), SessionError, expected="things") == [1, 2]
    assert items("x", (one for one in range(3)), SessionError, expected="things") == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        items("x", (1 // one for one in [0]), SessionError, expected="things")


def test_numbers() -> None:
    assert [real(one) for one in (1, 1.5, np.float16(2), np.uint8(3), HUGE, -HUGE)] == [
        1,
        1.5,
        2,
        3,
        math.inf,
        -math.inf,
    ]
    assert [whole(one) for one in (1, np.int8(-2), np.uint64(2**63), HUGE)] == [1, -2, 2**63, HUGE]
    for none in (True, np.True_, None, "1", SECOND, Decimal(1), Fraction(1, 2), 1j, ARRAY, np.array(3)):
        assert real(none) is None
        assert whole(none) is None
    assert whole(1.0) is None


REFUSED: list[tuple[str, Callable[[Session, Path], object], type[MMMSDeployError]]] = [
    ("a whole number without a text", lambda s, p: s.click(3, 4, HUGE), ClickError),  # type: ignore[arg-type]
    ("a duration as a coordinate", lambda s, p: s.click(SECOND, 4), ClickError),  # type: ignore[arg-type]
    ("a huge choice", lambda s, p: s.choose(HUGE), ChoiceError),
    ("a duration as a choice", lambda s, p: s.choose(SECOND), ChoiceError),  # type: ignore[arg-type]
    ("an order without a text", lambda s, p: s.set_image(GREY, channel_order=HUGE), ImageError),  # type: ignore[call-overload]
    ("no names", lambda s, p: s.download_features(None), SessionError),  # type: ignore[arg-type]
    ("names that are no texts", lambda s, p: s.download_features([[]]), SessionError),  # type: ignore[list-item]
    ("clicks of several axes", lambda s, p: s.set_clicks(memoryview(np.zeros((2, 2)))), ClickError),  # type: ignore[arg-type]
    ("an array for an annotation", lambda s, p: s.restore(np.float64(1)), SessionError),  # type: ignore[arg-type]
    ("an array for names", lambda s, p: s.load_labels(np.eye(*SIZE, dtype=int), ARRAY), AnnotationError),  # type: ignore[arg-type]
    ("an array for void", lambda s, p: s.load_labels(np.eye(*SIZE, dtype=int), void=ARRAY), AnnotationError),  # type: ignore[arg-type]
    ("an array for a flag of COCO", lambda s, p: s.to_coco(polygons=ARRAY), AnnotationError),  # type: ignore[arg-type]
    ("an array for another flag of COCO", lambda s, p: s.to_coco(empty=ARRAY), AnnotationError),  # type: ignore[arg-type]
    ("a huge tolerance", lambda s, p: s.result.polygons(10**400), AnnotationError),
    ("an array for a flag of run lengths", lambda s, p: s.result.rle(ARRAY), AnnotationError),  # type: ignore[arg-type]
    ("an array for a form", lambda s, p: s.result.to_dict(ARRAY), AnnotationError),  # type: ignore[arg-type]
    ("a threshold that is none", lambda s, p: s.result.above("0.5"), AnnotationError),  # type: ignore[arg-type]
    ("a threshold out of range", lambda s, p: s.result.above(1.0), AnnotationError),
    ("an array for overwrite", lambda s, p: s.result.save(p / "a.png", overwrite=ARRAY), OutputWriteError),  # type: ignore[arg-type]
    ("an array for a picture", lambda s, p: s.features.save(p / "a.features", picture=ARRAY), FeatureError),  # type: ignore[arg-type]
    ("no arrays", lambda s, p: s.features.with_arrays(["f1"]), FeatureError),  # type: ignore[arg-type]
    ("an array for a flag of predict", lambda s, p: s.predict([[3, 4]], [1], return_logits=ARRAY), SessionError),  # type: ignore[arg-type]
    ("an array for an option", lambda s, p: Session(s.bundle, resume=ARRAY), SessionError),  # type: ignore[arg-type]
    ("no mask under an overlay", lambda s, p: draw_overlay(GREY, 0.5), MaskInputError),  # type: ignore[arg-type]
    ("no clicks on an overlay", lambda s, p: draw_overlay(GREY, MASK, -1), ClickError),  # type: ignore[arg-type]
    ("other things on an overlay", lambda s, p: draw_overlay(GREY, MASK, ["x"]), ClickError),  # type: ignore[list-item]
    ("a click far off", lambda s, p: draw_overlay(GREY, MASK, [Click(math.nan, 1)]), ClickError),
    ("no data set", lambda s, p: CocoWriter().add(np.float64(1)), AnnotationError),  # type: ignore[arg-type]
    ("no list of categories", lambda s, p: CocoWriter(np.array(3)), AnnotationError),  # type: ignore[arg-type]
    ("no size", lambda s, p: CocoWriter().add_image("a", 3), AnnotationError),  # type: ignore[arg-type]
    ("no objects", lambda s, p: CocoWriter().add_image("a", (2, 2), 3), AnnotationError),  # type: ignore[arg-type]
    ("no object", lambda s, p: CocoWriter().add_image("a", (2, 2), [3]), AnnotationError),  # type: ignore[list-item]
    (
        "an array for a name",
        lambda s, p: CocoWriter().add_image("a", SIZE, [CocoObject(MASK, "a", surface=ARRAY)]),  # type: ignore[arg-type]
        AnnotationError,
    ),
    ("no size of polygons", lambda s, p: mask_of_segmentation([], "x"), AnnotationError),  # type: ignore[arg-type]
    ("an axis too few", lambda s, p: mask_of_polygons([], np.array(3)), AnnotationError),  # type: ignore[arg-type]
    ("no polygons", lambda s, p: mask_of_polygons(3, SIZE), AnnotationError),  # type: ignore[arg-type]
    ("no holes", lambda s, p: mask_of_polygons([Polygon(np.eye(3, 2), 3)], SIZE), AnnotationError),  # type: ignore[arg-type]
    ("a huge ring", lambda s, p: mask_of_polygons([Polygon(10**400)], SIZE), AnnotationError),  # type: ignore[arg-type]
    ("a huge polygon", lambda s, p: mask_of_segmentation([10**400], SIZE), AnnotationError),
    ("another table", lambda s, p: mask_of_rle(np.zeros(3, [("a", "u1")])), AnnotationError),  # type: ignore[arg-type]
    ("a path without a text", lambda s, p: read_labels(HUGE), AnnotationError),  # type: ignore[arg-type]
    ("a duration as a tolerance", lambda s, p: polygons_of(MASK, SECOND), AnnotationError),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "error"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_a_mistake_has_a_name(
    paint: Bundle, tmp_path: Path, call: Callable[[Session, Path], object], error: type[MMMSDeployError]
) -> None:
    with Session(paint, threads=1) as session:
        session.set_image(GREY)
        session.click(3, 4)
        before = session.to_dict()
        with pytest.raises(error) as caught:
            call(session, tmp_path)
        str(caught.value).encode()
        assert session.to_dict() == before
        assert not list(tmp_path.iterdir())


def test_texts_of_other_classes_become_plain_texts(paint: Bundle) -> None:
    """JSON and msgspec know str alone."""
    with Session(paint, threads=1) as session:
        session.set_image(GREY)
        session.rename("1", np.str_("cat"))
        session.select(np.str_("dog"))
        session.load_labels(np.eye(*SIZE, dtype=int), {np.str_("bird"): 1})
        assert {type(name) for name in session.surfaces} == {str}
        session.restore(session.to_dict())
        assert type(session.to_coco(categories={"bird": np.str_("animal")}, empty=True)["categories"][0]["name"]) is str


def test_flags_that_are_no_bools_still_count(paint: Bundle) -> None:
    assert isinstance(rle_of(MASK, np.True_)["counts"], str)  # type: ignore[arg-type]
    assert isinstance(Features, type)

"""Run lengths: equal to those of COCO's own library, and read back exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmms_deploy.annotations import mask_of_rle, rle_of
from mmms_deploy.errors import AnnotationError
from tests.support.masks import AWKWARD, whole

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# pycocotools reads its arrays the way of NumPy 1.

BOX = AWKWARD["a hole"]


def test_compressed_like_the_library() -> None:
    for mask in whole():
        theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle_of(mask) == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
        np.testing.assert_array_equal(mask_of_rle(theirs), mask)


@pytest.mark.parametrize("compressed", [True, False])
def test_read_back_exactly_through_json(compressed: bool) -> None:
    for mask in whole():
        written = json.loads(json.dumps(rle_of(mask, compressed)))
        found = mask_of_rle(written)
        assert found.dtype == np.bool_
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, mask)


def test_the_library_reads_numbers() -> None:
    for mask in whole(20):
        theirs = coco_mask.decode(coco_mask.frPyObjects(rle_of(mask, compressed=False), *mask.shape))
        np.testing.assert_array_equal(theirs, mask)


def test_long_runs() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[100:2900, 1] = mask[5, 3990] = True
    np.testing.assert_array_equal(mask_of_rle(rle_of(mask)), mask)
    assert rle_of(mask, compressed=False)["counts"][:2] == [3100, 2800]


@pytest.mark.parametrize("numbers", [BOX.astype(np.uint8), BOX * np.uint8(255), BOX.astype(np.int64)])
def test_whole_numbers_are_masks(numbers: np.ndarray) -> None:
    assert rle_of(numbers) == rle_of(BOX)


@pytest.mark.parametrize(
    "wrong",
    [BOX * 2, BOX * 0.5, BOX[None], np.zeros((0, 3), bool), np.ma.masked_array(BOX), [[1], [1, 2]], "mask", None],
    ids=["labels", "floats", "batch", "no pixels", "masked", "ragged", "text", "none"],
)
def test_what_is_no_mask(wrong: np.ndarray) -> None:
    with pytest.raises(AnnotationError):
        rle_of(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        [],
        "rle",
        {"size": [2, 2]},
        {"size": [2, 2], "counts": []},
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [2.0, 2.0]},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [2, 2], "counts": [2**70, 1]},
        {"size": [2, 2], "counts": [2**63 - 1, 2**63 - 1, 6]},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "4 "},
        {"size": [2, 2], "counts": "P"},
        {"size": [2, 2], "counts": "\u00e9"},
        {"size": [2, 2], "counts": b"\xff"},
        {"size": [2, 2], "counts": "o" * 40 + "1"},
        {"size": [2, 2, 1], "counts": [4]},
        {"size": [0, 2], "counts": [0]},
        {"size": [True, 4], "counts": [4]},
        {"size": ["2", "2"], "counts": [4]},
        {"size": 4, "counts": [4]},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
        {"size": [1 << 600, 1], "counts": [1]},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_nonsense_is_refused_by_name(wrong: dict) -> None:
    with pytest.raises(AnnotationError):
        mask_of_rle(wrong)

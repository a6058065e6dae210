"""Everything that a session takes as a mask, and what it refuses by name."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import Annotation, mask_of_segmentation, polygons_of, read_annotation, rle_of, write_mask
from mmms_deploy.errors import MaskInputError
from tests.support.annotating import GREY, SIZE

BOX = np.zeros(SIZE, dtype=np.bool_)
BOX[10:40, 20:60] = True
BOX[20:25, 30:35] = False
BOX[2, 2] = True
WHITE = BOX * np.uint8(255)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "mask",
    [
        png(WHITE),
        bytearray(png(BOX)),
        memoryview(png(WHITE)),
        io.BytesIO(png(WHITE)),
        BOX,
        BOX.astype(np.uint8),
        WHITE,
        BOX.astype(np.int64),
        BOX * np.uint16(255),
        BOX.astype(np.float32),
        BOX.astype(np.float16),
        BOX.tolist(),
        np.asfortranarray(BOX),
        BOX[::-1][::-1],
        Image.fromarray(WHITE),
        Image.fromarray(BOX),
        Image.fromarray(WHITE).convert("RGB"),
        Image.fromarray(WHITE).convert("RGBA"),
        Image.fromarray(WHITE).convert("LA"),
        Image.fromarray(BOX.astype(np.uint8)),
        rle_of(BOX),
        rle_of(BOX, compressed=False),
        Annotation(BOX).to_dict(),
        {"segmentation": rle_of(BOX), "id": 3, "image_id": 1, "category_id": 2},
        polygons_of(BOX),
        list(polygons_of(BOX)),
        mask_of_segmentation(rle_of(BOX), SIZE),
    ],
    ids=lambda mask: type(mask).__name__,
)
def test_masks_of_every_kind(session: Session, mask: object) -> None:
    np.testing.assert_array_equal(session.set_mask(mask).mask, BOX)  # type: ignore[arg-type]
    assert session.undo().area == 0
    np.testing.assert_array_equal(session.redo().mask, BOX)


@pytest.mark.parametrize("empty", [np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.bool_), np.zeros(SIZE), ()])
def test_empty_masks(session: Session, empty: np.ndarray) -> None:
    """An empty mask has no polygons, and comes back from none."""
    session.click(10, 10)
    assert session.set_mask(empty).area == 0
    with pytest.raises(MaskInputError):
        session.set_mask(np.zeros(0))


def test_full_masks(session: Session) -> None:
    for full in (np.ones(SIZE, np.uint8), np.full(SIZE, 255, np.uint8), np.ones(SIZE)):
        assert session.set_mask(full).area == full.size


def test_one_polygon(session: Session) -> None:
    largest = polygons_of(BOX)[0]
    assert session.set_mask(largest).area == BOX.sum() - 1


def test_files(session: Session, tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", BOX)
    write_mask(tmp_path / "mask.json", BOX)
    np.save(tmp_path / "mask.npy", BOX)
    palette = Image.fromarray(BOX.astype(np.uint8))
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(BOX).save(tmp_path / "bits.png")
    for name in ("mask.png", "mask.json", "mask.npy", "palette.png", "bits.png"):
        np.testing.assert_array_equal(session.set_mask(tmp_path / name).mask, BOX)
        np.testing.assert_array_equal(session.set_mask(str(tmp_path / name)).mask, BOX)


def test_pictures_are_turned_upright(session: Session, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(WHITE)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(session.set_mask(tmp_path / "turned.png").mask, BOX)


def test_earlier_answers(session: Session, tmp_path: Path) -> None:
    result = session.click(10, 10)
    result.save(tmp_path / "mask.json")
    session.select("other")
    np.testing.assert_array_equal(session.set_mask(result).mask, result.mask)
    np.testing.assert_array_equal(session.set_mask(read_annotation(tmp_path / "mask.json")).mask, result.mask)


def test_an_answer_comes_back_in_every_form(session: Session) -> None:
    for result in (session.click(10, 10), session.undo()):  # the second is empty
        for form in (result, result.to_dict(), result.rle(), result.polygons(), list(result.polygons())):
            session.set_mask(np.ones(SIZE, np.bool_))
            np.testing.assert_array_equal(session.set_mask(form).mask, result.mask)


def test_an_annotation_that_goes_on(session: Session, paint: Bundle) -> None:
    """COCO's segmentations are read back, and clicks refine them."""
    session.click(10, 10)
    session.select("dog")
    session.click(50, 30)
    masks = [session.mask, session.select("1").mask]
    with Session(paint) as other:
        other.set_image(GREY)
        for annotation in session.to_coco(polygons=True)["annotations"]:
            other.select(annotation["surface"])
            other.set_mask(mask_of_segmentation(annotation["segmentation"], other.image_size))
        np.testing.assert_array_equal(other.mask, masks[0])
        assert other.click(20, 40).area > masks[0].sum()


@pytest.mark.parametrize(
    ("mask", "fix"),
    [
        (BOX * np.uint8(2), "mask == 2 for one label"),
        (BOX + (np.arange(70) % 5).astype(np.uint8), "one label"),
        (BOX * np.int16(-1), "mask == -1"),
        ((np.arange(50 * 70) % 256).astype(np.uint8).reshape(SIZE), "mask > 127"),
        (WHITE.astype(np.float32), "mask > 127"),
        (BOX[None], r"mask\[0\]"),
        (BOX[:, :, None], r"mask\[:, :, 0\]"),
        (np.stack([BOX, BOX, BOX]), r"masks\[0\]"),
        (BOX.T, r"mask\.T"),
        (BOX[::2], "own size"),
        (BOX.astype(str), "mask > 0"),
        (np.ma.masked_array(BOX), "fill"),
        (Image.fromarray(WHITE).resize((10, 10)), "own size"),
        (Image.fromarray(np.dstack([WHITE, WHITE, WHITE // 2])), "by its colour"),
        (Image.fromarray(np.dstack([WHITE, WHITE, WHITE, WHITE])), "np.asarray"),
        (Image.new("CMYK", SIZE[::-1]), "array of 0 and 255"),
        ({"size": [50, 70], "counts": [3]}, "where they come from"),
        ({}, "where they come from"),
        (rle_of(BOX[1:]), "own size"),
        ([[20, 10, 60, 10, 60, 40]], "own size"),
        ({"size": [50, 70], "clicks": []}, 'mask="rle"'),
        ({"segmentation": [[20, 10]]}, "where it comes from"),
        ([*polygons_of(BOX), 3], "pass Polygon objects"),
        (None, "cv2.imread returns None"),
        ("missing.png", "check the path"),
        ("missing.npy", "check"),
        ("missing.json", "check"),
        (b"bytes", "give the picture"),
        (7, "own size"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_is_refused_says_what_to_do(session: Session, mask: object, fix: str) -> None:
    before = session._state
    with pytest.raises(MaskInputError, match=f"to fix: .*{fix}"):
        session.set_mask(mask)  # type: ignore[arg-type]
    assert session._state is before


def test_labels_of_a_file_are_no_mask(session: Session, tmp_path: Path) -> None:
    session.click(10, 10)
    session.select("dog")
    session.click(50, 30)
    session.save_labels(tmp_path / "labels.png")
    with pytest.raises(MaskInputError, match="values 0, 1, 2"):
        session.set_mask(tmp_path / "labels.png")


def test_a_history_of_masks_takes_a_bit_each_pixel(session: Session) -> None:
    session.set_mask(BOX)
    (given,) = session._state.surfaces.current.history.current.interactions
    assert given.packed.nbytes == SIZE[0] * -(-SIZE[1] // 8)  # type: ignore[union-attr]
    assert session.mask.flags.writeable is False


def test_taking_masks_loads_no_other_library(tmp_path: Path, paint: Bundle) -> None:
    """Run lengths, boxes and pictures need neither pycocotools nor shapely."""
    code = (
        "import sys, numpy as np\n"
        "from mmms_deploy import Session\n"
        "with Session(sys.argv[1]) as session:\n"
        "    session.set_image(np.zeros((20, 30, 3), np.uint8))\n"
        "    result = session.set_mask({'size': [20, 30], 'counts': [300, 300]})\n"
        "    result.bbox, result.overlay(), result.polygons(), result.rle(compressed=False)\n"
        "print({'pycocotools', 'shapely'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(paint.path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr

"""Label maps with names: read back exactly, and read from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmms_deploy.annotations import read_labels, write_labels
from mmms_deploy.annotations.labels import KEY, named_labels, palette
from mmms_deploy.errors import AnnotationError, OutputExistsError, OutputFormatError

LABELS = np.array([[0, 1, 1, 2], [0, 0, 7, 2]], dtype=np.int32)
NAMES = {"1": 1, "dog": 2, "M\u00fcller's cat \U0001f408": 7, "gone": 9}


@pytest.mark.parametrize(("greatest", "mode"), [(7, "P"), (255, "P"), (256, "I;16"), (65535, "I;16")])
def test_read_back_exactly(greatest: int, mode: str, tmp_path: Path) -> None:
    labels = np.where(LABELS == 7, greatest, LABELS).astype(np.int32)
    names = {name: greatest if label == 7 else label for name, label in NAMES.items()}
    write_labels(tmp_path / "labels.png", labels, names)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == mode
    found, named = read_labels(tmp_path / "labels.png")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)
    assert named == names


def test_the_colours_of_pascal_voc(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.png", LABELS)
    with Image.open(tmp_path / "labels.png") as image:
        colours = np.asarray(image.convert("RGB"))
    assert [colours[0, 0].tolist(), colours[0, 1].tolist(), colours[0, 3].tolist(), colours[1, 2].tolist()] == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 128],
    ]
    assert palette()[-3:] == [224, 224, 192]


def saved(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files_from_elsewhere_go_by_numbers(dtype: type, tmp_path: Path) -> None:
    found, names = read_labels(saved(tmp_path / "a.png", LABELS.astype(dtype)))
    np.testing.assert_array_equal(found, LABELS)
    assert names == {"1": 1, "2": 2, "7": 7}


def test_names_that_the_caller_gives(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", LABELS.astype(np.uint8))
    assert read_labels(path, {"7": 1, "dog": 2})[1] == {"7": 1, "dog": 2, "7'": 7}
    write_labels(tmp_path / "b.png", LABELS, NAMES)
    assert read_labels(tmp_path / "b.png", {})[1] == {"1": 1, "2": 2, "7": 7}


def test_few_bits_keep_their_numbers(tmp_path: Path) -> None:
    image = Image.fromarray((LABELS % 4).astype(np.uint8))
    image.putpalette(palette()[:12])
    image.save(tmp_path / "a.png", bits=2)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png")[0], LABELS % 4)
    found, names = read_labels(saved(tmp_path / "b.png", LABELS > 0))
    np.testing.assert_array_equal(found, LABELS > 0)
    assert names == {"1": 1}


def test_void_becomes_background(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_labels(path, np.where(LABELS == 7, 255, LABELS), {"dog": 2, "void": 255})
    assert read_labels(path)[1] == {"1": 1, "dog": 2, "void": 255}
    found, names = read_labels(path, void=255)
    np.testing.assert_array_equal(found, np.where(LABELS == 7, 0, LABELS))
    assert names == {"1": 1, "dog": 2}
    assert read_labels(path, void=[1, 255])[1] == {"dog": 2}


def test_colours_are_no_labels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(AnnotationError, match="colours are no labels"):
        read_labels(path)
    with pytest.raises(AnnotationError, match="there is no file"):
        read_labels(tmp_path / "missing.png")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 0}', '{"a": 1, "b": 1}', '{"a": "1"}', '{"": 1}', '{"a": 70000}'])
def test_damaged_names(text: str, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt(KEY, text)
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(AnnotationError, match="names of the labels"):
        read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", names={})[0], LABELS)


@pytest.mark.parametrize(
    "wrong",
    [
        LABELS * 1.0,
        LABELS - 1,
        LABELS * 10000,
        LABELS[None],
        LABELS[:0],
        np.ma.masked_array(LABELS),
        np.array("text"),
        [[1], [1, 2]],
    ],
    ids=["floats", "negative", "large", "batch", "no pixels", "masked", "text", "ragged"],
)
def test_what_is_no_label_map(wrong: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError):
        write_labels(tmp_path / "a.png", wrong)
    with pytest.raises(AnnotationError):
        named_labels(wrong, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [{1: "dog"}, {"dog": 0}, {"dog": 1, "cat": 1}, {"dog": True}, ["dog"], {"": 1}])
def test_wrong_names(names: dict, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="the name"):
        write_labels(tmp_path / "a.png", LABELS, names)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(OutputFormatError, match=r"\.png"):
        write_labels(tmp_path / "a.tif", LABELS)
    write_labels(tmp_path / "a.png", LABELS)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_labels(tmp_path / "a.png", LABELS)
    write_labels(tmp_path / "a.png", LABELS + 1, overwrite=True)
    assert read_labels(tmp_path / "a.png")[0].max() == 8

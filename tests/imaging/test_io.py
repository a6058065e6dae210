from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.errors import ImageError, ModalityError
from mmms_deploy.imaging.io import load_modality, load_rgb

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
ORIENTATION = 0x0112


def test_an_array_is_returned_as_it_is() -> None:
    assert load_rgb(RGB) is RGB


@pytest.mark.parametrize("as_type", [str, Path], ids=["str", "Path"])
def test_path(tmp_path: Path, as_type: type) -> None:
    file = tmp_path / "image.png"
    Image.fromarray(RGB).save(file)
    np.testing.assert_array_equal(load_rgb(as_type(file)), RGB)


def test_pil() -> None:
    image = Image.fromarray(RGB)
    np.testing.assert_array_equal(load_rgb(image), RGB)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, RGB), (2, RGB[:, ::-1]), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB, 1))],
)
def test_exif_orientation(tmp_path: Path, orientation: int, turned: np.ndarray) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = tmp_path / "turned.png"
    Image.fromarray(RGB).save(file, exif=exif)
    np.testing.assert_array_equal(load_rgb(file), turned)
    with Image.open(file) as image:
        np.testing.assert_array_equal(load_rgb(image), turned)
        assert image.getexif()[ORIENTATION] == orientation, "the caller's image must stay as it is"


def test_grey_and_palette_and_alpha(tmp_path: Path) -> None:
    grey = Image.fromarray(RGB[:, :, 0])
    np.testing.assert_array_equal(load_rgb(grey), np.repeat(RGB[:, :, :1], 3, axis=2))
    alpha = np.dstack([RGB, np.arange(77, dtype=np.uint8).reshape(7, 11)])
    np.testing.assert_array_equal(load_rgb(Image.fromarray(alpha)), RGB)
    palette = Image.fromarray(RGB).quantize(16)
    palette.info["transparency"] = 3
    file = tmp_path / "palette.png"
    palette.save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load_rgb(file), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(load_rgb(Image.fromarray(RGB[:, :, 0] > 128)) > 0, (RGB[:, :, :1] > 128).repeat(3, 2))


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 65535, 32896]], dtype=np.uint16)
    file = tmp_path / "deep.png"
    Image.fromarray(deep).save(file)
    np.testing.assert_array_equal(load_rgb(file)[0, :, 0], [0, 0, 1, 1, 255, 128])


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_refused(tmp_path: Path, dtype: type) -> None:
    file = tmp_path / "image.tif"
    Image.fromarray(np.ones((3, 4), dtype=dtype)).save(file)
    with pytest.raises(ImageError, match="32 bits"):
        load_rgb(file)


@pytest.mark.parametrize(
    ("array", "fix"),
    [
        (RGB.transpose(2, 0, 1), "array.transpose(1, 2, 0)"),
        (RGB.transpose(2, 0, 1)[:1], "array[0]"),
        (np.dstack([RGB, RGB]), "choose three of its 6 channels"),
        (RGB[None], "batch"),
        (RGB / np.float32(255), "(array * 255).round().astype(np.uint8)"),
        (RGB.astype(np.float16), "scale it to 0..255"),
        (RGB.astype(np.int64), "its numbers fit into 8 bits: array.astype(np.uint8)"),
        (RGB.astype(np.int16) - 1000, "scale it to 0..255 yourself"),
        (RGB > 9, "array.astype(np.uint8) * 255"),
        (RGB.astype(complex), "uint8"),
        (RGB[:0], "cropped"),
        (np.zeros(3, dtype=np.uint8), "uint8"),
    ],
    ids=[
        *("channels_first", "grey_channel_first", "six_channels", "batch", "float", "large_float", "int64", "signed"),
        *("bool_colours", "complex", "empty", "flat"),
    ],
)
def test_wrong_arrays_say_what_to_do(array: np.ndarray, fix: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_rgb(array)
    assert fix in str(caught.value.fix)
    assert str(array.shape) in caught.value.given
    assert "(H, W, 3)" in str(caught.value.expected)


def test_wrong_types() -> None:
    for wrong in (None, 3, [[1]], b"image.png", object()):
        with pytest.raises(ImageError, match=r"to fix"):
            load_rgb(wrong)  # type: ignore[arg-type]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no file"):
        load_rgb(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="cannot be read"):
        load_rgb(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ImageError, match="is a text file"):
        load_rgb(text)
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    with pytest.raises(ImageError, match="is empty"):
        load_rgb(empty)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"whole.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    raw = file.read_bytes()
    for keep in (10, len(raw) // 2):
        file.write_bytes(raw[:keep])
        with pytest.raises(ImageError):
            load_rgb(file)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.png"
    Image.fromarray(RGB).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ImageError, match=r"decompression bomb[\s\S]*at most 40 pixels[\s\S]*MAX_IMAGE_PIXELS"):
        load_rgb(file)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La", "PA"])
def test_modes_of_colours(mode: str) -> None:
    assert load_rgb(Image.new(mode, (3, 4))).shape == (4, 3, 3)


def test_modes_that_have_no_rgb() -> None:
    with pytest.raises(ImageError, match="colour mode 'LAB', which has no one conversion"):
        load_rgb(Image.new("LAB", (3, 4)))


def test_modality_arrays() -> None:
    flat = np.arange(12, dtype=np.float64).reshape(3, 4)
    np.testing.assert_array_equal(load_modality(flat, "depth"), flat[:, :, None])
    np.testing.assert_array_equal(load_modality(flat[:, :, None], "depth"), flat[:, :, None])
    three = np.arange(36).reshape(3, 4, 3)
    np.testing.assert_array_equal(load_modality(three, "event"), three)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_modality_images_keep_their_numbers(tmp_path: Path, dtype: type) -> None:
    stored = np.array([[0, 1, 200], [3, 4, 255]], dtype=dtype)
    if dtype == np.uint16:
        stored[0, 2] = 60000
    file = tmp_path / ("depth.tif" if dtype in (np.int32, np.float32) else "depth.png")
    Image.fromarray(stored).save(file)
    loaded = load_modality(file, "depth")
    np.testing.assert_array_equal(loaded[:, :, 0], stored)
    np.testing.assert_array_equal(load_modality(Image.fromarray(stored), "depth")[:, :, 0], stored)


def test_modality_npy(tmp_path: Path) -> None:
    stored = np.arange(12, dtype=np.float32).reshape(3, 4)
    file = tmp_path / "depth.npy"
    np.save(file, stored)
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], stored)


def test_npy_executes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "evil.npy"
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (marker,)

    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ModalityError, match="cannot be read"):
        load_modality(file, "depth")
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModalityError, match="cannot be read"):
        load_modality(file, "depth")
    assert not marker.exists()


def test_npy_that_is_an_archive(tmp_path: Path) -> None:
    file = tmp_path / "several.npy"
    with file.open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    with pytest.raises(ModalityError, match="several arrays"):
        load_modality(file, "depth")


def test_missing_and_truncated_npy(tmp_path: Path) -> None:
    file = tmp_path / "depth.npy"
    with pytest.raises(ModalityError, match="no file"):
        load_modality(file, "depth")
    np.save(file, np.zeros((30, 40)))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ModalityError, match="cannot be read"):
        load_modality(file, "depth")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 3, 4, 2)),
        np.zeros(3),
        np.zeros((3, 4), dtype=bool),
        np.zeros((3, 4), dtype=complex),
        np.full((3, 4), "a"),
        np.zeros((0, 4)),
    ],
    ids=["batch", "flat", "bool", "complex", "text", "empty"],
)
def test_wrong_modalities(array: np.ndarray) -> None:
    with pytest.raises(ModalityError, match="modality 'depth' has shape") as caught:
        load_modality(array, "depth")
    assert caught.value.fix
    assert caught.value.expected


def test_meaningless_image_modes(tmp_path: Path) -> None:
    with pytest.raises(ModalityError, match="palette"):
        load_modality(Image.fromarray(RGB).quantize(8), "depth")
    with pytest.raises(ModalityError, match="black and white"):
        load_modality(Image.fromarray(RGB[:, :, 0] > 9), "depth")


def test_16_bit_colour_is_not_cut_silently(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "lidar.png"
    cv2.imwrite(str(file), RGB.astype(np.uint16) * 257)
    with pytest.raises(ModalityError, match="16 bits a channel"):
        load_modality(file, "lidar")

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.errors import ImageError, MMMSDeployWarning, ModalityError
from mmms_deploy.imaging.io import load_modality, load_rgb
from tests.support.tiff import BITS, FORMAT, MAX_SAMPLE, ORIENTATION, PHOTOMETRIC, write_tiff

RAMP = np.linspace(0, 1, 24).reshape(4, 6)


def grey(file: Path) -> np.ndarray:
    pixels = load_rgb(file)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "i1"])
def test_signed_samples_are_no_brightness(tmp_path: Path, dtype: str) -> None:
    numbers = np.array([[-100, -1, 0, 1, 100, 120]], dtype)
    file = write_tiff(tmp_path / "ct.tif", numbers)
    with pytest.raises(ImageError, match="signed samples, as CT images have"):
        load_rgb(file)
    np.testing.assert_array_equal(load_modality(file, "ct")[:, :, 0], numbers.astype(np.int64))


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<u4", "<f4", ">f4"])
def test_32_bits_have_no_range_but_are_numbers(tmp_path: Path, dtype: str) -> None:
    numbers = np.array([[0, 1, 2000, 4_000_000_000 if dtype == "<u4" else 70000]], dtype)
    file = write_tiff(tmp_path / "deep.tif", numbers)
    with pytest.raises(ImageError, match="32 bits a pixel"):
        load_rgb(file)
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], numbers.astype(np.float64))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bits_of_either_byte_order(tmp_path: Path, dtype: str) -> None:
    numbers = np.round(RAMP * 65535).astype(dtype)
    file = write_tiff(tmp_path / "deep.tif", numbers)
    np.testing.assert_array_equal(grey(file), np.round(RAMP * 255))
    stored = load_modality(file, "depth")[:, :, 0]
    assert stored.dtype == np.uint16
    assert stored.dtype.isnative
    np.testing.assert_array_equal(stored, numbers.astype(np.uint16))


def test_white_is_zero(tmp_path: Path) -> None:
    for white in (255, 65535):
        numbers = np.round(RAMP * white).astype(np.uint8 if white == 255 else np.uint16)
        file = write_tiff(tmp_path / "inverted.tif", numbers, {PHOTOMETRIC: 0})
        np.testing.assert_array_equal(grey(file), np.round(255 * (1 - RAMP)))


def test_12_bits_that_the_file_tells(tmp_path: Path) -> None:
    numbers = np.round(RAMP * 4095).astype(np.uint16)
    stated = write_tiff(tmp_path / "stated.tif", numbers, {MAX_SAMPLE: 4095})
    np.testing.assert_array_equal(grey(stated), np.round(RAMP * 255))
    pairs = numbers.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    file = write_tiff(tmp_path / "packed.tif", packed.astype(np.uint8).reshape(4, 9), {BITS: 12, 256: 6})
    np.testing.assert_array_equal(grey(file), np.round(RAMP * 255))
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], numbers)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_16_bit_picture_that_would_be_black_is_refused(tmp_path: Path, suffix: str) -> None:
    numbers = np.round(RAMP * 4095).astype(np.uint16)
    file = tmp_path / f"microscope.{suffix}"
    Image.fromarray(numbers).save(file)
    with pytest.raises(ImageError, match=r"no number above 4095, of 65535: it would come out black"):
        load_rgb(file)
    with pytest.raises(ImageError, match="come out black"):
        load_rgb(Image.fromarray(numbers))
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], numbers)
    Image.fromarray(numbers * 4).save(file)
    with pytest.warns(MMMSDeployWarning, match="no number above 16380.*dark picture.*white is 16383"):
        assert grey(file).max() == 64
    Image.fromarray(numbers * 0).save(file)  # nothing is lost in it
    assert grey(file).max() == 0


def test_16_bits_in_colour_that_would_be_black_are_refused(tmp_path: Path) -> None:
    numbers = np.repeat(np.round(RAMP * 4095).astype(np.uint16)[:, :, None], 3, axis=2)
    file = write_tiff(tmp_path / "colour.tif", numbers)
    with pytest.raises(ImageError, match="come out black"):
        load_rgb(file)
    np.testing.assert_array_equal(grey(write_tiff(file, numbers * 16)), numbers[:, :, 0] * 16 >> 8)
    with pytest.raises(ModalityError, match="16 bits a channel"):
        load_modality(file, "lidar")


@pytest.mark.parametrize("greatest", [1, 7, 100, 255, 300, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pgm_has_a_white_of_its_own(tmp_path: Path, greatest: int, plain: bool) -> None:
    numbers = np.round(RAMP * greatest).astype(int)
    file = tmp_path / "map.pgm"
    if plain:
        file.write_text(f"P2\n6 4\n{greatest}\n{' '.join(map(str, numbers.ravel()))}\n")
    else:
        body = numbers.astype("u1" if greatest < 256 else ">u2").tobytes()
        file.write_bytes(f"P5\n6 4\n{greatest}\n".encode() + body)
    assert abs(grey(file).astype(int) - np.round(numbers / greatest * 255)).max() <= 1
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], numbers)


@pytest.mark.parametrize("greatest", [100, 4095])
def test_colours_that_were_stretched_are_no_measurements(tmp_path: Path, greatest: int) -> None:
    file = tmp_path / "map.ppm"
    numbers = np.full((2, 3, 3), greatest // 2, "u1" if greatest < 256 else ">u2")
    file.write_bytes(f"P6\n3 2\n{greatest}\n".encode() + numbers.tobytes())
    assert abs(load_rgb(file).astype(int) - 127).max() <= 1
    with pytest.raises(ModalityError, match="which Pillow would"):
        load_modality(file, "event")


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_numbers_as_they_are_stored(tmp_path: Path, bits: int) -> None:
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4) % (1 << bits)
    packed = np.zeros((3, 4 * bits // 8), np.uint8)
    for column in range(4):
        packed[:, column * bits // 8] |= numbers[:, column] << (8 - bits - column * bits % 8)
    file = write_tiff(tmp_path / "few.tif", packed, {BITS: bits, 256: 4})
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], numbers)
    np.testing.assert_array_equal(grey(file), numbers * (255 // ((1 << bits) - 1)))


def test_orientation_of_tiff_files(tmp_path: Path) -> None:
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6)
    file = write_tiff(tmp_path / "turned.tif", numbers, {ORIENTATION: 6})
    np.testing.assert_array_equal(grey(file), np.rot90(numbers, -1))
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], np.rot90(numbers, -1))


def test_colours_of_print_are_converted_plainly(tmp_path: Path) -> None:
    ink = np.zeros((2, 3, 4), np.uint8)
    ink[:, 0, 3] = 255  # black
    ink[:, 1, 1:3] = 255  # red
    for suffix in ("jpg", "tif"):
        file = tmp_path / f"print.{suffix}"
        Image.fromarray(ink, "CMYK").resize((48, 32), Image.Resampling.NEAREST).save(file)
        pixels = load_rgb(file)
        assert pixels[16, 4].max() < 20
        assert pixels[16, 24][0] > 230
        assert pixels[16, 24][1:].max() < 40
        assert pixels[16, 44].min() > 230


def test_floats_are_numbers_alone(tmp_path: Path) -> None:
    numbers = np.array([[0.5, 2.0, 1e6]], np.float32)
    file = tmp_path / "map.pfm"
    file.write_bytes(b"Pf\n3 1\n-1.0\n" + numbers.tobytes())
    np.testing.assert_array_equal(load_modality(file, "depth")[:, :, 0], numbers)
    with pytest.raises(ImageError, match="32 bits"):
        load_rgb(file)
    assert FORMAT == 339

"""Arrays follow the rules for files of their kind, and OpenCV's order of channels is said by the caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.errors import ImageError, MMMSDeployWarning
from mmms_deploy.imaging.io import load_rgb
from tests.support.tiff import write_tiff

NUMBERS = np.random.default_rng(0)
SIZE = (7, 11)
DEEP = np.append(NUMBERS.integers(0, 65536, 72), [0, 128, 129, 257, 65535]).reshape(SIZE).astype(np.uint16)


def eight(*channels: int) -> np.ndarray:
    return NUMBERS.integers(0, 256, (*SIZE, *channels), dtype=np.uint8)


@pytest.mark.parametrize(
    "array", [eight(), eight(1), eight(2), eight(3), eight(4)], ids=["grey", "grey1", "alpha", "rgb", "rgba"]
)
def test_eight_bits_as_from_a_file(tmp_path: Path, array: np.ndarray) -> None:
    file = tmp_path / "image.png"
    Image.fromarray(array.reshape(SIZE) if array.shape[-1] == 1 else array).save(file)
    np.testing.assert_array_equal(load_rgb(array), load_rgb(file))


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 1)])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_of_grey_as_from_a_file(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    file = tmp_path / "deep.png"
    Image.fromarray(DEEP).save(file)
    np.testing.assert_array_equal(load_rgb(DEEP.reshape(shape).astype(dtype)), load_rgb(file))


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_in_colour_as_from_a_file(tmp_path: Path, channels: int) -> None:
    array = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1], DEEP // 2])[:, :, :channels]
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "deep.png"
    cv2.imwrite(str(file), array[:, :, [2, 1, 0, 3][:channels]])
    np.testing.assert_array_equal(load_rgb(array), load_rgb(file))
    np.testing.assert_array_equal(load_rgb(array), array[:, :, :3] >> 8)
    tiff = write_tiff(tmp_path / "deep.tif", np.ascontiguousarray(array[:, :, :3]))
    np.testing.assert_array_equal(load_rgb(array), load_rgb(tiff))


def test_sixteen_bits_of_grey_with_alpha() -> None:
    """Pillow, too, takes the upper 8 bits of a PNG file with 16-bit grey and alpha."""
    np.testing.assert_array_equal(load_rgb(np.dstack([DEEP, DEEP // 3]))[:, :, 1], DEEP >> 8)


def test_bools_as_from_a_file(tmp_path: Path) -> None:
    array = eight() > 99
    file = tmp_path / "mask.png"
    Image.fromarray(array).save(file)
    np.testing.assert_array_equal(load_rgb(array), load_rgb(file))
    np.testing.assert_array_equal(load_rgb(array[:, :, None]), load_rgb(file))
    assert set(np.unique(load_rgb(array))) == {0, 255}


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_twelve_bits_are_refused_as_in_a_file(channels: tuple[int, ...]) -> None:
    numbers = NUMBERS.integers(0, 4096, (*SIZE, *channels)).astype(np.uint16)
    numbers[0, 0] = 4095
    with pytest.raises(ImageError, match=r"the array has 16 bits a channel and no number above \d+.*come out black"):
        load_rgb(numbers)
    with pytest.warns(MMMSDeployWarning, match="dark picture"):
        assert load_rgb(numbers * 4).max() == 63 + (channels == ())
    assert not load_rgb(numbers * 0).any()


def test_alpha_of_a_dark_picture_does_not_make_it_bright() -> None:
    numbers = np.dstack([DEEP >> 8, DEEP >> 8, DEEP >> 8, np.full(SIZE, 65535, np.uint16)])
    with pytest.raises(ImageError, match="come out black"):
        load_rgb(numbers)


def test_what_is_converted_is_memory_of_its_own() -> None:
    """Callers use their buffers again."""
    for array in (eight(), eight(1), eight(2), eight(4)):
        pixels = load_rgb(array)
        assert not np.shares_memory(pixels, array)
        assert pixels.flags.c_contiguous
    array = eight(3)
    assert load_rgb(array) is array
    assert not np.shares_memory(load_rgb(array, "bgr"), array)


@pytest.mark.parametrize("order", ["bgr", "BGR"])
def test_blue_first(order: str) -> None:
    for channels in (3, 4):
        array = eight(channels)
        np.testing.assert_array_equal(load_rgb(array, order), array[:, :, 2::-1])  # type: ignore[arg-type]
    deep = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    np.testing.assert_array_equal(load_rgb(deep, "bgr"), load_rgb(deep)[:, :, ::-1])


def test_frames_of_opencv_are_the_file(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "photo.png"
    Image.fromarray(eight(4)).save(file)
    np.testing.assert_array_equal(load_rgb(cv2.imread(str(file)), "bgr"), load_rgb(file))
    np.testing.assert_array_equal(load_rgb(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), "bgr"), load_rgb(file))


def test_grey_has_no_order() -> None:
    """So that code for OpenCV's frames need not look at their shape."""
    for array in (eight(), eight(1), eight(2)):
        np.testing.assert_array_equal(load_rgb(array, "bgr"), load_rgb(array))


def test_an_order_for_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    Image.fromarray(eight(3)).save(file)
    for source in (file, str(file), Image.open(file), file.read_bytes()):
        with pytest.raises(ImageError, match=r'channel_order="bgr" with a file or a PIL image, which says its own'):
            load_rgb(source, "bgr")
        assert load_rgb(source, "rgb").shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("order", "fix"), [("bgra", '"bgr"; a fourth'), ("RGBA", '"rgb"; a fourth'), ("cv2", '"bgr"'), (None, '"rgb"')]
)
def test_other_orders_are_named(order: object, fix: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_rgb(eight(3), order)  # type: ignore[arg-type]
    assert str(caught.value.fix).startswith(f"pass channel_order={fix}")
    assert repr(order) in caught.value.given

"""Pictures and modalities as bytes and file objects; what is none of them is refused with the line that helps."""

from __future__ import annotations

import base64
import io
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.errors import ImageError, MMMSDeployError, ModalityError
from mmms_deploy.imaging.io import load_modality, load_rgb

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def png(array: np.ndarray = RGB) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


class Unseekable(io.RawIOBase):
    """A pipe: it cannot go back, and gives a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self.rest = content

    def read(self, size: int = -1, /) -> bytes:
        part, self.rest = self.rest[:100], self.rest[100:]
        return part


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO, Unseekable], ids=lambda k: k.__name__)
def test_contents_are_as_the_file(kind: Callable[[bytes], object]) -> None:
    np.testing.assert_array_equal(load_rgb(kind(png())), RGB)  # type: ignore[arg-type]
    deep = np.array([[0, 60000, 3]], dtype=np.uint16)
    np.testing.assert_array_equal(load_modality(kind(png(deep)), "depth")[:, :, 0], deep)  # type: ignore[arg-type]


def test_open_files_and_uploads(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(png())
    with file.open("rb") as stream:
        np.testing.assert_array_equal(load_rgb(stream), RGB)
    with tempfile.SpooledTemporaryFile() as upload:
        upload.write(png())  # and it stands at its end
        np.testing.assert_array_equal(load_rgb(upload), RGB)  # type: ignore[arg-type]


def test_exif_of_contents_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(load_rgb(stream), np.rot90(RGB, -1))


def test_a_file_object_is_read_from_its_beginning_and_stands_where_it_stood() -> None:
    stream = io.BytesIO(png())
    stream.seek(5)
    for _ in range(2):
        np.testing.assert_array_equal(load_rgb(stream), RGB)
        assert stream.tell() == 5
    broken = io.BytesIO(b"x" * 20)
    broken.seek(7)
    with pytest.raises(ImageError, match="the file object is a text file"):
        load_rgb(broken)
    assert broken.tell() == 7


def test_a_buffer_that_is_used_again_does_not_change_a_picture() -> None:
    buffer = bytearray(png())
    pixels = load_rgb(buffer)
    buffer[:] = bytes(len(buffer))
    np.testing.assert_array_equal(pixels, RGB)


def test_npy_as_contents() -> None:
    stored = np.arange(12, dtype=np.float32).reshape(3, 4)
    stream = io.BytesIO()
    np.save(stream, stored)
    for source in (stream, stream.getvalue(), Unseekable(stream.getvalue())):
        np.testing.assert_array_equal(load_modality(source, "depth")[:, :, 0], stored)
    with pytest.raises(ModalityError, match="the bytes object cannot be read: its header announces"):
        load_modality(stream.getvalue()[:-3], "depth")
    with pytest.raises(ImageError, match="is a NumPy array"):
        load_rgb(stream)


def test_pickles_in_npy_are_not_executed() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModalityError, match="no plain numbers"):
        load_modality(stream, "depth")


def test_damaged_contents() -> None:
    for keep in (0, 10, len(png()) // 2):
        with pytest.raises(ImageError, match=r"the bytes object (is|cannot)"):
            load_rgb(png()[:keep])


class Async:
    async def read(self, size: int = -1) -> bytes:
        return b""


class Capture:
    """As cv2.VideoCapture."""

    __module__ = "cv2"

    def read(self, image: object = None) -> tuple[bool, None]:
        return False, None


class Failing(io.RawIOBase):
    def read(self, size: int = -1, /) -> bytes:
        raise RuntimeError("the connection was closed")


class Raster:
    def read(self, band: int = 1) -> np.ndarray:
        return RGB


@pytest.mark.parametrize(
    ("source", "given", "fix"),
    [
        (None, "is None", "cv2.imread returns None"),
        (RGB.tolist(), "builtins.list", "numpy.array(image, dtype=numpy.uint8)"),
        ([RGB], "builtins.list", "image[0]"),
        ({"bytes": b""}, "builtins.dict", "image['bytes']"),
        (3, "builtins.int", "NumPy array"),
        (io.BytesIO, "builtins.type", "NumPy array"),
        (b"photos/dog.jpg", "a path as bytes", "os.fsdecode(path)"),
        ("https://example.org/dog.jpg", "a URL, and nothing is downloaded", "urllib.request.urlopen(url).read()"),
        ("s3://bucket/dog.jpg", "a URL", "download it"),
        ("file:///home/me/dog.jpg", "a URL", "the path alone"),
        ("data:image/png;base64,iVBORw0KGgo=", "Base64", "base64.b64decode"),
        (base64.b64encode(png(np.tile(RGB, (9, 9, 1)))).decode(), "Base64", "base64.b64decode"),
        (io.StringIO("photo"), "opened as text", "open(path, 'rb')"),
        (Async(), "read with await", "await upload.read()"),
        (Capture(), "cv2.", 'set_image(frame, channel_order="bgr")'),
        (Failing(), "the connection was closed", "pass its bytes"),
        (Raster(), "returns ndarray, no bytes", "the array that it gives"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_is_refused_with_the_line_that_helps(source: object, given: str, fix: str) -> None:
    for load, error in ((load_rgb, ImageError), (lambda s: load_modality(s, "depth"), ModalityError)):
        with pytest.raises(error) as caught:
            load(source)  # type: ignore[operator]
        assert given in caught.value.given
        assert fix in str(caught.value.fix)


def test_paths_of_npy_are_no_urls() -> None:
    with pytest.raises(ModalityError, match="is a URL"):
        load_modality("https://example.org/depth.npy", "depth")


@pytest.mark.parametrize(
    ("tensor", "fix"),
    [
        (((3, 50, 70), "torch.float32"), "image.permute(1, 2, 0).mul(255).round().byte().cpu().numpy()"),
        (((1, 3, 50, 70), "torch.uint8"), "image[0].permute(1, 2, 0).cpu().numpy()"),
        (((50, 70, 3), "torch.uint8"), "image.cpu().numpy()"),
        (((50, 70), "torch.uint8"), "image.cpu().numpy()"),
    ],
)
def test_tensors_are_refused_with_the_line_that_converts_them(
    tensor: tuple[tuple[int, ...], str], fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("Tensor", (), {"__module__": "torch", "shape": tensor[0], "dtype": tensor[1]})
    with pytest.raises(ImageError) as caught:
        load_rgb(kind())
    assert caught.value.fix == f"pass an array: {fix}"
    torch = pytest.importorskip("torch")
    real = torch.zeros(tensor[0], dtype=getattr(torch, tensor[1].split(".")[1]))
    with pytest.raises(MMMSDeployError) as said:
        load_rgb(real)
    assert said.value.fix == caught.value.fix
    assert load_rgb(eval(fix, {"image": real})).shape == (50, 70, 3)  # our own line


def test_arrays_of_other_libraries_are_named() -> None:
    for library, array in (("jax", "numpy.asarray(image)"), ("cupy", "image.get()")):
        kind = type("Array", (), {"__module__": f"{library}.core", "shape": (3, 50, 70), "dtype": "uint8"})
        with pytest.raises(ImageError, match=library) as caught:
            load_rgb(kind())
        assert caught.value.fix == f"pass an array: {array}.transpose(1, 2, 0)"


def test_a_file_object_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmms_deploy.imaging.sources.LIMIT", 1 << 23)
    endless = types.SimpleNamespace(read=bytes)
    with pytest.raises(ImageError, match="has more than 8388608 bytes"):
        load_rgb(endless)

"""The size of a picture from its header is the size of the decoded picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from mmms_deploy.errors import ImageError
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.imaging.picture import upright_size
from mmms_deploy.imaging.refusal import Refusal

REFUSE = Refusal(ImageError, "the image", "a picture")


def picture(orientation: int = 1) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.zeros((20, 30, 3), np.uint8)), exif


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures(tmp_path: Path, suffix: str, orientation: int) -> None:
    file = tmp_path / f"a.{suffix}"
    image, exif = picture(orientation)
    image.save(file, exif=exif)
    assert upright_size(file, REFUSE) == load_rgb(file).shape[:2]
    assert upright_size(file, REFUSE) == ((30, 20) if orientation >= 5 else (20, 30))


def test_an_orientation_behind_the_pixels_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    image, exif = picture(6)
    image.save(file)
    content = file.read_bytes()
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    file.write_bytes(content[:-12] + late + content[-12:])
    assert upright_size(file, REFUSE) == load_rgb(file).shape[:2] == (30, 20)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif", "bmp", "ppm"])
def test_no_pixel_is_decoded(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / f"a.{suffix}"
    picture()[0].save(file)

    def load(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert upright_size(file, REFUSE) == (20, 30)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ImageError, match="is a text file"):
        upright_size(tmp_path / "a.png", REFUSE)
    with pytest.raises(ImageError, match="there is no file"):
        upright_size(tmp_path / "b.png", REFUSE)
    picture()[0].save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:20])
    with pytest.raises(ImageError, match="is a PNG file, but damaged"):
        upright_size(tmp_path / "c.png", REFUSE)

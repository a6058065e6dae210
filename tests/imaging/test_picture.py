from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import mmms_deploy
from mmms_deploy.errors import ImageError, MMMSDeployWarning, ModalityError
from mmms_deploy.imaging.formats import FORMATS, OPENED, READ, kind_of
from mmms_deploy.imaging.io import load_modality, load_rgb
from mmms_deploy.imaging.picture import turned
from tests.support.tiff import write_tiff

ROOT = Path(mmms_deploy.__file__).parents[1]
RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_only_one_function_opens_pictures() -> None:
    """Every other call of ``Image.open`` would open all formats that Pillow knows."""
    found = []
    for folder in ("mmms_deploy", "training", "benchmarks", "tools"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                opens = isinstance(node, ast.Attribute) and node.attr == "open" and isinstance(node.value, ast.Name)
                if opens and node.value.id in ("Image", "Pillow"):
                    found.append(file.relative_to(ROOT).as_posix())
                imported = isinstance(node, ast.ImportFrom) and node.module == "PIL.Image"
                assert not (imported and any(name.name == "open" for name in node.names)), file
    assert found == ["mmms_deploy/imaging/picture.py"]


def test_documents_name_the_formats() -> None:
    for document in ("session.md", "datasets.md"):
        assert READ in " ".join((ROOT / "docs" / document).read_text(encoding="utf-8").split())
    assert set(FORMATS) - set(OPENED) == {"MPO"}


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM"])
def test_every_documented_format_is_opened(tmp_path: Path, name: str) -> None:
    file = tmp_path / "picture.of-any-name"
    Image.fromarray(RGB).save(file, format=name)
    assert load_rgb(file).shape == RGB.shape
    assert kind_of(file.read_bytes()[:4096]).known


@pytest.mark.filterwarnings("ignore:IM image format is deprecated")
@pytest.mark.parametrize("name", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS", "IM", "MSP", "JPEG2000", "AVIF"])
def test_no_other_format_is_opened(tmp_path: Path, name: str) -> None:
    file = tmp_path / "picture.png"
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {name}")
    Image.fromarray(RGB).resize((32, 32)).convert("1" if name == "MSP" else "RGB").save(file, format=name)
    with pytest.raises(ImageError, match=f"{file} is "):
        load_rgb(file)
    with pytest.raises(ModalityError, match=f"{file} is "):
        load_modality(file, "depth")


def test_postscript_named_png_starts_no_program(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    gs = tmp_path / "bin" / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    gs.chmod(0o755)
    file = tmp_path / "photo.png"
    file.write_bytes(EPS)
    code = (
        "import sys; from PIL import Image; from mmms_deploy.errors import ImageError\n"
        "from mmms_deploy.imaging.io import load_rgb\n"
        "for source in (sys.argv[1], Image.open(sys.argv[1])):\n"
        "    try: load_rgb(source)\n"
        "    except ImageError as error: print(error.given)\n"
    )
    path = f"{gs.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    assert "photo.png is a PostScript file" in done.stdout
    assert "a file of the format EPS that is not decoded yet" in done.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafheic", "a HEIC photo"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif", "an AVIF picture"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a video"),
        (b"\0" * 128 + b"DICM", "a DICOM file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("Grüße".encode(), "a text file"),
        (("a" * 4095 + "ü").encode()[:4096], "a text file"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"PK\3\4", "a ZIP archive"),
    ],
)
def test_a_refused_file_is_named_as_what_it_is(tmp_path: Path, head: bytes, name: str) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(head)
    with pytest.raises(ImageError, match=f"{file} is {name}") as caught:
        load_rgb(file)
    assert caught.value.fix
    assert caught.value.expected


def test_heic_says_which_package_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "IMG_0001.HEIC"
    file.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ImageError) as caught:
        load_rgb(file)
    assert "pip install pillow-heif" in str(caught.value.fix)
    assert "magick" in str(caught.value.command_fix)


def test_pil_images_that_are_decoded_are_taken_whatever_they_were(tmp_path: Path) -> None:
    Image.init()
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, format="TGA")
    buffer.seek(0)
    image = Image.open(buffer)
    with pytest.raises(ImageError, match="format TGA that is not decoded yet"):
        load_rgb(image)
    image.load()
    np.testing.assert_array_equal(load_rgb(image), RGB)
    file = tmp_path / "gone.png"
    Image.fromarray(RGB).save(file)
    with Image.open(file) as closed:
        pass
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_rgb(closed)


@pytest.mark.parametrize("name", ["TIFF", "GIF", "WEBP", "PNG"])
def test_several_pictures_in_a_file_are_said(tmp_path: Path, name: str) -> None:
    file = tmp_path / "several"
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(file, format=name, save_all=True, append_images=[second])
    with pytest.warns(MMMSDeployWarning, match=f"{file} holds several pictures: the first one is taken"):
        pixels = load_rgb(file)
    if name in ("TIFF", "PNG"):
        np.testing.assert_array_equal(pixels, RGB)


def test_a_later_picture_that_is_damaged_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "several.gif"
    Image.fromarray(RGB).save(file, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    first = np.asarray(Image.open(file).convert("RGB"))
    whole = file.read_bytes()
    second = whole.rindex(b"!\xf9")
    for end in range(second + 1, len(whole)):
        file.write_bytes(whole[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MMMSDeployWarning)
            np.testing.assert_array_equal(load_rgb(file), first)


def test_previews_and_reduced_copies_are_no_further_pictures(tmp_path: Path) -> None:
    file = tmp_path / "camera.jpg"
    Image.fromarray(RGB).save(file, format="MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    load_rgb(file)
    one = write_tiff(tmp_path / "one.tif", RGB[:, :, 0])
    copy = write_tiff(tmp_path / "copy.tif", RGB[::2, ::2, 0].copy(), {254: 1})
    joined = _joined(one.read_bytes(), copy.read_bytes())
    one.write_bytes(joined)
    np.testing.assert_array_equal(load_rgb(one)[:, :, 0], RGB[:, :, 0])
    one.write_bytes(joined[:-20])  # the copy's directory is cut off
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MMMSDeployWarning)
        np.testing.assert_array_equal(load_rgb(one)[:, :, 0], RGB[:, :, 0])


def _joined(first: bytes, second: bytes) -> bytes:
    """Append a TIFF file's only directory to another file, as its second one."""
    shift = len(first)
    at = int.from_bytes(second[4:8], "little")
    count = int.from_bytes(second[at : at + 2], "little")
    entries = bytearray(second[at + 2 : at + 2 + 12 * count])
    for entry in range(0, len(entries), 12):
        if int.from_bytes(entries[entry : entry + 2], "little") == 273:
            entries[entry + 8 : entry + 12] = (shift + 8).to_bytes(4, "little")
    head = int.from_bytes(first[4:8], "little")
    link = head + 2 + 12 * int.from_bytes(first[head : head + 2], "little")
    linked = first[:link] + (shift + at).to_bytes(4, "little") + first[link + 4 :]
    return linked + second[: at + 2] + bytes(entries) + second[at + 2 + 12 * count :]


def test_large_pictures_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.png"
    Image.fromarray(RGB).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load_rgb(file), RGB)
        assert ("error", None, Warning, None, 0) in warnings.filters, "the filters of the caller are as they were"


def test_large_pictures_are_converted_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmms_deploy.imaging.samples.STRIP", 20)
    np.testing.assert_array_equal(load_rgb(Image.fromarray(RGB)), RGB)
    deep = RGB[:, :, 0].astype(np.uint16) * 257
    np.testing.assert_array_equal(load_rgb(Image.fromarray(deep))[:, :, 2], RGB[:, :, 0])
    palette = Image.fromarray(RGB).quantize(16)
    palette.info["transparency"] = bytes(range(16))
    np.testing.assert_array_equal(load_rgb(palette), np.asarray(palette.convert("RGBA"))[:, :, :3])


def test_damaged_exif_data_is_said(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0" + b"\x12\x01\x03\0\x01\0"  # nine entries are announced
    Image.fromarray(RGB).save(file, exif=exif)
    with pytest.warns(MMMSDeployWarning, match=r"photo\.jpg: its EXIF data is damaged, so it is taken as upright"):
        assert load_rgb(file).shape == RGB.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned(orientation: int) -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(turned(RGB, orientation), np.asarray(ImageOps.exif_transpose(image)))


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"depth.npy"


@pytest.mark.parametrize("path", ["", "a\0b", "a\0b.npy", BytesPath(), "\ud800.png"])
def test_paths_without_sense_are_named(path: object) -> None:
    with pytest.raises(ImageError):
        load_rgb(path)  # type: ignore[arg-type]
    with pytest.raises(ModalityError):
        load_modality(path, "depth")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_arrays_of_other_classes() -> None:
    plain = load_rgb(RGB.view(np.recarray))
    assert type(plain) is np.ndarray
    np.testing.assert_array_equal(plain, RGB)
    matrix = load_modality(np.asmatrix(RGB[:, :, 0]), "depth")  # type: ignore[arg-type]
    np.testing.assert_array_equal(matrix, RGB[:, :, :1])
    with pytest.raises(ModalityError, match="dtype object"):
        load_modality(np.full((2, 3), 1.5, dtype=object), "depth")
    masked = np.ma.MaskedArray(RGB, mask=RGB > 250)
    with pytest.raises(ImageError, match=r"a masked one that hides \d+ of its numbers[\s\S]*filled"):
        load_rgb(masked)
    shown = load_rgb(np.ma.MaskedArray(RGB))
    assert type(shown) is np.ndarray
    np.testing.assert_array_equal(shown, RGB)

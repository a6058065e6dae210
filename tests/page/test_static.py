"""The static export as files: whole or not at all, and what is in it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmms_deploy import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import EngineUnavailableError, ImageError, OutputExistsError
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.page import static
from mmms_deploy.page.features import decode_features
from mmms_deploy.page.layers import drawn_modality, shown_picture
from mmms_deploy.page.runtime import LICENSE, ONNXRUNTIME_WEB, WASM_ONLY
from mmms_deploy.page.static import write_static
from tests.support.toy import write_toy

PIXELS = np.random.default_rng(2).integers(0, 255, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of onnxruntime-web's names."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for file in ONNXRUNTIME_WEB.files:
        (folder / file.name).write_text(file.name)
    monkeypatch.setattr(static, "runtime_files", lambda: folder)
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_the_folder_has_all_that_the_page_fetches(paint: Bundle, runtime: Path, image: Path, tmp_path: Path) -> None:
    out = write_static(tmp_path / "site", paint, image)
    described = json.loads((out / "static.json").read_text())
    assert (described["format"], described["version"]) == ("mmms-deploy-static", 1)
    assert described["image_size"] == described["picture"]["size"] == [40, 60]
    assert described["picture"]["name"] == "photo.png"
    assert described["bundle"] == described["model"]["name"] == "paint"
    assert described["browser"]["available"] is True
    graph = described["browser"]["clicks"]["graph"]
    assert (out / described["files"] / graph["name"]).stat().st_size == graph["size"]
    assert decode_features((out / described["features"]).read_bytes())[0] == (40, 60)
    shown = out / described["picture"]["layers"]["image"]
    np.testing.assert_array_equal(np.asarray(Image.open(shown).convert("RGB")), PIXELS)
    for file in static.PAGE.rglob("*"):
        assert (out / file.relative_to(static.PAGE)).exists()
    assert "Cross-Origin-Embedder-Policy" in (out / "README.txt").read_text()
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_modules_have_the_ending_that_every_server_knows(
    paint: Bundle, runtime: Path, image: Path, tmp_path: Path
) -> None:
    out = write_static(tmp_path / "site", paint, image)
    names = {file.name for file in (out / "runtime").iterdir()}
    assert names == {LICENSE.name, *(file.name.replace(".mjs", ".js") for file in ONNXRUNTIME_WEB.files)}
    assert 'MODULES = ".js"' in (out / "browser" / "runtime_names.js").read_text()
    without = write_static(tmp_path / "small", paint, image, webgpu=False)
    names = {file.name for file in (without / "runtime").iterdir()}
    assert names == {LICENSE.name, *(name.replace(".mjs", ".js") for name in WASM_ONLY)}


def test_modalities_are_layers(runtime: Path, image: Path, tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "deep", modalities=(ModalitySpec(name="depth", scale=0.01, invalid=(0,)),))
    depth = np.linspace(100, 3000, 40 * 60).reshape(40, 60).astype(np.uint16)
    depth[:5] = 0
    Image.fromarray(depth).save(tmp_path / "depth.png")
    out = write_static(tmp_path / "site", bundle, image, {"depth": tmp_path / "depth.png"})
    layers = json.loads((out / "static.json").read_text())["picture"]["layers"]
    assert list(layers) == ["image", "depth"]
    drawn = np.asarray(Image.open(out / layers["depth"]))
    assert drawn.shape == (40, 60)
    assert not drawn[:5].any()
    assert drawn[-1, -1] == 255
    assert (np.diff(drawn[5:].ravel().astype(int)) >= 0).all()


def test_colours_are_drawn_as_they_are() -> None:
    spec = ModalitySpec(name="event", channels=3)
    np.testing.assert_array_equal(drawn_modality(PIXELS, spec), PIXELS)
    flat = drawn_modality(np.full((4, 4, 2), np.nan, dtype=np.float32), spec)
    assert flat.shape == (4, 4)
    assert not flat.any()


def test_an_older_export_is_replaced_on_request_alone(
    paint: Bundle, runtime: Path, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    write_static(out, paint, image)
    (out / "static.json").write_text('{"format": "mmms-deploy-static"}')
    with pytest.raises(OutputExistsError, match="exists"):
        write_static(out, paint, image)
    write_static(out, paint, image, overwrite=True)
    assert json.loads((out / "static.json").read_text())["version"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photo.png", "runtime", "site"]


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_no_export_is_never_replaced(
    paint: Bundle, runtime: Path, image: Path, tmp_path: Path, there: str
) -> None:
    out = tmp_path / "site"
    if there == "folder":
        out.mkdir()
    kept = out / "kept.txt" if there == "folder" else out
    kept.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_static(out, paint, image, overwrite=True)
    assert kept.read_text() == "mine"


def test_an_error_leaves_nothing_and_the_older_export(
    paint: Bundle, runtime: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site"
    write_static(out, paint, image)
    before = sorted(file.name for file in tmp_path.iterdir())

    def failing(*args: object) -> dict[str, str]:
        raise ImageError("gone")

    monkeypatch.setattr(static, "_write_layers", failing)
    for target in (out, tmp_path / "other"):
        with pytest.raises(ImageError, match="gone"):
            write_static(target, paint, image, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert json.loads((out / "static.json").read_text())["version"] == 1


def test_without_the_runtime_the_way_to_it_is_told(
    paint: Bundle, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "runtime_files", lambda: None)
    with pytest.raises(EngineUnavailableError, match=r"onnxruntime-web is not here(.|\n)*fetch_runtime"):
        write_static(tmp_path / "site", paint, image)
    assert not (tmp_path / "site").exists()


def test_a_network_that_needs_the_server_is_refused(
    proposing: Bundle, runtime: Path, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineUnavailableError, match="takes all clicks as a list"):
        write_static(tmp_path / "site", proposing, image)


# --- the picture ------------------------------------------------------------------------------------------------------


def coded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


def with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a secret place"
    return exif


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_a_jpeg_keeps_its_coding_and_loses_what_it_tells(options: dict[str, object]) -> None:
    film = b"ftypisom\xff\xd9 a film behind it"
    content = coded("JPEG", exif=with_exif(1), comment=b"a secret place", icc_profile=b"colours", **options) + film
    shown, suffix = shown_picture(content, load_rgb(content))
    assert suffix == "jpg"
    assert b"secret" not in shown
    assert b"film" not in shown
    assert Image.open(io.BytesIO(shown)).info["icc_profile"] == b"colours"
    np.testing.assert_array_equal(load_rgb(shown), load_rgb(content))


def test_a_png_keeps_its_coding_and_loses_what_it_tells() -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "a secret place")
    content = coded("PNG", pnginfo=told, exif=with_exif(1))
    shown, suffix = shown_picture(content, load_rgb(content))
    assert (suffix, b"secret" in shown) == ("png", False)
    assert len(shown) < len(content)
    np.testing.assert_array_equal(load_rgb(shown), PIXELS)


@pytest.mark.parametrize("kind", ["turned", "clear", "deep", "cmyk", "broken", "webp"])
def test_anything_else_becomes_a_png_that_shows_what_the_network_saw(kind: str) -> None:
    stream = io.BytesIO()
    picture = Image.fromarray(PIXELS)
    if kind == "turned":
        picture.save(stream, "JPEG", exif=with_exif(6))
    elif kind == "clear":
        picture.putalpha(100)
        picture.save(stream, "PNG")
    elif kind == "deep":
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(stream, "PNG")
    elif kind == "cmyk":
        picture.convert("CMYK").save(stream, "JPEG")
    elif kind == "webp":
        picture.save(stream, "WEBP", lossless=True)
    content = stream.getvalue() or coded("JPEG")[:2] + b"\xff\xe1\xff\xff"
    pixels = PIXELS if kind == "broken" else load_rgb(content)
    shown, suffix = shown_picture(content, pixels)
    assert suffix == "png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), pixels)

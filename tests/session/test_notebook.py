"""What notebooks show of results and sessions: small, harmless, and never an error."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import LATER, Bundle, Session
from mmms_deploy.session import notebook, thumbnail
from mmms_deploy.session.overlay import COLOURS, NEGATIVE, POSITIVE
from tests.support.annotating import GREY
from tests.support.toy import write_toy


def text_of(html: str) -> str:
    return "\n".join(ElementTree.fromstring(html).itertext())


def picture_in(html: str) -> Image.Image:
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def near(picture: Image.Image, colour: tuple[int, int, int], far: int = 40) -> int:
    """How many pixels are nearly of a colour."""
    return int((np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour) < far).all(axis=2).sum())


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_a_picture_with_clicks_and_a_line(paint: Bundle) -> None:
    with Session(paint, threads=1) as session:
        session.set_image(np.full((300, 400, 3), 90, np.uint8))
        session.click(100, 100)
        result = session.click(300, 200, positive=False)
    data = result._repr_png_()
    assert data is not None
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert picture.width == 400
    assert picture.height > 300 + 10, "the line is below the picture"
    assert near(picture, POSITIVE, 30)
    assert near(picture, NEGATIVE, 30)
    line = np.asarray(picture.convert("L"))[300:]
    assert (line < 128).sum() > 100


def test_a_large_result_is_shown_small(paint: Bundle) -> None:
    """A picture of 12 megapixels would be 20 MB in a notebook. This one is noise, which no format makes small."""
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    with Session(paint, threads=1) as session:
        session.set_image(noise)
        result = session.click(1000, 700)
        data = result._repr_png_()
        html = session._repr_html_()
    assert data is not None
    assert Image.open(io.BytesIO(data)).width == thumbnail.LONGEST
    assert len(data) < 500_000
    assert max(picture_in(html).size) == thumbnail.LONGEST


def test_nothing_is_drawn_before_it_is_shown(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise AssertionError("drawn before it is shown")

    monkeypatch.setattr("mmms_deploy.session.result.thumbnail", draw)
    monkeypatch.setattr(notebook, "thumbnail", draw)
    repr(session.click(5, 5))


def test_a_result_outlives_its_session(paint: Bundle) -> None:
    with Session(paint, threads=1) as session:
        session.set_image(GREY)
        result = session.click(5, 5)
    assert result._repr_png_()


def test_a_result_without_a_picture_is_drawn_on_grey(paint: Bundle) -> None:
    with Session(paint, threads=1, keep_image=False) as session:
        session.set_image(GREY)
        data = session.click(30, 30)._repr_png_()
        html = session._repr_html_()
    assert data is not None
    assert near(Image.open(io.BytesIO(data)), (200, 200, 200), 6) > 1000
    assert "pixels are not kept" in text_of(html)


def test_no_memory_for_a_picture_is_no_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise MemoryError

    result = session.click(5, 5)
    monkeypatch.setattr("mmms_deploy.session.result.thumbnail", draw)
    monkeypatch.setattr(notebook, "thumbnail", draw)
    assert result._repr_png_() is None
    assert "not enough memory" in text_of(session._repr_html_())


def test_short_texts_with_rounded_times(session: Session) -> None:
    timings = session.set_image(GREY)
    assert re.fullmatch(r"ImageTimings\([\d.]+ ms: prepare [\d.]+, engine [\d.]+\)", repr(timings))
    result = session.click(5, 5)
    assert re.fullmatch(r"Timings\([\d.]+ ms: engine [\d.]+, mask [\d.]+\)", repr(result.timings))
    height, width = session.image_size
    assert re.fullmatch(
        rf"ClickResult\(1 click, [\d,]+ px, [\d.]+ % of {width} x {height}, [\d.]+ ms, newest \+\(5, 5\)\)",
        repr(result),
    )
    assert repr(session.click(7.5, 5, positive=False)).endswith("newest -(7.5, 5))")
    session.undo()
    assert repr(session.undo()).startswith("ClickResult(0 clicks, 0 px, 0.0 % of ")
    assert max(len(part) for part in re.findall(r"[\d.]+", repr(result.timings))) <= 6


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_shows_everything_at_a_glance(session: Session, paint: Bundle) -> None:
    session.click(5, 5)
    session.select("<b>dog</b>")
    session.click(40, 30)
    session.click(20, 30, positive=False)
    html = session._repr_html_()
    text = text_of(html)
    height, width = session.image_size
    for part in (str(paint.path), str(session.engine), session.engine.reason, f"{width} x {height} pixels"):
        assert part in text
    assert re.search(r"1: label 1, 1 click, [\d,]+ px", text)
    assert re.search(r"<b>dog</b>: label 2, 2 clicks, [\d,]+ px \(current\)", text)
    assert f"rgb{COLOURS[1]}" in html
    assert not ElementTree.fromstring(html).findall(".//td/b"), "a name does nothing"
    assert picture_in(html).size[0] > 0


def test_overlapping_surfaces_are_shown_as_in_the_label_map(session: Session) -> None:
    """The pixel belongs to the one that changed last, and has its colour alone."""
    session.set_image(np.zeros((400, 600, 3), np.uint8))
    mask = np.zeros((400, 600), bool)
    mask[:, :300] = True
    session.set_mask(mask)
    session.select("two")
    session.set_mask(mask)
    assert set(np.unique(session.labels)) == {0, 2}
    shown = np.asarray(picture_in(session._repr_html_()))[200, 100].astype(int)
    tint = 0.42 * np.asarray(COLOURS[1])
    assert np.abs(shown - tint).max() < 12


def test_showing_runs_no_stage_and_changes_nothing(session: Session) -> None:
    session.click(5, 5)
    session.select("two")
    before = dict(session.runs), session.clicks, session.surface, session.surfaces
    session._repr_html_()
    assert (dict(session.runs), session.clicks, session.surface, session.surfaces) == before


def test_a_session_without_an_image_says_so(paint: Bundle) -> None:
    with Session(paint, threads=1) as session:
        text = text_of(session._repr_html_())
    assert "none yet" in text
    assert "surfaces" not in text


def test_a_closed_session_says_so(paint: Bundle) -> None:
    session = Session(paint, threads=1)
    session.set_image(GREY)
    session.close()
    text = text_of(session._repr_html_())
    assert "this session is closed" in text
    assert "open a new one" in text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_session_says_so(session: Session) -> None:
    result = session.click(5, 5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = text_of(session._repr_html_()) + ("a picture" if result._repr_png_() else "")
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    assert "forked from it" in said
    assert said.endswith("a picture"), "a result needs no engine"


def test_modalities_that_are_there_and_that_come_later(modal: Bundle) -> None:
    depth, event = np.ones(GREY.shape[:2], np.float32), np.ones((*GREY.shape[:2], 3), np.float32)
    with Session(modal, threads=1) as session:
        session.set_image(GREY, depth=LATER, event=event)
        text = text_of(session._repr_html_())
        assert "with event" in text
        assert "depth will come later" in text
        session.set_modalities(depth=depth)
        assert "with depth, event" in text_of(session._repr_html_())


def test_features_have_no_picture(tmp_path: Path) -> None:
    box = write_toy(tmp_path / "box", black_box=True)
    with Session(box, threads=1) as session:
        session.set_features({"f1": np.zeros((1, 1, 1, 1), np.float32)}, (60, 80))
        session.click(40, 30)
        html = session._repr_html_()
    assert "features were set" in text_of(html)
    assert near(picture_in(html), (200, 200, 200)) > 1000


def test_a_name_of_a_file_does_nothing(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "<i>\x1b[31m.png"
    Image.fromarray(GREY).save(file)
    session.set_image(file)
    html = session._repr_html_()
    assert "<i>" not in html
    assert "\x1b" not in html
    assert r"<i>\x1b[31m.png" in text_of(html)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 5000), (4000, 3), (641, 640), (97, 61)], ids=str)
def test_any_size(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    drawn = [thumbnail.Drawn(np.ones(size, bool), [])]
    small = thumbnail.thumbnail(picture, size, drawn)
    assert max(small.size) <= thumbnail.LONGEST
    assert (small.height, small.width) == thumbnail.shown_size(size)
    thumbnail.png_of(thumbnail.captioned(small, "a line"))


def test_masks_and_clicks_keep_their_places_when_the_picture_shrinks() -> None:
    size = (1280, 2560)
    mask = np.zeros(size, bool)
    mask[640:, 1280:] = True
    small = thumbnail.nearest(mask, size)
    assert small.shape == (320, 640)
    assert small[160:, 320:].all()
    assert small.sum() == 160 * 320
    picture = np.zeros((*size, 3), np.uint8)
    picture[640:, 1280:] = (250, 250, 250)
    shown = np.asarray(thumbnail.thumbnail(picture, size, []))
    assert shown[170:, 330:].min() == 250
    assert shown[:150].max() == 0
    assert thumbnail.nearest(small, size) is small

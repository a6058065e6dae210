"""Images of every size, through all calls of every kind of session. What takes GB is in ``benchmarks/sizes.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, CocoWriter, Features, Model, Session, draw_overlay, read_annotation
from mmms_deploy.annotations import mask_of_polygons, mask_of_rle
from mmms_deploy.bundle.contract import ModalitySpec, ResizeRule
from mmms_deploy.bundle.protocol import Outside, ZoomRule
from mmms_deploy.errors import ClickError, ImageError, SessionError
from tests.support.joint import write_joint
from tests.support.proposing import write_proposing
from tests.support.toy import write_toy

SIZES = [
    (1, 1),
    (1, 7),
    (2, 1),
    (3, 2),
    (5, 5),
    (300, 1),
    (31, 33),
    (65, 95),
    (201, 199),
    (4097, 3),
    (3, 4097),
]

KINDS: dict[str, tuple[Callable[[Path], Bundle], dict[str, Any]]] = {
    "plain": (write_toy, {}),
    "zoomed": (write_toy, {"zoom": True}),
    "zoomed, kept outside": (write_toy, {"zoom": ZoomRule(expansion=1.4, smallest=2, iou=0.5, outside=Outside.KEPT)}),
    "mirrored": (write_toy, {"flip": True, "zoom": True}),
    "through the image": (lambda out: write_toy(out, previous_resize=ResizeRule(align_corners=True)), {}),
    "labels": (lambda out: write_toy(out, labels=True), {}),
    "depth": (lambda out: write_toy(out, modalities=(ModalitySpec(name="depth", optional=True),)), {}),
    "joint": (lambda out: write_joint(out, sizes=(4, 16)), {}),
    "proposing": (lambda out: write_proposing(out, sizes=(4, 16)), {}),
}


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Session]]:
    write, options = KINDS[request.param]
    bundle = write(tmp_path_factory.mktemp("bundles") / "toy")
    with Model(bundle, engine="onnxruntime", threads=1) as model, model.session(**options) as session:
        yield model, session


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 255, (*size, 3), dtype=np.uint8)


def places(size: tuple[int, int]) -> list[tuple[float, float]]:
    """The corners, the edges and the middle."""
    height, width = size
    right, bottom = np.nextafter(width - 0.5, 0), np.nextafter(height - 0.5, 0)
    every = [(x, y) for x in (-0.5, (width - 1) / 2, right) for y in (-0.5, (height - 1) / 2, bottom)]
    return [every[4], *every]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_call_takes_every_size(opened: tuple[Model, Session], size: tuple[int, int], tmp_path: Path) -> None:
    model, session = opened
    image = picture(size)
    session.set_image(image)
    answers = clicked(session, size)
    taken(session, size, image, tmp_path)
    put_in(session, size, tmp_path)
    features = model.encode(image)
    features.save(tmp_path / "one.features", picture=True)
    for one in (features, Features.load(tmp_path / "one.features")):
        session.use(one)
        for found, answer in zip(clicked(session, size), answers, strict=True):
            np.testing.assert_array_equal(found, answer)


def clicked(session: Session, size: tuple[int, int]) -> list[np.ndarray]:
    height, width = size
    answers = []
    for number, (x, y) in enumerate(places(size)):
        result = session.click(x, y, number % 3 != 2)
        assert result.mask.shape == result.probability.shape == size
        assert np.isfinite(result.probability).all()
        if result.crop is not None:
            left, top, right, bottom = result.crop
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
        answers.append(result.network_probability)
    for x, y in ((width - 0.5, 0), (0, height - 0.5), (-0.6, 0), (0, -0.6), (width, height)):
        with pytest.raises(ClickError):
            session.click(x, y)
    assert session.undo().index == len(answers) - 1
    np.testing.assert_array_equal(session.redo().network_probability, answers[-1])
    return answers


def taken(session: Session, size: tuple[int, int], image: np.ndarray, folder: Path) -> None:
    """What goes out of a session and its results."""
    result = session.result
    np.testing.assert_array_equal(mask_of_rle(result.rle()), result.mask)
    np.testing.assert_array_equal(mask_of_rle(result.rle(compressed=False)), result.mask)
    np.testing.assert_array_equal(mask_of_polygons(result.polygons(), size), result.mask)
    assert result.polygons(3.0) is not None
    assert np.asarray(result.overlay()).shape == (*size, 3)
    np.testing.assert_array_equal(draw_overlay(image, result.mask, result.clicks), result.overlay())
    assert result._repr_png_()
    assert "<" in session._repr_html_()
    if result.candidates:
        result.candidate_sheet()
    json.dumps(result.to_dict("polygons"))
    for name in ("mask.png", "mask.bmp", "mask.tif", "mask.json"):
        result.save(folder / name, overwrite=True)
    found = read_annotation(folder / "mask.json")
    np.testing.assert_array_equal(found.mask, result.mask)
    assert result.above(0.1).shape == size
    writer = CocoWriter()
    for polygons in (False, True):
        json.dumps(session.to_coco(polygons=polygons, empty=True))
    writer.add(session.to_coco("one.png", empty=True))
    assert session.detections().mask.shape[1:] == size
    session.save_labels(folder / "labels.png", overwrite=True)
    masks, _, logits = session.predict(point_coords=[[(size[1] - 1) / 2, (size[0] - 1) / 2]], point_labels=[1])
    assert masks.shape[1:] == size
    session.predict(
        point_coords=[[(size[1] - 1) / 2, (size[0] - 1) / 2], [0, 0]], point_labels=[1, 1], mask_input=logits[:1]
    )
    saved = json.loads(json.dumps(session.to_dict()))
    before = session.mask
    np.testing.assert_array_equal(session.restore(saved).mask, before)


def put_in(session: Session, size: tuple[int, int], folder: Path) -> None:
    """Masks, other objects, label maps."""
    session.select("other")
    session.click(0, 0)
    session.select("1")
    assert set(np.unique(session.labels)) <= {0, 1, 2}
    try:
        for mask in (np.zeros(size, bool), np.ones(size, bool), folder / "mask.png", np.full(size, 0.75)):
            result = session.set_mask(mask)
            assert result.mask.shape == size
            session.click(*places(size)[0])
        session.load_labels(folder / "labels.png")
        session.click(0, 0)
    except SessionError as error:
        assert "no previous mask" in str(error) or "takes no mask" in str(error) or "clicks alone" in str(error)  # noqa: PT017
    session.remove("other") if "other" in session.surfaces else session.reset()
    if session.bundle.manifest.modalities:
        session.set_modalities(depth=np.ones(size, np.float32))
        session.click(0, 0)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_pictures_without_pixels_are_refused(opened: tuple[Model, Session], size: tuple[int, int]) -> None:
    model, session = opened
    for array in (np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), np.zeros((*size, 4), np.uint16)):
        with pytest.raises(ImageError):
            session.set_image(array)
        with pytest.raises(ImageError):
            model.encode(array)


def test_clicks_in_one_pixel(opened: tuple[Model, Session]) -> None:
    _, session = opened
    session.set_image(np.full((1, 1), 200, np.uint8))
    session.set_clicks([Click(0, 0), Click(-0.5, -0.5), Click(0.49, 0.49, False)])
    assert session.result.index == 3
    assert session.labels.shape == (1, 1)

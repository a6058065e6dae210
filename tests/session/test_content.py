"""What an image is, as a hash: its numbers count, and nothing else does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.session.content import Content, Part, content_hash
from tests.support.annotating import GREY, SIZE

NOISE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def test_a_hash_is_over_type_shape_and_numbers() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert Part(array).hash == hashlib.sha256(b"<f4 (2, 3)\n" + array.tobytes()).hexdigest()
    others = [array.reshape(3, 2), array.astype(np.float64), array.view(np.int32), array + 1, array[:, :2], array.T]
    assert len({Part(one).hash for one in (array, *others)}) == 1 + len(others)


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6)))
def test_how_numbers_lie_in_memory_does_not_count(array: np.ndarray) -> None:
    wide = np.zeros((array.shape[0], 2 * array.shape[1], *array.shape[2:]), array.dtype)
    wide[:, ::2] = array
    forms = [np.asfortranarray(array), wide[:, ::2], array[::-1].copy()[::-1], array.astype(">u1")]
    assert {Part(one).hash for one in forms} == {Part(array, now=True).hash}
    floats = array.astype(np.float32)
    assert Part(floats.astype(">f4")).hash == Part(floats).hash


def test_a_part_lets_go_of_its_numbers() -> None:
    part = Part(NOISE.copy())
    first = part.hash
    assert part._array is None
    assert part.hash == first == Part(NOISE, now=True).hash
    assert Part.known(first).hash == first


def test_the_content_is_every_part_and_the_size() -> None:
    parts = {"rgb": Part(NOISE), "depth": Part(np.zeros(SIZE, np.float32))}
    content = Content(parts, SIZE)
    text = json.dumps(
        {"parts": {"depth": parts["depth"].hash, "rgb": parts["rgb"].hash}, "size": list(SIZE)}, separators=(",", ":")
    )
    assert content.hash == hashlib.sha256(text.encode()).hexdigest()
    assert content.hash == content_hash(dict(reversed([(n, p.hash) for n, p in parts.items()])), SIZE)
    changed = content.changed({"depth": Part(np.ones(SIZE, np.float32))}, frozenset())
    assert changed.hash != content.hash
    assert changed.changed({}, frozenset({"depth"})).hash == Content({"rgb": parts["rgb"]}, SIZE).hash
    assert Content(parts, (SIZE[1], SIZE[0])).hash != content.hash


@pytest.mark.parametrize("keep_image", [True, False])
def test_the_same_picture_in_any_form_is_the_same_image(paint: object, tmp_path: Path, keep_image: bool) -> None:
    picture = Image.fromarray(NOISE)
    picture.save(tmp_path / "one.png")
    picture.save(tmp_path / "other.tiff")
    forms = [NOISE, np.asfortranarray(NOISE), picture, tmp_path / "one.png", (tmp_path / "other.tiff").read_bytes()]
    with Session(paint, threads=1, keep_image=keep_image) as session:  # type: ignore[arg-type]
        found = set()
        for form in forms:
            session.set_image(form)
            found.add(session.features.content)
        session.set_image(NOISE[..., ::-1], channel_order="bgr")
        found.add(session.features.content)
        assert len(found) == 1
        session.set_image(GREY)
        assert session.features.content not in found


def test_writing_to_an_array_afterwards_changes_nothing(paint: object) -> None:
    with Session(paint, threads=1) as session:  # type: ignore[arg-type]
        array = NOISE.copy()
        session.set_image(array)
        array[:] = 0
        later = session.features.content
        session.set_image(NOISE)
        assert session.features.content == later


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3))
def test_the_order_of_parts_does_not_count(parts: dict[str, str]) -> None:
    assert content_hash(parts, (1, 2)) == content_hash(dict(reversed(parts.items())), (1, 2))

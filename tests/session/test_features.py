"""Encoded images: what they hold, their file, and what a session refuses of them; on every engine."""

from __future__ import annotations

import copy
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy import LATER, Bundle, Click, Session
from mmms_deploy.bundle import Precision
from mmms_deploy.errors import AnswerError, FeatureError, ModalityError, NoImageError, OutputExistsError, SessionError
from mmms_deploy.session import FeatureKey, Features, Model
from mmms_deploy.session.features import origin_of, read_after_image
from mmms_deploy.session.features_file import read_header
from tests.support.annotating import GREY, SIZE, check, reference

NOISE = np.random.default_rng(3).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
DEPTH = np.full(SIZE, 20.0)
EVENT = np.full((*SIZE, 3), 0.1)
CLICKS = [Click(10, 10), Click(40, 30), Click(12, 14, False)]


def clicked(session: Session) -> list[np.ndarray]:
    return [session.click(one.x, one.y, one.positive).network_probability for one in CLICKS]


@pytest.fixture
def features(paint: Bundle) -> Features:
    with Session(paint, threads=1) as session:
        session.set_image(NOISE)
        return session.features


@pytest.fixture
def late(modal: Bundle) -> Features:
    with Session(modal, threads=1) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        return session.features


@pytest.fixture
def standing(paint: Bundle) -> Iterator[Callable[[], None]]:
    """A session with clicks, and a check that nothing about it changed."""
    with Session(paint, threads=1) as session:
        session.set_image(GREY)
        clicked(session)
        before, answer = session.to_dict(), session.result.network_probability

        def unchanged() -> None:
            assert session.to_dict() == before
            np.testing.assert_array_equal(session.result.network_probability, answer)

        unchanged.session = session  # type: ignore[attr-defined]
        yield unchanged


def refused(standing: Any, features: Features, match: str) -> None:
    with pytest.raises(FeatureError, match=match):
        standing.session.use(features)
    standing()


# --- what they hold ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_engine")
def test_features_stand_for_the_image(paint: Bundle) -> None:
    with Session(paint) as session:
        session.set_image(NOISE)
        expected = clicked(session)
        features = session.features
        session.set_image(GREY)
        clicked(session)
        timings = session.use(features)
        assert timings.found
        assert session.runs["image"] == 2
        assert session.clicks == ()
        assert session.image_size == SIZE
        np.testing.assert_array_equal(clicked(session), expected)
        np.testing.assert_array_equal(session.result.overlay(), session.result.overlay(NOISE))
        assert session.features.key == features.key


def test_what_they_say(features: Features, paint: Bundle) -> None:
    assert features.size == SIZE
    assert features.key == FeatureKey(features.content, origin_of(paint.manifest), Precision.FP32)
    assert len(features.key.name) == 64
    assert features.key.name != features.key._replace(precision=Precision.FP16).name
    assert set(features.arrays) == {"f1"} == read_after_image(paint.manifest) & set(features.arrays)
    assert features.nbytes == sum(one.nbytes for one in features.arrays.values()) == 4
    assert features.picture is not None
    np.testing.assert_array_equal(features.picture, NOISE)
    assert features.without_picture().picture is None
    assert features.on_host() is features
    assert "70 x 50" in repr(features)
    assert not features.arrays["f1"].flags.writeable
    with pytest.raises(AttributeError):
        features.size = (1, 1)  # type: ignore[misc]


def test_no_features_without_an_image(paint: Bundle) -> None:
    with Session(paint, threads=1) as session, pytest.raises(NoImageError):
        _ = session.features


def test_other_numbers(features: Features, paint: Bundle) -> None:
    half = features.with_arrays({name: array.astype(np.float16) for name, array in features.arrays.items()})
    assert half.key == features.key
    with Session(paint, threads=1) as session:
        session.use(half)
        rounded = clicked(session)
        session.use(features)
        np.testing.assert_allclose(clicked(session), rounded, atol=1e-3)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_they_go_to_other_processes(features: Features, paint: Bundle, copied: Callable[[Features], Features]) -> None:
    with Model(paint, threads=1) as model:
        resident = model.encode(NOISE)
        for given in (features, resident):
            found = copied(given)
            assert found.key == features.key
            np.testing.assert_array_equal(found.arrays["f1"], features.arrays["f1"])
            with model.session() as session:
                session.use(found)
                session.click(3, 3)


# --- modalities -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_engine")
def test_with_modalities(modal: Bundle, tmp_path: Path) -> None:
    with Session(modal) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        session.features.save(tmp_path / "all.features")
        session.set_image(GREY, depth=LATER, event=EVENT)
        session.features.save(tmp_path / "waiting.features")
    with Session(modal) as session:
        session.use(Features.load(tmp_path / "all.features"))
        assert session.modalities == {"depth", "event"}
        check(session.click(10, 10), reference(modal, [Click(10, 10)], feature=0.2 + 0.2 + 0.1))
        session.set_modalities(depth=np.zeros(SIZE))
        check(session.result, reference(modal, [Click(10, 10)], feature=0.2 + 0.1))
        changed = session.features
        session.use(Features.load(tmp_path / "waiting.features"))
        with pytest.raises(ModalityError, match="not there yet: depth"):
            session.click(10, 10)
        session.set_modalities(depth=np.zeros(SIZE))
        assert session.runs["image"] == 0
        check(session.click(10, 10), reference(modal, [Click(10, 10)], feature=0.2 + 0.1))
        assert session.features.content == changed.content != Features.load(tmp_path / "all.features").content


def test_a_bypassed_fuser(optional: Bundle, tmp_path: Path) -> None:
    with Session(optional, threads=1) as session:
        session.set_image(NOISE)
        expected = clicked(session)
        features = session.features
        assert features.bypassed == {"modality"}
        assert features.aliases
        features.save(tmp_path / "one.features")
        session.use(Features.load(tmp_path / "one.features"))
        np.testing.assert_array_equal(clicked(session), expected)
        session.set_modalities(depth=DEPTH)
        assert session.features.bypassed == frozenset()
        with Session(optional, threads=1) as other:
            other.set_image(NOISE, depth=DEPTH)
            clicked(other)
            np.testing.assert_array_equal(session.result.network_probability, other.result.network_probability)


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_same_features_are_the_same_bytes(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "one.features", picture=True)
    content = (tmp_path / "one.features").read_bytes()
    assert features.to_bytes(picture=True) == content
    found = Features.load(tmp_path / "one.features")
    assert found.to_bytes(picture=True) == content
    assert found.to_bytes() == features.to_bytes() != content
    assert (found.key, found.size, found.engine) == (features.key, features.size, features.engine)
    assert found.picture is not None
    np.testing.assert_array_equal(found.picture, NOISE)
    assert not found.picture.flags.writeable
    assert Features.from_bytes(features.to_bytes()).picture is None
    assert read_header(tmp_path / "one.features").size == SIZE
    with pytest.raises(OutputExistsError):
        features.save(tmp_path / "one.features")
    features.save(tmp_path / "one.features", overwrite=True)


def test_a_picture_that_was_not_kept_is_not_saved(paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1, keep_image=False) as session:
        session.set_image(NOISE)
        with pytest.raises(FeatureError, match="were not kept"):
            session.features.save(tmp_path / "one.features", picture=True)
        assert not list(tmp_path.iterdir())
        session.features.save(tmp_path / "one.features")


def test_every_byte_counts(features: Features) -> None:
    content = features.to_bytes(picture=True)
    for place in [*range(0, min(len(content), 1500), 7), *range(1500, len(content), 997)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        try:
            found = Features.from_bytes(bytes(damaged))
        except FeatureError:
            continue
        # What the header says beside the numbers is not hashed: it is another header, not other numbers.
        np.testing.assert_array_equal(found.arrays["f1"], features.arrays["f1"])
    for end in range(0, len(content), 501):
        with pytest.raises(FeatureError):
            Features.from_bytes(content[:end])


@pytest.mark.parametrize("path", ["nothing.features", "", "folder", 3, None, "\0", "\ud800"])
def test_no_such_file(tmp_path: Path, path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FeatureError):
        Features.load(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", bytes(8), b"\xff" * 8, struct.pack("<Q", 2) + b"{}", "text", None, 5, np.zeros((3, 0), np.uint8)],
)
def test_other_contents(content: object) -> None:
    with pytest.raises(FeatureError):
        Features.from_bytes(content)  # type: ignore[arg-type]


def test_other_files_of_the_format(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"f1": np.zeros((1, 1, 1, 1), np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(FeatureError, match="holds no features"):
        Features.load(tmp_path / "weights.safetensors")


# --- headers that lie -------------------------------------------------------------------------------------------------


def rewritten(features: Features, **changes: object) -> bytes:
    """The file with another header; its hash over the numbers is right."""
    content = features.to_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    said = json.loads(header["__metadata__"]["mmms-deploy"])
    said.update(changes)
    header["__metadata__"]["mmms-deploy"] = json.dumps(said)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


LIES: list[tuple[dict[str, object], str]] = [
    ({"size": [0, 5]}, "no features"),
    ({"size": [-1, 5]}, "no features"),
    ({"size": [1 << 40, 1]}, "no features"),
    ({"size": [1 << 20, 1 << 20]}, "no features"),
    ({"size": [5]}, "no features"),
    ({"size": [1.5, 2]}, "no features"),
    ({"version": 2}, "no features"),
    ({"format": "other"}, "no features"),
    ({"precision": "fp8"}, "no features"),
    ({"bundle": "0" * 64}, "another bundle"),
    ({"bundle": "0" * 63}, "no features"),
    ({"parts": {"rgb": "x"}}, "no features"),
    ({"bypassed": ["nothing"]}, "stages to leave out"),
    ({"bypassed": ["image"]}, "stages to leave out"),
    ({"bypassed": ["click"]}, "stages to leave out"),
    ({"present": ["depth"]}, "modalities"),
    ({"awaited": ["depth"]}, "modalities"),
    ({"aliases": {"f2": "nothing"}}, "tensors"),
    ({"aliases": {"nothing": "f1"}}, "tensors"),
    ({"aliases": {"maps": "f1"}}, "another shape"),
    ({"aliases": {"maps": "maps"}}, "another name"),
    ({"aliases": {"f1": "f1"}}, "another name"),
    ({"aliases": {"prob": "f1"}}, "tensors"),
]


@pytest.mark.parametrize(("changes", "match"), LIES)
def test_a_header_that_lies_is_refused(features: Features, standing: Any, changes: dict[str, Any], match: str) -> None:
    def use() -> None:
        standing.session.use(Features.from_bytes(rewritten(features, **changes)))

    with pytest.raises(FeatureError, match=match):
        use()
    standing()


def test_harmless_lies(features: Features, paint: Bundle) -> None:
    """Another size, other hashes, names and words: clicks and masks are in the size that is said."""
    names = {"engine": "", "file_name": "../../x\0\x1b[31m", "parts": {"other": "0" * 64}}
    given = Features.from_bytes(rewritten(features, size=[1, 1], **names))
    with Session(paint, threads=1) as session:
        session.use(given)
        assert session.click(0, 0).mask.shape == (1, 1)
        assert session.to_coco()["images"][0]["height"] == 1
        assert session.features.content == given.content != features.content
        assert isinstance(session._repr_html_(), str)


def test_late_lies(late: Features, modal: Bundle) -> None:
    with Session(modal, threads=1) as session:
        for changes, match in (
            ({"present": ["depth"], "awaited": ["depth"]}, "comes later"),
            ({"bypassed": ["modality"]}, "stages to leave out"),
            ({"aliases": {"fused": "depth"}}, "another"),
        ):
            with pytest.raises(FeatureError, match=match):
                session.use(Features.from_bytes(rewritten(late, **changes)))
        session.use(Features.from_bytes(rewritten(late, present=[])))
        session.click(3, 3)
        with pytest.raises((ModalityError, SessionError)):
            session.set_modalities(depth=None)


def other(features: Features, **arrays: np.ndarray) -> Features:
    return features.with_arrays({**features.arrays, **arrays})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 1, 1, 2), np.float32),
        np.zeros((1, 1, 1), np.float32),
        np.zeros((0, 1, 1, 1), np.float32),
        np.zeros((1, 1, 1, 1), np.float64),
        np.zeros((1, 1, 1, 1), np.int32),
        np.zeros((1, 1, 1, 1), np.bool_),
        np.zeros((1, 1, 1, 1), np.complex64),
    ],
)
def test_tensors_of_another_kind_are_refused(features: Features, standing: Any, array: np.ndarray) -> None:
    refused(standing, other(features, f1=array), "the features have f1 as")


def test_missing_and_surplus_tensors_are_refused(features: Features, standing: Any) -> None:
    refused(standing, features.with_arrays({}), "are without f1")
    refused(standing, other(features, nothing=np.zeros(1, np.float32)), "tensors that this bundle does not have")
    refused(standing, other(features, prob=np.zeros((1, 1, 64, 96), np.float32)), "does not have: 'prob'")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_that_are_none_become_no_mask(features: Features, standing: Any, number: float) -> None:
    """As those of a network that overflows: what it answers is a probability, or the click is refused."""
    session: Session = standing.session
    session.use(other(features, f1=np.full((1, 1, 1, 1), number, np.float32)))
    before = session.to_dict()
    try:
        assert np.isfinite(session.click(5, 5).probability).all()
    except AnswerError:
        assert session.to_dict() == before
    session.use(features)
    session.click(5, 5)


@pytest.mark.parametrize("given", [None, 3, "one.features", b"", {}, np.zeros(3), GREY])
def test_other_things_are_refused(standing: Any, given: Any) -> None:
    refused(standing, given, "the features are of type")


def test_another_bundle_is_refused(features: Features, standing: Any, echo: Bundle) -> None:
    with Session(echo, threads=1) as session, pytest.raises(FeatureError, match="another bundle"):
        session.use(features)
    refused(standing, replace(features, bundle="0" * 64), "another bundle")


def test_zoom_needs_the_pixels(features: Features, paint: Bundle, late: Features, modal: Bundle) -> None:
    for keyword in ("zoom", "flip"):
        with Session(paint, threads=1, **{keyword: True}) as session:  # type: ignore[arg-type]
            session.set_image(NOISE)
            expected = [session.click(one.x, one.y, one.positive).mask for one in CLICKS]
            before = session.to_dict()
            with pytest.raises(SessionError, match="without the image's pixels"):
                session.use(features.without_picture())
            assert session.to_dict() == before
            session.use(features)
            np.testing.assert_array_equal([session.click(one.x, one.y, one.positive).mask for one in CLICKS], expected)
    with Session(modal, threads=1, zoom=True) as session, pytest.raises(SessionError, match="maps of its modalities"):
        session.use(late)


sides = st.one_of(st.integers(-3, 80), st.integers(), st.floats(), st.none(), st.text(max_size=3))


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "size": st.lists(sides, max_size=3),
            "parts": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
            "present": st.lists(st.sampled_from(["depth", "event", "f1", "image", "", "x"]), max_size=3),
            "awaited": st.lists(st.sampled_from(["depth", "event", "f1", "image", "", "x"]), max_size=3),
            "bypassed": st.lists(st.sampled_from(["image", "modality", "click", "", "x"]), max_size=3),
            "aliases": st.dictionaries(
                st.sampled_from(["f1", "fused", "depth", "maps", "prob", "click", "x"]),
                st.sampled_from(["f1", "fused", "depth", "maps", "prob", "click", "x"]),
                max_size=3,
            ),
            "file_name": st.text(max_size=5),
            "engine": st.text(max_size=5),
        },
    )
)
def test_any_header_is_refused_or_harmless(drawn: tuple[Session, Features], changes: dict[str, object]) -> None:
    session, features = drawn
    before = session.to_dict()
    try:
        session.use(Features.from_bytes(rewritten(features, **changes)))
    except (FeatureError, SessionError):
        assert session.to_dict() == before
        return
    height, width = session.image_size
    for call in (lambda: session.click(0, 0), lambda: session.set_modalities(depth=np.zeros((height, width)))):
        try:
            call()
        except (ModalityError, SessionError):
            continue
    assert session.labels.shape == (height, width)
    session.features.to_bytes()


@pytest.fixture(scope="module")
def drawn(modal: Bundle) -> Iterator[tuple[Session, Features]]:
    with Session(modal, threads=1, keep_image=False) as session:
        session.set_image(GREY, depth=DEPTH, event=EVENT)
        yield session, session.features

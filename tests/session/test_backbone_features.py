"""Backbone features that a provider computed; on every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import FeatureError, ModalityError, SessionError
from mmms_deploy.session.backbone_features import load_features, save_features
from tests.support.annotating import GREY, SIZE, check, reference
from tests.support.toy import write_toy

pytestmark = pytest.mark.usefixtures("every_engine")

F1 = {"f1": np.full((1, 1, 1, 1), 0.2, dtype=np.float32)}


@pytest.fixture(scope="module")
def black_box(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Depth, and a feature that comes from outside."""
    modalities = (ModalitySpec(name="depth", scale=0.01),)
    return write_toy(tmp_path_factory.mktemp("bundles") / "black_box", modalities=modalities, black_box=True)


def test_features_stand_for_the_image(black_box: Bundle) -> None:
    with Session(black_box) as session:
        session.set_features(F1, SIZE, depth=np.full(SIZE, 20.0))
        assert session.runs == {"modality": 1, "click": 0}
        assert session.image_size == SIZE
        check(session.click(10, 10), reference(black_box, [Click(10, 10)], feature=0.4))
        session.set_modalities(depth=np.zeros(SIZE))
        check(session.result, reference(black_box, [Click(10, 10)], feature=0.2))


def test_hidden_features_are_refused(black_box: Bundle) -> None:
    masked = np.ma.MaskedArray(F1["f1"], mask=True)
    with Session(black_box) as session:
        with pytest.raises(FeatureError, match="masked array that hides 1 of its numbers"):
            session.set_features({"f1": masked}, SIZE, depth=np.zeros(SIZE))
        session.set_features({"f1": np.ma.MaskedArray(F1["f1"])}, SIZE, depth=np.zeros(SIZE))


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 1e38), (np.float64, 1e38), (np.float64, 1e300)])
def test_numbers_that_no_layer_can_take_are_refused(black_box: Bundle, dtype: type, value: float) -> None:
    depth = np.zeros(SIZE, dtype)
    with Session(black_box) as session:
        session.set_features(F1, SIZE, depth=depth)
        depth[3, 4] = value
        with pytest.raises(ModalityError):
            session.set_modalities(depth=depth)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_file_of_features(black_box: Bundle, tmp_path: Path, dtype: type) -> None:
    file = tmp_path / "features.npz"
    save_features(file, {"f1": np.full((1, 1, 1), 0.25, dtype=dtype)}, SIZE)
    with Session(black_box) as session:
        session.set_features(file, depth=np.zeros(SIZE))
        check(session.click(10, 10), reference(black_box, [Click(10, 10)], feature=0.25))


def test_refused_features_change_nothing(black_box: Bundle, tmp_path: Path) -> None:
    depth = np.zeros(SIZE)
    with Session(black_box) as session:
        session.set_features(F1, SIZE, depth=depth)
        result = session.click(10, 10)
        refused = [
            ({}, SIZE, "features given: none"),
            ({**F1, "f2": F1["f1"]}, SIZE, "features given: f1, f2"),
            ({"f1": np.zeros((1, 1, 2, 1), np.float32)}, SIZE, r"f1 has shape \(1, 1, 2, 1\)"),
            ({"f1": np.zeros((1, 1, 1, 1))}, SIZE, "dtype float64"),
            ({"f1": np.full((1, 1, 1, 1), np.inf, np.float16)}, SIZE, "not finite"),
            (F1, None, "image_size is None"),
            *(
                (F1, size, "image_size is")
                for size in ((0, 5), (5,), (5, 2.5), ("5", "6"), "56", 5, (5, 10**30), (True, 5))
            ),
            (tmp_path / "missing.npz", SIZE, "cannot be read"),
        ]
        for features, size, match in refused:
            with pytest.raises(FeatureError, match=match):
                session.set_features(features, size, depth=depth)
        with pytest.raises(ModalityError):
            session.set_features(F1, SIZE)
        assert session.result is result


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    file = tmp_path / "features.npz"
    file.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(FeatureError, match="cannot be read"):
        load_features(file)
    np.savez(file, f1=np.array([object()]))
    with pytest.raises(FeatureError, match="cannot be read"):
        load_features(file)
    np.savez(file, **F1, image_size=np.array([1.5, 2.5]))
    with pytest.raises(FeatureError, match="image_size"):
        load_features(file)


def test_image_and_features_are_not_mixed_up(black_box: Bundle, paint: Bundle) -> None:
    with Session(black_box) as session, pytest.raises(SessionError, match="exported without its backbone"):
        session.set_image(GREY, depth=np.zeros(SIZE))
    with Session(paint) as session, pytest.raises(SessionError, match="computes its backbone's features itself"):
        session.set_features(F1, SIZE)

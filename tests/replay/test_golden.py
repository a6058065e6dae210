from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmms_deploy.errors import BundleCorruptError
from mmms_deploy.replay.golden import GoldenCase, load_golden, save_golden


def case(height: int = 5, width: int = 9, clicks: int = 3, seed: int = 0) -> GoldenCase:
    rng = np.random.default_rng(seed)
    return GoldenCase(
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        modalities={
            "depth": rng.random((height, width), dtype=np.float32),
            "event": rng.integers(0, 9, (height, width, 3)),
        },
        clicks=rng.random((clicks, 3), dtype=np.float32),
        masks=rng.random((clicks, height, width)) > 0.5,
        certain=rng.random((clicks, height, width)) > 0.1,
    )


def assert_same(ours: GoldenCase, theirs: GoldenCase) -> None:
    for name in ("image", "clicks", "masks", "certain"):
        a, b = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert ours.modalities.keys() == theirs.modalities.keys()
    for name in ours.modalities:
        np.testing.assert_array_equal(ours.modalities[name], theirs.modalities[name])


@given(height=st.integers(1, 20), width=st.integers(1, 20), clicks=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, clicks: int, seed: int) -> None:
    file = tmp_path_factory.mktemp("golden") / "golden.npz"
    cases = [case(height, width, clicks, seed), case(seed=seed + 1)]
    save_golden(file, cases)
    loaded = load_golden(file)
    assert len(loaded) == 2
    for ours, theirs in zip(loaded, cases, strict=True):
        assert_same(ours, theirs)


def on_objects(**changes: object) -> GoldenCase:
    """A case of a network that answers for several objects: the second click is on another one."""
    plain = case()
    surfaces = np.array([1, 2, 1], np.uint8)
    labels = np.random.default_rng(5).integers(0, 3, plain.masks.shape, dtype=np.uint8)
    masks = labels == surfaces[:, None, None]
    return replace(plain, **{"surfaces": surfaces, "labels": labels, "masks": masks, **changes})


def test_clicks_on_several_objects_keep_them(tmp_path: Path) -> None:
    """A file without them, such as an old one, is read as before."""
    cases = [on_objects(), case()]
    save_golden(tmp_path / "golden.npz", cases)
    joint, plain = load_golden(tmp_path / "golden.npz")
    for name in ("surfaces", "labels", "masks"):
        np.testing.assert_array_equal(getattr(joint, name), getattr(cases[0], name))
        assert getattr(joint, name).dtype == getattr(cases[0], name).dtype
    assert (plain.surfaces, plain.labels) == (None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "both or none"),
        ({"surfaces": np.array([1, 2], np.uint8)}, "surfaces: expected"),
        ({"surfaces": np.array([0, 2, 1], np.uint8)}, "surfaces: expected"),
        ({"surfaces": np.array([1, 1, 1], np.uint8)}, "object 2 has no click"),
        ({"labels": np.zeros((3, 5, 8), np.uint8)}, "labels: expected"),
    ],
)
def test_objects_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_objects(**changes)


def test_the_same_cases_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_golden(tmp_path / name, [case()])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_masks_are_bits(tmp_path: Path) -> None:
    save_golden(tmp_path / "golden.npz", [case(400, 400, 4)])
    assert (tmp_path / "golden.npz").stat().st_size < 400 * 400 * (3 + 4 + 24 + 2 * 4 / 8) + 4096


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((5, 9), dtype=np.uint8)},
        {"image": np.zeros((5, 9, 3), dtype=np.float32)},
        {"clicks": np.zeros((0, 3), dtype=np.float32)},
        {"clicks": np.zeros((3, 2), dtype=np.float32)},
        {"clicks": np.zeros((3, 3), dtype=np.float64)},
        {"clicks": np.full((3, 3), np.nan, dtype=np.float32)},
        {"masks": np.zeros((3, 5, 8), dtype=bool)},
        {"certain": np.zeros((3, 5, 9), dtype=np.uint8)},
        {"modalities": {"depth": np.zeros((4, 9))}},
        {"modalities": {"depth": np.zeros((5, 9), dtype=bool)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    good = case()
    fields = {name: getattr(good, name) for name in ("image", "clicks", "masks", "certain", "modalities")}
    with pytest.raises(ValueError, match=next(iter(change)).rstrip("s").replace("modalitie", "modality")):
        GoldenCase(**{**fields, **change})


def test_no_case_is_no_replay(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        save_golden(tmp_path / "golden.npz", [])
    assert not (tmp_path / "golden.npz").exists()


def test_nonsense_is_named(tmp_path: Path) -> None:
    file = tmp_path / "golden.npz"
    with pytest.raises(BundleCorruptError, match="is no golden replay"):
        load_golden(file)
    for raw in (b"", b"nonsense", b"PK\x03\x04" + b"\0" * 100, pickle.dumps([1, 2])):
        file.write_bytes(raw)
        with pytest.raises(BundleCorruptError, match="is no golden replay"):
            load_golden(file)
    np.savez(file, cases=np.array(1))
    with pytest.raises(BundleCorruptError, match="0/image"):
        load_golden(file)
    np.savez(file, cases=np.array([object()]), allow_pickle=True)
    with pytest.raises(BundleCorruptError, match="is no golden replay"):
        load_golden(file)
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(BundleCorruptError, match="is no golden replay"):
        load_golden(file)


def test_no_case_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "golden.npz"
    np.savez(file, cases=np.array(0))
    with pytest.raises(BundleCorruptError, match="no case"):
        load_golden(file)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_named_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever bytes are changed or cut off: the named error, or a case whose shapes fit."""
    file = tmp_path_factory.mktemp("golden") / "golden.npz"
    save_golden(file, [case()])
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    try:
        cases = load_golden(file)
    except BundleCorruptError:
        return
    assert all(isinstance(c, GoldenCase) for c in cases)


@given(array=hnp.arrays(dtype=hnp.scalar_dtypes(), shape=hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)))
@settings(max_examples=25, deadline=None)
def test_foreign_arrays_are_named(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    assume(array.dtype != np.float32 or array.shape[1:] != (3,))  # these are clicks
    file = tmp_path_factory.mktemp("golden") / "golden.npz"
    save_golden(file, [case()])
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.startswith("0/") and "modality" not in name]
    for name in names:
        arrays = dict(np.load(file))
        arrays[name.removesuffix(".npy")] = array
        other = file.with_name("other.npz")
        np.savez(other, **arrays)
        with pytest.raises(BundleCorruptError):
            load_golden(other)

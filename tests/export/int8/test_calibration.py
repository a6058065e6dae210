"""What graphs in 8 bits are calibrated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.names import of_object
from mmms_deploy.errors import Door, ExportError, FileReadError, ImageError
from mmms_deploy.export.int8.calibration import MOST_PICTURES, calibration_samples, record_calls
from mmms_deploy.export.samples import CLICKS_PER_IMAGE, picture_sample
from mmms_deploy.replay.golden import load_golden
from tests.support.batched import write_batched
from tests.support.golden_cases import golden
from tests.support.quantised import picture
from tests.support.sized import SIZES, write_sized
from tests.support.tiny import DEPTH, EVENT


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((4, 5, 3), number % 256, np.uint8)).save(folder / f"{number:04}.png")
    return folder


# --- calls ------------------------------------------------------------------------------------------------------------


def test_calls_of_golden_clicks_and_of_pictures(paint: Bundle) -> None:
    case, sample = golden(paint), picture_sample("a", picture(0), (), seed=0)
    calls = record_calls(paint, [case, case], [sample])
    clicks = 2 * len(case.clicks) + CLICKS_PER_IMAGE
    assert {stage: len(found) for stage, found in calls.items()} == {"image": 3, "click": clicks}
    for stage in paint.manifest.stages:
        specs = {spec.name: spec for spec in stage.graphs[Precision.FP32].inputs}
        for call in calls[stage.name]:
            assert {name: (array.shape, array.dtype) for name, array in call.items()} == {
                name: (spec.shape, np.dtype(spec.dtype)) for name, spec in specs.items()
            }
    first, second = calls["click"][:2]
    assert not first["maps"].any()
    assert second["maps"].any(), "what the click before it left behind"
    np.testing.assert_array_equal(calls["image"][0]["rgb"], calls["image"][1]["rgb"])


def test_an_array_that_calls_share_is_kept_once(paint: Bundle) -> None:
    case = golden(paint)
    clicks = record_calls(paint, [case, case], [])["click"]
    count = len(case.clicks)
    assert all(call["f1"] is clicks[0]["f1"] for call in clicks[:count])
    assert all(call["f1"] is clicks[count]["f1"] for call in clicks[count:])
    assert clicks[count]["f1"] is not clicks[0]["f1"], "another image's"
    assert len({id(call["click"]) for call in clicks}) == 2 * count


def test_a_stage_for_longer_lists(tmp_path: Path) -> None:
    bundle = write_sized(tmp_path / "sized")
    calls = record_calls(bundle, load_golden(bundle.file("golden.npz")), [])
    short, long = SIZES
    assert len(calls["click"]) == len(calls[f"click_{long}"]) > 0
    for small, large in zip(calls["click"], calls[f"click_{long}"], strict=True):
        assert large["click_list"].shape == (1, long, 5)
        np.testing.assert_array_equal(large["click_list"][:, :short], small["click_list"])
        assert not large["click_list"][:, short:].any(), "rows without a click"
        np.testing.assert_array_equal(large["f1"], small["f1"])


def test_a_stage_for_several_objects(paint: Bundle, tmp_path: Path) -> None:
    bundle = write_batched(paint, tmp_path / "batched", (3,))
    case = golden(bundle)
    calls = record_calls(bundle, [case], [])
    alone, together = calls["click"], calls["click_batch_3"]
    assert len(alone) == len(together) == len(case.clicks)
    graph = bundle.manifest.stage("click_batch_3").graphs[Precision.FP32]
    for number, call in enumerate(together):
        assert list(call) == [spec.name for spec in graph.inputs]
        np.testing.assert_array_equal(call["f1"], alone[number]["f1"])
        for row in range(3):
            other = alone[(number + row) % len(alone)]
            for name in ("maps", "prev", "click"):
                np.testing.assert_array_equal(call[of_object(name, row + 1)], other[name])


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_photographs_without_a_folder() -> None:
    samples = calibration_samples((DEPTH, EVENT))
    assert [sample.name for sample in samples] == ["china", "flower"]
    assert [sample.modalities.keys() for sample in samples] == [{"depth", "event"}] * 2
    assert all(sample.image.dtype == np.uint8 and sample.image.ndim == 3 for sample in samples)
    assert not np.array_equal(samples[0].clicks, samples[1].clicks)


def test_pictures_of_a_folder_and_those_in_it(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "folder.png" / "GREY.JPG")
    samples = calibration_samples((), tmp_path)
    assert [sample.name for sample in samples] == ["0000.png", "0001.png", "GREY.JPG"]
    assert all(sample.image.shape == (4, 5, 3) for sample in samples)


@pytest.mark.parametrize(("count", "taken"), [(64, 64), (65, 33), (128, 64), (150, 50)])
def test_many_pictures_are_taken_evenly(tmp_path: Path, count: int, taken: int) -> None:
    names = [int(sample.name[:4]) for sample in calibration_samples((), pictures(tmp_path, count))]
    assert len(names) == taken <= MOST_PICTURES
    assert names[0] == 0
    assert len(set(np.diff(names))) == 1
    assert names[-1] + (names[1] - names[0]) >= count, "up to the end"


@pytest.mark.parametrize("kind", ["empty", "missing", "file"])
def test_a_folder_without_pictures(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("no folder")
    with pytest.raises(ExportError, match=r"folder .*") as caught:
        calibration_samples((), folder)
    assert "Int8Options(calibration=FOLDER)" in caught.value.message(Door.PYTHON)
    assert "--calibration FOLDER" in caught.value.message(Door.COMMAND_LINE)


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    (pictures(tmp_path, 1) / "broken.png").write_bytes(b"nonsense")
    with pytest.raises((ImageError, FileReadError), match=r"broken\.png"):
        calibration_samples((), tmp_path)

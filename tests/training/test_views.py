"""Views of scenes, the split, and what is said of the data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from mmms_deploy.evaluation import open_dataset
from mmms_deploy.imaging.modality import measure
from mmms_deploy.training.data import Part, fingerprint, split, whole
from mmms_deploy.training.errors import TrainingDataError
from mmms_deploy.training.scene_views import SceneViews
from mmms_deploy.training.survey import ModalityFacts, described_modality, survey
from mmms_deploy.training.views import JoinedViews
from tests.support.trainable import HEAT, Squares, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), 6, thermal=True)


def part_of(folder: Path) -> Part:
    return whole(open_dataset("folder", folder), "folder")


def views_of(folder: Path, each: int = 7, seed: int = 0) -> SceneViews:
    part = part_of(folder)
    return SceneViews([part], [[2] * len(part)], (HEAT,), each, seed)


def test_a_view_is_a_function_of_its_scene_and_the_seed(folder: Path) -> None:
    one, same, other = views_of(folder), views_of(folder), views_of(folder, seed=1)
    differing = 0
    for index in reversed(range(len(one))):
        a, b = one[index], same[index]
        assert one.key(index) == same.key(index) != other.key(index)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.targets, b.targets)
        np.testing.assert_array_equal(a.modalities["thermal"], b.modalities["thermal"])
        assert a.targets.shape == (len(a.weights), *a.image.shape[:2])
        assert a.modalities["thermal"].shape == (*a.image.shape[:2], 1)
        assert a.targets.any((1, 2)).all()
        differing += a.image.shape != other[index].image.shape
    assert differing > len(one) / 2
    assert len({one.key(index) for index in range(len(one))}) == len(one)


def test_the_first_view_is_the_picture_as_it_is(folder: Path) -> None:
    views, part = views_of(folder), part_of(folder)
    view, scene = views[7], part[1]
    np.testing.assert_array_equal(view.image, scene.image)
    np.testing.assert_array_equal(view.targets, [surface.mask for surface in scene.surfaces])
    np.testing.assert_array_equal(view.modalities["thermal"], measure(np.atleast_3d(scene.modalities["thermal"]), HEAT))


def test_every_third_view_has_pasted_objects_that_hide_others(folder: Path) -> None:
    views = views_of(folder)
    pasted = 0
    for scene in range(6):
        view = views[scene * 7 + 3]
        pasted += len(view.targets) > 2
        covered = view.targets.sum(0)
        assert covered.max() == 1
        warm = view.modalities["thermal"][..., 0][view.targets.any(0)].mean()
        cold = view.modalities["thermal"][..., 0][~view.targets.any(0)].mean()
        assert warm > cold + 0.15  # what is pasted is warm, too
    assert pasted >= 4


def test_another_picture_changes_no_key_but_those_of_pasted_views(folder: Path, tmp_path: Path) -> None:
    before = views_of(folder)
    more = tmp_path / "more"
    for path in folder.rglob("*.png"):
        place = more / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        os.utime(place, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        if path.stem == "5":
            place.with_stem("00-new").write_bytes(path.read_bytes())
    after = views_of(more)
    kept = {after.key(index) for index in range(len(after))}
    same = [index for index in range(len(before)) if before.key(index) in kept]
    assert {index % 7 for index in range(len(before)) if index not in same} <= {3, 6}
    assert len(same) >= 30


def test_scenes_without_objects_are_left_out(folder: Path) -> None:
    part = part_of(folder)
    views = SceneViews([part], [[2, 0, 2, 0, 0, 0]], (), 2, 0)
    assert len(views) == 4
    assert views[2].image.shape == part[2].image.shape
    with pytest.raises(IndexError):
        views[4]


def test_joined_views_are_those_of_their_parts() -> None:
    joined = JoinedViews(Squares(2), Squares(3))
    assert len(joined) == 5
    assert [joined.key(index) for index in range(5)] == [Squares().key(index) for index in (0, 1, 0, 1, 2)]
    np.testing.assert_array_equal(joined[4].image, Squares()[2].image)
    with pytest.raises(IndexError):
        joined[5]


def test_frames_of_one_folder_stay_together(tmp_path: Path) -> None:
    for sequence in "abcde":
        for frame in range(4):
            for name in ("images", "masks"):
                path = tmp_path / name / sequence / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.eye(8, dtype=np.uint8)).save(path)
    dataset = open_dataset("folder", tmp_path)
    kept, held = split(dataset, "folder", 0.2)
    assert len(held) == 4
    assert len({name[0] for name in held.scene_names}) == 1
    assert not set(kept.scene_names) & set(held.scene_names)
    assert len(kept) + len(held) == 20
    assert split(dataset, "folder", 0.2)[1].indices == held.indices
    assert len(split(dataset, "folder", 0.0)[1]) == 0
    assert len(split(dataset, "folder", 0.9)[0]) >= 4


def test_a_survey_counts_and_is_kept_until_the_data_change(folder: Path, tmp_path: Path) -> None:
    part, kept = part_of(folder), tmp_path / "runs" / "data.json"
    steps: list[int] = []
    found = survey([part], kept, lambda step: steps.append(step.done))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert found.objects == ((2,) * 6,)
    assert found.modalities["thermal"].dtypes == ("uint8",)
    assert survey([part], kept, lambda step: steps.append(99)) == found
    assert 99 not in steps
    fewer = Part(part.dataset, (0, 1), "folder")
    assert survey([fewer], kept).objects == ((2, 2),)
    assert fingerprint([part]) != fingerprint([fewer])


def test_a_modality_is_described_by_its_numbers() -> None:
    def facts(dtype: str, holes: bool = False) -> ModalityFacts:
        return ModalityFacts(dtypes=(dtype,), channels=1, total=(400.0,), squares=(20000.0,), count=10, holes=holes)

    spec = described_modality("thermal", facts("uint8"))
    assert spec.mean[0] == pytest.approx(40 / 255, abs=1e-5)
    assert spec.std[0] == pytest.approx(20 / 255, abs=1e-5)
    assert spec.optional
    depth = described_modality("depth", facts("float32", holes=True))
    assert (depth.invalid, depth.fill, depth.factor("float32")) == (("nan", "inf"), 40.0, 1.0)
    assert depth.factor("uint8") is None
    mixed = ModalityFacts(dtypes=("uint8", "uint16"), channels=1, total=(1.0,), squares=(1.0,), count=1, holes=False)
    with pytest.raises(TrainingDataError, match="uint8 and uint16"):
        described_modality("depth", mixed)


def test_holes_are_found_wherever_they_are(tmp_path: Path) -> None:
    write_folder(tmp_path, 2)
    (tmp_path / "depth").mkdir()
    for index in range(2):
        depth = np.ones((72, 96), np.float32)
        depth[3, 5 + index] = np.nan
        np.save(tmp_path / "depth" / f"{index}.npy", depth)
    assert survey([part_of(tmp_path)], tmp_path / "data.json").modalities["depth"].holes

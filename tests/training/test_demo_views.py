"""What the demo's head is trained on: pseudo-masks and views."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")

from mmms_deploy.training.views import View
from training import proposals
from training.conditions import HIDING
from training.davis import Frame
from training.demo_views import LEAST_SHARE, MOST_SHARE, MOST_TARGETS, PART_WEIGHT, PROPOSAL_WEIGHT, DemoViews
from training.proposals import LOW, Proposals, with_proposals

HEIGHT, WIDTH = 60, 80


def _frame(number: int, sequence: str = "cows") -> Frame:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 10 + number : 40] = 1
    return Frame(sequence, f"{number:05d}", image, mask)


def _proposal() -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[15:50, 50:75] = True
    return mask


def _views(**changes: object) -> DemoViews:
    found = {0: Proposals(_proposal()[None], np.array([0.9], np.float32))}
    settings: dict[str, object] = {"proposals": found, "size": 64, "count": 40, "seed": 3}
    return DemoViews([_frame(0), _frame(3)], **{**settings, **changes})  # type: ignore[arg-type]


# --- views ------------------------------------------------------------------------------------------------------------


def test_a_view_is_a_function_of_the_seed_and_its_number() -> None:
    first, second = _views(), _views()
    for index in (0, 7, 39):
        one, other = first[index], second[index]
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.targets, other.targets)
        assert first.key(index) == second.key(index)
    assert len({first.key(index) for index in range(len(first))}) == len(first) == 40
    assert first.key(0) != _views(seed=4).key(0)
    assert first.key(0) != _views(proposals={}).key(0)
    assert first.key(0) != _views(size=32).key(0)
    with pytest.raises(IndexError):
        first[40]


def test_targets_are_neither_tiny_nor_everything_and_pseudo_masks_weigh_less() -> None:
    views = [_views()[index] for index in range(40)]
    for view in views:
        assert view.image.shape == (64, 64, 3)
        assert view.image.dtype == np.uint8
        assert 1 <= len(view.targets) == len(view.weights) <= MOST_TARGETS
        shares = view.targets.mean((1, 2))
        assert (shares >= LEAST_SHARE).all()
        assert (shares <= MOST_SHARE).all()
    weights = {float(weight) for view in views for weight in view.weights}
    assert weights == {1.0, PROPOSAL_WEIGHT}


def test_what_a_crop_cuts_off_is_no_target() -> None:
    views = _views()
    whole, cut = (views._cropped(1, slice(None), columns) for columns in (slice(None), slice(36, None)))
    assert len(whole.objects) == 1
    assert not cut.objects  # four of the object's columns are left


def test_without_pseudo_masks_there_are_views_all_the_same() -> None:
    views = _views(proposals={})
    assert {float(weight) for index in range(20) for weight in views[index].weights} == {1.0}


def _nested() -> Proposals:
    """A pseudo-mask, a part of it, a part of the annotated object, and one that is neither."""
    whole, part, own_part, other = (np.zeros((HEIGHT, WIDTH), bool) for _ in range(4))
    whole[5:55, 45:78] = True
    part[10:30, 50:70] = True
    own_part[12:22, 14:30] = True
    other[45:58, 5:40] = True
    return Proposals(np.stack([part, whole, own_part, other]), np.full(4, 0.9, np.float32))


def test_where_a_first_click_means_the_whole_parts_count_little() -> None:
    settings = {"proposals": {0: _nested()}}
    plain, wholes = _views(**settings), _views(**settings, wholes=True)
    assert plain.key(0) != wholes.key(0)
    assert plain._first_weights[0] == [PROPOSAL_WEIGHT] * 4
    assert wholes._first_weights[0] == [PART_WEIGHT, 1.0, PART_WEIGHT, 1.0]
    seen = {float(weight) for index in range(40) for weight in wholes[index].weights}
    assert seen == {float(np.float32(PART_WEIGHT)), 1.0}
    rng = np.random.default_rng(0)
    taken = [wholes._pseudo_mask(rng, 0) for _ in range(20)]  # what is cut out
    assert {int(mask.sum()) for mask in taken} == {int(_nested().masks[index].sum()) for index in (1, 3)}


def test_of_parts_alone_one_is_taken_all_the_same() -> None:
    parts = Proposals(_nested().masks[2:3], np.array([0.9], np.float32))
    views = _views(proposals={0: parts}, wholes=True)
    assert views._first_weights[0] == [PART_WEIGHT]
    assert views._pseudo_mask(np.random.default_rng(0), 0).any()


def test_views_with_heat_are_seen_as_the_small_demos_pictures_are() -> None:
    plain, seen = _views(), _views(thermal=0.5)
    assert plain.key(0) != seen.key(0) != _views(thermal=0.6).key(0)
    views = [seen[index] for index in range(40)]
    heat = [view.modalities["thermal"] for view in views if view.modalities]
    assert 10 <= len(heat) <= 30
    assert all(one.shape == (64, 64, 1) and one.dtype == np.float32 for one in heat)
    assert all(0 <= one.min() < one.max() <= 1 for one in heat)
    hidden = [index for index in range(40) if (sight := seen._sight(index)) and sight.condition in HIDING]
    assert len(hidden) > 5
    assert all((views[index].weights == 1).all() for index in hidden)  # what hides a scene hides pseudo-masks
    assert {float(weight) for view in views for weight in view.weights} == {1.0, PROPOSAL_WEIGHT}
    again = _views(thermal=0.5)[hidden[0]]
    np.testing.assert_array_equal(again.image, views[hidden[0]].image)


def test_heat_lies_on_the_objects_mirrored_or_not() -> None:
    views, inside = _views(thermal=1.0, count=60), []
    for index in range(60):
        view = views[index]
        if len(view.targets) != 1:
            continue
        truth, heat = view.targets[0], view.modalities["thermal"][..., 0]
        inside.append([abs(heat[m].mean() - heat[~m].mean()) for m in (truth, truth[:, ::-1])])
    right, wrong = np.mean(inside, axis=0)
    assert len(inside) > 8
    assert right > 1.2 * wrong


# --- pseudo-masks -----------------------------------------------------------------------------------------------------


def _logits(rows: slice, columns: slice, height: float = 8.0) -> NDArray[np.float32]:
    logits = np.full((LOW, LOW), -height, np.float32)
    logits[rows, columns] = height
    return logits


def test_masks_are_kept_that_are_sure_and_different() -> None:
    frame = Frame("cows", "00000", np.zeros((LOW, LOW, 3), np.uint8), np.zeros((LOW, LOW), np.uint8))
    good = _logits(slice(20, 90), slice(20, 90))
    logits = np.stack(
        [
            good,
            _logits(slice(22, 90), slice(20, 90)),  # the same once more, with a lower score
            _logits(slice(120, 200), slice(120, 200)),
            _logits(slice(20, 90), slice(120, 200)),  # the decoder is unsure of it
            _logits(slice(150, 240), slice(20, 90), height=0.5),  # its edge depends on the threshold
            _logits(slice(0, 5), slice(0, 5)),
            _logits(slice(0, 256), slice(0, 256)),
        ]
    )
    scores = np.array([0.95, 0.9, 0.85, 0.5, 0.9, 0.9, 0.9], np.float32)
    found = proposals._chosen(logits, scores, frame)
    assert found.scores.tolist() == pytest.approx([0.95, 0.85])
    np.testing.assert_array_equal(found.masks[0], good > 0)


def test_masks_that_cut_the_annotated_object_in_two_are_left_out() -> None:
    own = np.zeros((LOW, LOW), np.uint8)
    own[20:120, 20:120] = 1
    frame = Frame("cows", "00000", np.zeros((LOW, LOW, 3), np.uint8), own)
    logits = np.stack(
        [
            _logits(slice(70, 200), slice(20, 120)),  # half of it, and more beside
            _logits(slice(20, 60), slice(20, 60)),  # a part of it
            _logits(slice(20, 120), slice(20, 118)),  # the object itself
            _logits(slice(150, 220), slice(150, 220)),
        ]
    )
    found = proposals._chosen(logits, np.array([0.95, 0.94, 0.93, 0.92], np.float32), frame)
    assert found.scores.tolist() == pytest.approx([0.94, 0.92])


def _counted(calls: list[str]) -> Callable[[], Callable[[Frame], Proposals]]:
    def propose(frame: Frame) -> Proposals:
        calls.append(frame.name)
        return Proposals(_proposal()[None], np.array([0.9], np.float32))

    return lambda: propose


def test_pseudo_masks_are_computed_once(tmp_path: Path) -> None:
    frames, calls, seen = [_frame(index) for index in range(11)], [], []
    first = with_proposals(frames, tmp_path, _counted(calls), lambda done, total: seen.append((done, total)), every=5)
    assert sorted(first) == [0, 5, 10]
    assert calls == ["00000", "00005", "00010"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    again = with_proposals(frames, tmp_path, _counted(calls), every=5)
    assert len(calls) == 3
    np.testing.assert_array_equal(again[5].masks, first[5].masks)
    np.testing.assert_array_equal(again[5].scores, first[5].scores)
    frames[5] = _frame(6)  # another picture
    with_proposals(frames, tmp_path, _counted(calls), every=5)
    assert len(calls) == 4


def test_views_are_what_the_training_takes() -> None:
    view = _views()[0]
    assert isinstance(view, View)
    assert view.targets.dtype == bool
    assert view.weights.dtype == np.float32

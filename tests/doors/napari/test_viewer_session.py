"""Points and labels of a viewer's model against a session: napari's own layers and events, without a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.annotations import read_labels
from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import ClickError, DoorError, ImageError, ModalityError, SurfaceError
from tests.support.toy import write_toy

pytestmark = pytest.mark.napari


@pytest.fixture
def reference(paint: Bundle, picture: Any) -> Any:
    with Session(paint) as session:
        session.set_image(picture)
        yield session


def test_clicks_on_points_give_the_labels_of_a_session(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    for row, column, positive in [(45, 60, True), (40.25, 80.75, True), (50, 62, False)]:
        one.click(row, column, positive=positive)
        reference.click(column, row, positive)
        np.testing.assert_array_equal(one.labels, reference.labels)
    assert one.labels.any()
    assert one.labels.dtype == np.int32
    assert one.session.standing.clicks == {"1": reference.clicks}
    assert not one.errors


def test_a_click_counts_once(clicking, paint, picture) -> None:
    """napari says ADDING, ADDED and that features changed; only one click runs."""
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    assert one.session._opened._session.runs["click"] == 1


def test_a_removed_point_is_a_removed_click(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    for point in [(45, 60), (20, 100), (60, 30)]:
        one.click(*point)
    one.session.points.selected_data = {1}
    one.session.points.remove_selected()
    one.wait()
    reference.set_clicks([[60, 45, 1], [30, 60, 1]])
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert len(one.session.points.data) == 2


def test_a_moved_point_is_a_moved_click(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.click(20, 100)
    one.session.points.data = np.array([[45.0, 60.0], [22.0, 90.0]])
    one.wait()
    reference.set_clicks([[60, 45, 1], [90, 22, 1]])
    np.testing.assert_array_equal(one.labels, reference.labels)


def test_a_point_that_changes_its_sign_is_another_click(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.click(45, 66)
    table = one.session.points.features
    table.loc[1, "click"] = "negative"
    one.session.points.features = table
    one.wait()
    reference.set_clicks([[60, 45, 1], [66, 45, 0]])
    np.testing.assert_array_equal(one.labels, reference.labels)


def test_the_sign_is_the_widgets_and_not_that_of_a_selected_point(clicking, paint, picture) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.click(20, 100, positive=False)
    one.session.positive = True
    one.session.points.selected_data = {1}  # napari makes its features those of the next point
    one.session.points.add((60, 30))
    one.wait()
    assert [click.positive for click in one.session.standing.clicks["1"]] == [True, False, True]
    colours = one.session.points.face_color
    np.testing.assert_array_equal(colours[0], colours[2])
    assert not np.array_equal(colours[0], colours[1])


def test_objects_have_their_own_clicks_and_labels(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.session.new_object()
    one.wait()
    one.click(20, 120)
    reference.click(60, 45)
    reference.select("2")
    reference.click(120, 20)
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert set(np.unique(one.labels)) == {0, 1, 2}
    assert one.session.labels.selected_label == 2
    assert one.session.points.size[0] < one.session.points.size[1]
    one.session.select("1")
    one.wait()
    assert one.session.points.size[0] > one.session.points.size[1]
    one.session.remove("2")
    one.wait()
    reference.remove("2")
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert len(one.session.points.data) == 1


def test_undo_and_redo_move_the_points_too(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.session.undo()  # nothing to undo is no error
    one.click(45, 60)
    one.click(20, 100, positive=False)
    one.session.undo()
    one.wait()
    reference.click(60, 45)
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert one.session.points.data.tolist() == [[45, 60]]
    one.session.redo()
    one.wait()
    reference.click(100, 20, False)
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert one.session.points.data.tolist() == [[45, 60], [20, 100]]
    assert not one.errors


def test_a_click_after_an_undo_that_waits_follows_it(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.click(20, 100)
    one.session.undo()
    one.session.points.add((60, 30))  # the answer to undo is not there yet
    one.wait()
    reference.set_clicks([[60, 45, 1], [30, 60, 1]])
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert one.session.points.data.tolist() == [[45, 60], [60, 30]]


def test_many_clicks_at_once_are_taken_in_their_order(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    places = [(45, 60), (20, 100), (60, 30), (70, 90)]
    for number, place in enumerate(places):
        one.session.positive = number % 2 == 0
        one.session.points.add(place)
    one.wait()
    reference.set_clicks([[x, y, 1 - number % 2] for number, (y, x) in enumerate(places)])
    np.testing.assert_array_equal(one.labels, reference.labels)
    assert one.session.points.data.tolist() == [list(place) for place in places]


def test_a_click_outside_of_the_image_leaves_no_point(clicking, paint, picture) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    before = one.labels.copy()
    one.click(500, 60)
    (error,) = one.errors
    assert isinstance(error, ClickError)
    assert one.session.points.data.tolist() == [[45, 60]]
    np.testing.assert_array_equal(one.labels, before)


def test_a_click_that_the_session_refuses_leaves_no_point(clicking, proposing, picture) -> None:
    """The first click of such a network must be positive; only the session knows it."""
    one = clicking(proposing)
    one.start(picture, rgb=True)
    one.click(45, 60, positive=False)
    (error,) = one.errors
    assert isinstance(error, ClickError)
    assert len(one.session.points.data) == 0
    one.click(45, 60)
    assert len(one.errors) == 1
    assert one.labels.any()


def test_an_image_that_a_session_refuses_is_told_and_the_one_before_stays(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.start(picture[:, :, 0].astype(np.float32))
    (error,) = one.errors
    assert isinstance(error, ImageError)
    one.click(20, 100)
    reference.set_clicks([[60, 45, 1], [100, 20, 1]])
    np.testing.assert_array_equal(one.labels, reference.labels)


def test_another_image_begins_anew_and_the_layers_before_stay(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    old_points, old_labels = one.session.points, one.session.labels
    before = old_labels.data.copy()
    one.start(np.ascontiguousarray(picture[::-1]), rgb=True)
    one.click(20, 100)
    reference.set_image(np.ascontiguousarray(picture[::-1]))
    reference.click(100, 20)
    np.testing.assert_array_equal(one.labels, reference.labels)
    np.testing.assert_array_equal(old_labels.data, before)
    assert old_points in one.viewer.layers
    old_points.add((1, 1))
    one.wait()
    assert one.session.standing.clicks == {"1": reference.clicks}


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint8, 1), (np.uint16, 257)])
def test_grey_images_count_by_their_pixels_and_not_by_their_contrast(clicking, paint, picture, dtype, factor) -> None:
    grey = picture[:, :, 0].astype(dtype) * dtype(factor)
    one = clicking(paint)
    one.start(grey, contrast_limits=(0, 10), gamma=0.3)
    one.click(45, 60)
    with Session(paint) as session:
        session.set_image(grey)
        session.click(60, 45)
        np.testing.assert_array_equal(one.labels, session.labels)


def test_a_scaled_and_moved_image_is_clicked_where_it_is_seen(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    image = one.start(picture, rgb=True, scale=(0.5, 0.25), translate=(100, -7), rotate=10)
    points, labels = one.session.points, one.session.labels
    point = points.world_to_data(image.data_to_world((45.0, 60.0)))
    np.testing.assert_allclose(point, (45, 60))
    np.testing.assert_allclose(labels.data_to_world((3, 4)), image.data_to_world((3, 4)))
    one.click(*np.round(point, 6))
    reference.click(60, 45)
    np.testing.assert_array_equal(one.labels, reference.labels)
    image.scale = (2, 2)
    np.testing.assert_allclose(labels.data_to_world((3, 4)), image.data_to_world((3, 4)))
    np.testing.assert_allclose(points.data_to_world((3, 4)), image.data_to_world((3, 4)))
    one.click(20, 100)
    reference.click(100, 20)
    np.testing.assert_array_equal(one.labels, reference.labels)


def test_points_that_the_user_moved_count_where_they_are_seen(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.session.points.translate = (10, 20)
    one.click(35, 40)
    reference.click(60, 45)
    np.testing.assert_array_equal(one.labels, reference.labels)


def test_a_slice_of_a_stack(clicking, paint, picture, reference) -> None:
    stack = np.stack([picture * 0, picture, picture[::-1]])
    one = clicking(paint)
    image = one.viewer.add_image(stack, rgb=True, scale=(5, 1, 1), name="stack")
    one.viewer.dims.set_point(0, 5)
    one.start(image)
    one.click(1, 45, 60)
    reference.click(60, 45)
    labels = one.session.labels
    assert labels.data.shape == (1, 90, 160)
    np.testing.assert_array_equal(labels.data[0], reference.labels)
    np.testing.assert_allclose(labels.data_to_world((0, 3, 4)), image.data_to_world((1, 3, 4)))
    one.viewer.dims.set_point(0, 10)
    one.click(2, 20, 100)
    (error,) = one.errors
    assert isinstance(error, DoorError)
    assert "another slice" in str(error)
    assert one.session.points.data.tolist() == [[1, 45, 60]]


def test_axes_that_were_swapped_on_display(clicking, paint, picture) -> None:
    grey = np.ascontiguousarray(picture[:, :, 0])
    one = clicking(paint)
    image = one.viewer.add_image(grey, name="grey")
    one.viewer.dims.order = (1, 0)
    one.start(image)
    one.click(45, 60)
    with Session(paint) as session:
        session.set_image(np.ascontiguousarray(grey.T))
        session.click(45, 60)
        np.testing.assert_array_equal(one.session.labels.data, session.labels.T)


def test_the_finest_level_of_an_image_of_several(clicking, paint, picture, reference) -> None:
    one = clicking(paint)
    one.start([picture, picture[::2, ::2]], rgb=True, multiscale=True)
    one.click(45, 60)
    reference.click(60, 45)
    np.testing.assert_array_equal(one.labels, reference.labels)


def test_three_dimensions_are_refused_by_name(clicking, paint, picture) -> None:
    one = clicking(paint)
    image = one.viewer.add_image(picture[:, :, 0], name="grey")
    one.viewer.dims.ndisplay = 3
    one.start(image)
    (error,) = one.errors
    assert isinstance(error, DoorError)
    assert not one.session.busy
    assert one.session.points is None


def test_modalities_come_from_layers(clicking, modal, picture) -> None:
    depth = np.linspace(0, 100, 90 * 160, dtype=np.float32).reshape(90, 160)
    event = np.ascontiguousarray(picture[:, ::-1])
    one = clicking(modal)
    layers = {
        "depth": one.viewer.add_image(depth, name="depth"),
        "event": one.viewer.add_image(event, rgb=True, name="event"),
    }
    one.start(picture, rgb=True)
    (error,) = one.errors
    assert isinstance(error, ModalityError)
    assert [spec.name for spec in one.session.model.bundle.manifest.modalities] == ["depth", "event"]
    one.start(one.viewer.layers["photo"], layers)
    one.click(45, 60)
    with Session(modal) as session:
        session.set_image(picture, depth=depth, event=event)
        session.click(60, 45)
        np.testing.assert_array_equal(one.labels, session.labels)
        other = one.viewer.add_image(depth[::-1] * 50, name="other")
        one.session.set_modalities({"depth": other})
        one.wait()
        session.set_modalities(depth=depth[::-1] * 50)
        np.testing.assert_array_equal(one.labels, session.labels)
    assert one.session.modalities == {**layers, "depth": other}
    one.session.set_modalities({"event": None})
    one.wait()
    assert isinstance(one.errors[-1], ModalityError)
    assert one.session.modalities == {**layers, "depth": other}


def test_a_modality_that_is_optional_may_be_taken_away(clicking, tmp_path, picture) -> None:
    bundle = write_toy(tmp_path / "optional", modalities=(ModalitySpec(name="depth", optional=True),))
    one = clicking(bundle)
    depth = one.viewer.add_image(np.full((90, 160), 0.4, dtype=np.float32), name="depth")
    one.start(picture, {"depth": depth}, rgb=True)
    one.click(45, 60)
    one.session.set_modalities({"depth": None})
    one.wait()
    with Session(bundle) as session:
        session.set_image(picture)
        session.click(60, 45)
        np.testing.assert_array_equal(one.labels, session.labels)
    assert one.session.modalities == {}
    assert not one.errors


def test_labels_are_written_with_their_names(clicking, paint, picture, tmp_path) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    one.session.save_labels(tmp_path / "labels.png")
    one.wait()
    labels, names = read_labels(tmp_path / "labels.png")
    np.testing.assert_array_equal(labels, one.labels)
    assert names == {"1": 1}
    one.session.save_labels(tmp_path / "labels.tif")
    one.wait()
    assert len(one.errors) == 1
    assert not Path(tmp_path / "labels.tif").exists()


@pytest.mark.parametrize("which", ["points", "labels"])
def test_a_layer_that_is_deleted_ends_the_work_on_its_image(clicking, paint, picture, which: str) -> None:
    one = clicking(paint)
    image = one.start(picture, rgb=True)
    one.click(45, 60)
    one.viewer.layers.remove(getattr(one.session, which))
    assert one.session.standing is None
    one.session.undo()
    one.session.new_object()
    assert [type(error) for error in one.errors] == [DoorError]
    one.start(image)
    one.click(45, 60)
    assert one.labels.any()


def test_an_object_of_no_name_is_told(clicking, paint, picture) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.session.remove("cat")
    one.wait()
    assert [type(error) for error in one.errors] == [SurfaceError]


def test_another_bundle_ends_the_work_on_the_image(clicking, paint, echo, picture) -> None:
    from mmms_deploy.doors.opening import Opening

    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    old = one.session._opened._session
    one.session.open(echo, Opening())
    one.session.points.add((20, 100))  # the bundle is on its way
    one.wait()
    assert one.session.model.bundle is echo
    assert one.session.standing is None
    assert old._closed
    assert not one.errors


def test_a_bundle_that_is_not_there_leaves_the_one_before(clicking, paint, picture, tmp_path) -> None:
    from mmms_deploy.doors.opening import Opening

    one = clicking(paint)
    image = one.start(picture, rgb=True)
    one.session.start(str(tmp_path / "none"), Opening(), image)
    one.wait()
    assert len(one.errors) == 1
    one.click(45, 60)
    assert one.labels.any()


def test_an_error_that_is_not_ours_is_raised_and_the_points_are_right(clicking, paint, picture, monkeypatch) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)

    def fails(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(one.session._opened._session, "add_clicks", fails)
    with pytest.raises(ZeroDivisionError):
        one.click(20, 100)
    assert one.session.points.data.tolist() == [[45, 60]]
    assert one.session.doing == ""


def test_closing_frees_the_session_and_the_thread(clicking, paint, picture) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    session = one.session._opened._session
    one.session.points.add((45, 60))
    one.session.close()
    one.session.close()
    (thread,) = one.session._worker._threads._threads._threads
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert session._closed
    one.viewer.layers.clear()


def test_keys_of_the_points_layer(clicking, paint, picture) -> None:
    one = clicking(paint)
    one.start(picture, rgb=True)
    one.click(45, 60)
    keymap = {str(key): function for key, function in one.session.points.keymap.items()}
    assert set(keymap) == {"T", "N", "Ctrl+Z", "Ctrl+Shift+Z"}
    keymap["T"](one.session.points)
    assert not one.session.positive
    keymap["Ctrl+Z"](one.session.points)
    one.wait()
    assert len(one.session.points.data) == 0
    keymap["Ctrl+Shift+Z"](one.session.points)
    keymap["N"](one.session.points)
    one.wait()
    assert one.session.standing.surface == "2"
    assert len(one.session.points.data) == 1

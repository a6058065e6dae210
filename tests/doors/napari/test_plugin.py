"""The plugin in a real napari with its window, on a display without a screen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle

pytestmark = pytest.mark.napari

LIMIT = 60.0


@pytest.fixture
def told(viewer: Any) -> Iterator[list[str]]:
    """What napari shows to its user."""
    from napari.utils.notifications import notification_manager

    said: list[str] = []

    def note(notification: Any) -> None:
        said.append(notification.message)

    notification_manager.notification_ready.connect(note)
    yield said
    notification_manager.notification_ready.disconnect(note)


def wait(widget: Any) -> None:
    """Let Qt work until every answer is there."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + LIMIT
    while widget.session.busy:
        assert time.monotonic() < end, "no answer"
        QApplication.processEvents()
        time.sleep(0.001)


def dock(viewer: Any, manifest: Path) -> Any:
    """Open the widget as napari's menu does."""
    from npe2 import PluginManager, PluginManifest

    manager = PluginManager.instance()
    if "mmms-deploy" not in manager:
        manager.register(PluginManifest.from_file(manifest))
    _, widget = viewer.window.add_plugin_dock_widget("mmms-deploy", "Segment by clicks")
    return widget


def begun(viewer: Any, manifest: Path, bundle: Bundle, picture: Any) -> Any:
    """Add a picture, choose a bundle, and press Start."""
    viewer.add_image(picture, name="photo")
    widget = dock(viewer, manifest)
    widget.bundle.value = str(bundle.path)
    widget.start.native.click()
    wait(widget)
    return widget


def test_npe2_accepts_the_manifest(manifest: Path) -> None:
    pytest.importorskip("npe2", reason="napari is not installed (make test-napari)")
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(manifest)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_entry_point_is_found_where_the_package_is_installed() -> None:
    npe2 = pytest.importorskip("npe2", reason="napari is not installed (make test-napari)")
    from importlib.metadata import PackageNotFoundError, entry_points

    if not [one for one in entry_points(group="napari.manifest") if one.name == "mmms-deploy"]:
        pytest.skip("the package is not installed here")
    try:
        found = npe2.PluginManifest.from_distribution("mmms-deploy")
    except PackageNotFoundError:
        pytest.fail("the entry point leads nowhere")
    assert found.display_name == "mmms-deploy"
    assert len(found.contributions.widgets) == 1


def test_clicks_in_the_window(viewer, told, manifest, paint, picture) -> None:
    widget = begun(viewer, manifest, paint, picture)
    assert widget.image.value == viewer.layers["photo"]
    with Session(paint) as session:
        session.set_image(picture)
        widget.session.points.add((45, 60))
        wait(widget)
        session.click(60, 45)
        np.testing.assert_array_equal(widget.session.labels.data, session.labels)
        widget.sign.value = "negative"
        widget.session.points.add((50, 62))
        wait(widget)
        session.click(62, 50, False)
        np.testing.assert_array_equal(widget.session.labels.data, session.labels)
        widget.new.native.click()
        wait(widget)
        assert widget.object.value == "2"
        widget.sign.value = "positive"
        widget.session.points.add((20, 120))
        wait(widget)
        session.select("2")
        session.click(120, 20)
        np.testing.assert_array_equal(widget.session.labels.data, session.labels)
        widget.object.value = "1"
        wait(widget)
        session.select("1")
        assert widget.session.standing.surface == "1"
        widget.undo.native.click()
        wait(widget)
        session.undo()
        np.testing.assert_array_equal(widget.session.labels.data, session.labels)
        assert widget.redo.enabled
    assert not told


def test_a_click_of_the_mouse(viewer, told, manifest, paint, picture) -> None:
    """On the canvas, through napari's own mode for adding points."""
    from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks

    widget = begun(viewer, manifest, paint, picture)
    points = widget.session.points
    assert viewer.layers.selection.active == points
    assert points.mode == "add"

    class Event:
        type, button, modifiers, handled, inverted = "mouse_press", 1, (), False, False
        pos = np.array([10, 10])
        position = tuple(points.data_to_world((45.0, 60.0)))
        dims_displayed, dims_point, view_direction = [0, 1], [0, 0], None

    mouse_press_callbacks(points, Event())
    release = Event()
    release.type = "mouse_release"
    mouse_release_callbacks(points, release)
    wait(widget)
    assert widget.session.standing.clicks["1"][0].to_list() == [60.0, 45.0, 1]
    assert not told


def test_keys_moves_and_deleted_layers_reach_the_plugin(viewer, told, manifest, paint, picture) -> None:
    """It has its layers behind proxies, and events bring the layers themselves."""
    widget = begun(viewer, manifest, paint, picture)
    points, image = viewer.layers["photo clicks"], viewer.layers["photo"]
    keymap = {str(key): function for key, function in points.keymap.items()}
    keymap["T"](points)
    assert widget.sign.value == "negative"
    image.scale = (2, 3)
    np.testing.assert_allclose(points.data_to_world((3, 4)), (6, 12))
    viewer.layers.remove(points)
    assert widget.session.standing is None
    assert not widget.undo.enabled
    assert not told


def test_an_error_is_shown_with_its_whole_text(viewer, told, manifest, paint, picture) -> None:
    widget = begun(viewer, manifest, paint, picture)
    widget.session.points.add((500, 60))
    wait(widget)
    (message,) = told
    assert "outside of the image" in message
    assert "expected: " in message
    assert "to fix: " in message
    assert len(widget.session.points.data) == 0
    told.clear()
    widget.bundle.value = "no such bundle"
    widget.open.native.click()
    wait(widget)
    (message,) = told
    assert "no such bundle" in message
    told.clear()
    widget.settings["threads"].value = "many"
    widget.start.native.click()
    wait(widget)
    (message,) = told
    assert "threads" in message


def test_without_an_image_start_says_what_to_do(viewer, told, manifest) -> None:
    widget = dock(viewer, manifest)
    widget.start.native.click()
    (message,) = told
    assert "there is no image layer" in message
    assert not widget.session.busy


def test_modalities_have_a_choice_of_layers(viewer, told, manifest, modal, picture) -> None:
    depth = np.linspace(0, 100, 90 * 160, dtype=np.float32).reshape(90, 160)
    viewer.add_image(depth, name="depth")
    viewer.add_image(picture[:, ::-1], name="event")
    image = viewer.add_image(picture, name="photo")
    widget = dock(viewer, manifest)
    widget.bundle.value = str(modal.path)
    widget.open.native.click()
    wait(widget)
    assert [choice.name for choice in widget.modalities] == ["depth", "event"]
    widget.image.value = image
    for name in ("depth", "event"):
        widget.modalities[name].value = viewer.layers[name]
    widget.start.native.click()
    wait(widget)
    widget.session.points.add((45, 60))
    wait(widget)
    with Session(modal) as session:
        session.set_image(picture, depth=depth, event=picture[:, ::-1])
        session.click(60, 45)
        np.testing.assert_array_equal(widget.session.labels.data, session.labels)
    assert not told
    widget.modalities["event"].value = None  # this one is not optional
    wait(widget)
    assert len(told) == 1
    assert widget.modalities["event"].value == viewer.layers["event"]
    viewer.layers.remove("depth")
    wait(widget)
    assert len(told) == 1


def test_the_form_has_every_setting(viewer, manifest) -> None:
    from mmms_deploy.doors.opening import Opening

    widget = dock(viewer, manifest)
    assert widget.opening() == Opening()
    widget.device.value = "cpu"
    widget.settings["zoom"].value = True
    assert widget.opening() == Opening(device="cpu", zoom=True)


@pytest.mark.parametrize("how", ["dock", "viewer"])
def test_closing_frees_the_session_and_ends_the_thread(viewer, manifest, paint, picture, how: str) -> None:
    from qtpy.QtWidgets import QApplication

    widget = begun(viewer, manifest, paint, picture)
    session = widget.session._opened._session
    (thread,) = widget.session._worker._threads._threads._threads
    widget.session.points.add((45, 60))  # its answer comes too late
    if how == "dock":
        # Opened again, it is the one that is there, with its dock.
        around, _ = viewer.window.add_plugin_dock_widget("mmms-deploy", "Segment by clicks")
        around.destroyOnClose()
    else:
        viewer.close()
    end = time.monotonic() + LIMIT
    while thread.is_alive():
        assert time.monotonic() < end, "the thread goes on"
        QApplication.processEvents()
        time.sleep(0.001)
    assert session._closed

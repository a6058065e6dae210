"""The dock widget: which bundle and layers, which object and which kind of click, and what is going on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, Label, LineEdit, PushButton
from napari.layers import Image, Labels
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QObject, Signal
from qtpy.QtWidgets import QFileDialog

from mmms_deploy.doors.napari.clicks import Sign
from mmms_deploy.doors.napari.form import Field, fields, opening_of
from mmms_deploy.doors.napari.plane import Layer, Viewer
from mmms_deploy.doors.napari.viewer_session import ViewerSession
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, MMMSDeployError


class _Bridge(QObject):  # type: ignore[misc]  # of Qt, which has no types here
    """Brings calls from any thread into the thread of Qt, in order."""

    posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        # Qt queues what another thread emits, because this object lives in the thread of Qt.
        self.posted.connect(self._call)

    def _call(self, function: Callable[[], None]) -> None:
        function()


class _Leaving(QObject):  # type: ignore[misc]
    """Sees that a widget is taken out of its window: napari does that when its dock is closed."""

    def __init__(self, watched: Any, left: Callable[[], None]) -> None:
        super().__init__()
        self._left = left
        watched.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802  # Qt's name
        """Look at an event, and let it pass."""
        if event.type() == QEvent.Type.ParentChange and watched.parent() is None:
            self._left()
        return False


class ClickWidget(Container):  # type: ignore[misc]
    """Segments the objects of an image layer by clicks on a layer of points.

    Args:
        napari_viewer: The viewer; napari gives it.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        self._viewer = napari_viewer
        self._bridge = _Bridge()
        self.session = ViewerSession(napari_viewer, post=self._bridge.posted.emit, tell=self._tell, changed=self._show)
        self._drawing = False
        self._shown_bundle: object = None
        self.bundle = LineEdit(label="bundle", value="demo", tooltip="demo, demo-small, a folder, or hf:owner/name")
        self.folder = PushButton(text="choose a folder ...")
        every = {one.name: _field(one) for one in fields()}
        self.device = every.pop("device")
        self.settings = Container(labels=True, visible=False, label="", widgets=list(every.values()))
        self.more = CheckBox(text="settings", value=False, label="")
        self.open = PushButton(text="open", tooltip="opens the bundle, and shows which modalities it takes")
        self.image = ComboBox(label="image", choices=self._images, nullable=False)
        self.modalities = Container(labels=True, label="", visible=False)
        self.start = PushButton(text="Start", tooltip="encodes what the image layer shows, and takes clicks")
        self.object = ComboBox(label="object", choices=())
        self.new = PushButton(text="new object (N)")
        self.remove = PushButton(text="remove object")
        self.sign = ComboBox(label="next click (T)", choices=[str(sign) for sign in Sign])
        self.undo = PushButton(text="undo (Ctrl+Z)")
        self.redo = PushButton(text="redo (Ctrl+Shift+Z)")
        self.save = PushButton(text="save labels ...")
        self.status = Label(value="")
        super().__init__(
            widgets=[
                self.bundle,
                _row(self.folder, self.open),
                self.device,
                self.more,
                self.settings,
                self.image,
                self.modalities,
                self.start,
                self.object,
                _row(self.new, self.remove),
                self.sign,
                _row(self.undo, self.redo),
                self.save,
                self.status,
            ],
            labels=True,
        )
        self.status.native.setWordWrap(True)
        self._connect()
        self._leaving = _Leaving(self.native, self.close_session)
        self.native.destroyed.connect(self.session.close)
        self._show()

    def close_session(self) -> None:
        """End the thread and free the engine; the layers stay. Safe to call twice."""
        self.session.close()

    def opening(self) -> Opening:
        """Return the settings of the form.

        Raises:
            DoorError: A text is no such setting.
        """
        return opening_of({widget.name: widget.value for widget in (self.device, *self.settings)})

    def _connect(self) -> None:
        self.folder.changed.connect(self._choose_folder)
        self.more.changed.connect(self._show_settings)
        self.open.changed.connect(self._open)
        self.start.changed.connect(self._start)
        self.object.changed.connect(self._select)
        self.new.changed.connect(self.session.new_object)
        self.remove.changed.connect(self._remove)
        self.sign.changed.connect(self._set_sign)
        self.undo.changed.connect(self.session.undo)
        self.redo.changed.connect(self.session.redo)
        self.save.changed.connect(self._save)

    def _tell(self, error: MMMSDeployError) -> None:
        show_error(str(error))

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self.native, "Folder of a bundle")
        if folder:
            self.bundle.value = folder

    def _show_settings(self, shown: bool) -> None:
        self.settings.visible = shown

    def _open(self) -> None:
        opening = self._checked_opening()
        if opening is not None:
            self.session.open(self.bundle.value.strip(), opening)

    def _checked_opening(self) -> Opening | None:
        try:
            return self.opening()
        except DoorError as error:
            self._tell(error)
            return None

    def _start(self) -> None:
        opening = self._checked_opening()
        if opening is None:
            return
        if self.image.value is None:
            self._tell(DoorError("there is no image layer", fix="open an image, with File > Open or by dropping it"))
            return
        chosen = {name: layer for name, layer in self._chosen().items() if layer is not None}
        self.session.start(self.bundle.value.strip(), opening, self.image.value, chosen)

    def _chosen(self) -> dict[str, Layer | None]:
        return {widget.name: widget.value for widget in self.modalities}

    def _select(self, name: str | None) -> None:
        if not self._drawing and name is not None:
            self.session.select(name)

    def _remove(self) -> None:
        if self.object.value is not None:
            self.session.remove(self.object.value)

    def _set_sign(self, sign: str) -> None:
        if not self._drawing:
            self.session.positive = sign == Sign.POSITIVE

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self.native, "Labels and names of the objects", "labels.png", "PNG (*.png)"
        )
        if path:
            self.session.save_labels(Path(path))

    def _images(self, widget: object = None) -> list[tuple[str, Layer]]:
        return [(layer.name, layer) for layer in self._viewer.layers if isinstance(layer, Image)]

    def _maps(self, widget: object = None) -> list[tuple[str, Layer]]:
        own = (self.session.labels,)
        layers = (one for one in self._viewer.layers if isinstance(one, Image | Labels) and one not in own)
        return [(layer.name, layer) for layer in layers]

    def _show(self) -> None:
        """Show where the session stands."""
        session, standing = self.session, self.session.standing
        if session.model is not None and session.model.bundle is not self._shown_bundle:
            self._shown_bundle = session.model.bundle
            self._show_modalities(session.model.bundle.manifest.modalities)
        self._drawing = True
        try:
            names = list(standing.surfaces) if standing is not None else []
            if list(self.object.choices) != names:
                self.object.choices = names
            if standing is not None:
                self.object.value = standing.surface
            self.sign.value = str(Sign.POSITIVE if session.positive else Sign.NEGATIVE)
            if standing is not None and not session.busy:
                self._show_given()
        finally:
            self._drawing = False
        for button in (self.new, self.remove, self.save):
            button.enabled = standing is not None
        self.undo.enabled = standing is not None and standing.can_undo
        self.redo.enabled = standing is not None and standing.can_redo
        self.status.value = self._words()

    def _words(self) -> str:
        session, standing = self.session, self.session.standing
        if session.busy:
            return f"{session.doing} ..."
        lines = []
        if standing is not None:
            count = len(standing.clicks[standing.surface])
            lines.append(f"object {standing.surface}: {count} clicks, {standing.milliseconds:.0f} ms")
        if session.model is not None:
            lines.append(str(session.model.engine))
        return "\n".join(lines) or "Choose a bundle and an image layer, and press Start."

    def _show_modalities(self, specs: Any) -> None:
        self.modalities.clear()
        for spec in specs:
            widget = ComboBox(
                name=spec.name,
                label=spec.name,
                choices=self._maps,
                nullable=True,
                value=None,
                tooltip=f"{spec.channels} channel(s){', optional' if spec.optional else ''}",
            )
            widget.changed.connect(partial(self._modality_changed, spec.name))
            self.modalities.append(widget)
        self.modalities.visible = bool(specs)

    def _show_given(self) -> None:
        """Show which modalities the session has: one that it refused is not chosen any longer."""
        for widget in self.modalities:
            layer = self.session.modalities.get(widget.name)
            if widget.value != layer and (layer is None or layer in self._viewer.layers):
                widget.value = layer

    def _modality_changed(self, name: str, layer: Layer | None) -> None:
        given = self.session.modalities.get(name)
        # A layer that the user deleted leaves the list of choices; the session keeps its numbers.
        deleted = layer is None and given is not None and given not in self._viewer.layers
        if not self._drawing and self.session.standing is not None and not deleted:
            self.session.set_modalities({name: layer})


def _field(field: Field) -> CheckBox | LineEdit:
    kind = CheckBox if field.switch else LineEdit
    return kind(name=field.name, label=field.name.replace("_", " "), value=field.default, tooltip=field.help)


def _row(*widgets: Any) -> Container:
    return Container(layout="horizontal", labels=False, label="", widgets=widgets)

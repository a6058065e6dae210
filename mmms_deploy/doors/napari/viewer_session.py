"""A session behind the layers of a viewer: points become clicks, and labels show the objects.

It needs napari's layers and no window, so that it works on a viewer's model as well. napari gives a plugin its viewer
and layers behind proxies, and a layer itself in an event: layers are compared with ``==``, which holds for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmms_deploy.doors.napari.clicks import OBJECT, SIGN, Sign, clicks_of, rows_of
from mmms_deploy.doors.napari.opened import BundleLike, Opened, Standing, add_clicks, new_object, set_clicks
from mmms_deploy.doors.napari.plane import Layer, Picture, Plane, Viewer, picture_of, placement
from mmms_deploy.doors.napari.worker import Post, Worker
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, MMMSDeployError
from mmms_deploy.session import Click, Model, Session

COLOURS = {str(Sign.POSITIVE): "#2ecc40", str(Sign.NEGATIVE): "#ff4136"}
"""Of clicks."""
ADDING = "adding"
"""What a Points layer says before a point is there."""
DONE = frozenset({"added", "removed", "changed"})
"""What a Points layer says after a change; each has another word before it."""
_POSE = ("scale", "translate", "rotate", "shear", "affine")
_POINT = 0.02
"""Diameter of a click on the current object, of the image's longer side."""
_OTHERS = 0.4
"""Diameter of a click on another object, of one on the current object."""


class ViewerSession:
    """A session whose clicks are a Points layer and whose objects are a Labels layer of a viewer.

    Every call comes from the interface's thread and returns at once; what takes time runs in the worker's thread, and
    :attr:`busy` says so. What is refused goes to ``tell``.

    Args:
        viewer: The viewer, or its model.
        post: As for :class:`~mmms_deploy.doors.napari.worker.Worker`.
        tell: Shows an error of ours to the user.
        changed: Called whenever an attribute has another value.

    Attributes:
        model: The open model, for its bundle and its engine; None before.
        standing: How the session stands after the newest answer; None before an image.
        doing: What the worker does, in words; empty for nothing.
        points: The layer of clicks; None before an image.
        labels: The layer of objects; None before an image.
        modalities: The layers of the modalities that the session has, by the modality's name.
    """

    def __init__(
        self,
        viewer: Viewer,
        *,
        post: Post,
        tell: Callable[[MMMSDeployError], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._viewer, self._tell, self._changed = viewer, tell, changed
        self._opened, self._worker = Opened(), Worker(post)
        self.model: Model | None = None
        self.standing: Standing | None = None
        self.doing = ""
        self.points: Layer | None = None
        self.labels: Layer | None = None
        self.modalities: dict[str, Layer] = {}
        self._image: Layer | None = None
        self._plane = Plane((0, 1), (0, 0))
        self._pose: tuple[Any, ...] = ()
        self._size = 0.0
        self._positive = True
        # The clicks that were requested of the worker: ahead of what stands while it is busy.
        self._asked: dict[str, tuple[Click, ...]] = {}
        self._drawing = self._closed = False
        viewer.layers.events.removed.connect(self._layer_removed)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._worker.waiting > 0

    @property
    def positive(self) -> bool:
        """Whether the next click is on the object."""
        return self._positive

    @positive.setter
    def positive(self, positive: bool) -> None:
        self._positive = positive
        self._set_next()
        self._changed()

    def open(self, bundle: BundleLike, opening: Opening) -> None:
        """Open a bundle, so that :attr:`model` says which modalities it takes.

        Args:
            bundle: The bundle.
            opening: How it is opened.
        """
        self._submit(f"opening {bundle}", lambda: self._opened.open(bundle, opening), self._have_model)

    def start(
        self, bundle: BundleLike, opening: Opening, image: Layer, modalities: Mapping[str, Layer] | None = None
    ) -> None:
        """Encode what an image layer shows, and begin with its objects; the layers of the image before stay.

        Args:
            bundle: As for :meth:`open`, which comes first where it has to.
            opening: As for :meth:`open`.
            image: An image layer: grey or RGB, uint8, uint16 or bool.
            modalities: The layers of extra modalities by name, registered to the image pixel by pixel.
        """
        with self._told():
            picture = picture_of(image, self._viewer)
            others = {name: picture_of(layer, self._viewer) for name, layer in (modalities or {}).items()}
            self.open(bundle, opening)
            self._submit(
                f"encoding {picture.name}",
                lambda: self._opened.set_image(bundle, opening, picture, others),
                partial(self._begun, image, picture, dict(modalities or {})),
            )

    def new_object(self) -> None:
        """Begin another object."""
        self._call("new object", new_object)

    def select(self, name: str) -> None:
        """Go on with an object.

        Args:
            name: Its name.
        """
        self._call(f"object {name}", lambda session: session.select(name))

    def remove(self, name: str) -> None:
        """Forget an object and its clicks.

        Args:
            name: Its name.
        """
        self._call(f"removing object {name}", lambda session: session.remove(name))

    def undo(self) -> None:
        """Take back the newest click on the current object."""
        if self.busy or (self.standing is not None and self.standing.can_undo):
            self._call("undo", lambda session: session.undo())

    def redo(self) -> None:
        """Bring back what was undone last."""
        if self.busy or (self.standing is not None and self.standing.can_redo):
            self._call("redo", lambda session: session.redo())

    def toggle(self) -> None:
        """Make the next click negative, or positive again."""
        self.positive = not self.positive

    def set_modalities(self, modalities: Mapping[str, Layer | None]) -> None:
        """Give modalities that come later, others in their place, or take them away.

        Args:
            modalities: The layers by the modality's name; None takes it away.
        """
        with self._told():
            pictures = {
                name: None if layer is None else picture_of(layer, self._viewer) for name, layer in modalities.items()
            }

            def give(session: Session) -> None:
                arrays: dict[str, Any] = {
                    name: None if picture is None else picture.read() for name, picture in pictures.items()
                }
                session.set_modalities(**arrays)

            def given() -> None:
                there = {**self.modalities, **modalities}
                self.modalities = {name: layer for name, layer in there.items() if layer is not None}

            self._call(f"encoding {', '.join(pictures)}", give, given)

    def save_labels(self, path: str | Path) -> None:
        """Write the label map and the names of the objects as a PNG file, in the place of an old one.

        Args:
            path: The file.
        """
        self._call(f"writing {path}", lambda session: session.save_labels(path, overwrite=True))

    def stop(self) -> None:
        """Leave the layers as they are, and work on them no longer; the bundle stays open."""
        points = self.points
        self._image = self.points = self.labels = self.standing = None
        self._asked = {}
        if points is not None and points in self._viewer.layers:
            points.editable = False
        self._changed()

    def close(self) -> None:
        """End the thread, and free the session and the engine; nothing is waited for. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        self._image = self.points = self.labels = self.standing = self.model = None
        self._worker.close(self._opened.close)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except MMMSDeployError as error:
            self._tell(error)

    def _submit(self, doing: str, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        def run() -> Any:
            try:
                return call()
            except Exception as error:
                return error

        def answered(answer: Any) -> None:
            if not self.busy:
                self.doing = ""
            if not isinstance(answer, Exception):
                then(answer)
            elif self.standing is not None and not self.busy:
                self._draw(self.standing)
            self._changed()
            if isinstance(answer, MMMSDeployError):
                self._tell(answer)
            elif isinstance(answer, Exception):
                raise answer  # napari shows it with its trace

        self.doing = doing
        self._worker.submit(run, answered)
        self._changed()

    def _call(self, doing: str, call: Callable[[Session], object], happened: Callable[[], None] = lambda: None) -> None:
        if self.standing is None:
            self._tell(
                DoorError(
                    f"{doing}, and no image is worked on",
                    expected="an image layer whose objects are clicked",
                    fix="choose an image layer and press Start",
                )
            )
            return
        image = self.standing.image
        self._submit(doing, lambda: self._opened.call(image, call), partial(self._answered, happened))

    def _have_model(self, model: Model) -> None:
        if model is not self.model:
            self.stop()
            self.model = model

    def _begun(self, image: Layer, picture: Picture, modalities: dict[str, Layer], standing: Standing | None) -> None:
        if standing is None:
            return
        self.stop()
        self.standing = standing
        self.modalities = modalities
        self._image, self._plane = image, picture.plane
        self._asked = dict(self.standing.clicks)
        size = (self.standing.labels.shape[0], self.standing.labels.shape[1])
        self._size = max(2.0, _POINT * max(size))
        self.labels = self._viewer.add_labels(
            picture.plane.blank(size), name=f"{picture.name} objects", affine=placement(image, picture.plane.at)
        )
        self.labels.editable = False
        self.points = self._viewer.add_points(
            np.empty((0, image.ndim)),
            ndim=image.ndim,
            name=f"{picture.name} clicks",
            affine=placement(image, (0,) * image.ndim),
            size=self._size,
            features={SIGN: np.empty(0, dtype=object), OBJECT: np.empty(0, dtype=object)},
            feature_defaults={SIGN: str(Sign.POSITIVE), OBJECT: self.standing.surface},
            face_color=SIGN,
            face_color_cycle=COLOURS,
            border_color="white",
            border_width=0.15,
        )
        self._pose = _pose(self.points)
        self._set_next()
        self.points.mode = "add"
        self.points.events.data.connect(self._points_changed)
        self.points.events.features.connect(self._features_changed)
        for name in _POSE:
            getattr(image.events, name).connect(self._image_moved)
        for key, action in _KEYS.items():
            self.points.bind_key(key, partial(_pressed, action, self))
        self._viewer.layers.selection.active = self.points

    def _answered(self, happened: Callable[[], None], standing: Standing | None) -> None:
        if standing is None or self.standing is None or standing.image != self.standing.image:
            return
        self.standing = standing
        self._draw(standing)
        if standing.error is None:
            happened()
        else:
            self._tell(standing.error)

    def _draw(self, standing: Standing) -> None:
        """Show how the session stands; the points only when it has answered all of them."""
        assert self.labels is not None
        np.copyto(self._plane.thin().of(self.labels.data), standing.labels)
        self.labels.refresh(extent=False)
        label = standing.surfaces[standing.surface]
        if self.labels.selected_label != label:
            self.labels.selected_label = label
        if not self.busy:
            self._asked = dict(standing.clicks)
            self._draw_points()

    def _draw_points(self) -> None:
        """Make the points those that were requested; those of other objects are smaller."""
        points, standing = self.points, self.standing
        assert points is not None
        assert standing is not None
        self._drawing = True
        try:
            if self._clicks_there() != self._asked:
                rows, signs, names = rows_of(self._asked, self._plane)
                points.selected_data = set()
                points.data = np.array(rows, dtype=np.float64).reshape(-1, len(self._plane.at))
                points.features = {SIGN: np.array(signs, dtype=object), OBJECT: np.array(names, dtype=object)}
                self._pose = _pose(points)
            # Not hidden by ``shown``, which napari 0.9 ignores in a layer of two dimensions.
            mine = np.array([name == standing.surface for name in points.features[OBJECT]], dtype=bool)
            sizes = np.where(mine, self._size, _OTHERS * self._size)
            if not np.array_equal(points.size, sizes):
                points.size = sizes
        finally:
            self._drawing = False

    def _clicks_there(self) -> dict[str, tuple[Click, ...]] | None:
        """Return the clicks that the points say; None where they say none."""
        try:
            return self._clicks_of_points()
        except MMMSDeployError:
            return None

    def _clicks_of_points(self) -> dict[str, tuple[Click, ...]]:
        points, standing = self.points, self.standing
        assert points is not None
        assert standing is not None
        rows = points.data
        if _pose(points) != self._pose and self._image is not None:
            # The user moved the layer of points: they count where they are seen.
            rows = [self._image.world_to_data(points.data_to_world(row)) for row in rows]
        size = (standing.labels.shape[0], standing.labels.shape[1])
        table = points.features
        return clicks_of(rows, table[SIGN], table[OBJECT], self._plane, size, standing.surfaces)

    def _points_changed(self, event: Any) -> None:
        action = str(getattr(event.action, "value", event.action))
        if action == ADDING:
            self._set_next()
        elif action in DONE:
            self._features_changed()

    def _features_changed(self, event: Any = None) -> None:
        """Request what the points say, where it differs from what was requested."""
        if self._drawing or self.standing is None or self.points is None:
            return
        try:
            wanted = self._clicks_of_points()
        except MMMSDeployError as error:
            self._draw_points()
            self._tell(error)
            return
        for name, clicks in wanted.items():
            asked = self._asked.get(name, ())
            if clicks == asked:
                continue
            self._asked[name] = clicks
            begun = len(asked) < len(clicks) and clicks[: len(asked)] == asked
            call = partial(add_clicks, clicks=clicks[len(asked) :]) if begun else partial(set_clicks, clicks=clicks)
            self._call(f"object {name}", partial(call, name=name))

    def _set_next(self) -> None:
        """Say what the next point is about; napari takes that over from a point that is selected, too."""
        if self.points is not None and self.standing is not None:
            sign = Sign.POSITIVE if self._positive else Sign.NEGATIVE
            wanted = {SIGN: str(sign), OBJECT: self.standing.surface}
            if self.points.feature_defaults.to_dict("records") != [wanted]:
                self.points.feature_defaults = wanted

    def _image_moved(self, event: Any = None) -> None:
        """Put the layers where the image is."""
        if self._image is None or self.points is None or self.labels is None or event.source != self._image:
            return
        self.labels.affine = placement(self._image, self._plane.at)
        self.points.affine = placement(self._image, (0,) * self._image.ndim)
        self._pose = _pose(self.points)

    def _layer_removed(self, event: Any) -> None:
        if event.value in (self.points, self.labels):
            self.stop()


_KEYS: dict[str, Callable[[ViewerSession], None]] = {
    "T": ViewerSession.toggle,
    "N": ViewerSession.new_object,
    "Control-Z": ViewerSession.undo,
    "Control-Shift-Z": ViewerSession.redo,
}
"""Keys while the layer of clicks is the active one."""


def _pressed(action: Callable[[ViewerSession], None], session: ViewerSession, layer: Layer) -> None:
    if layer == session.points:
        action(session)


def _pose(layer: Layer) -> tuple[tuple[float, ...], ...]:
    """Return where a layer is."""
    arrays = (np.asarray(getattr(getattr(layer, name), "affine_matrix", getattr(layer, name))) for name in _POSE)
    return tuple(tuple(array.ravel().tolist()) for array in arrays)

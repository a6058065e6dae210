"""The calls of a session that take all its objects out, and put them in again: plain data, COCO, arrays, label maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy.typing as npt

from mmms_deploy.annotations.detections import Detections
from mmms_deploy.annotations.labels import write_labels
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.picture import PictureLike
from mmms_deploy.session.core import SessionCore
from mmms_deploy.session.mask_sources import labels_of
from mmms_deploy.session.outputs import arrays_of, coco_of
from mmms_deploy.session.recorder import recorded
from mmms_deploy.session.result import ClickResult


class AnnotationCalls(SessionCore):
    """What a session does with the annotation as a whole."""

    def to_dict(self) -> dict[str, Any]:
        """Return the annotation as plain data, JSON-able: all surfaces with their interactions, also the undone ones.

        Neither the image nor any answer is in it. :meth:`restore` takes it, in this session or another one with the
        same image, today or later.

        Returns:
            Dicts, lists, numbers and texts alone; docs/session.md lists the fields. Clicks are ``[x, y, 1 or 0]``.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            return self._steps.save(self)

    @recorded
    def restore(self, annotation: Mapping[str, Any]) -> ClickResult:
        """Put back an annotation that :meth:`to_dict` returned, in place of all surfaces; the image stays.

        The network answers all clicks again. On any error nothing changes.

        Args:
            annotation: What :meth:`to_dict` returned, also as JSON reads it back.

        Returns:
            The answer to the clicks on the current surface.

        Raises:
            NoImageError: No image was set.
            SessionError: It is something else, or belongs to an image of another size; or the network takes no previous
                mask, and there is one.
            ChoiceError: An answer was chosen that this network does not give.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            self._size()
            step = self._restored(annotation, perf_counter())
            self._state = replace(self._state, surfaces=step.surfaces)
            return step.result

    def to_coco(
        self,
        file_name: PathLike | None = None,
        *,
        polygons: bool = False,
        tolerance: float = 0.0,
        categories: Mapping[str, str] | None = None,
        empty: bool = False,
    ) -> dict[str, Any]:
        """Return all objects of the image as a COCO data set, JSON-able.

        Every surface is an annotation with its own whole mask, also where it overlaps others; its name is its category.
        ``mmms_deploy.annotations.CocoWriter`` joins several images into one data set, and writes it.

        Args:
            file_name: Name or path of the image; None takes the name of the file that was set, and is empty where
                it was none.
            polygons: Whether masks are polygons. COCO's polygons know no holes, so an object that has one is written
                as run lengths all the same. False takes run lengths for all.
            tolerance: How far outlines may move, in image pixels, to have fewer corners; at 0 polygons are exact.
            categories: Names of categories by surface, for several surfaces of one kind:
                ``{"dog 1": "dog", "dog 2": "dog"}``. A surface that is not named there is its own.
            empty: Whether surfaces whose mask is empty are there too; many tools refuse annotations without a pixel.

        Returns:
            ``images``, ``annotations``, ``categories``, ``info`` and ``licenses``. An annotation also has ``surface``,
            and ``clicks`` as [[x, y, 1 or 0], ...].

        Raises:
            NoImageError: No image was set.
            AnnotationError: The tolerance is no number of 0 or more, or there are no polygons to simplify; or a name is
                no text.
        """
        with self._lock:
            size = self._size()
            return coco_of(
                self._objects(),
                size,
                self._state.image.file_name if file_name is None else file_name,
                polygons=polygons,
                tolerance=tolerance,
                categories={} if categories is None else categories,
                empty=empty,
            )

    def detections(self) -> Detections:
        """Return all objects that have pixels as arrays, as supervision and other detection tools take them.

        Returns:
            ``xyxy`` (N, 4) float32, ``mask`` (N, H0, W0) bool, ``class_id`` (N,) int64, the surfaces' labels, and
            their ``names``.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            return arrays_of(self._objects(), self._size())

    def save_labels(self, path: PathLike, overwrite: bool = False) -> None:
        """Write :attr:`labels` and the names of the surfaces as a PNG file, whole or not at all.

        Up to 255 labels are a palette picture in the colours of PASCAL VOC, more are 16-bit grey. The names are in a
        text chunk; ``mmms_deploy.annotations.read_labels`` and :meth:`load_labels` read both back.

        Args:
            path: The file; its name ends in ``.png``.
            overwrite: Whether an existing file may be replaced.

        Raises:
            NoImageError: No image was set.
            OutputFormatError: The path ends in another suffix.
            OutputExistsError: The file exists, and may not be replaced.
            OutputWriteError: It cannot be written.
        """
        with self._lock:
            self._size()
            write_labels(path, self._label_map(), self._state.surfaces.names, overwrite=overwrite)

    @recorded
    def load_labels(
        self,
        labels: npt.NDArray[Any] | PictureLike,
        names: Mapping[str, int] | None = None,
        *,
        void: int | Iterable[int] | None = None,
    ) -> Mapping[str, int]:
        """Put the objects of a label map in the place of all surfaces; the network does not run.

        Every label becomes a surface of its name whose mask is put in as by :meth:`set_mask`, so that clicks refine it
        and one :meth:`undo` takes it back. :attr:`labels` is the map that was given. The surfaces before are gone, with
        their histories; the surface of the smallest label is the current one. On any error everything stays as it is.

        Args:
            labels: What :meth:`save_labels` wrote, or another picture of labels: its path, its bytes, a
                file object or a PIL image. Or (H0, W0) whole numbers from 0 to 65535. 0 is background.
            names: The label of every name, as :attr:`surfaces`; None takes those in the file. A label without a name is
                called by its number: ``"1"``, ``"2"``, ...
            void: A label, or several, that say of a pixel that it was left out, such as 255 in PASCAL VOC's files; it
                becomes background.

        Returns:
            :attr:`surfaces`: the label of every surface by name.

        Raises:
            NoImageError: No image was set.
            AnnotationError: The file cannot be read, or its numbers are no labels.
            MaskInputError: The labels have another size than the image, or there are more than 1000.
            SessionError: The network takes no previous mask.
        """
        with self._lock:
            size = self._size()
            found, named = labels_of(labels, names, void, size)
            surfaces = self._steps.load(self, found, named)
            self._state = replace(self._state, surfaces=surfaces)
            return surfaces.names

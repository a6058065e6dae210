"""One annotator on one image: set an image, click, undo, redo.

from mmms_deploy import Session

with Session("demo") as session:
    session.set_image("photo.jpg")
    result = session.click(320, 240)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Any, NoReturn, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmms_deploy.annotations.detections import Detections
from mmms_deploy.annotations.labels import write_labels
from mmms_deploy.bundle import Bundle, Rate
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.process import OwnProcess
from mmms_deploy.engines.protocol import Engine, EngineInfo, Value
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import check_shared, open_request
from mmms_deploy.errors import AnswerError, NoImageError, SessionClosedError, SessionError
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.float16 import as_float32
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike, UInt8Array, load_rgb
from mmms_deploy.imaging.resize import BoolArray, FloatArray, resize_above, through_image
from mmms_deploy.progress import OnProgress
from mmms_deploy.session.click_list import ClickLike, checked_clicks, history_of
from mmms_deploy.session.click_stage import find_click_stage
from mmms_deploy.session.history import History, checked_limit
from mmms_deploy.session.image_argument import the_image
from mmms_deploy.session.inputs import ImageInputs, ImageState, ModalityLike
from mmms_deploy.session.interactions import Interaction, MaskInput, Snapshot, checked_mask
from mmms_deploy.session.mask_sources import MaskLike, labels_of
from mmms_deploy.session.notebook import Shown, session_view
from mmms_deploy.session.outputs import Named, arrays_of, coco_of, file_name_of, kept_picture
from mmms_deploy.session.pipeline import StagePipeline
from mmms_deploy.session.predict import (
    Prediction,
    checked_logits,
    checked_points,
    interactions_of,
    nothing_to_predict,
    prediction,
    refuse_box,
)
from mmms_deploy.session.result import Click, ClickResult, ImageTimings, Timings, checked_click
from mmms_deploy.session.saved import checked, restored, saved
from mmms_deploy.session.saved import interactions_of as saved_interactions
from mmms_deploy.session.surfaces import Labels, Surface, Surfaces, checked_name, label_map

HISTORY_LIMIT = 100
"""How many clicks can be undone by default: more than an object takes, and 240 MB at 448 x 448."""


@dataclass(frozen=True, eq=False)
class SessionState:
    """Everything that a session knows of its image and its clicks. It never changes.

    Every call builds a new state and assigns it at its end. So an error, an interrupt or a lack of memory leaves the
    session as it was.

    Attributes:
        image: The image, and what the stages made of it.
        surfaces: The objects in it, their clicks and answers.
    """

    image: ImageState
    surfaces: Surfaces


class Session:
    """Segments the objects in one image by clicks.

    Call :meth:`set_image` once an image, then :meth:`click` for every click, and :meth:`select` before the next object.
    A session serves one annotator. It is not made for concurrent use, but calls from several threads wait for each
    other, so that answers are never mixed up. Sessions that share an engine work independently of each other.

    Args:
        bundle: A bundle, or what names one: the path of its folder, ``demo``, or ``hf:owner/name`` on the hub
            (docs/hub.md). Its files are compared with their hashes (about a second per GB) when it is named.
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.
        engine: Name of an engine, or an open engine of this bundle that several sessions share; such an engine is not
            closed by the session, and ``device``, ``precision``, ``threads`` and ``cuda_options`` must fit it or
            keep their defaults.
        precision: ``fp32``, ``fp16`` or ``bf16``; None takes ``fp32``, or a faster one that passed
            ``mmms-verify --all-engines`` on this machine. :attr:`engine` says which one was taken, and why.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use.
        strict: Whether to refuse another engine, precision or number of threads than requested instead of warning,
            and to take ``fp32`` when no precision was requested.
        cuda_options: How an engine works on a GPU, such as the memory it may hold; None takes the defaults. An engine
            on the CPU ignores them.
        history_limit: How many interactions with a surface can be undone; None for all of them. Each keeps the click
            stage's state: three float32 maps of the network's size for the networks of this package (2.4 MB at
            448 x 448).
        keep_image: Whether the session keeps the pixels of the image, 3 bytes each, so that results can draw
            overlays; a program that holds many sessions may do without.
        on_progress: Receives every step while TensorRT compiles, from another thread; this takes minutes
            (docs/engines.md says when it happens).

    Raises:
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
        HistoryError: ``history_limit`` is no number of steps.

    In a child that was forked after the session had been opened, every call but :meth:`close` raises ``ForkError``
    (docs/engines.md).
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        device: str = "auto",
        engine: Engine | str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        strict: bool = False,
        cuda_options: CudaOptions | None = None,
        history_limit: int | None = HISTORY_LIMIT,
        keep_image: bool = True,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._own = OwnProcess("this session", self)
        self.renew_lock()
        self._closed = False
        self._bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self._manifest = self._bundle.manifest
        self._limit = checked_limit(history_limit)
        self._keep_image = bool(keep_image)
        name = engine if isinstance(engine, str) else None
        request = EngineRequest(device, name, precision, threads, strict, cuda_options)
        if engine is None or isinstance(engine, str):
            self._engine = open_request(self._bundle, request, on_progress)
            self._owns_engine = True
        else:
            check_shared(engine, self._bundle, request)
            self._engine = engine
            self._owns_engine = False
        with ExitStack() as on_error:
            if self._owns_engine:
                on_error.callback(self._engine.close)
            self._runner = self._engine.open()
            on_error.callback(self._runner.close)
            self._pipeline = StagePipeline(self._manifest, self._engine.graphs, self._runner)
            self._click_input, self._probability_output = find_click_stage(self._manifest, self._pipeline)
            self._inputs = ImageInputs(self._manifest, self._pipeline)
            self._state = self._empty()
            on_error.pop_all()

    # --- the image --------------------------------------------------------------------------------------------------

    # A mapping of modalities can be unpacked into the call: to a type checker it may then hold any of the keywords.
    @overload
    def set_image(self, rgb: ImageLike, **modalities: ModalityLike) -> ImageTimings: ...

    @overload
    def set_image(
        self,
        rgb: ImageLike | None = None,
        *,
        image: ImageLike | None = None,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> ImageTimings: ...

    def set_image(  # type: ignore[misc]
        self,
        rgb: ImageLike | None = None,
        *,
        image: ImageLike | None = None,
        channel_order: ChannelOrderLike = "rgb",
        **modalities: ModalityLike,
    ) -> ImageTimings:
        """Set a new image and forget the clicks on the previous one.

        On any error the previous image and its clicks stay as they are.

        Args:
            rgb: Array, PIL image, or file: its path, its bytes, or a file object. Arrays are (H0, W0, 3) uint8; or
                grey (H0, W0), with alpha, which is dropped, of uint16, where 65535 is white, or bool, as files are.
                Files and PIL images are turned upright as their EXIF orientation says.
            image: The same by its other name.
            channel_order: ``rgb``, or ``bgr`` for an array of OpenCV, such as ``cv2.imread`` gives. Files and PIL
                images say their own order.
            **modalities: For every modality of the bundle, by name: (H0, W0) or (H0, W0, C) array of numbers as
                stored, PIL image, or image or ``.npy`` file, registered to the image pixel by pixel. The bundle says
                how they are scaled, and which values mean that nothing was measured. Optional ones may be left out.
                With a bundle exported with ``--cut late``, any may be ``mmms_deploy.LATER``.

        Returns:
            Where the time went.

        Raises:
            ImageError: The image has a wrong type or shape, or cannot be read; there is none, or two.
            ModalityError: A modality is missing, surplus, of another size, channel count or dtype, or not finite.
            SessionError: The bundle was exported without its backbone; see :meth:`set_features`.
            EngineError: A stage failed.
        """
        with self._lock:
            self._check_open()
            start = perf_counter()
            given = the_image(rgb, image, modalities, [spec.name for spec in self._manifest.modalities])
            pixels = load_rgb(given, channel_order)
            arrays = self._inputs.prepare_image(pixels)
            picture = kept_picture(pixels, given) if self._keep_image else None
            source = file_name_of(given)
            return self._begin(arrays, (pixels.shape[0], pixels.shape[1]), modalities, start, picture, source)

    def set_features(
        self,
        features: Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str],
        image_size: tuple[int, int] | None = None,
        **modalities: ModalityLike,
    ) -> ImageTimings:
        """Set a new image as the backbone's features, which a provider computed (paper appendix B).

        For bundles exported with ``--cut black-box``. On any error everything stays as it is.

        Args:
            features: ``backbone_1`` .. ``backbone_4``, each (1, d, H/P, W/P) or (d, H/P, W/P) float32 or float16: the
                raw patch tokens after the backbone's four blocks as maps, for the image prepared as the bundle's
                ``image`` says; or the path of an ``.npz`` file with these arrays (:mod:`mmms_deploy.session.features`).
            image_size: (H0, W0) of the image; clicks and masks are in its pixels. None takes the size in the file.
            **modalities: As for :meth:`set_image`.

        Returns:
            Where the time went.

        Raises:
            FeatureError: The features do not fit the bundle.
            ModalityError: As for :meth:`set_image`.
            SessionError: The bundle computes the features itself.
            EngineError: A stage failed.
        """
        with self._lock:
            self._check_open()
            start = perf_counter()
            arrays, size = self._inputs.prepare_features(features, image_size)
            return self._begin(arrays, size, modalities, start)

    def set_modalities(self, **modalities: ModalityLike) -> ImageTimings:
        """Set modalities of the current image that arrive later or have changed; the image and the clicks stay.

        The stages that depend on them run again; with a bundle exported with ``--cut late`` that is never the backbone.
        The clicks are answered again, so that all masks, also those to undo and redo, are the same as with these
        modalities from the start. On any error everything stays as it is.

        Args:
            **modalities: By name, as for :meth:`set_image`; None takes an optional one away.

        Returns:
            Where the time went.

        Raises:
            NoImageError: No image was set.
            ModalityError: As for :meth:`set_image`, or none was given.
            EngineError: A stage failed.
        """
        with self._lock:
            self._size()
            start = perf_counter()
            image = self._inputs.change(self._state.image, modalities)
            prepared = perf_counter()
            image = self._run_image(image)
            blank = self._blank()
            surfaces = self._state.surfaces.rebuild(blank, lambda history: self._replayed(image, history, blank))
            self._state = SessionState(image, surfaces)
            return _image_timings(start, prepared)

    def _begin(
        self,
        arrays: Mapping[str, FloatArray],
        size: tuple[int, int],
        modalities: Mapping[str, ModalityLike],
        start: float,
        picture: UInt8Array | None = None,
        file_name: str = "",
    ) -> ImageTimings:
        image = replace(self._inputs.begin(arrays, size, modalities), picture=picture, file_name=file_name)
        prepared = perf_counter()
        image = self._run_image(image)
        self._state = SessionState(image, Surfaces.first(self._blank(), self._limit))
        return _image_timings(start, prepared)

    def _run_image(self, image: ImageState) -> ImageState:
        """Run the stages that need no click."""
        pipeline = self._pipeline.run(image.pipeline, Rate.IMAGE if image.awaited else Rate.MODALITY)
        self._runner.synchronize()
        return replace(image, pipeline=pipeline)

    def _replayed(self, image: ImageState, old: History[Snapshot], blank: Snapshot) -> History[Snapshot]:
        """Repeat all interactions with a surface, undone ones included."""
        history = History(blank, self._limit)
        for interaction in old.newest.interactions:
            snapshot, _ = self._after(image, history.current, interaction)
            history = history.push(snapshot)
        for _ in range(len(old.newest.interactions) - len(old.current.interactions)):
            history = history.undo()
        return history

    @property
    def image_size(self) -> tuple[int, int]:
        """(H0, W0) of the image.

        Raises:
            NoImageError: There is none yet.
        """
        with self._lock:
            return self._size()

    # --- clicks -----------------------------------------------------------------------------------------------------

    def click(self, x: float, y: float, positive: bool | int = True) -> ClickResult:
        """Add a click and return the mask that follows.

        Args:
            x: Column in the image's own pixels, to the right. Pixel centres are at integers, so that the image reaches
                from -0.5 to W0 - 0.5; the far edge is outside.
            y: Row in the image's own pixels, downwards; from -0.5 to H0 - 0.5.
            positive: True or 1 for a click on the object, False or 0 for one on what does not belong to it.

        Returns:
            The mask, the probability and the timings, at the image's own resolution.

        Raises:
            NoImageError: No image was set.
            ClickError: The click is outside of the image, not finite, or no number.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed; the click is not taken.
        """
        with self._lock:
            size = self._size()
            click = checked_click(x, y, positive, size)
            start = perf_counter()
            self._inputs.check_complete(self._state.image)
            return self._take(click, start)

    def set_mask(self, mask: MaskLike) -> ClickResult:
        """Put a mask in the place of the network's answer: one from elsewhere to start from, or one edited by hand.

        The network sees it as its previous mask at the next click; the clicks so far stay. Like a click, it can be
        undone with :meth:`undo`. The network does not run.

        Args:
            mask: At the image's own size: (H0, W0) bool; whole numbers that are all 0 and 1, or all 0 and 255; or
                probabilities in [0, 1] in a float dtype. Or a picture of 0 and 1 or 0 and 255, as a PIL image, a path,
                bytes or a file object, turned upright as its EXIF orientation says; the path of an ``.npy`` file, or of
                a ``.json`` file of ``ClickResult.save``; COCO's run lengths; a ``Polygon`` or several; or an earlier
                ``ClickResult``.

        Returns:
            The mask as given, and the probability that the network will see.

        Raises:
            NoImageError: No image was set.
            MaskInputError: The mask has another size or type, or numbers that do not say what belongs to the object,
                such as labels.
            SessionError: The network takes no previous mask.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            return self._take(checked_mask(mask, size, self._manifest.size, self._manifest.clicks), start)

    def set_clicks(self, clicks: Iterable[ClickLike]) -> ClickResult:
        """Make a list the clicks on the current surface, and return the mask that follows.

        The network runs only for clicks that the surface does not have yet: it goes on from the longest common
        beginning. The answer is the same as that of :meth:`reset` and a :meth:`click` for each, and every click can be
        undone. The order of clicks matters to the networks, and is the order given. Masks put in by hand are no clicks:
        a surface that began with one begins anew. On any error nothing changes.

        Args:
            clicks: Oldest first: :class:`Click`, ``[x, y, 1 or 0]`` as :meth:`Click.to_list` returns it, or
                ``{"x": ..., "y": ..., "positive": ...}``; none for the surface without clicks.

        Returns:
            The answer to all of them.

        Raises:
            NoImageError: No image was set.
            ClickError: It is no list of clicks, or one is outside of the image.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            return self._follow(checked_clicks(clicks, size), start)

    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Prediction:
        """Click as code does that was written for SAM: all points at every call; docs/sam.md has the differences.

        A thin face of :meth:`set_clicks` on the current surface, with the arguments of ``SamPredictor.predict`` and
        ``SAM2ImagePredictor.predict``. On any error nothing changes.

        Args:
            point_coords: (N, 2): x and y of every point in image pixels, oldest first. The order matters.
            point_labels: (N,): 1 on the object, 0 off it.
            box: Refused: these networks take clicks, no boxes.
            mask_input: (1, H, W) logits from an earlier call. If they are the surface's answer to the first of these
                points, the surface goes on from there; otherwise the surface begins with them as :meth:`set_mask` does,
                and all points follow.
            multimask_output: Without effect: there is always one mask.
            return_logits: Whether logits take the masks' place; they are above 0 where the mask is.
            normalize_coords: False for coordinates from 0 to 1, as parts of the image's width and height.

        Returns:
            Masks (1, H0, W0) bool, or float32 logits; scores (1,) float32; and logits (1, H, W) float32 at the
            network's size, for ``mask_input``. The score says how decided the network is, from 0 to 1: the
            intersection over union of its mask with its probability map. It is no predicted IoU.

        Raises:
            NoImageError: No image was set.
            ClickError: A box, another label than 1 and 0, a point outside of the image, or neither points nor mask.
            MaskInputError: ``mask_input`` are no logits.
            SessionError: ``mask_input`` for a network that takes no previous mask.
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            rule = self._manifest.clicks
            refuse_box(box)
            clicks = checked_points(point_coords, point_labels, size, pixels=normalize_coords)
            given = None
            if mask_input is None and not clicks:
                raise nothing_to_predict()
            if mask_input is not None:
                given = checked_logits(mask_input, size, self._manifest.size, rule)
            line = self._state.surfaces.current.history.line
            wanted = interactions_of(clicks, given, line, self._probability_of, rule.threshold)
            return prediction(self._follow(wanted, start), rule.threshold, logits=return_logits)

    def _follow(self, wanted: Sequence[Interaction], start: float) -> ClickResult:
        """Make these the interactions with the current surface."""
        image, surfaces = self._state.image, self._state.surfaces
        if any(isinstance(interaction, Click) for interaction in wanted):
            self._inputs.check_complete(image)
        held = surfaces.current.history
        history = history_of(
            wanted, held, surfaces.blank, lambda snapshot, interaction: self._after(image, snapshot, interaction)[0]
        )
        if history is held:
            return self._result_of(surfaces.current)
        result = self._answer(history.current, start)
        self._state = replace(self._state, surfaces=surfaces.change(history, result))
        return result

    def _take(self, interaction: Interaction, start: float) -> ClickResult:
        surfaces = self._state.surfaces
        history = surfaces.current.history
        snapshot, probability = self._after(self._state.image, history.current, interaction)
        result = self._answer(snapshot, start, probability)
        self._state = replace(self._state, surfaces=surfaces.change(history.push(snapshot), result))
        return result

    def _after(self, image: ImageState, current: Snapshot, interaction: Interaction) -> tuple[Snapshot, FloatArray]:
        """Return the snapshot after one more interaction, and its probability (H, W) at the network's size."""
        if isinstance(interaction, MaskInput):
            return self._after_mask(current, interaction), interaction.previous[0, 0]
        return self._after_click(image, current, interaction)

    @property
    def _previous_input(self) -> str | None:
        """The input of the click stage that takes the previous mask; None when there is none."""
        links = (link.input for link in self._manifest.state if link.output == self._probability_output)
        return next(links, None)

    def _after_mask(self, current: Snapshot, mask: MaskInput) -> Snapshot:
        name = self._previous_input
        if name is None:
            raise SessionError(
                f"{self._manifest.name} feeds no previous mask back",
                expected="a network that takes its previous mask",
                fix="use clicks alone with this bundle",
            )
        previous = self._pipeline.upload(name, mask.previous)
        return Snapshot((*current.interactions, mask), {**current.state, name: previous}, previous)

    def _after_click(self, image: ImageState, current: Snapshot, click: Click) -> tuple[Snapshot, FloatArray]:
        """Run the click stage on one more click."""
        size = self._size_of(image)
        rule = self._manifest.clicks
        column, row = to_network(click.x, click.y, image=size, network=self._manifest.size, rule=rule.coordinates)
        encoded = np.array([[column, row, float(click.positive), 1.0]], dtype=np.float32)
        values = {**current.state, self._click_input: self._pipeline.upload(self._click_input, encoded)}
        done = self._pipeline.run(self._pipeline.set(image.pipeline, values))
        answer = done.value(self._probability_output)
        probability = self._fetched(answer)
        state = {link.input: done.value(link.output) for link in self._manifest.state}
        name = self._previous_input
        if name is not None and rule.previous_resize is not None:
            reduced = through_image(probability, size, rule.mask_resize, rule.previous_resize)
            state[name] = self._pipeline.upload(name, reduced[None, None])
        return Snapshot((*current.interactions, click), state, answer), probability

    def _fetched(self, answer: Value) -> FloatArray:
        """Return an answer of the network on the host, (H, W) float32.

        Raises:
            AnswerError: It has values that are no probabilities.
        """
        probability = as_float32(self._runner.download(answer)[0, 0])
        # NaN is in the way of both comparisons.
        if not (probability.min() >= 0.0 and probability.max() <= 1.0):
            raise AnswerError(
                f"{self._manifest.name} answers with values that are no probabilities on {self._engine.info}",
                expected="numbers from 0 to 1 for every pixel",
                fix="pass precision='fp32' to Session, or another engine, and check the image's modalities; where it"
                " stays, the checkpoint itself computes such values",
                command_fix="pass --precision fp32, or another --engine, and check the image's modalities; where it"
                " stays, the checkpoint itself computes such values",
            )
        return probability

    def undo(self) -> ClickResult:
        """Take back the newest click or mask; the network does not run.

        Returns:
            The answer to the clicks that remain; an empty mask when none remains.

        Raises:
            NoImageError: No image was set.
            HistoryError: There is no click to undo.
        """
        with self._lock:
            self._size()
            return self._move(self._state.surfaces.current.history.undo)

    def redo(self) -> ClickResult:
        """Bring back the click or mask that was undone last; the network does not run.

        Returns:
            The answer to the clicks so far.

        Raises:
            NoImageError: No image was set.
            HistoryError: There is no undone click; a new click forgets them.
        """
        with self._lock:
            self._size()
            return self._move(self._state.surfaces.current.history.redo)

    def reset(self) -> None:
        """Forget all clicks and undone clicks on the current surface; the image stays, and the network does not run.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            self._state = replace(self._state, surfaces=self._state.surfaces.reset())

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks so far, oldest first."""
        with self._lock:
            return self._state.surfaces.current.history.current.clicks

    @property
    def can_undo(self) -> bool:
        """Whether there is a click to undo."""
        with self._lock:
            return self._state.surfaces.current.history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone click to bring back."""
        with self._lock:
            return self._state.surfaces.current.history.can_redo

    @property
    def result(self) -> ClickResult:
        """The answer to the clicks so far; an empty mask without clicks.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            return self._result_of(self._state.surfaces.current)

    @property
    def mask(self) -> BoolArray:
        """(H0, W0) bool, read-only: the mask after the clicks so far.

        Raises:
            NoImageError: No image was set.
        """
        return self.result.mask

    # --- several objects --------------------------------------------------------------------------------------------

    def select(self, surface: str) -> ClickResult:
        """Work on another object of the image: a new one, or one that has clicks already.

        Every surface has its own clicks, history and answer; :meth:`click`, :meth:`undo`, :attr:`mask` and the others
        are about the current one. An image begins with the surface ``"1"``. The network does not run.

        If other surfaces took pixels from it since its last interaction, it continues from the rest of its mask, as in
        the paper's protocol (its mask is read back from the joint mask). This is an interaction like :meth:`set_mask`,
        and :meth:`undo` takes it back.

        Args:
            surface: Its name.

        Returns:
            The answer to its clicks so far.

        Raises:
            NoImageError: No image was set.
            SurfaceError: The name is no text, or empty.
            EngineError: The rest of its mask could not be uploaded; the previous surface stays the current one.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            name = checked_name(surface)
            surfaces = self._state.surfaces
            known = surfaces.all.get(name)
            if known is not None and known is not surfaces.current and self._previous_input is not None:
                left = self._label_map() == known.label
                if not left[self._result_of(known).mask].all():
                    rest = checked_mask(left, size, self._manifest.size, self._manifest.clicks)
                    snapshot = self._after_mask(known.history.current, rest)
                    result = self._answer(snapshot, start, rest.previous[0, 0])
                    surfaces = surfaces.extend(name, known.history.push(snapshot), result)
            surfaces = surfaces.select(name)
            answer = self._result_of(surfaces.current)
            self._state = replace(self._state, surfaces=surfaces)
            return answer

    def remove(self, surface: str) -> None:
        """Forget an object and its clicks. If it was the current one, the object that changed last becomes current.

        Args:
            surface: Its name.

        Raises:
            NoImageError: No image was set.
            SurfaceError: There is none of that name, or it is no text.
        """
        with self._lock:
            self._size()
            self._state = replace(self._state, surfaces=self._state.surfaces.remove(checked_name(surface)))

    @property
    def surface(self) -> str:
        """Name of the current surface."""
        with self._lock:
            return self._state.surfaces.name

    @property
    def surfaces(self) -> Mapping[str, int]:
        """The label of every surface by name, oldest first; no label is given twice on an image."""
        with self._lock:
            return {name: surface.label for name, surface in self._state.surfaces.all.items()}

    @property
    def labels(self) -> Labels:
        """(H0, W0) int32, read-only: the label of each pixel's surface; 0 is background.

        Where surfaces overlap, the pixel belongs to the one that changed last.

        Raises:
            NoImageError: No image was set.
        """
        with self._lock:
            self._size()
            return self._label_map()

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
            size = self._size()
            return saved(self._state.surfaces, size, self._manifest.size, self._manifest.clicks)

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
            ModalityError: A modality was announced with ``LATER`` and is not there yet.
            EngineError: The click stage failed.
        """
        with self._lock:
            size = self._size()
            start = perf_counter()
            image, rule = self._state.image, self._manifest.clicks
            found = checked(annotation, size)
            given = {one.name: saved_interactions(one, size, self._manifest.size, rule) for one in found.surfaces}
            if any(isinstance(one, Click) for interactions in given.values() for one in interactions):
                self._inputs.check_complete(image)
            blank = self._state.surfaces.blank
            surfaces = restored(found, given, blank, self._limit, lambda s, one: self._after(image, s, one)[0])
            result = self._answer(surfaces.current.history.current, start)
            surfaces.current.result = result
            self._state = replace(self._state, surfaces=surfaces)
            return result

    # --- results ----------------------------------------------------------------------------------------------------

    def to_coco(
        self,
        file_name: str | None = None,
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
            file_name: Name of the image; None takes that of the file that was set, and is empty where it was none.
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
            AnnotationError: The tolerance is no number of 0 or more.
        """
        with self._lock:
            size = self._size()
            return coco_of(
                self._objects(),
                size,
                self._state.image.file_name if file_name is None else file_name,
                polygons=polygons,
                tolerance=tolerance,
                categories=categories or {},
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
            write_labels(path, self._label_map(), self.surfaces, overwrite=overwrite)

    def load_labels(
        self,
        labels: npt.NDArray[Any] | Image.Image | PathLike,
        names: Mapping[str, int] | None = None,
        *,
        void: int | Iterable[int] | None = None,
    ) -> Mapping[str, int]:
        """Put the objects of a label map in the place of all surfaces; the network does not run.

        Every label becomes a surface of its name whose mask is put in as by :meth:`set_mask`, so that clicks refine it
        and one :meth:`undo` takes it back. :attr:`labels` is the map that was given. The surfaces before are gone, with
        their histories; the surface of the smallest label is the current one. On any error everything stays as it is.

        Args:
            labels: What :meth:`save_labels` wrote, or another picture of labels: its path, or a PIL image. Or
                (H0, W0) whole numbers from 0 to 65535. 0 is background.
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
            blank = self._blank()
            histories: dict[str, tuple[int, History[Snapshot]]] = {}
            for name, label in named.items():
                history, mask = History(blank, self._limit), found == label
                if mask.any():
                    given = checked_mask(mask, size, self._manifest.size, self._manifest.clicks)
                    history = history.push(self._after_mask(blank, given))
                histories[name] = label, history
            surfaces = Surfaces.loaded(blank, self._limit, histories, found)
            self._state = replace(self._state, surfaces=surfaces)
            return self.surfaces

    # --- the session itself -----------------------------------------------------------------------------------------

    @property
    def keep_image(self) -> bool:
        """Whether the session keeps the pixels of its image for overlays."""
        return self._keep_image

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self._bundle

    @property
    def engine(self) -> EngineInfo:
        """The engine that really runs, and why it was chosen."""
        return self._engine.info

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities that are present for the current image."""
        with self._lock:
            self._size()
            return self._state.image.present

    @property
    def runs(self) -> Mapping[str, int]:
        """How often every stage ran since the session was opened, by name."""
        with self._lock:
            return self._pipeline.runs

    def close(self) -> None:
        """Free everything the session holds, and its engine unless the caller passed it in. Safe to call twice.

        In a child that was forked after the session had been opened it does nothing.
        """
        if self._own.elsewhere:
            return
        with self._lock:
            self._closed = True
            self._state = self._empty()
            try:
                self._runner.close()
            finally:
                if self._owns_engine:
                    self._engine.close()

    def __enter__(self) -> Session:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def renew_lock(self) -> None:
        """Take a new lock; called in a forked child, where the thread that held the old one does not exist."""
        self._lock = threading.RLock()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise SessionError(
            "a session can be neither pickled nor copied: its image lives in the memory of this process or GPU",
            expected="one session for each annotator, in the process that uses it",
            fix="pass the bundle's path, and open another session there with Session(path)",
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else str(self._engine.info)
        return f"Session({self._bundle.reference!r}: {state})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows; a session that cannot be shown says why."""
        return session_view(repr(self), self._shown)

    def _shown(self) -> Shown:
        with self._lock:
            self._check_open()
            image, surfaces = self._state.image, self._state.surfaces
            there = image.size is not None
            objects, labels = (list(self._objects()), self._label_map()) if there else ([], None)
            return Shown(self._bundle, self._engine.info, image, surfaces.name, objects, labels)

    def _check_open(self) -> None:
        self._own.check()
        if self._closed:
            raise SessionClosedError(
                "this session is closed", expected="an open session", fix="open a new one with Session(bundle)"
            )

    def _size(self) -> tuple[int, int]:
        self._check_open()
        return self._size_of(self._state.image)

    @staticmethod
    def _size_of(image: ImageState) -> tuple[int, int]:
        if image.size is None:
            raise NoImageError(
                "no image is set", expected="an image before the first click", fix="call set_image(...) first"
            )
        return image.size

    def _empty(self) -> SessionState:
        """Return the state before the first image."""
        surfaces = Surfaces.first(Snapshot((), {}, None), self._limit)
        return SessionState(ImageState(self._pipeline.start()), surfaces)

    def _blank(self) -> Snapshot:
        """Return the snapshot of a surface without interactions."""
        return Snapshot((), {link.input: self._pipeline.zeros(link.input) for link in self._manifest.state}, None)

    def _move(self, undo_or_redo: Callable[[], History[Snapshot]]) -> ClickResult:
        start = perf_counter()
        history = undo_or_redo()
        result = self._answer(history.current, start)
        self._state = replace(self._state, surfaces=self._state.surfaces.change(history, result))
        return result

    def _result_of(self, surface: Surface) -> ClickResult:
        if surface.result is None:
            surface.result = self._answer(surface.history.current, perf_counter())
        return surface.result

    def _objects(self) -> Iterator[Named]:
        """Yield every surface with its answer, which is not kept where it was not requested before."""
        for name, surface in self._state.surfaces.all.items():
            yield Named(name, surface.label, surface.result or self._answer(surface.history.current, perf_counter()))

    def _label_map(self) -> Labels:
        """Return the label map; it is kept until a surface changes."""
        surfaces = self._state.surfaces
        if surfaces.labels is None:
            ordered = sorted(surfaces.all.values(), key=lambda surface: surface.changed)
            surfaces.labels = label_map(
                [(s.label, self._result_of(s).mask) for s in ordered if s.changed], self._size()
            )
        return surfaces.labels

    def _probability_of(self, snapshot: Snapshot) -> FloatArray:
        """Return a snapshot's answer (H, W) at the network's size."""
        newest = snapshot.newest
        if isinstance(newest, MaskInput):
            given: FloatArray = newest.previous[0, 0]
            return given
        if snapshot.probability is None:
            return np.zeros(self._manifest.size, dtype=np.float32)
        return self._fetched(snapshot.probability)

    def _answer(self, snapshot: Snapshot, start: float, probability: FloatArray | None = None) -> ClickResult:
        """Bring a snapshot's answer to the image's size.

        Args:
            snapshot: The snapshot.
            start: When the call began, by ``perf_counter``.
            probability: Its answer (H, W), when it is on the host already.
        """
        rule = self._manifest.clicks
        size = self._size()
        newest = snapshot.newest
        if probability is None:
            probability = self._probability_of(snapshot)
        fetched = perf_counter()
        if isinstance(newest, MaskInput):
            mask = newest.mask
        elif snapshot.probability is None:
            mask = np.zeros(size, dtype=np.bool_)
        else:
            mask = resize_above(probability, size, rule.mask_resize, rule.threshold)
        probability.setflags(write=False)
        mask.setflags(write=False)
        clicks = snapshot.clicks
        end = perf_counter()
        return ClickResult(
            mask=mask,
            click=clicks[-1] if clicks else None,
            index=len(clicks),
            timings=Timings(engine=1e3 * (fetched - start), mask=1e3 * (end - fetched), total=1e3 * (end - start)),
            network_probability=probability,
            _resize=rule.mask_resize,
            clicks=clicks,
            _picture=self._state.image.picture,
        )


def _image_timings(start: float, prepared: float) -> ImageTimings:
    end = perf_counter()
    return ImageTimings(prepare=1e3 * (prepared - start), engine=1e3 * (end - prepared), total=1e3 * (end - start))

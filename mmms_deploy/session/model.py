"""A bundle that is open on an engine: encodes images, and opens sessions that share it.

from mmms_deploy import Model

with Model("demo") as model:
    features = model.encode("photo.jpg")
    with model.session() as session:
        session.use(features)
        result = session.click(320, 240)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy.typing as npt

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine, EngineInfo
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import check_shared, open_request
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike
from mmms_deploy.progress import OnProgress
from mmms_deploy.session.features import Features, FeatureSource
from mmms_deploy.session.inputs import ModalityLike
from mmms_deploy.session.journal_file import Journal
from mmms_deploy.session.session import HISTORY_LIMIT, Session


class _Encoder(Session):
    """The session that a model encodes images with."""

    def encoded(self, set_image: Callable[[], object]) -> Features:
        """Set an image, and return it encoded, on the device.

        Args:
            set_image: Sets it; no other call comes in between.
        """
        with self._lock:
            set_image()
            return self._encoded(self._state.image, resident=True)


class Model:
    """Opens an engine once, encodes images, and opens sessions, which cost next to nothing beside it.

    It may be used from several threads: calls of :meth:`encode` wait for each other, and sessions do not.

    Args:
        bundle: As for :class:`~mmms_deploy.Session`.
        device: As for :class:`~mmms_deploy.Session`.
        engine: Name of an engine, or an open engine of this bundle, which the model does not close.
        precision: As for :class:`~mmms_deploy.Session`.
        threads: As for :class:`~mmms_deploy.Session`.
        strict: As for :class:`~mmms_deploy.Session`.
        cuda_options: As for :class:`~mmms_deploy.Session`.
        on_progress: As for :class:`~mmms_deploy.Session`.
        store: Where the features of images are kept, such as a :class:`~mmms_deploy.store.FeatureStore`: of an image
            that was encoded before, no stage runs again. None keeps none.
        keep_image: Whether features keep the image's pixels, 3 bytes each, so that sessions can draw overlays.

    Raises:
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
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
        on_progress: OnProgress | None = None,
        store: FeatureSource | None = None,
        keep_image: bool = True,
    ) -> None:
        self._bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        name, opened = (engine, None) if isinstance(engine, str) else (None, engine)
        request = EngineRequest(device, name, precision, threads, strict, cuda_options)
        self._owns_engine = opened is None
        if opened is None:
            self._engine = open_request(self._bundle, request, on_progress)
        else:
            check_shared(opened, self._bundle, request)
            self._engine = opened
        self._store = store
        try:
            self._encoder = _Encoder(
                self._bundle, engine=self._engine, history_limit=0, keep_image=keep_image, store=store
            )
        except BaseException:
            if self._owns_engine:
                self._engine.close()
            raise

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self._bundle

    @property
    def engine(self) -> EngineInfo:
        """The engine that really runs, and why it was chosen."""
        return self._engine.info

    @property
    def opened(self) -> Engine:
        """The open engine, for what takes one; it is closed with the model."""
        return self._engine

    @property
    def store(self) -> FeatureSource | None:
        """Where the features of images are kept; None for nowhere."""
        return self._store

    @property
    def runs(self) -> Mapping[str, int]:
        """How often every stage ran for :meth:`encode`, by name."""
        return self._encoder.runs

    def encode(
        self, image: ImageLike, *, channel_order: ChannelOrderLike = "rgb", **modalities: ModalityLike
    ) -> Features:
        """Run the stages before the clicks on an image, and return what they made of it.

        The features stay on the device; ``features.on_host()`` takes them away from there.

        Args:
            image: As for :meth:`Session.set_image`.
            channel_order: ``rgb``, or ``bgr`` for an array of OpenCV.
            **modalities: As for :meth:`Session.set_image`.

        Raises:
            ImageError: The image has a wrong type or shape, or cannot be read.
            ModalityError: A modality is missing, surplus, of another size, channel count or dtype, or not finite.
            SessionError: The bundle was exported without its backbone; see :meth:`encode_backbone`.
            EngineError: A stage failed.
        """
        return self._encoder.encoded(
            lambda: self._encoder.set_image(image, image=None, channel_order=channel_order, **modalities)
        )

    def encode_backbone(
        self,
        features: Mapping[str, npt.NDArray[Any]] | str | os.PathLike[str],
        image_size: tuple[int, int] | None = None,
        **modalities: ModalityLike,
    ) -> Features:
        """Run the stages before the clicks on what a provider's backbone computed (paper, appendix B).

        Args:
            features: As for :meth:`Session.set_features`.
            image_size: As for :meth:`Session.set_features`.
            **modalities: As for :meth:`Session.set_image`.

        Raises:
            FeatureError: The features do not fit the bundle.
            ModalityError: As for :meth:`encode`.
            SessionError: The bundle computes the features itself.
            EngineError: A stage failed.
        """
        return self._encoder.encoded(lambda: self._encoder.set_features(features, image_size, **modalities))

    def session(
        self,
        *,
        history_limit: int | None = HISTORY_LIMIT,
        keep_image: bool = True,
        zoom: ZoomRule | bool = False,
        flip: bool = False,
        resume: bool = False,
        batch: bool | None = None,
        cleaning: MaskCleaning | None = None,
        journal: Journal | PathLike | None = None,
    ) -> Session:
        """Open a session on the model's engine and with its store; the caller closes it.

        Args:
            history_limit: As for :class:`~mmms_deploy.Session`.
            keep_image: As for :class:`~mmms_deploy.Session`.
            zoom: As for :class:`~mmms_deploy.Session`.
            flip: As for :class:`~mmms_deploy.Session`.
            resume: As for :class:`~mmms_deploy.Session`.
            batch: As for :class:`~mmms_deploy.Session`.
            cleaning: As for :class:`~mmms_deploy.Session`.
            journal: As for :class:`~mmms_deploy.Session`.

        Raises:
            EngineError: The model is closed, or there is no memory for another session.
            HistoryError: ``history_limit`` is no number of steps.
            SessionError: ``zoom`` is no rule, or ``zoom``, ``flip`` or ``batch`` is not possible with this bundle; or
                ``cleaning`` is none, or its library is not installed.
            JournalError: As for :class:`~mmms_deploy.Session`.
            OutputWriteError: As for :class:`~mmms_deploy.Session`.
        """
        return Session(
            self._bundle,
            engine=self._engine,
            history_limit=history_limit,
            keep_image=keep_image,
            zoom=zoom,
            flip=flip,
            store=self._store,
            resume=resume,
            batch=batch,
            cleaning=cleaning,
            journal=journal,
        )

    def close(self) -> None:
        """Free the engine, unless the caller passed it in, and the features on the device. Safe to call twice.

        Sessions on a closed engine fail; close them first.
        """
        try:
            self._encoder.close()
        finally:
            if self._owns_engine:
                self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({self._bundle.reference!r}: {self._engine.info})"

"""One annotator on one image: set an image, click, undo, redo.

from mmms_deploy import Session

with Session("demo") as session:
    session.set_image("photo.jpg")
    result = session.click(320, 240)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.protocol import ZoomRule
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.protocol import Engine, EngineInfo
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.cleaning import MaskCleaning
from mmms_deploy.progress import OnProgress
from mmms_deploy.session.click_calls import ClickCalls
from mmms_deploy.session.core import SessionCore
from mmms_deploy.session.features import FeatureSource
from mmms_deploy.session.joint import joint_steps
from mmms_deploy.session.journal_file import Journal
from mmms_deploy.session.notebook import Shown, session_view
from mmms_deploy.session.recording import JournalRecorder
from mmms_deploy.session.separate import SeparateSteps
from mmms_deploy.session.steps import Steps
from mmms_deploy.session.surface_calls import SurfaceCalls
from mmms_deploy.session.work_calls import WorkCalls

HISTORY_LIMIT = 100
"""How many clicks can be undone by default: more than an object takes, and 240 MB at 448 x 448."""


class Session(WorkCalls, ClickCalls, SurfaceCalls):
    """Segments the objects in one image by clicks.

    Call :meth:`set_image` once an image, then :meth:`click` for every click, and :meth:`select` before the next object.
    A session serves one annotator. It is not made for concurrent use, but calls from several threads wait for each
    other, so that answers are never mixed up. Sessions that share an engine work independently of each other.

    Args:
        bundle: A bundle, or what names one: the path of its folder, ``demo`` or ``demo-small``, or ``hf:owner/name`` on
            the hub (docs/hub.md). Its files are compared with their hashes (about a second per GB) when it is named.
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:1`` for the second GPU.
        engine: Name of an engine, or an open engine of this bundle that several sessions share; such an engine is not
            closed by the session, and ``device``, ``precision``, ``threads`` and ``cuda_options`` must fit it or
            keep their defaults.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; None takes ``fp32``, or a faster one that passed
            ``mmms-verify --all-engines`` on this machine. :attr:`engine` says which one was taken, and why.
        threads: CPU threads a stage computes with; None takes the physical cores this process may use.
        strict: Whether to refuse another engine, precision or number of threads than requested instead of warning,
            and to take ``fp32`` when no precision was requested.
        cuda_options: How an engine works on a GPU, such as the memory it may hold; None takes the defaults. An engine
            on the CPU ignores them.
        history_limit: How many interactions with a surface can be undone, or with all of them where the network answers
            for all objects at once; None for no limit. Each keeps the click stage's state: three float32 maps of the
            network's size for most networks of this package (2.4 MB at 448 x 448).
        keep_image: Whether the session keeps the pixels of the image, 3 bytes each, so that results can draw
            overlays; a program that holds many sessions may do without.
        on_progress: Receives every step while TensorRT compiles, from another thread; this takes minutes
            (docs/engines.md says when it happens).
        zoom: Whether a click is answered in the object's crop, at the network's full resolution, in place of the whole
            image (docs/session.md). True takes the published rule of the bundle's family, or else RITM's; a
            :class:`~mmms_deploy.bundle.ZoomRule` is one of your own. The image stage runs again when the crop changes,
            and ``result.crop`` says which one it was.
        flip: Whether every answer is the mean, by logits, over the image and its mirror image, as in published figures;
            an image and a click take twice as long.
        store: Where the features of images are kept, such as a :class:`~mmms_deploy.store.FeatureStore`: an image that
            was encoded before runs no backbone. None keeps none.
        resume: Whether an image that was annotated before in this session has its objects again when it comes back;
            else :meth:`set_image` always begins anew. The network answers their clicks again.
        batch: Whether clicks on several objects run together, in :meth:`click_objects` and wherever clicks are answered
            again, with a bundle that was exported with ``--batch``. None does where it pays: on a GPU, and not on a
            CPU.
        cleaning: What is done to every mask after the network has answered, such as
            ``MaskCleaning(fill_holes=100, drop_specks=100)`` (docs/session.md); what the network sees and answers does
            not change. None does nothing. It needs the extra ``clean``.
        journal: Where everything that is done is written down, a line an event (docs/journal.md): a path, or a
            :class:`~mmms_deploy.journal.Journal`. A file that holds a journal is gone on with. None keeps none.

    Raises:
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
        HistoryError: ``history_limit`` is no number of steps.
        SessionError: ``zoom`` is no rule, or ``zoom``, ``flip`` or ``batch`` is not possible with this bundle; or
            ``cleaning`` is none, or its library is not installed.
        JournalError: The journal is another file, or another session writes to it.
        OutputWriteError: The journal cannot be written.

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
        zoom: ZoomRule | bool = False,
        flip: bool = False,
        store: FeatureSource | None = None,
        resume: bool = False,
        batch: bool | None = None,
        cleaning: MaskCleaning | None = None,
        journal: Journal | PathLike | None = None,
    ) -> None:
        name, opened = (engine, None) if isinstance(engine, str) else (None, engine)
        request = EngineRequest(device, name, precision, threads, strict, cuda_options)
        super().__init__(
            bundle,
            opened,
            request,
            history_limit,
            keep_image,
            on_progress,
            zoom,
            flip,
            store,
            resume,
            batch,
            cleaning,
        )
        if journal is not None:
            try:
                self._recorder = JournalRecorder(self, journal)
            except BaseException:
                self.close()
                raise

    def _opened_steps(self, asked: str | None) -> Steps[SessionCore]:
        if self._manifest.clicks.objects > 1:
            return joint_steps(self._manifest, self._pipeline, self._runner, self._fetched, asked)
        self._find_click_stage()
        return SeparateSteps()

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self._bundle

    @property
    def engine(self) -> EngineInfo:
        """The engine that really runs, and why it was chosen."""
        return self._engine.info

    @property
    def cleaning(self) -> MaskCleaning | None:
        """What is done to masks after the network has answered; None for nothing."""
        return self._cleaning

    @property
    def runs(self) -> Mapping[str, int]:
        """How often every stage ran since the session was opened, by name."""
        with self._lock:
            return self._pipeline.runs

    def __enter__(self) -> Session:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

"""Everything that a session knows at one moment, and what the steps of its calls see of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmms_deploy.bundle import Manifest
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.session.answers import NetworkAnswer
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.interactions import Interaction, MaskInput, Snapshot
from mmms_deploy.session.result import ClickResult
from mmms_deploy.session.surfaces import Labels, Surface, Surfaces


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


class Core(Protocol):
    """What the steps of calls see of a session; ``SessionCore`` is it, and says what each does."""

    _manifest: Manifest
    _limit: int | None
    _state: SessionState

    @property
    def _previous_input(self) -> str | None: ...

    @property
    def _answer_size(self) -> tuple[int, int]: ...

    def _size(self) -> tuple[int, int]: ...

    def _blank(self) -> Snapshot: ...

    def _after(self, image: ImageState, current: Snapshot, interaction: Interaction) -> tuple[Snapshot, FloatArray]: ...

    def _after_mask(self, image: ImageState, current: Snapshot, mask: MaskInput) -> Snapshot: ...

    def _compiled_for(self, clicks: int) -> float: ...

    def _answer(
        self, snapshot: Snapshot, start: float, numbers: FloatArray | None = None, compiled: float = 0.0
    ) -> ClickResult: ...

    def _whole_answer(self, snapshot: Snapshot) -> NetworkAnswer: ...

    def _result_of(self, surface: Surface) -> ClickResult: ...

    def _label_map(self) -> Labels: ...

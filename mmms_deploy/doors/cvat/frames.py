"""Sessions on frames, the least recently used out first, and the order of the clicks on them.

A session holds the features of its frame and the answers to its clicks, so that a request with one point more costs one
run of the click stage. A frame without a session gets one again, and its clicks are answered again in their order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mmms_deploy.bundle import Role
from mmms_deploy.doors.all_points import answer_all
from mmms_deploy.doors.cvat.order import Orders
from mmms_deploy.doors.cvat.prompts import Prompts, as_box, as_click
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.session import Features, Model, Session
from mmms_deploy.session.boxes import takes_boxes

K = TypeVar("K", bound=Hashable)

MOST_ORDERS = 4096
"""Of how many frames the order of clicks is kept; some kilobytes each."""


class Frames(Generic[K]):
    """Answers requests on frames, each known by a key.

    Args:
        model: The open bundle.
        opening: How sessions are opened on it.
        most: How many sessions there are at once.

    Attributes:
        takes_boxes: Whether the network takes a box.

    Raises:
        DoorError: The network needs more than pictures.
    """

    def __init__(self, model: Model, opening: Opening, most: int) -> None:
        check_takes_pictures(model, opening)
        self.takes_boxes = takes_boxes(model.bundle.manifest.clicks)
        self._model, self._opening, self._most = model, opening, most
        self._sessions: OrderedDict[K, Session] = OrderedDict()
        self._orders: OrderedDict[K, Orders] = OrderedDict()
        # Entered again where freeing what a call lets go of forgets a frame.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """The number of open sessions."""
        return len(self._sessions)

    def __contains__(self, key: object) -> bool:
        """Whether a frame has an open session."""
        return key in self._sessions

    def begin(self, key: K, features: Features) -> None:
        """Start on a frame.

        Args:
            key: What it is known by.
            features: The encoded picture, with its pixels where sessions zoom or flip.

        Raises:
            EngineError: There is no memory for another session.
        """
        with self._lock:
            self._session(key, lambda: features)

    def answer(self, key: K, features: Callable[[], Features], prompts: Prompts) -> BoolArray:
        """Return the mask of a request.

        Args:
            key: What the frame is known by.
            features: Gives the encoded picture where the frame has no session.
            prompts: What the request says.

        Returns:
            (H0, W0) bool, read-only; nothing in it for a request without points and box.

        Raises:
            DoorError: There is a box, and the network takes none.
            ClickError: A point is outside of the picture, or the network refuses the points.
            EngineError: The click stage failed. The order of the clicks stays as it was.
        """
        with self._lock:
            session = self._session(key, features)
            size = session.image_size
            positives = [as_click(point, True, size) for point in prompts.positives]
            negatives = [as_click(point, False, size) for point in prompts.negatives]
            orders = self._orders.pop(key, None) or Orders()
            self._orders[key] = orders
            while len(self._orders) > MOST_ORDERS:
                self._orders.popitem(last=False)
            clicks = orders.ordered(positives, negatives)
            if prompts.box is not None and not self.takes_boxes:
                raise DoorError(
                    f"a request has a box, and {self._model.bundle.manifest.name} takes points, no boxes",
                    expected="positive and negative points",
                    fix="start with a point on the object; where CVAT offers a box, create the function again",
                )
            result = answer_all(session, clicks, None if prompts.box is None else as_box(prompts.box, size))
            orders.answered(clicks)
            return result.mask

    def clicks(self, key: K) -> list[tuple[tuple[float, float, bool], ...]]:
        """Return the clicks that were answered on a frame, in their order, for each object that is kept."""
        with self._lock:
            orders = self._orders.get(key)
            return [] if orders is None else [tuple((c.x, c.y, c.positive) for c in one) for one in orders.held]

    def forget(self, key: K) -> None:
        """Close the session of a frame, and forget the order of its clicks."""
        with self._lock:
            self._orders.pop(key, None)
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        """Close all sessions; the model stays open."""
        with self._lock:
            while self._sessions:
                self._sessions.popitem()[1].close()
            self._orders.clear()

    def _session(self, key: K, features: Callable[[], Features]) -> Session:
        session = self._sessions.pop(key, None)
        if session is None:
            encoded = features()
            # The one that was used longest ago takes the frame: there are never more than `most`.
            full = len(self._sessions) >= self._most
            session = self._sessions.popitem(last=False)[1] if full else self._opening.session(self._model)
            try:
                session.use(encoded)
            except BaseException:
                session.close()
                raise
        self._sessions[key] = session
        return session


def check_takes_pictures(model: Model, opening: Opening) -> None:
    """Check that a picture is all that a network needs: CVAT gives nothing else.

    Args:
        model: The open bundle.
        opening: How it was opened.

    Raises:
        DoorError: It needs modalities, or the features of a provider's backbone.
    """
    manifest = model.bundle.manifest
    if manifest.required:
        raise DoorError(
            f"{manifest.name} needs {', '.join(manifest.required)} with every picture, and CVAT gives pictures alone",
            expected="a network for RGB pictures, or one whose other modalities are optional",
            fix="name another bundle; mmms-demo takes modalities",
        )
    graphs = [graph for stage in manifest.stages for graph in stage.graphs.values()]
    sees = any(spec.role is Role.IMAGE for graph in graphs for spec in graph.inputs)
    if not sees and not (manifest.features_of and opening.store_folder):
        raise DoorError(
            f"{manifest.name} starts at features, and CVAT gives pictures",
            expected="a bundle with its backbone, or a click bundle with a folder of features (store_folder)",
            fix="name the bundle that it was made of",
        )

"""The function that ``cvat-cli function run-agent`` calls: a frame is encoded once, clicks run on its features.

CVAT's agent keeps what ``preprocess_image`` returns for ten minutes after its last use, without a limit of bytes. So a
:class:`Frame` is a number and a key: features are in a store with a budget (``store_mib``), sessions are counted
(``sessions``), and pixels, from which a frame that left the store is encoded again, are in files with a budget
(``pictures_mib``).

One function runs in one process, which answers one request after the other.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from mmms_deploy.annotations.boxes import xyxy_of
from mmms_deploy.doors.cvat.frames import Frames
from mmms_deploy.doors.cvat.pictures import Pictures
from mmms_deploy.doors.cvat.prompts import checked_prompts
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, SessionError
from mmms_deploy.files import MIB
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.installed import pip_install
from mmms_deploy.session import Features
from mmms_deploy.session.features import FeatureKey

if TYPE_CHECKING:
    from PIL import Image

_NO_PICTURE = (
    "the features of this frame left the memory of the agent, and so did its picture: it has not been used for long",
    "a frame among those that were used last",
    "open another frame for ten minutes, or start the agent with more memory: -p store_mib=int:4096"
    " -p pictures_mib=int:16384",
)


class AgentSettings(Opening, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set about the function of an agent.

    Attributes:
        sessions: How many frames are ready for the next click at once; others are encoded anew from the store.
        pictures_mib: MiB of pixels of frames that were seen, in a folder for temporary files.
    """

    sessions: Annotated[int, msgspec.Meta(ge=1)] = 8
    pictures_mib: Annotated[int, msgspec.Meta(ge=0)] = 4096


class Frame:
    """What the agent keeps of a frame: small, however large the picture is.

    Attributes:
        number: What its session and its pixels are known by.
        key: What its features are kept by.
    """

    __slots__ = ("__weakref__", "key", "number")

    def __init__(self, number: int, key: FeatureKey) -> None:
        self.number = number
        self.key = key

    def __repr__(self) -> str:
        return f"Frame({self.number})"


class Interactor:
    """An interaction function of ``cvat_sdk.auto_annotation``.

    Args:
        bundle: A folder, ``demo``, or ``hf:owner/name``.
        settings: How it is opened, and what is kept.

    Attributes:
        spec: What CVAT offers: positive and negative points, and a box where the network takes one.

    Raises:
        DoorError: ``cvat-sdk`` is not installed, or the network needs more than pictures.
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
    """

    def __init__(self, bundle: str | Path, settings: AgentSettings | None = None) -> None:
        self._sdk = sdk = cvat_sdk()
        self._settings = settings = settings or AgentSettings()
        self._model = settings.model(bundle)
        try:
            self._frames: Frames[int] = Frames(self._model, settings, settings.sessions)
        except BaseException:
            self._model.close()
            raise
        self._pictures = Pictures(settings.pictures_mib * MIB)
        self._numbers = itertools.count()
        boxes = self._frames.takes_boxes
        self.spec = sdk.auto_annotation.InteractionFunctionSpec(
            # A box alone is enough, as CVAT's own functions with boxes have it.
            min_pos_points=0 if boxes else 1,
            min_neg_points=0,
            min_bounding_boxes=0 if boxes else None,
        )

    def preprocess_image(self, context: object, image: Image.Image) -> Frame:
        """Encode a frame, or the part of it that a region of interest cuts out.

        Args:
            context: Unused; the protocol has it.
            image: The picture.

        Raises:
            BadFunctionError: The picture cannot be used; the annotator sees why.
            EngineError: A stage failed.
        """
        with self._told():
            pixels = load_rgb(image)
            features = self._model.encode(pixels)
            frame = Frame(next(self._numbers), features.key)
            self._frames.begin(frame.number, features)
            self._pictures.keep(frame.number, pixels)
        # The agent lets go of a frame: so do we. At the end of the process everything goes anyway.
        weakref.finalize(frame, self._forget, frame.number).atexit = False
        return frame

    def detect(self, context: object, pp_image: Frame, prompts: Any) -> list[Any]:
        """Return the mask of a request.

        Args:
            context: Unused; the protocol has it.
            pp_image: What :meth:`preprocess_image` returned.
            prompts: ``pos_points``, ``neg_points`` and ``bounding_box``, all of them at every request;
                :mod:`mmms_deploy.doors.cvat.order` says in which order they are clicked.

        Returns:
            One shape of the type ``mask``, or none where the mask is empty.

        Raises:
            BadFunctionError: The points cannot be used; the annotator sees why.
            EngineError: A stage failed.
        """
        with self._told():
            given = checked_prompts(prompts.pos_points, prompts.neg_points, prompts.bounding_box)
            mask = self._frames.answer(pp_image.number, lambda: self._features(pp_image), given)
        box = xyxy_of(mask)
        if not box[3]:
            return []
        from cvat_sdk.masks import encode_mask

        points = encode_mask(mask, box)
        return [self._sdk.auto_annotation.InteractionResultShape(type="mask", points=points)]

    def close(self) -> None:
        """Free everything; frames cannot be used any more."""
        self._frames.close()
        self._pictures.close()
        self._model.close()

    def _features(self, frame: Frame) -> Features:
        """Return the features of a frame that has no session any more."""
        if not (self._settings.zoom or self._settings.flip):
            store = self._model.store
            found = None if store is None else store.find(frame.key, self._model.opened)
            if found is not None:
                return found
        pixels = self._pictures.find(frame.number)
        if pixels is None:
            given, expected, fix = _NO_PICTURE
            raise DoorError(given, expected=expected, fix=fix)
        return self._model.encode(pixels)

    def _forget(self, number: int) -> None:
        self._frames.forget(number)
        self._pictures.forget(number)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Let the annotator see what is wrong with a request: of any other error CVAT's agent tells nothing."""
        try:
            yield
        except (DoorError, SessionError) as error:
            raise self._sdk.auto_annotation.BadFunctionError(str(error)) from error


def cvat_sdk() -> Any:
    """Return the package ``cvat_sdk`` with its automatic annotation.

    Raises:
        DoorError: It cannot be imported, or has no interaction functions.
    """
    try:
        import cvat_sdk
        import cvat_sdk.auto_annotation
        import cvat_sdk.masks

        interaction = cvat_sdk.auto_annotation.InteractionFunctionSpec
    except Exception as error:  # a broken installation raises anything
        old = isinstance(error, AttributeError)
        broken = "" if isinstance(error, ModuleNotFoundError) else f" ({' '.join(str(error).split())[:200]})"
        raise DoorError(
            "cvat-sdk has no interaction functions: it is older than 2.80"
            if old
            else f"CVAT's agent needs a package that cannot be imported: cvat_sdk{broken}",
            expected="the [cvat] extra, with Python 3.11 or newer",
            fix=pip_install("cvat"),
        ) from error
    del interaction
    return cvat_sdk

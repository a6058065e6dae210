"""The process that encodes images for a prefetch, on an engine of its own.

It answers one request after the other until the pipe is closed, which it is when the process that started it ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.errors import EngineError, MMMSDeployError, StoreError, StoreWarning
from mmms_deploy.session.features import FeatureKey, Features
from mmms_deploy.session.model import Model
from mmms_deploy.store.store import FeatureStore
from mmms_deploy.store.worker_link import Link


@dataclass(frozen=True)
class Opening:
    """What a worker opens.

    Attributes:
        bundle: The bundle's folder.
        digest: Its digest.
        device: As for :class:`~mmms_deploy.Session`.
        engine: Name of the engine.
        precision: What it computes in.
        threads: Threads that it computes with.
        store: The store, of which the worker uses the folder.
    """

    bundle: Path
    digest: str
    device: str
    engine: str
    precision: Precision
    threads: int
    store: FeatureStore


@dataclass(frozen=True)
class Asked:
    """The worker asks whether an image is kept already, or is being encoded elsewhere."""

    key: FeatureKey


@dataclass(frozen=True)
class Done:
    """An image is done.

    Attributes:
        encoded: Whether its stages ran; it was kept already if not.
        content: The content of a file of features that the worker could not put on the disk; None where it did.
    """

    encoded: bool
    content: bytes | None = None


@dataclass(frozen=True)
class Failed:
    """An image cannot be encoded.

    Attributes:
        error: Why.
        fatal: Whether no other image can be encoded either.
    """

    error: BaseException
    fatal: bool = False


class _KeptAlready(Exception):  # noqa: N818 - it is no error
    """Ends a call of ``Model.encode``, because the image is kept already."""


class _Asking:
    """The store of the worker's model: asks the other process what is kept, and sends what the folder does not take.

    Args:
        link: To the other process.
        store: The store on the folder.
    """

    def __init__(self, link: Link, store: FeatureStore) -> None:
        self._link = link
        self._store = store
        self.content: bytes | None = None

    def find(self, key: FeatureKey, engine: Engine | None = None) -> Features | None:
        return None

    @contextmanager
    def encoding(self, key: FeatureKey, engine: Engine | None = None) -> Iterator[Features | None]:
        self._link.send(Asked(key))
        if self._link.receive():
            raise _KeptAlready
        yield None

    def keep(self, features: Features) -> Features:
        kept = self._store.keep(features)
        self.content = None if kept.key in self._store else kept.without_picture().to_bytes()
        return features

    def hold(self, features: Features) -> None:
        """Do nothing: the device is another process's."""

    def forget(self, key: FeatureKey) -> None:
        """Do nothing: nothing was found here."""


def main() -> None:
    """Answer requests on the standard streams, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the process that started this one
    link = Link(os.dup(0), os.dup(1))
    # What a library prints must not get between the messages.
    os.dup2(2, 1)
    warnings.simplefilter("ignore", StoreWarning)
    with contextlib.suppress(EOFError, OSError):  # the other process has ended, or has no use for this one
        _serve(link)


def _serve(link: Link) -> None:
    opening: Opening = link.receive()
    try:
        asking = _Asking(link, opening.store)
        model = _opened(opening, asking)
    except MMMSDeployError as error:
        link.send(_failed(error, fatal=True))
        return
    with model:
        link.send(None)
        while True:
            image: Mapping[str, Any] = link.receive()
            try:
                link.send(_encoded(model, asking, image))
            except (EOFError, OSError):
                raise
            except Exception as error:  # whatever it is, it is kept with its image
                link.send(_failed(error))


def _opened(opening: Opening, asking: _Asking) -> Model:
    model = Model(
        opening.bundle,
        device=opening.device,
        engine=opening.engine,
        precision=opening.precision,
        threads=opening.threads,
        store=asking,
        keep_image=False,
    )
    found = model.bundle.manifest.digest, model.engine.precision
    if found != (opening.digest, opening.precision):
        model.close()
        raise EngineError(
            f"the prefetch opened {model.engine}",
            expected=f"{opening.precision}, and the bundle as it was",
            fix="open the model again",
        )
    return model


def _encoded(model: Model, asking: _Asking, image: Mapping[str, Any]) -> Done:
    asking.content = None
    try:
        encode = model.encode_backbone if "features" in image else model.encode
        features = encode(**image)
    except _KeptAlready:
        return Done(encoded=False)
    if features.awaited:
        raise StoreError(
            f"an image waits for {', '.join(sorted(features.awaited))}",
            expected="images with all their modalities",
            fix="prefetch it when they are there",
        )
    return Done(encoded=True, content=asking.content)


def _failed(error: BaseException, *, fatal: bool = False) -> Failed:
    """Return what is sent of an error: itself, where that can be."""
    with contextlib.suppress(Exception):  # of any library, whose exceptions may not be pickled
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return Failed(error, fatal)
    return Failed(StoreError(f"{type(error).__name__}: {error}"), fatal)

"""What one worker of a data set does: it holds a bundle, and encodes image after image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from mmms_deploy.bundle import Bundle, Manifest
from mmms_deploy.bundle.names import RGB
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_request
from mmms_deploy.errors import FeatureError, ImageError, ModalityError
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.imaging.preprocess import load_modalities
from mmms_deploy.precompute.items import Item, Outcome, Status
from mmms_deploy.precompute.sinks import OpenSink, Sink, Written
from mmms_deploy.session import Features, Model
from mmms_deploy.session.content import Content, Part
from mmms_deploy.session.inputs import parts_of

OF_AN_IMAGE = (ImageError, ModalityError, FeatureError)
"""What is wrong with one image; the others go on."""


@dataclass(frozen=True)
class Recipe:
    """How the images of a data set are encoded; it goes to every worker, which opens it.

    Attributes:
        bundle: What names the bundle, in every worker.
        sink: Where the features go.
        request: Which engine executes, in every worker.
    """

    bundle: str
    sink: Sink
    request: EngineRequest = field(default_factory=EngineRequest)

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Item], Outcome]]:
        """Open the bundle, and give the function that encodes an image.

        Raises:
            BundleError: There is no usable bundle.
            EngineError: There is no usable engine.
        """
        bundle, sink = Bundle(self.bundle), self.sink.open()
        with (
            closing(open_request(bundle, self.request, None)) as engine,
            Model(bundle, engine=engine, store=sink.store, keep_image=self.sink.pictures) as model,
        ):
            sink.begin(model)
            yield lambda item: _outcome(model, sink, item, self.sink)


def content_of(manifest: Manifest, item: Item) -> str:
    """Return the hash of an image and its modalities, as a session finds it.

    Raises:
        ImageError: The image cannot be read.
        ModalityError: A modality does not fit.
    """
    pixels = load_rgb(item.path)
    size = (pixels.shape[0], pixels.shape[1])
    measured = load_modalities(item.modalities, manifest.modalities, size)
    return Content({RGB: Part(pixels, now=True), **parts_of(measured)}, size).hash


def _outcome(model: Model, sink: OpenSink, item: Item, where: Sink) -> Outcome:
    start = perf_counter()
    try:
        before = dict(model.runs)
        features, written = _encoded(model, sink, item)
    except OF_AN_IMAGE as error:
        return Outcome(Status.FAILED, seconds=perf_counter() - start, error=error)
    found = model.runs == before
    return Outcome(
        Status.FOUND if found else Status.ENCODED,
        content=features if isinstance(features, str) else features.content,
        file=written.path.relative_to(where.folder).as_posix(),
        nbytes=written.nbytes,
        seconds=perf_counter() - start,
    )


def _encoded(model: Model, sink: OpenSink, item: Item) -> tuple[Features | str, Written]:
    """Return an image's features, or their content where they were there, and the file that has them."""
    manifest = model.bundle.manifest
    modalities: Mapping[str, Any] = item.modalities
    if item.backbone is not None:
        features = model.encode_backbone(item.backbone, **modalities)
    else:
        there = sink.held(item, manifest)
        if there is not None and there.content == content_of(manifest, item):
            return there.content, there.written
        features = model.encode(item.path, **modalities)
    return features, sink.put(item, features, manifest)

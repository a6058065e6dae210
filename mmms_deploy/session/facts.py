"""What a file of work and a journal say of a session's bundle, engine and image."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.bundle.contract import Struct
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.session.inputs import LONGEST, ImageState
from mmms_deploy.session.mask_mark import Hash

Side = Annotated[int, msgspec.Meta(ge=1, le=LONGEST)]
"""A side of an image in pixels."""


class BundleFacts(Struct, frozen=True, kw_only=True):
    """A bundle.

    Attributes:
        name: Its name.
        digest: Its digest, which is over all its files.
        source: What named it: a path, ``demo``, or a reference to the hub with its commit.
    """

    name: str
    digest: Hash
    source: str


class EngineFacts(Struct, frozen=True, kw_only=True):
    """An engine that really ran.

    Attributes:
        name: As ``engine=`` takes it.
        device: ``cpu`` or ``cuda``.
        precision: What it computes in.
        library: The library that executes.
        version: Its version.
        threads: Threads a stage computes with; null where the device decides.
    """

    name: str
    device: str
    precision: Precision
    library: str
    version: str
    threads: int | None

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.library} {self.version} on {self.device}, {self.precision}{threads}"


class ImageFacts(Struct, frozen=True, kw_only=True):
    """An image and its modalities, without a pixel of them (:mod:`mmms_deploy.session.content`).

    Attributes:
        size: [H0, W0].
        content: Hash of the image and its modalities.
        parts: The hash of each of them by name.
        file_name: Name of the image's file, without its folder; empty where it was none.
        present: Names of the modalities that are there, sorted.
        awaited: Names of those that are to come, sorted.
        rounded: True where the session clicks on features in float16 that the engine computes in float32, as a store
            keeps them; else it is not there.
    """

    size: tuple[Side, Side]
    content: Hash
    parts: dict[str, Hash]
    file_name: str = ""
    present: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    rounded: bool | msgspec.UnsetType = msgspec.UNSET


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """Return what is said of a bundle."""
    return BundleFacts(name=bundle.manifest.name, digest=bundle.manifest.digest, source=bundle.reference)


def engine_facts(info: EngineInfo) -> EngineFacts:
    """Return what is said of an engine."""
    return EngineFacts(
        name=info.name,
        device=info.device,
        precision=info.precision,
        library=info.library,
        version=info.version,
        threads=info.threads,
    )


def image_facts(image: ImageState) -> ImageFacts:
    """Return what is said of an image that is set; its hash is computed where it was not yet."""
    assert image.content is not None
    content = image.content
    return ImageFacts(
        size=content.size,
        content=content.hash,
        parts=dict(sorted((name, part.hash) for name, part in content.parts.items())),
        file_name=image.file_name,
        present=tuple(sorted(image.present)),
        awaited=tuple(sorted(image.awaited)),
        rounded=True if image.rounded else msgspec.UNSET,
    )

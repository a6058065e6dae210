"""Where the features of a data set go: into a store, or into a file for each image, for a service without a backbone.

A sink goes to every worker, and is opened there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from mmms_deploy.bundle import Manifest
from mmms_deploy.errors import FeatureError, OutputWriteError
from mmms_deploy.files import write_file, writing
from mmms_deploy.precompute.items import Item
from mmms_deploy.session import Features, FeatureSource, Model
from mmms_deploy.session.features import origin_of
from mmms_deploy.session.features_file import SUFFIX
from mmms_deploy.store import FeatureStore


class Written(NamedTuple):
    """A file of features.

    Attributes:
        path: The file.
        nbytes: Its size.
    """

    path: Path
    nbytes: int


class Held(NamedTuple):
    """A file that an image has already.

    Attributes:
        content: Hash of the image and its modalities whose features it holds, which may have changed since.
        written: The file.
    """

    content: str
    written: Written


class OpenSink(Protocol):
    """A sink in a worker."""

    @property
    def store(self) -> FeatureSource | None:
        """Where the worker's model looks features up; None for nowhere."""
        ...

    def begin(self, model: Model) -> None:
        """Get ready, once the bundle is open."""
        ...

    def held(self, item: Item, manifest: Manifest) -> Held | None:
        """Return the file that an image has already, where no store says so; None for none."""
        ...

    def put(self, item: Item, features: Features, manifest: Manifest) -> Written:
        """Take the features of an image.

        Raises:
            OutputWriteError: They cannot be written.
        """
        ...


class Sink(Protocol):
    """Where features go."""

    @property
    def folder(self) -> Path:
        """The folder that all files are below."""
        ...

    @property
    def pictures(self) -> bool:
        """Whether the images' pixels go with the features."""
        ...

    def open(self) -> OpenSink:
        """Open it, in a worker."""
        ...


@dataclass(frozen=True)
class IntoStore:
    """Features go into a store.

    Attributes:
        folder: The store's folder.
        half: ``auto`` rounds features to half precision where the bundle passes on the worker's engine; ``off`` does
            not.
    """

    folder: Path
    half: str = "auto"

    @property
    def pictures(self) -> bool:
        """A store keeps no pixels."""
        return False

    def open(self) -> OpenSink:
        """Open the store."""
        return _OpenStore(self)


class _OpenStore:
    def __init__(self, sink: IntoStore) -> None:
        self._sink = sink
        # Every image is seen once: nothing is kept in memory.
        self.store = FeatureStore(sink.folder, host_bytes=0, device_bytes=0, half=sink.half)

    def begin(self, model: Model) -> None:
        if self._sink.half != "off":
            self.store.half_verdict(model)

    def held(self, item: Item, manifest: Manifest) -> Held | None:
        return None

    def put(self, item: Item, features: Features, manifest: Manifest) -> Written:
        path = self.store.file(features.key)
        if path is None:
            raise OutputWriteError(
                f"the features of {item.path} are not in {self._sink.folder}",
                expected="a folder with room that this user may write to",
                fix="free some space, or write elsewhere",
            )
        return Written(path, path.stat().st_size)


@dataclass(frozen=True)
class ClickFiles:
    """Features go into a file for each image, with its pixels, for a service that has the click stage alone.

    A file holds what the click stage reads, and no modality (paper, appendix B).

    Attributes:
        folder: The folder of the files; they are named like the images.
    """

    folder: Path

    @property
    def pictures(self) -> bool:
        """The pixels go with the features."""
        return True

    def open(self) -> OpenSink:
        """Open the folder."""
        return _OpenFiles(self.folder)


class _OpenFiles:
    store = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, model: Model) -> None: ...

    def held(self, item: Item, manifest: Manifest) -> Held | None:
        path = self._path(item)
        if not path.is_file():
            return None
        try:
            features = Features.load(path)
        except FeatureError:
            return None  # damaged: it is written again
        if features.bundle != origin_of(manifest):
            return None
        return Held(features.content, Written(path, path.stat().st_size))

    def put(self, item: Item, features: Features, manifest: Manifest) -> Written:
        path, content = self._path(item), features.for_clicks(manifest).to_bytes(picture=True)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
        return Written(path, len(content))

    def _path(self, item: Item) -> Path:
        name = PurePosixPath(item.name)
        return self._folder.joinpath(*name.parts[:-1], name.name + SUFFIX)
